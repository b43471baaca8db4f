"""Opaque access tokens: the authorization server that issued them is asked what they are (RFC 7662)."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NoReturn

from ..errors import NotAuthenticated
from ..exchange import Clock
from ..issuers import IssuerConfig
from ..strictjson import StrictJSONError, loads
from .introspection_claims import check_answer
from .introspection_client import IntrospectionClient, Send, bounded
from .jwt import MAX_TOKEN
from .token_cache import TokenCache
from .verified import VerifiedToken

MAX_ANSWERS = 10_000
"""How many answers of each kind one process remembers."""

NEGATIVE_AGE = 5
"""Seconds for which a token that was refused is refused again without asking."""

_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_TURNS = 256
_NOTHING = (-math.inf, None)


class Introspector:
    """Verifies opaque tokens at the endpoint of the issuer that introspects.

    The answer may be meant for another resource server, so everything in it is checked again. It is remembered under
    the SHA-256 of the token, never longer than the token lives (RFC 7662 section 4).

    :param config: has ``introspection_uri``, ``client_id`` and ``client_secret``.
    :param leeway: seconds by which the clocks of issuer and server may differ.
    :param max_age: seconds for which a good answer is used again; 0 asks every time, also for refused tokens.
    :param send: POSTs a body with headers to an address and returns status and body.
    :raises ValueError: the issuer does not introspect.
    """

    def __init__(
        self, config: IssuerConfig, clock: Clock, *, leeway: float, max_age: float, send: Send | None = None
    ) -> None:
        self._config = config
        self._clock = clock
        self._leeway = leeway
        self._max_age = max_age
        self._client = IntrospectionClient(config, clock, send or bounded(config))
        # Apart, so that a flood of invented tokens cannot push the good ones out.
        self._good: TokenCache[tuple[float, VerifiedToken]] = TokenCache(MAX_ANSWERS)
        self._bad: TokenCache[tuple[float, str]] = TokenCache(MAX_ANSWERS)
        self._turns = tuple(threading.Lock() for _ in range(_TURNS))

    def accepts(self, token: str) -> bool:
        """Tell whether it has the form of a token (RFC 6750 section 2.1); an opaque one has no other."""
        return _B64TOKEN.fullmatch(token) is not None

    def verify(self, token: str) -> VerifiedToken:
        """Return what the token proves.

        :raises NotAuthenticated: it is not active, or not for this app.
        :raises DependencyUnavailable: the endpoint cannot be asked, or refuses this app's credentials.
        """
        if len(token) > MAX_TOKEN or not self.accepts(token):
            _refuse("the token is too long or has characters that no token has")
        if not self._max_age:
            return self._ask(token)
        return self._known(token) or self._in_turn(token)

    def _known(self, token: str) -> VerifiedToken | None:
        """Return what is remembered; the token ends at a time of day, the memory after seconds that passed."""
        now = self._clock.monotonic()
        until, verified = self._good.get(token) or _NOTHING
        if verified is not None and now < until and self._clock.now() < verified.expires:
            return verified
        until, reason = self._bad.get(token) or _NOTHING
        if reason is not None and now < until:
            _refuse(reason)
        return None

    def _in_turn(self, token: str) -> VerifiedToken:
        """Let one thread ask about a token; the others find its answer."""
        with self._turns[hash(token) % _TURNS]:
            return self._known(token) or self._ask_and_remember(token)

    def _ask_and_remember(self, token: str) -> VerifiedToken:
        try:
            verified = self._ask(token)
        except NotAuthenticated as error:
            self._bad.put(token, (self._clock.monotonic() + NEGATIVE_AGE, error.reason))
            raise
        self._good.put(token, (self._clock.monotonic() + self._max_age, verified))
        return verified

    def _ask(self, token: str) -> VerifiedToken:
        answer = _read(*self._client.ask(token))
        now = self._clock.now()
        verified = check_answer(answer, self._config, now=now, leeway=self._leeway)
        return replace(verified, expires=min(now + self._max_age, verified.expires))


def _read(status: int, body: bytes) -> Any:
    """Return the JSON of an answer; without a sound one, no token is active (RFC 7662 section 2.2)."""
    if status != HTTPStatus.OK:
        _refuse(f"the introspection endpoint answered {status}")
    try:
        return loads(body)
    except StrictJSONError as error:
        _refuse(f"the answer of the introspection endpoint is not strict JSON: {error}")


def _refuse(reason: str) -> NoReturn:
    raise NotAuthenticated(reason)
