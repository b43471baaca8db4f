"""Opaque access tokens, verified by introspection at the authorization server that issued them (RFC 7662)."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NoReturn

from ...config.issuers import IssuerConfig
from ...errors import NotAuthenticated
from ...fetch import TIMEOUT
from ...principal import Clock, Principal
from ...refresh import SingleFlight
from ...strictjson import StrictJSONError, loads
from ..throttle import UNLIMITED, Calls
from .authenticator import TokenCache, VerifiedToken
from .claims import (
    Claims,
    check_audience,
    check_purpose,
    check_required,
    check_string,
    check_times,
    date_of,
    end_of,
    first,
    read_only,
    sound,
)
from .identity import client_of, plan_of, roles_of, scopes_of, subject_of
from .introspection_client import IntrospectionClient, Send, bounded, unavailable

MAX_CACHED = 10_000
"""The maximum number of responses of each kind that one process caches."""

NEGATIVE_AGE = 5
"""Seconds for which the rejection of a token is cached."""

_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_EXPIRED = (-math.inf, None)
_PATIENCE = 3 * TIMEOUT


class Introspector:
    """Verifies opaque tokens at the introspection endpoint of an issuer.

    A token may be meant for another resource server, so all members of a response are checked. A response is cached
    under the SHA-256 of the token, never beyond the expiry of the token (RFC 7662 section 4).

    :param config: has ``introspection_uri``, ``client_id`` and ``client_secret``.
    :param leeway: seconds by which the clocks of issuer and server may differ.
    :param max_age: seconds for which a response about a valid token is cached; 0 disables both caches.
    :param send: POSTs a body with headers to a URL and returns status and body.
    :raises ValueError: the issuer has no introspection endpoint.
    """

    def __init__(
        self, config: IssuerConfig, clock: Clock, *, leeway: float, max_age: float, send: Send | None = None
    ) -> None:
        self._config = config
        self._clock = clock
        self._leeway = leeway
        self._max_age = max_age
        self._client = IntrospectionClient(config, clock, send or bounded(config))
        # Two caches, so that a flood of made-up tokens cannot evict valid ones.
        self._valid: TokenCache[tuple[float, VerifiedToken]] = TokenCache(MAX_CACHED)
        self._rejected: TokenCache[tuple[float, str]] = TokenCache(MAX_CACHED)
        self._flights = SingleFlight()

    def accepts(self, token: str) -> bool:
        """Return True if a string is one b64token (RFC 6750 section 2.1), as any opaque token is."""
        return _B64TOKEN.fullmatch(token) is not None

    def verify(self, token: str, calls: Calls = UNLIMITED) -> VerifiedToken:
        """Verify a token.

        Every rejection counts as a failed attempt, even if the endpoint reports that the token is active, because it
        may have cost a network request, which a throttle limits.

        :param calls: decides whether a token that is not cached may be introspected.
        :raises NotAuthenticated: it is not active, or not for this app.
        :raises DependencyUnavailable: the endpoint cannot be reached, or rejects this app's credentials.
        """
        if len(token) > self._config.max_token_bytes or not self.accepts(token):
            _reject("the token is too long or has characters that are not allowed in a token")
        if not self._max_age:
            return self._introspect(token, calls)
        return self._cached(token) or self._in_one_flight(token, calls)

    def _cached(self, token: str) -> VerifiedToken | None:
        """Return the cached result, unless it is too old or the token has expired.

        The age is measured by the monotonic clock, the expiry of the token by the system time.
        """
        now = self._clock.monotonic()
        until, verified = self._valid.get(token) or _EXPIRED
        if verified is not None and now < until and self._clock.now() < verified.expires:
            return verified
        until, reason = self._rejected.get(token) or _EXPIRED
        if reason is not None and now < until:
            _reject(reason)
        return None

    def _in_one_flight(self, token: str, calls: Calls) -> VerifiedToken:
        """Introspect a token in one thread at a time; the other threads use its cached result."""
        try:
            return self._flights.run(
                token, lambda: self._cached(token), lambda: self._introspect_and_cache(token, calls), _PATIENCE
            )
        except TimeoutError:
            raise unavailable("the introspection endpoint did not respond in time") from None

    def _introspect_and_cache(self, token: str, calls: Calls) -> VerifiedToken:
        try:
            verified = self._introspect(token, calls)
        except NotAuthenticated as error:
            self._rejected.put(token, (self._clock.monotonic() + NEGATIVE_AGE, error.reason))
            raise
        self._valid.put(token, (self._clock.monotonic() + self._max_age, verified))
        return verified

    def _introspect(self, token: str, calls: Calls) -> VerifiedToken:
        calls.introspect()
        response = _parse(*self._client.introspect(token))
        now = self._clock.now()
        verified = check_response(response, self._config, now=now, leeway=self._leeway)
        return replace(verified, expires=min(now + self._max_age, verified.expires))


def _parse(status: int, body: bytes) -> Any:
    """Return the JSON value of a response; reject the token if it is malformed (RFC 7662 section 2.2)."""
    if status != HTTPStatus.OK:
        _reject(f"the introspection endpoint responded with status {status}")
    try:
        return loads(body)
    except StrictJSONError as error:
        _reject(f"the response of the introspection endpoint is not strict JSON: {error}")


def _reject(reason: str) -> NoReturn:
    raise NotAuthenticated(reason)


_TOKEN_TYPES = frozenset({"bearer", "dpop"})


def check_response(response: Any, config: IssuerConfig, *, now: float, leeway: float) -> VerifiedToken:
    """Return the verified token that a response describes.

    All members are checked, because the token may be for another service. RFC 7662 requires only ``active``; here,
    ``sub`` or ``client_id`` is required too. ``exp``, ``aud`` and others may be missing: the server knows its client,
    and need not repeat them.

    :param response: any JSON value.
    :param now: seconds since the epoch.
    :param leeway: seconds by which the clocks may differ.
    :raises NotAuthenticated: names the member that is missing or wrong, never its value.
    """
    if not isinstance(response, dict) or response.get("active") is not True:
        _reject("the token is not active")
    response = sound(response)
    _kind(response, config)
    _origin(response, config)
    check_required(response, config)
    end = _expiry(response, config.max_age, now, leeway)
    return VerifiedToken(_principal(response, config), end, read_only(response.get("cnf")))


def _kind(response: Claims, config: IssuerConfig) -> None:
    """Reject tokens other than access tokens: endpoints also introspect refresh tokens (RFC 7662 section 2.1)."""
    kind = response.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in _TOKEN_TYPES | config.token_types:
        _reject("token_type is neither Bearer nor DPoP")
    # Some servers use "Bearer" for refresh tokens too, and distinguish them with token_use or typ.
    check_purpose(response, typed=False, allowed=config.id_token_claims)
    if "cnf" in response and not isinstance(response["cnf"], dict):
        _reject("the claim cnf is not an object")
    if kind.lower() == "dpop" and "cnf" not in response:
        _reject("a DPoP token is not bound to a key")


def _origin(response: Claims, config: IssuerConfig) -> None:
    if response.get("iss", config.issuer) != config.issuer:
        _reject("the token is from another issuer")
    _, audience = first(response, config.audience_claims)
    if "aud" in config.omits and audience in (None, []):
        return
    if audience is not None or "aud" in response:
        check_audience(audience, config.audiences)


def _expiry(response: Claims, max_age: float, now: float, leeway: float) -> float:
    """Return when the token expires; by default, ``max_age`` seconds from now."""
    dated = {"iat": now, **response}
    dated.setdefault("exp", date_of(dated, "iat") + max_age)
    check_times(dated, max_age, now, leeway)
    return end_of(dated, max_age)


def _principal(response: Claims, config: IssuerConfig) -> Principal:
    for name in response.keys() & {"sub", "client_id", "jti"}:
        check_string(name, response[name])
    # The server knows its client, and need not repeat its id.
    client = client_of(response, config) if config.client_claims else str(response.get("client_id", ""))
    return Principal(
        "introspection",
        subject_of(response, config, client),
        config.issuer,
        scopes_of(response, config),
        plan=plan_of(response, config, client),
        client_id=client,
        claims=read_only(response),
        roles=roles_of(response, config),
        token_id=response.get("jti", ""),
        issued=date_of(response, "iat") if "iat" in response else None,
    )
