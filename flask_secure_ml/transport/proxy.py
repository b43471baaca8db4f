"""The door: decides whose forwarded headers are believed and opens the exchange.

This is WSGI middleware because the decision must stand before Flask builds the request: routing, URL
building and other extensions read the same environ.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from ssl import SSLSocket
from typing import TYPE_CHECKING

from ..checks import Networks
from ..errors import REQUEST_ID_KEY
from ..exchange import EXCHANGE_KEY, Clock, Exchange

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HOP_HEADERS = frozenset(
    {
        "HTTP_FORWARDED",
        "HTTP_VIA",
        "HTTP_X_REAL_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_CF_CONNECTING_IP",
        "HTTP_X_CLIENT_IP",
        "HTTP_X_CLUSTER_CLIENT_IP",
        "HTTP_CLIENT_IP",
        "HTTP_X_CLIENT_CERT",
        "HTTP_X_SSL_CLIENT_CERT",
        "HTTP_X_SSL_CLIENT_VERIFY",
        "HTTP_X_SSL_CLIENT_S_DN",
        "HTTP_SSL_CLIENT_CERT",
        "HTTP_SSL_CLIENT_VERIFY",
        "HTTP_X_HTTP_METHOD_OVERRIDE",
        "HTTP_X_ORIGINAL_URL",
        "HTTP_X_REWRITE_URL",
        "HTTP_X_URL_SCHEME",
        "HTTP_X_SCHEME",
        "HTTP_FRONT_END_HTTPS",
        "HTTP_X_HTTP_METHOD",
        "HTTP_X_METHOD_OVERRIDE",
        "HTTP_X_ORIGINAL_FORWARDED_FOR",
        "HTTP_X_ORIGINAL_HOST",
        "HTTP_X_HOST",
        "HTTP_FASTLY_CLIENT_IP",
        "HTTP_X_ARR_CLIENTCERT",
        "HTTP_X_AMZN_MTLS_CLIENTCERT",
        "HTTP_CLIENT_CERT",
        "HTTP_CLIENT_CERT_CHAIN",
        "HTTP_REMOTE_USER",
        "HTTP_X_REMOTE_USER",
        "HTTP_PROXY",
    }
)
"""Headers that only a proxy may set, and that this release does not use: removed from every request."""

BELIEVED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_REQUEST_ID")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")
Address = IPv4Address | IPv6Address


class Door:
    """WSGI middleware: resolves the client through trusted proxies, strips the rest, opens the exchange."""

    def __init__(self, app: WSGIApplication, trusted: Networks, clock: Clock) -> None:
        self._app = app
        self._trusted = trusted
        self._clock = clock

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
        if said and self._trusts(peer):
            self._believe(environ, peer, said)
        exchange = self._exchange(environ, peer, said)
        environ[EXCHANGE_KEY] = exchange
        environ[REQUEST_ID_KEY] = exchange.request_id
        return exchange

    def _exchange(self, environ: WSGIEnvironment, peer: str, said: dict[str, str]) -> Exchange:
        return Exchange(
            request_id=self._request_id(peer, said),
            time=self._clock.now(),
            started=self._clock.monotonic(),
            peer=peer,
            client=environ.get("REMOTE_ADDR") or "",
            secure=environ.get("wsgi.url_scheme") == "https",
        )

    def _request_id(self, peer: str, said: dict[str, str]) -> str:
        given = said.get("HTTP_X_REQUEST_ID", "")
        if given and self._trusts(peer) and _REQUEST_ID.fullmatch(given):
            return given
        # An id, no secret: the standard generator is 50 times faster, and seeds itself anew in forked workers.
        return f"{random.getrandbits(128):032x}"

    def _trusts(self, address: str) -> bool:
        if not address:
            return self._trusted.unix
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
    said: dict[str, str] = {}
    for key in [key for key in environ if key in HOP_HEADERS or key.startswith("HTTP_X_FORWARDED")]:
        said[key] = environ.pop(key)
    if "HTTP_X_REQUEST_ID" in environ:
        said["HTTP_X_REQUEST_ID"] = environ.pop("HTTP_X_REQUEST_ID")
    return {key: value for key, value in said.items() if key in BELIEVED}


def _settle_scheme(environ: WSGIEnvironment) -> None:
    """Take the scheme from the connection itself: gunicorn believes X-Forwarded-Proto of loopback by default."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        environ["wsgi.url_scheme"] = "https" if isinstance(connection, SSLSocket) else "http"


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
