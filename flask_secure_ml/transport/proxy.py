"""The door: decides whose forwarded headers are believed and opens the exchange.

This is WSGI middleware because the decision must stand before Flask builds the request: routing, URL
building and other extensions read the same environ.
"""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from ..checks import Networks
from ..errors import REQUEST_ID_KEY
from ..exchange import EXCHANGE_KEY, Clock, Exchange
from .client_certificate import CertificateSource
from .hop_headers import BELIEVED, HOP_FAMILIES, HOP_HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")
Address = IPv4Address | IPv6Address


class Door:
    """WSGI middleware: resolves the client through trusted proxies, strips the rest, opens the exchange.

    :param trusted: whose headers are believed.
    :param certificate_header: in which of their headers the client's certificate is; None for no such header.
    """

    def __init__(
        self, app: WSGIApplication, trusted: Networks, clock: Clock, certificate_header: str | None = None
    ) -> None:
        self._app = app
        self._trusted = trusted
        self._clock = clock
        self._certificates = CertificateSource(certificate_header)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        self.open(environ)
        return self._app(environ, start_response)

    def open(self, environ: WSGIEnvironment) -> Exchange:
        """Clean the environ and place the exchange in it."""
        peer = _unmapped(environ.get("REMOTE_ADDR") or "")
        environ["REMOTE_ADDR"] = peer
        said = _take_hop_headers(environ)
        _settle_scheme(environ)
        if self._trusts(peer):
            certificate = self._certificates.of_proxy(said.get(self._certificates.key), peer)
        else:
            certificate = self._certificates.of_client(environ)
            said = {}
        if not said.keys().isdisjoint(BELIEVED):
            self._believe(environ, peer, said)
        exchange = self._exchange(environ, peer, said, certificate)
        environ[EXCHANGE_KEY] = exchange
        environ[REQUEST_ID_KEY] = exchange.request_id
        return exchange

    def _exchange(
        self, environ: WSGIEnvironment, peer: str, said: dict[str, str], certificate: bytes | None
    ) -> Exchange:
        return Exchange(
            request_id=_request_id(said),
            time=self._clock.now(),
            started=self._clock.monotonic(),
            peer=peer,
            client=environ.get("REMOTE_ADDR") or "",
            secure=environ.get("wsgi.url_scheme") == "https",
            certificate=certificate,
        )

    def _trusts(self, address: str) -> bool:
        if not address:
            return self._trusted.unix
        if not self._trusted.networks:
            return False
        parsed = _address(address)
        return parsed is not None and any(parsed in network for network in self._trusted.networks)

    def _believe(self, environ: WSGIEnvironment, peer: str, said: dict[str, str]) -> None:
        client = self._client(peer, said.get("HTTP_X_FORWARDED_FOR", ""))
        environ["REMOTE_ADDR"] = environ["HTTP_X_FORWARDED_FOR"] = client
        scheme = _last(said.get("HTTP_X_FORWARDED_PROTO", "")).lower()
        if scheme:
            # Anything but a clear "https" counts as clear text: a garbled statement must not open the door.
            scheme = "https" if scheme == "https" else "http"
            environ["wsgi.url_scheme"] = environ["HTTP_X_FORWARDED_PROTO"] = scheme
        host = _last(said.get("HTTP_X_FORWARDED_HOST", ""))
        if _HOST.fullmatch(host):
            environ["HTTP_HOST"] = environ["HTTP_X_FORWARDED_HOST"] = host

    def _client(self, peer: str, chain: str) -> str:
        """Walk the chain from our side; the first address that is no trusted proxy is the client."""
        client = peer
        for hop in reversed([entry.strip() for entry in chain.split(",") if entry.strip()]):
            address = _address(hop)
            if address is None:
                return client
            client = str(address)
            if not self._trusts(client):
                return client
        return client


def _take_hop_headers(environ: WSGIEnvironment) -> dict[str, str]:
    taken = [key for key in environ if key in HOP_HEADERS or key.startswith(HOP_FAMILIES)]
    said = {key: environ.pop(key) for key in taken}
    if "HTTP_X_REQUEST_ID" in environ:
        said["HTTP_X_REQUEST_ID"] = environ.pop("HTTP_X_REQUEST_ID")
    return said


def _request_id(said: dict[str, str]) -> str:
    given = said.get("HTTP_X_REQUEST_ID", "")
    if given and _REQUEST_ID.fullmatch(given):
        return given
    # An id, no secret: the standard generator is 50 times faster, and seeds itself anew in forked workers.
    return f"{random.getrandbits(128):032x}"


def _settle_scheme(environ: WSGIEnvironment) -> None:
    """Take the scheme from the connection itself: gunicorn believes X-Forwarded-Proto of loopback by default."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        # Read from the module each time: gevent replaces the class, in a worker after the app was loaded.
        environ["wsgi.url_scheme"] = "https" if isinstance(connection, ssl.SSLSocket) else "http"


def _unmapped(address: str) -> str:
    """Return an IPv4 address that a socket for both families shows inside IPv6 as itself."""
    return str(_address(address)) if address.startswith("::ffff:") else address


def _last(values: str) -> str:
    return values.rpartition(",")[2].strip()


def _address(text: str) -> Address | None:
    """Parse an address, also with a port; an IPv4 address inside IPv6 is the IPv4 one."""
    host = text.strip().partition("%")[0]
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        parsed = ip_address(host)
    except ValueError:
        return None
    mapped = getattr(parsed, "ipv4_mapped", None)
    return mapped if isinstance(mapped, IPv4Address) else parsed
