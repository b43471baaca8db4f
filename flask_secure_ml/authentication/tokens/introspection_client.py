"""The conversation with an introspection endpoint (RFC 7662 section 2), through Authlib's client and our own HTTP."""

from __future__ import annotations

import base64
import logging
import math
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote_plus, urlencode

from ...config.issuers import IssuerConfig
from ...errors import DependencyUnavailable
from ...fetch import TIMEOUT, BrokenAnswerError, FetchError, exchange_with
from ...principal import Clock

log: logging.Logger = logging.getLogger(__name__)

COOLDOWN = 5
"""Seconds for which an endpoint that failed is not asked again."""

MAX_ANSWER = 65_536
"""The largest answer in bytes; thousands of them are kept."""

IN_A_ROW = 3
"""How many answers in a row may say that the endpoint cannot tell now, before it is taken for down."""

# That this app is not known concerns every token; the others one odd token can provoke, in a proxy or by a fault.
_CONCERNS_ALL = frozenset({401})
_MAY_CONCERN_ALL = frozenset({429, 502, 503, 504})
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

Answer = tuple[int, bytes]
"""A status and a body."""

Send = Callable[[str, bytes, Mapping[str, str]], Answer]
"""POSTs a body with headers to an address; raises :class:`~flask_secure_ml.fetch.FetchError`."""


class IntrospectionClient:
    """Asks the endpoint of one issuer about tokens, in the name of this app.

    Each call uses the newest client secret; when the endpoint does not know it, the next older one is tried once, so
    that a secret can be changed on one side first.

    :param config: has ``introspection_uri``, ``client_id`` and ``client_secret``.
    :param send: the HTTP below; it follows no redirect and gives up in time.
    :raises ValueError: the issuer does not introspect.
    """

    def __init__(self, config: IssuerConfig, clock: Clock, send: Send) -> None:
        if config.introspection_uri is None or config.client_id is None or config.client_secret is None:
            raise ValueError("introspection needs introspection_uri, client_id and client_secret together")
        self._uri = config.introspection_uri
        self._id = config.client_id
        self._secrets = config.client_secret
        self._breaker = Breaker(clock)
        self._client, self._credentials = _authlib(_Session(send))

    def ask(self, token: str) -> Answer:
        """Return the answer about a token.

        :param token: one b64token; it goes into the body of the request and nowhere else.
        :raises DependencyUnavailable: no answer in time, one that says the endpoint cannot tell now, or one that
            refuses this app's credentials.
        """
        self._breaker.enter()
        try:
            status, body = self._with_known_secret(token)
        except FetchError as error:
            if isinstance(error, BrokenAnswerError):
                self._breaker.doubted()
            else:
                self._breaker.failed()
            log.warning("the introspection endpoint %s cannot be asked: %s", self._uri, error)
            raise unavailable(f"the introspection endpoint cannot be asked: {error}") from None
        self._check(status)
        return status, body

    def _with_known_secret(self, token: str) -> Answer:
        answer: Answer = (HTTPStatus.UNAUTHORIZED, b"")
        for secret in self._two_secrets():
            answer = self._post(token, secret)
            if answer[0] != HTTPStatus.UNAUTHORIZED:
                break
        return answer

    def _two_secrets(self) -> Iterator[bytes]:
        try:
            yield self._secrets.newest()
            yield from self._secrets.read()[1:2]
        except ValueError as error:
            self._breaker.failed()
            log.error("no client secret for the introspection endpoint: %s", error)
            raise unavailable(f"no client secret: {error}") from None

    def _post(self, token: str, secret: bytes) -> Answer:
        answer: Answer = self._client.introspect_token(
            self._uri,
            token=token,
            token_type_hint="access_token",  # noqa: S106 a kind of token, not one
            auth=self._credentials(self._id, secret, client_secret_basic),
            headers={"Accept": "application/json"},
        )
        return answer

    def _check(self, status: int) -> None:
        """Refuse what says nothing about the token (RFC 7662 section 2.3)."""
        if status in _CONCERNS_ALL:
            self._breaker.failed()
        elif status in _MAY_CONCERN_ALL:
            self._breaker.doubted()
        else:
            self._breaker.succeeded()
        if status in _REFUSED:
            log.error("this app's credentials are refused by the introspection endpoint %s: %d", self._uri, status)
            raise unavailable("this app's credentials are refused by the introspection endpoint")
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("the introspection endpoint %s answered %d", self._uri, status)
            raise unavailable(f"the introspection endpoint answered {status}")


def bounded(config: IssuerConfig, timeout: float = TIMEOUT) -> Send:
    """Return what sends over the network, to such addresses as the issuer may have.

    :param timeout: seconds for one exchange.
    """
    # Made once, when it is first needed: that takes longer than most endpoints take to answer.
    tls = cache(ssl.create_default_context)

    def send(uri: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        reply = exchange_with(
            uri,
            body=body,
            headers=headers,
            private_network=config.private_network,
            timeout=timeout,
            max_bytes=MAX_ANSWER,
            context=tls() if uri.startswith("https:") else None,
        )
        return reply.status, reply.body

    return send


class Breaker:
    """Keeps a process from waiting for an endpoint that just failed.

    When the pause is over one thread asks, and the others wait for what it learns.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failing = False
        self._doubts = 0
        self._until = -math.inf

    def enter(self) -> None:
        """Let the caller ask.

        :raises DependencyUnavailable: not before the pause is over.
        """
        with self._lock:
            now = self._clock.monotonic()
            if now < self._until:
                raise unavailable("the introspection endpoint failed just now", self._until - now)
            if self._failing:
                self._until = now + COOLDOWN

    def failed(self) -> None:
        """Begin a pause."""
        with self._lock:
            self._failing = True
            self._until = self._clock.monotonic() + COOLDOWN

    def doubted(self) -> None:
        """Count a fault that may be about one token; so many in a row begin a pause."""
        with self._lock:
            self._doubts += 1
        if self._doubts >= IN_A_ROW:
            self.failed()

    def succeeded(self) -> None:
        """End the pause."""
        with self._lock:
            self._failing = False
            self._doubts = 0
            self._until = -math.inf


def unavailable(reason: str, seconds: float = COOLDOWN) -> DependencyUnavailable:
    """Return the error that asks the caller to come back.

    :param seconds: after which it makes sense.
    """
    return DependencyUnavailable(reason, headers=[("Retry-After", str(max(1, math.ceil(seconds))))])


class _Session:
    """What Authlib takes for a session of HTTP."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def post(self, url: str, *, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> Answer:
        uri, prepared, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return self._send(uri, body.encode("ascii"), prepared)


def client_secret_basic(
    client: Any, _method: str, uri: str, headers: dict[str, str], body: str
) -> tuple[str, dict[str, str], str]:
    """Authenticate with HTTP Basic.

    RFC 6749 section 2.3.1 has both halves form-encoded first. Authlib's own method leaves that out, so that a colon in
    the id, a percent sign, or a letter beyond Latin-1 would be read as something else or fail.
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
