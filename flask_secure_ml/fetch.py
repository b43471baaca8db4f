"""One bounded exchange with an authorization server: key sets, metadata, introspection.

Nothing that a name resolves to is trusted: the address is looked at, and exactly that address is connected to, so that
a changed DNS entry cannot point this server at its own network. TLS still checks the name.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

TIMEOUT = 2.0
"""Seconds for the whole exchange once the name is resolved, from connect to the last byte."""

MAX_BYTES = 256 * 1024
"""The largest document in bytes."""

_PORTS = {"http": 80, "https": 443}
Address = IPv4Address | IPv6Address
Place = tuple[str, int]


class FetchError(Exception):
    """The document could not be had; the text is private and names no more than the kind of the fault."""


class BrokenAnswerError(FetchError):
    """The server is there, and this one answer of it cannot be used."""


@dataclass(frozen=True)
class Reply:
    """What the server answered; the media type is in lower case and without parameters, empty when none was given."""

    status: int
    body: bytes
    media_type: str = ""


def fetch(uri: str, *, private_network: bool = False, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the document at a configured address.

    :raises FetchError: as :func:`exchange_with`, or a status other than 200.
    """
    return good(exchange_with(uri, private_network=private_network, timeout=timeout, max_bytes=max_bytes)).body


def good(reply: Reply) -> Reply:
    """Return a reply that is a document.

    :raises FetchError: its status is not 200.
    """
    if reply.status != HTTPStatus.OK:
        raise FetchError(f"its server answered {reply.status}")
    return reply


def exchange_with(
    uri: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    private_network: bool = False,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """Send one GET, or with a body one POST, to a configured address, and return the answer whatever its status.

    No redirect is followed, no proxy of the environment is used, no cookie is kept, and a server that sends one
    byte now and then is cut off when the time is up, in the TLS handshake too. How long resolving the name takes is
    for the resolver to say: its time cannot be bounded from here.

    :param private_network: the address may be one that is not public. An ``http:`` address must be on loopback.
    :param timeout: seconds for the whole exchange.
    :param max_bytes: what the answer may have.
    :param context: how TLS is spoken; to make one reads every known authority and takes some 20 ms, so who asks often
        keeps one.
    :raises FetchError: no such address, no answer in time, one that breaks off, or too many bytes.
    """
    try:
        parts = urlsplit(uri)
        places = _places(parts, private_network=private_network)
        with _channel(parts, places, timeout, context) as channel:
            return _ask(channel, parts, body, headers or {}, max_bytes)
    except (OSError, HTTPException, ValueError) as error:
        # The text of the error may quote what was sent.
        raise FetchError(f"{type(error).__name__} while fetching it") from None


def _places(parts: SplitResult, *, private_network: bool) -> list[Place]:
    """Return the addresses of the host that may be connected to."""
    if parts.scheme not in _PORTS or not parts.hostname:
        raise FetchError("its address is not one of http or https")
    port = parts.port or _PORTS[parts.scheme]
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    # Without a scope: an address that needs one is link-local, and no server of this kind has it.
    hosts = dict.fromkeys(ip_address(str(each[4][0]).partition("%")[0]) for each in found)
    allowed = [host for host in hosts if _allowed(host, parts.scheme, private_network=private_network)]
    if not allowed:
        raise FetchError("its host has no address that may be connected to")
    return [(str(host), port) for host in allowed]


def _allowed(host: Address, scheme: str, *, private_network: bool) -> bool:
    return host.is_loopback if scheme == "http" else private_network or is_public(host)


@contextmanager
def _channel(
    parts: SplitResult, places: Sequence[Place], timeout: float, context: ssl.SSLContext | None
) -> Iterator[socket.socket]:
    """Yield a connection, over TLS for ``https:``, that is cut when the time is up, whatever it is doing then."""
    ends = time.monotonic() + timeout
    channel = _connected(places, ends)
    if parts.scheme == "https":
        channel = _tls(channel, parts.hostname, context)
    with closing(channel), _cut_off(channel, ends):
        if isinstance(channel, ssl.SSLSocket):
            channel.do_handshake()
        yield channel
        # What a cut leaves looks like an answer that ends with the connection.
        _left(ends)


def _connected(places: Sequence[Place], ends: float) -> socket.socket:
    """Connect to the first address that answers; each gets its share of the time."""
    fault = OSError()
    for number, place in enumerate(places):
        try:
            return _connect(place, _left(ends) / (len(places) - number))
        except OSError as error:
            fault = error
    raise fault


def _connect(place: Place, seconds: float) -> socket.socket:
    channel = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET)
    try:
        channel.settimeout(seconds)
        channel.connect(place)
    except BaseException:
        channel.close()
        raise
    return channel


def _left(ends: float) -> float:
    seconds = ends - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _tls(plain: socket.socket, host: str | None, context: ssl.SSLContext | None) -> ssl.SSLSocket:
    """Prepare TLS; the handshake comes when the timer runs."""
    try:
        context = context or ssl.create_default_context()
        return context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise


@contextmanager
def _cut_off(channel: socket.socket, ends: float) -> Iterator[None]:
    """Shut a connection when the time is up; its own timeout starts anew with every byte received."""
    seconds = _left(ends)
    channel.settimeout(seconds)
    timer = threading.Timer(seconds, _shut, (channel,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(channel: socket.socket) -> None:
    # The method of the plain socket: that of a TLS socket would pull its state from under the reading thread.
    with suppress(OSError):
        socket.socket.shutdown(channel, socket.SHUT_RDWR)


def _ask(
    channel: socket.socket, parts: SplitResult, body: bytes | None, headers: Mapping[str, str], max_bytes: int
) -> Reply:
    connection = HTTPConnection(parts.hostname or "", parts.port)
    connection.sock = channel
    usual = {"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json", "Connection": "close"}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET" if body is None else "POST", target, body, {**usual, **headers})
    with connection.getresponse() as response:
        given = response.headers.get("Content-Type", "").partition(";")[0]
        return Reply(response.status, _read(response, max_bytes), given.strip().lower())


def _read(response: HTTPResponse, max_bytes: int) -> bytes:
    body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise BrokenAnswerError(f"it has more than {max_bytes} bytes")
    if response.length:
        raise BrokenAnswerError("it breaks off before its end")
    return body


_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Protocol assignments, documentation, 6to4 and its relays, by the registries of November 2024.
_SPECIAL = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Return True if an IP address is reachable from everywhere, and does not lead to one that is not."""
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return False
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _UNICAST or address.scope_id is not None:
            return False
    special = any(network.version == address.version and address in network for network in _SPECIAL)
    return address.is_global and not address.is_multicast and not special
