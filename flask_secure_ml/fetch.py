"""The HTTP client of this package, for single requests with a time and a size limit.

Host names are not trusted to resolve to public IP addresses: the addresses are checked, and connections are made to
exactly these addresses, so that a changed DNS record cannot direct requests to the internal network. TLS still verifies
the name.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

TIMEOUT = 2.0
"""Seconds for the whole exchange after the name is resolved, from the connection to the last byte."""

MAX_BYTES = 256 * 1024
"""The maximum size of a document in bytes."""

_PORTS = {"http": 80, "https": 443}
_TUNNEL_BYTES = 8192
_TUNNEL_OPEN = re.compile(rb"HTTP/1\.[01] 2\d\d[ \r]")
Address = IPv4Address | IPv6Address
Endpoint = tuple[str, int]


class FetchError(Exception):
    """The document cannot be fetched.

    The message is private, and contains only the kind of the error.
    """


class BrokenResponseError(FetchError):
    """The server is up, but this response cannot be used."""


@dataclass(frozen=True)
class Response:
    """The response of a server.

    The media type is in lower case and without parameters, or empty.

    :param date: the header ``Date`` as it was sent, or empty.
    """

    status: int
    body: bytes
    media_type: str = ""
    date: str = ""


def fetch(uri: str, *, private_network: bool = False, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the document at a configured URL.

    :raises FetchError: as :func:`send`, or a status other than 200.
    """
    return require_ok(send(uri, private_network=private_network, timeout=timeout, max_bytes=max_bytes)).body


def require_ok(response: Response) -> Response:
    """Return the response if its status is 200.

    :raises FetchError: it has another status.
    """
    if response.status != HTTPStatus.OK:
        raise FetchError(f"its server responded with status {response.status}")
    return response


def send(
    uri: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    private_network: bool = False,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    context: ssl.SSLContext | None = None,
    proxy: str | None = None,
) -> Response:
    """Send one request to a configured URL and return the response, whatever its status.

    It is a GET request, or a POST request if there is a body. Redirects are not followed, proxies from environment
    variables are not used, and cookies are not stored. The timeout limits the whole exchange, including the TLS
    handshake, even if the server sends a byte now and then. Only the time of the resolver is not limited.

    :param private_network: allow private IP addresses of the host. An ``http:`` URL must be on loopback.
    :param timeout: seconds for the whole exchange.
    :param max_bytes: the maximum size of the response body.
    :param context: the TLS context; creating one loads all trusted authorities and takes about 20 ms, so frequent
        callers pass their own.
    :param proxy: the ``http:`` URL of a proxy to tunnel an ``https:`` URL through (RFC 9110 section 9.3.6). The proxy
        resolves the host, so its IP address is not checked; TLS still verifies its name.
    :raises FetchError: no such host, no response in time, a truncated one, or too many bytes.
    """
    try:
        parts = urlsplit(uri)
        endpoints = _resolve(parts, private_network=private_network) if proxy is None else _proxy(parts, proxy)
        with _channel(parts, endpoints, timeout, context, tunnel=proxy is not None) as channel:
            return _exchange(channel, parts, body, headers or {}, max_bytes)
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"{type(error).__name__} while fetching it{tls_reason(error)}") from None


