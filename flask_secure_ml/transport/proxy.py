"""The proxy middleware: decides whose forwarded headers are trusted, and opens the exchange.

This is WSGI middleware because the decision must be made before Flask builds the request: routing, URL building and
other extensions read the same environ. It is the outermost layer of the app, so all responses pass through it.
"""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from ..config.fields import Networks
from ..errors import REQUEST_ID_KEY
from ..exchange import EXCHANGE_KEY, NOTHING, Exchange
from ..principal import Clock
from .drain import Drain
from .forwarded import HOP_FAMILIES, HOP_HEADERS, PROXY_HEADERS, CertificateSource, socket_certificate
from .outgoing import Outgoing
from .site import Site

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")
_FAMILIES = re.compile("|".join(HOP_FAMILIES))
_NONE: Mapping[str, str] = MappingProxyType({})
IPAddress = IPv4Address | IPv6Address


class Admission(Protocol):
    """Decides whether the layers beneath are called."""

    def admit(self, environ: WSGIEnvironment, exchange: Exchange) -> WSGIApplication | None:
        """Return the response that rejects the request, or None to call the layers beneath.

        :raises Exception: the request must not be served; the client gets 500.
        """


class ProxyMiddleware:
    """Resolves the client through trusted proxies, removes the headers of others, and opens the exchange.

    :param app: the app whose outermost layer this is.
    :param wsgi_app: the WSGI app beneath.
    :param opener: creates the exchange of a request.
    :param admission: decides whether the layers beneath are called.
    :param site: completes, replaces and records the responses of the app.
    :param clock: measures how long a client may take to end its request.
    """

    def __init__(
        self,
        app: object,
        wsgi_app: WSGIApplication,
        *,
        opener: ExchangeOpener,
        admission: Admission,
        site: Site,
        clock: Clock,
    ) -> None:
        self.app = app
        self._wsgi_app = wsgi_app
        self._opener = opener
        self._admission = admission
        self._site = site
        self._drain = Drain(self._respond, clock)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, and close its connection as :class:`Drain` describes."""
        return self._drain(environ, start_response)

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to one request.

        An app that is mounted in another protected app uses the existing exchange. A request that a view makes with the
        environ of its own request gets a new exchange, because it has its own policy, cost and record.
        """
        outer: Exchange | None = environ.get(EXCHANGE_KEY)
        if outer is None:
            return self._serve(environ, start_response, self._opener.open(environ))
        if outer.guarded is None:
            return self._serve(environ, start_response, outer, records=False)
        try:
            return self._serve(environ, start_response, self._opener.open_within(outer, environ))
        finally:
            environ[EXCHANGE_KEY] = outer

    def _serve(
        self, environ: WSGIEnvironment, start_response: StartResponse, exchange: Exchange, *, records: bool = True
    ) -> Iterable[bytes]:
        outgoing = Outgoing(environ, start_response, exchange, self._site, records=records)
        if records:
            self._site.begin(exchange)
        try:
            rejection = self._admission.admit(environ, exchange)
            wsgi_app = self._wsgi_app if rejection is None else rejection
            return outgoing.respond(wsgi_app(environ, outgoing.start_response))
        except Exception as error:  # noqa: BLE001 - the outgoing response decides what reaches the server
            return outgoing.fail(error)
        except BaseException as error:
            outgoing.abandon(error)
            raise


