"""The proxy middleware: decides whose forwarded headers are believed, and opens the exchange.

This is WSGI middleware because the decision must be made before Flask builds the request: routing, URL building and
other extensions read the same environ. It is the outermost layer of the app, so no response leaves without passing it.
"""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Protocol

from ..config.fields import Networks
from ..errors import REQUEST_ID_KEY
from ..exchange import EXCHANGE_KEY, Exchange, exchange_of
from ..principal import Clock
from .client_certificate import CertificateSource
from .drain import Drain
from .forwarded import BELIEVED, HOP_FAMILIES, HOP_HEADERS
from .outgoing import Outgoing, Site

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")
Address = IPv4Address | IPv6Address


class Admission(Protocol):
    """Decides before anything beneath is called."""

    def admit(self, environ: WSGIEnvironment, exchange: Exchange) -> WSGIApplication | None:
        """Return the response that rejects the request; None to call what stands beneath.

        :raises Exception: the request is not to be served; the client gets 500.
        """


class ProxyMiddleware:
    """Resolves the client through trusted proxies, removes other hop headers, and opens the exchange.

    :param app: the app whose outermost layer this is.
    :param wsgi_app: what stands beneath.
    :param opener: makes the exchange of a request.
    :param admission: decides whether what stands beneath is called.
    :param site: what becomes of the response.
    :param clock: for the bounds of the time that a client may take to end its request.
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
        """Serve one request; its connection is closed as :class:`Drain` says."""
        return self._drain(environ, start_response)

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to one request.

        An app that is mounted in another protected one adopts the exchange that is there. A request that a view makes
        with the environ of its own has an exchange of its own, as it has a policy, a price and a record of its own.
        """
        outer = exchange_of(environ)
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
    """Opens the exchange of a request from its environ, which it cleans.

    :param trusted: whose headers are believed.
    :param certificate_header: in which of their headers the client's certificate is; None for no such header.
    """

    def __init__(self, trusted: Networks, clock: Clock, certificate_header: str | None = None) -> None:
        self._trusted = trusted
        self._clock = clock
        self._certificates = CertificateSource(certificate_header)

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

    def open_within(self, outer: Exchange, environ: WSGIEnvironment) -> Exchange:
        """Place an exchange in the environ of a request that is made while another is served."""
        exchange = outer.within(
            time=self._clock.now(),
            started=self._clock.monotonic(),
            method=environ.get("REQUEST_METHOD") or "",
            path=environ.get("PATH_INFO") or "",
        )
        environ[EXCHANGE_KEY] = exchange
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
            # The guards name them as Flask reads them; what ends before them is recorded too.
            method=environ.get("REQUEST_METHOD") or "",
            path=environ.get("PATH_INFO") or "",
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
        # Looked up for each request: a gevent worker replaces the class, after --preload has imported this module.
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