def tls_reason(error: Exception) -> str:
    """Return OpenSSL's reason in parentheses; empty for other errors.

    The messages of other errors may quote the request.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f" ({error.verify_message})"
    # Errors that Python raises itself have no reason.
    reason: str | None = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    return f" ({reason.lower().replace('_', ' ')})" if reason else ""


def _resolve(parts: SplitResult, *, private_network: bool) -> list[Endpoint]:
    """Return the IP addresses of the host that may be connected to, each with the port."""
    if parts.scheme not in _PORTS or not parts.hostname:
        raise FetchError("its URL is not an http or https URL")
    port = parts.port or _PORTS[parts.scheme]
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    # Without the scope: only link-local addresses need one, and they are never used here.
    hosts = dict.fromkeys(ip_address(str(each[4][0]).partition("%")[0]) for each in found)
    allowed = [host for host in hosts if _allowed(host, parts.scheme, private_network=private_network)]
    if not allowed:
        reason = "http: is for loopback only" if parts.scheme == "http" else "private addresses need a setting"
        raise FetchError(f"its host has no allowed IP address ({reason})")
    return [(str(host), port) for host in allowed]


def _proxy(parts: SplitResult, proxy: str) -> list[Endpoint]:
    """Return the endpoints of a proxy, which may have any IP address."""
    where = urlsplit(proxy)
    if parts.scheme != "https" or not parts.hostname or where.scheme != "http" or not where.hostname:
        raise FetchError("a proxy supports only https URLs, and its own URL must be http")
    found = socket.getaddrinfo(where.hostname, where.port or _PORTS["http"], type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(each[4][0]), int(each[4][1])) for each in found))


def _allowed(host: Address, scheme: str, *, private_network: bool) -> bool:
    return host.is_loopback if scheme == "http" else private_network or is_public(host)


@contextmanager
def _channel(
    parts: SplitResult, endpoints: Sequence[Endpoint], timeout: float, context: ssl.SSLContext | None, *, tunnel: bool
) -> Iterator[socket.socket]:
    """Yield a connection, with TLS for ``https:``, that is shut down at the time limit in any state."""
    ends = time.monotonic() + timeout
    channel = _connect_to_any(endpoints, ends)
    if tunnel:
        _open_tunnel(channel, parts, ends)
    if parts.scheme == "https":
        channel = _wrap_in_tls(channel, parts.hostname, context)
    with closing(channel), shut_down_at(channel, ends):
        if isinstance(channel, ssl.SSLSocket):
            channel.do_handshake()
        yield channel


def _connect_to_any(endpoints: Sequence[Endpoint], ends: float) -> socket.socket:
    """Connect to the first endpoint that accepts; each gets an equal share of the remaining time."""
    fault = OSError()
    for number, endpoint in enumerate(endpoints):
        try:
            return _connect(endpoint, _remaining(ends) / (len(endpoints) - number))
        except OSError as error:
            fault = error
    raise fault


def _connect(endpoint: Endpoint, seconds: float) -> socket.socket:
    channel = socket.socket(socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET)
    try:
        channel.settimeout(seconds)
        channel.connect(endpoint)
    except BaseException:
        channel.close()
        raise
    return channel


def _remaining(ends: float) -> float:
    seconds = ends - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _open_tunnel(channel: socket.socket, parts: SplitResult, ends: float) -> None:
    """Ask a proxy to connect to the host; close the connection if it does not."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    target = f"{host}:{parts.port or _PORTS['https']}"
    try:
        with shut_down_at(channel, ends):
            channel.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii"))
            _check_tunnel(_head(channel))
    except BaseException:
        channel.close()
        raise


def _head(channel: socket.socket) -> bytes:
    """Return the bytes that a proxy sends until its head is complete, or until it sends no more."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _TUNNEL_BYTES:
        received = channel.recv(_TUNNEL_BYTES)
        if not received:
            break
        head += received
    return head


def _check_tunnel(head: bytes) -> None:
    # In TLS the client sends first, so no bytes may follow the head.
    if not _TUNNEL_OPEN.match(head) or head.find(b"\r\n\r\n") != len(head) - 4:
        raise FetchError("its proxy did not open a tunnel")


def _wrap_in_tls(plain: socket.socket, host: str | None, context: ssl.SSLContext | None) -> ssl.SSLSocket:
    """Wrap a socket in TLS; the handshake follows after the timer has started."""
    try:
        context = context or ssl.create_default_context()
        return context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise


@contextmanager
def shut_down_at(channel: socket.socket, ends: float) -> Iterator[None]:
    """Shut a connection down at a time limit.

    The timeout of a socket restarts with every byte received, so it does not limit the total time.

    :raises TimeoutError: the limit was reached.
    """
    seconds = _remaining(ends)
    channel.settimeout(seconds)
    timer = threading.Timer(seconds, _shut_down, (channel,))
    timer.daemon = True
    timer.start()
    try:
        yield
        # A response that was cut off looks like one that ends when the server closes the connection.
        _remaining(ends)
    finally:
        timer.cancel()


def _shut_down(channel: socket.socket) -> None:
    # The method of the plain socket: that of the TLS socket would change its state while another thread reads.
    with suppress(OSError):
        socket.socket.shutdown(channel, socket.SHUT_RDWR)


def _exchange(
    channel: socket.socket, parts: SplitResult, body: bytes | None, headers: Mapping[str, str], max_bytes: int
) -> Response:
    connection = HTTPConnection(parts.hostname or "", parts.port)
    connection.sock = channel
    usual = {"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json", "Connection": "close"}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET" if body is None else "POST", target, body, {**usual, **headers})
    with connection.getresponse() as response:
        given = response.headers.get("Content-Type", "").partition(";")[0]
        date = response.headers.get("Date", "")
        return Response(response.status, _read(response, max_bytes), given.strip().lower(), date)


def _read(response: HTTPResponse, max_bytes: int) -> bytes:
    body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise BrokenResponseError(f"it has more than {max_bytes} bytes")
    if response.length:
        raise BrokenResponseError("it is truncated")
    return body


_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# The special-purpose registries of IANA (RFC 6890), without the globally reachable networks, plus multicast and all of
# 192.0.0.0/24, 2001::/23 and 6to4 with its relays. Written out, because ``is_global`` differs between releases of
# Python.
_SPECIAL_V4 = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        ),
    )
)
_SPECIAL_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))


def is_public(address: str | Address) -> bool:
    """Return True if an IP address is globally reachable, and embeds no address that is not."""
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None or address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST and not any(address in network for network in _SPECIAL_V6)
