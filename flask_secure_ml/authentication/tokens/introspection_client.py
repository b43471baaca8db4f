"""The client of an introspection endpoint (RFC 7662 section 2): Authlib's client with our own HTTP client."""

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
"""Seconds for which a failed endpoint is not called, plus or minus 20 %."""

MAX_RESPONSE = 65_536
"""The maximum size of a response in bytes; thousands of verified responses are cached."""

IN_A_ROW = 3
"""The number of consecutive responses with a temporary error after which the endpoint counts as down."""

# An unknown client affects every token; one malformed token can provoke the other statuses, from a proxy or a bug.
_CONCERNS_ALL = frozenset({401})
_MAY_CONCERN_ALL = frozenset({429, 502, 503, 504})
_REJECTED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

Response = tuple[int, bytes]
"""A status and a body."""

Send = Callable[[str, bytes, Mapping[str, str]], Response]
"""POSTs a body with headers to a URL; raises :class:`~flask_secure_ml.fetch.FetchError`."""


class IntrospectionClient:
    """Introspects tokens at the endpoint of one issuer, as a client registered there.

    Each call uses the newest client secret. If the endpoint does not accept it, the second newest is tried once, so
    that a secret can be changed on one side first.

    :param config: has ``introspection_uri``, ``client_id`` and ``client_secret``.
    :param send: sends the request; it follows no redirects and has a timeout.
    :raises ValueError: the issuer has no introspection endpoint.
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

        :param token: one b64token; it is sent only in the body of the request.
        :raises DependencyUnavailable: there is no response in time, or it is a temporary error, or a rejection of this
            app's credentials.
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
        """Raise DependencyUnavailable for a status that is not about the token (RFC 7662 section 2.3)."""
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
        raise ValueError("introspection requires introspection_uri, client_id and client_secret")
    return config.introspection_uri, config.client_id, config.client_secret


def bounded(config: IssuerConfig, timeout: float = TIMEOUT) -> Send:
    """Return a function that POSTs over the network, only to IP addresses that the issuer may have.

    :param timeout: seconds for one request.
    """
    connection = IssuerConnection(config)

    def post(uri: str, body: bytes, headers: Mapping[str, str]) -> Response:
        response = connection.send(uri, body=body, headers=headers, timeout=timeout, max_bytes=MAX_RESPONSE)
        return response.status, response.body

    return post


def unavailable(reason: str, seconds: float = PAUSE) -> DependencyUnavailable:
    """Return a DependencyUnavailable with ``Retry-After``.

    :param seconds: when to retry, rounded up to at least 1.
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

    RFC 6749 section 2.3.1 requires form-encoding id and secret first. Authlib's own method does not, so a colon in the
    id, a percent sign, or a character outside Latin-1 would be misread or fail.
    """
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")
    return uri, headers, body


def _authlib(session: _Session) -> tuple[Any, Callable[..., Any]]:
    """Return Authlib's client, and its class for client credentials."""
    # Importing Authlib prepends a filter for its own warnings to those of the process.
    with warnings.catch_warnings():
        from authlib.oauth2.auth import ClientAuth
        from authlib.oauth2.client import OAuth2Client
    return OAuth2Client(session), ClientAuth
