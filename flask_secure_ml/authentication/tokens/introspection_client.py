"""The client of an introspection endpoint (RFC 7662 section 2): Authlib's client over our own HTTP."""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote_plus, urlencode

from ...config.issuers import IssuerConfig
from ...errors import DependencyUnavailable
from ...fetch import TIMEOUT, BrokenResponseError, FetchError
from ...principal import Clock
from ...refresh import Breaker, Outage
from ...secrets import SecretRing
from .connection import IssuerConnection

PAUSE = 5
"""Seconds for which an endpoint that failed is not called, give or take a fifth."""

MAX_RESPONSE = 65_536
"""The largest response in bytes; what thousands of them prove is cached."""

IN_A_ROW = 3
"""How many responses in a row may say "not now" before the endpoint counts as down."""

# A client that is not known concerns every token; the others one odd token can provoke, in a proxy or by a fault.
_CONCERNS_ALL = frozenset({401})
_MAY_CONCERN_ALL = frozenset({429, 502, 503, 504})
_REJECTED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

Response = tuple[int, bytes]
"""A status and a body."""

Send = Callable[[str, bytes, Mapping[str, str]], Response]
"""POSTs a body with headers to a URL; raises :class:`~flask_secure_ml.fetch.FetchError`."""


class IntrospectionClient:
    """Introspects tokens at the endpoint of one issuer, as the client that this app is there.

    Each call uses the newest client secret; if the endpoint does not accept it, the next older one is tried once, so
    that a secret can be changed on one side first.

    :param config: has ``introspection_uri``, ``client_id`` and ``client_secret``.
    :param send: sends the request; it follows no redirect and has a time limit.
    :raises ValueError: the issuer does not introspect.
    """

    def __init__(self, config: IssuerConfig, clock: Clock, send: Send) -> None:
        self._uri, self._id, self._secrets = _endpoint(config)
        where = f"the introspection endpoint {self._uri}"
        down = Outage(f"{where} is down", f"{where} is up again", clock.monotonic)
        self._rejected = Outage(
            f"{where} rejects this app's credentials", f"{where} accepts this app's credentials again", clock.monotonic
        )
        self._breaker = Breaker(clock, pause=PAUSE, outage=down, doubts=IN_A_ROW)
        self._client, self._credentials = _authlib(_Session(send))

    def introspect(self, token: str) -> Response:
        """Return the response about a token.

        :param token: one b64token; it goes into the body of the request and nowhere else.
        :raises DependencyUnavailable: there is no response in time, it says "not now", or it rejects this app's
            credentials.
        """
        seconds = self._breaker.wait()
        if seconds:
            raise unavailable("the introspection endpoint failed a moment ago", seconds)
        try:
            status, body = self._with_accepted_secret(token)
        except FetchError as error:
            reason = f"the introspection endpoint cannot be reached: {error}"
            if isinstance(error, BrokenResponseError):
                self._breaker.doubted(str(error))
            else:
                self._breaker.failed(str(error))
            raise unavailable(reason) from None
        self._check(status)
        return status, body

    def _with_accepted_secret(self, token: str) -> Response:
        response: Response = (HTTPStatus.UNAUTHORIZED, b"")
        for secret in self._two_secrets():
            response = self._post(token, secret)
            if response[0] != HTTPStatus.UNAUTHORIZED:
                break
        return response

    def _two_secrets(self) -> Iterator[bytes]:
        try:
            yield self._secrets.newest()
            yield from self._secrets.read()[1:2]
        except ValueError as error:
            self._breaker.failed(f"no client secret: {error}")
            raise unavailable(f"no client secret: {error}") from None

    def _post(self, token: str, secret: bytes) -> Response:
        response: Response = self._client.introspect_token(
            self._uri,
            token=token,
            token_type_hint="access_token",  # noqa: S106 a kind of token, not one
            auth=self._credentials(self._id, secret, client_secret_basic),
            headers={"Accept": "application/json"},
        )
        return response

    def _check(self, status: int) -> None:
        """Reject a response that says nothing about the token (RFC 7662 section 2.3)."""
        reason = f"the introspection endpoint responded with status {status}"
        if status in _CONCERNS_ALL:
            self._breaker.failed(reason)
        elif status in _MAY_CONCERN_ALL:
            self._breaker.doubted(reason)
        else:
            self._breaker.succeeded()
        if status in _REJECTED:
            self._rejected.failed(f"status {status}")
            raise unavailable("the introspection endpoint rejects this app's credentials")
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise unavailable(reason)
        if status == HTTPStatus.OK:
            self._rejected.ended()


def _endpoint(config: IssuerConfig) -> tuple[str, str, SecretRing]:
    if config.introspection_uri is None or config.client_id is None or config.client_secret is None:
        raise ValueError("introspection needs introspection_uri, client_id and client_secret together")
    return config.introspection_uri, config.client_id, config.client_secret


def bounded(config: IssuerConfig, timeout: float = TIMEOUT) -> Send:
    """Return a function that sends over the network, to such IP addresses as the issuer may have.

    :param timeout: seconds for one exchange.
    """
    connection = IssuerConnection(config)

    def post(uri: str, body: bytes, headers: Mapping[str, str]) -> Response:
        response = connection.send(uri, body=body, headers=headers, timeout=timeout, max_bytes=MAX_RESPONSE)
        return response.status, response.body

    return post


def unavailable(reason: str, seconds: float = PAUSE) -> DependencyUnavailable:
    """Return the error that asks the client to retry.

    :param seconds: after which a retry makes sense.
    """
    return DependencyUnavailable(reason, headers=[("Retry-After", str(max(1, math.ceil(seconds))))])


class _Session:
    """The HTTP session that Authlib expects."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def post(self, url: str, *, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> Response:
        uri, prepared, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return self._send(uri, body.encode("ascii"), prepared)


def client_secret_basic(
    client: Any, _method: str, uri: str, headers: dict[str, str], body: str
) -> tuple[str, dict[str, str], str]:
    """Authenticate with HTTP Basic.

    RFC 6749 section 2.3.1 has both halves form-encoded first. Authlib's own method leaves that out, so that a colon in
    the id, a percent sign, or a letter beyond Latin-1 would be misread or fail.
    """
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")
    return uri, headers, body


def _authlib(session: _Session) -> tuple[Any, Callable[..., Any]]:
    """Return Authlib's client, and its class for a client's credentials."""
    # Importing Authlib adds a filter for its own warnings to those of the process, in front of the user's.
    with warnings.catch_warnings():
        from authlib.oauth2.auth import ClientAuth
        from authlib.oauth2.client import OAuth2Client
    return OAuth2Client(session), ClientAuth
