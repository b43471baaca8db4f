"""Opaque access tokens: the authorization server that issued them is asked what they are (RFC 7662)."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NoReturn

from ...config.issuers import IssuerConfig
from ...errors import NotAuthenticated
from ...principal import Clock, Principal
from ...strictjson import StrictJSONError, loads
from .authenticator import TokenCache, VerifiedToken
from .claims import (
    Claims,
    check_audience,
    check_authentication,
    check_purpose,
    check_text,
    check_times,
    date_of,
    read_only,
    roles_of,
    scopes_of,
    until,
)
from .introspection_client import IntrospectionClient, Send, bounded
from .jwt import MAX_TOKEN

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


_TOKEN_TYPES = frozenset({"bearer", "dpop"})


def check_answer(answer: Any, config: IssuerConfig, *, now: float, leeway: float) -> VerifiedToken:
    """Return what an answer proves; every member that is there is checked, because it may speak of another service.

    ``active`` alone is required by RFC 7662. Here one of ``sub`` and ``client_id`` is needed as well. ``exp``, ``aud``
    and the others may be missing: the server knows to whom it answers, and need not repeat it.

    :param answer: any JSON value.
    :param now: seconds since the epoch.
    :param leeway: seconds by which the clocks may differ.
    :raises NotAuthenticated: names the member that is missing or wrong, never its value.
    """
    if not isinstance(answer, dict) or answer.get("active") is not True:
        _refuse("the token is not active")
    _kind(answer)
    _origin(answer, config)
    check_authentication(answer)
    end = _end(answer, config.max_age, now, leeway)
    return VerifiedToken(_principal(answer, config), end, read_only(answer.get("cnf")))


def _kind(answer: Claims) -> None:
    """Refuse what is no access token: an endpoint also tells about refresh tokens (RFC 7662 section 2.1)."""
    kind = answer.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in _TOKEN_TYPES:
        _refuse("token_type is neither Bearer nor DPoP")
    # Some servers say "Bearer" of refresh tokens too, and tell them apart with token_use or typ.
    check_purpose(answer, typed=False)
    if "cnf" in answer and not isinstance(answer["cnf"], dict):
        _refuse("the claim cnf is not an object")
    if kind.lower() == "dpop" and "cnf" not in answer:
        _refuse("a DPoP token without the key that it is bound to")


def _origin(answer: Claims, config: IssuerConfig) -> None:
    if answer.get("iss", config.issuer) != config.issuer:
        _refuse("the token is from another issuer")
    if "aud" in answer:
        check_audience(answer["aud"], config.audience)


def _end(answer: Claims, max_age: float, now: float, leeway: float) -> float:
    """Return when the token ends; what the answer leaves out is as if it was issued now, for ``max_age``."""
    dated = {"iat": now, **answer}
    dated.setdefault("exp", date_of(dated, "iat") + max_age)
    check_times(dated, max_age, now, leeway)
    return until(dated, max_age)


def _principal(answer: Claims, config: IssuerConfig) -> Principal:
    for name in answer.keys() & {"sub", "client_id", "jti"}:
        check_text(answer, name)
    return Principal(
        "introspection",
        _subject(answer, config),
        config.issuer,
        scopes_of(answer),
        client_id=answer.get("client_id", ""),
        claims=read_only(answer),
        roles=roles_of(answer),
        token_id=answer.get("jti", ""),
        issued=date_of(answer, "iat") if "iat" in answer else None,
    )


def _subject(answer: Claims, config: IssuerConfig) -> str:
    """Return ``sub``, or for a client that acts on its own its ``client_id`` (RFC 9068 section 2.2).

    Where clients may choose their ids, one could take that of a user, so an issuer that leaves ``sub`` out must be
    configured as such.
    """
    if "sub" in answer:
        return str(answer["sub"])
    if "sub" not in config.omits:
        _refuse("the answer has no sub, and omits does not allow that")
    if "username" in answer:
        # A user whose name may pass to another user is no identity, and not that of the client.
        _refuse("the token speaks for a user and has no sub")
    return str(answer["client_id"]) if "client_id" in answer else _refuse("the answer has neither sub nor client_id")
