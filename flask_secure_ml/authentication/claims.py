"""What the claims of an RFC 9068 access token must say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import NotAuthenticated
from ..policy import SCOPE_TOKEN

MAX_LIFETIME = 86_400
"""The longest time in seconds from ``iat`` to ``exp``. A longer one is a mistake of the issuer or an attack."""

MAX_TEXT = 512
"""The longest ``sub``, ``client_id`` and ``jti`` in characters; they become limiter keys and log fields."""

_SCOPES = re.compile(rf"{SCOPE_TOKEN.pattern}(?: {SCOPE_TOKEN.pattern})*")
_LAST_SECOND = 253_402_300_799  # of the year 9999
Claims = Mapping[str, Any]


def check_claims(claims: Claims, *, audience: str, now: float, leeway: float) -> frozenset[str]:
    """Return the scopes of a token whose claims are all right (RFC 9068 section 4, RFC 7519 section 4.1).

    :param audience: must be ``aud``, or a member of it, character by character.
    :param now: seconds since the epoch.
    :param leeway: seconds by which the clocks may differ.
    :raises NotAuthenticated: names the claim that is missing or wrong, never its value.
    """
    for name in ("sub", "client_id", "jti"):
        _text(claims, name)
    _times(claims, now, leeway)
    _audience(claims.get("aud"), audience)
    if "cnf" in claims:
        # RFC 9449 section 7.1, RFC 8705 section 3: without its proof a bound token is a stolen one.
        raise NotAuthenticated("a token bound to a key (cnf) was sent as a plain Bearer token")
    return _scopes(claims)


def _text(claims: Claims, name: str) -> None:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise NotAuthenticated(f"the claim {name} is missing or not a printable text")


def _times(claims: Claims, now: float, leeway: float) -> None:
    expires, issued = _date(claims, "exp"), _date(claims, "iat")
    if expires + leeway <= now:
        raise NotAuthenticated("the token has expired")
    if issued - leeway > now:
        raise NotAuthenticated("the token was issued in the future")
    if "nbf" in claims and _date(claims, "nbf") - leeway > now:
        raise NotAuthenticated("the token is not valid yet")
    if expires - issued > MAX_LIFETIME:
        raise NotAuthenticated(f"the token lives longer than {MAX_LIFETIME} s")


def _date(claims: Claims, name: str) -> float:
    """Return a NumericDate; the comparison also refuses NaN, infinity and integers of any length."""
    value = claims.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= _LAST_SECOND:
        raise NotAuthenticated(f"the claim {name} is missing or not a number of seconds")
    return float(value)


def _audience(value: Any, audience: str) -> None:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries) or audience not in entries:
        raise NotAuthenticated("the token is for another audience")


def _scopes(claims: Claims) -> frozenset[str]:
    value = claims.get("scope", "")
    if value == "":
        return frozenset()
    if not isinstance(value, str) or not _SCOPES.fullmatch(value):
        raise NotAuthenticated("the claim scope is not one space-delimited text")
    return frozenset(value.split(" "))