class ExchangeOpener:
    """Creates the exchange of a request from its environ, and removes forwarded headers from the environ.

    :param trusted: the networks whose headers are trusted.
    :param certificate_header: the header in which trusted proxies send the client's certificate, or None.
    """

    def __init__(self, trusted: Networks, clock: Clock, certificate_header: str | None = None) -> None:
        self._trusted = trusted
        self._clock = clock
        self._certificates = CertificateSource(certificate_header)

    def open(self, environ: WSGIEnvironment) -> Exchange:
        """Create the exchange of a request, and put it into the environ."""
        peer = environ.get("REMOTE_ADDR") or ""
        if peer[:1] == ":":
            peer = _unmapped(peer)
        environ["REMOTE_ADDR"] = peer
        forwarded = _take_hop_headers(environ)
        connection = environ.get("gunicorn.socket")
        if connection is not None:
            # gunicorn trusts X-Forwarded-Proto of loopback by default. The class is read for each request: a gevent
            # worker replaces it after --preload has imported this module.
            environ["wsgi.url_scheme"] = "https" if isinstance(connection, ssl.SSLSocket) else "http"
        if self._trusts(peer):
            certificate = self._certificates.of_proxy(forwarded.get(self._certificates.key), peer)
        else:
            certificate = None if connection is None else socket_certificate(connection)
            forwarded = _NONE
        if forwarded and not forwarded.keys().isdisjoint(PROXY_HEADERS):
            self._apply(environ, peer, forwarded)
        exchange = Exchange(
            _request_id(forwarded["HTTP_X_REQUEST_ID"]) if "HTTP_X_REQUEST_ID" in forwarded else _random_id(),
            self._clock.now(),
            self._clock.monotonic(),
            peer,
            environ["REMOTE_ADDR"],
            environ.get("wsgi.url_scheme") == "https",
            certificate,
            sockets=NOTHING,
            # The guards replace these with what Flask reads; a request that ends before the guards is recorded too.
            method=environ.get("REQUEST_METHOD") or "",
            path=environ.get("PATH_INFO") or "",
            format_options=NOTHING,
        )
        environ[EXCHANGE_KEY] = exchange
        environ[REQUEST_ID_KEY] = exchange.request_id
        return exchange

    def open_within(self, outer: Exchange, environ: WSGIEnvironment) -> Exchange:
        """Create the exchange of a request that is made while serving another."""
        exchange = outer.within(
            time=self._clock.now(),
            started=self._clock.monotonic(),
            method=environ.get("REQUEST_METHOD") or "",
            path=environ.get("PATH_INFO") or "",
        )
        environ[EXCHANGE_KEY] = exchange
        return exchange

    def _trusts(self, address: str) -> bool:
        if not address:
            return self._trusted.unix
        if not self._trusted.networks:
            return False
        parsed = _address(address)
        return parsed is not None and any(parsed in network for network in self._trusted.networks)

    def _apply(self, environ: WSGIEnvironment, peer: str, forwarded: Mapping[str, str]) -> None:
        client = self._client(peer, forwarded.get("HTTP_X_FORWARDED_FOR", ""))
        environ["REMOTE_ADDR"] = environ["HTTP_X_FORWARDED_FOR"] = client
        scheme = _last(forwarded.get("HTTP_X_FORWARDED_PROTO", "")).lower()
        if scheme:
            # Any value except "https" counts as clear text, so that a malformed one is not taken for TLS.
            scheme = "https" if scheme == "https" else "http"
            environ["wsgi.url_scheme"] = environ["HTTP_X_FORWARDED_PROTO"] = scheme
        host = _last(forwarded.get("HTTP_X_FORWARDED_HOST", ""))
        if _HOST.fullmatch(host):
            environ["HTTP_HOST"] = environ["HTTP_X_FORWARDED_HOST"] = host

    def _client(self, peer: str, chain: str) -> str:
        """Return the first IP address, from our end of the chain, that is not a trusted proxy."""
        client = peer
        for hop in reversed([entry.strip() for entry in chain.split(",") if entry.strip()]):
            address = _address(hop)
            if address is None:
                return client
            client = str(address)
            if not self._trusts(client):
                return client
        return client


def _take_hop_headers(environ: WSGIEnvironment) -> Mapping[str, str]:
    if "HTTP_X_REQUEST_ID" in environ:
        forwarded = {"HTTP_X_REQUEST_ID": environ.pop("HTTP_X_REQUEST_ID")}
    elif HOP_HEADERS.isdisjoint(environ) and not _FAMILIES.search("\n".join(environ)):
        # Most requests have none: one search in all names takes less time than checking each.
        return _NONE
    else:
        forwarded = {}
    taken = [key for key in environ if key in HOP_HEADERS or key.startswith(HOP_FAMILIES)]
    forwarded.update({key: environ.pop(key) for key in taken})
    return forwarded


def _request_id(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else _random_id()


def _random_id() -> str:
    # An id, not a secret: the standard generator is 50 times faster, and is seeded again in forked workers.
    return f"{random.getrandbits(128):032x}"


def _unmapped(address: str) -> str:
    """Return the IPv4 address of an IPv4-mapped IPv6 address; return any other address unchanged."""
    return str(_address(address)) if address.startswith("::ffff:") else address


def _last(values: str) -> str:
    return values.rpartition(",")[2].strip()


def _address(value: str) -> IPAddress | None:
    """Parse an IP address with or without a port, or return None; IPv4-mapped addresses become IPv4 addresses."""
    host = value.strip().partition("%")[0]
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
