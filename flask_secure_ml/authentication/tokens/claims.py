"""What the claims of an access token must say (RFC 9068 section 4, RFC 7519 section 4.1).

:func:`check_claims` is for a JWT, in which nothing may be missing. The answer of an introspection endpoint may leave
claims out; what it has is held to the same checks, which stand here one by one. Each raises ``NotAuthenticated`` with
the name of the claim that is missing or wrong, never with its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ...config.issuers import IssuerConfig
from ...errors import NotAuthenticated
from ...policy.options import SCOPE_TOKEN

MAX_TEXT = 512
"""The longest ``sub``, ``client_id`` and ``jti`` in characters; they become limiter keys and log fields."""

MAX_ROLES = 500
"""The most roles, groups and entitlements of each kind."""

ROLE_CLAIMS = ("roles", "groups", "entitlements")
_SCOPES = re.compile(rf"{SCOPE_TOKEN.pattern}(?: {SCOPE_TOKEN.pattern})*")
_LAST_SECOND = 253_402_300_799  # of the year 9999
# What only ID tokens and logout tokens have; without typ there is nothing else to tell them by.
_FOREIGN = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})
_KINDS = ("bearer", "dpop", "at+jwt", "application/at+jwt")
_USES = ("access", "access_token")
Claims = Mapping[str, Any]


def check_claims(claims: Claims, issuer: IssuerConfig, *, typed: bool, now: float, leeway: float) -> frozenset[str]:
    """Return the scopes of a token whose claims are all right.

    :param issuer: says for whom the token must be, how old it may be, and what it may lack.
    :param typed: its header says that it is an access token.
    :param now: seconds since the epoch.
    :param leeway: seconds by which the clocks may differ.
    :raises NotAuthenticated: names the claim that is missing or wrong, never its value.
    """
    check_text(claims, "sub")
    for name in ("client_id", "jti"):
        if name in claims or name not in issuer.omits:
            check_text(claims, name)
    check_times(claims, issuer.max_age, now, leeway)
    check_audience(claims.get("aud"), issuer.audience)
    check_purpose(claims, typed=typed)
    check_authentication(claims)
    return scopes_of(claims)


def check_text(claims: Claims, name: str) -> None:
    """Refuse a claim that is missing, no text, empty, very long, or has characters that change how a log looks."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise NotAuthenticated(f"the claim {name} is missing or not a printable text")


def check_times(claims: Claims, max_age: float, now: float, leeway: float) -> None:
    """Refuse a token outside its time, or one that lives longer than ``max_age`` seconds.

    A longer life is a mistake of the issuer or an attack, and is refused from the first day. So a token that passes
    is never older than ``max_age`` and the leeway.
    """
    expires, issued = date_of(claims, "exp"), date_of(claims, "iat")
    if expires + leeway <= now:
        raise NotAuthenticated("the token has expired")
    if issued - leeway > now:
        raise NotAuthenticated("the token was issued in the future")
    if "nbf" in claims and date_of(claims, "nbf") - leeway > now:
        raise NotAuthenticated("the token is not valid yet")
    if expires - issued > max_age:
        raise NotAuthenticated(f"the token lives longer than {max_age} s")


def check_audience(value: Any, audience: str) -> None:
    """Refuse a token whose ``aud`` neither is the audience nor has it, character by character."""
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries) or audience not in entries:
        raise NotAuthenticated("the token is for another audience")


def check_purpose(claims: Claims, *, typed: bool) -> None:
    """Refuse other kinds of JWT (RFC 8725bis section 3.12).

    :param typed: a header says that this is an access token; without it more is asked of the claims.
    """
    if claims.get("token_use", "access") not in _USES:
        raise NotAuthenticated("token_use is not that of an access token")
    if typed:
        return
    if foreign := sorted(_FOREIGN & claims.keys()):
        raise NotAuthenticated(f"a token without typ at+jwt has {', '.join(foreign)}, as no access token has")
    # Not in any RFC: servers that give all their tokens the typ JWT say here which kind each is.
    kind = claims.get("typ", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in _KINDS:
        raise NotAuthenticated("the claim typ is not that of an access token")


def check_authentication(claims: Claims) -> None:
    """Check the types of what says how the user authenticated (RFC 9068 section 2.2.1)."""
    if "auth_time" in claims:
        date_of(claims, "auth_time")
    if "acr" in claims:
        check_text(claims, "acr")
    if "amr" in claims:
        _texts(claims, "amr")


def date_of(claims: Claims, name: str) -> float:
    """Return a NumericDate; the comparison also refuses NaN, infinity and integers of any length."""
    value = claims.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= _LAST_SECOND:
        raise NotAuthenticated(f"the claim {name} is missing or not a number of seconds")
    return float(value)


def until(claims: Claims, max_age: float) -> float:
    """Return when a token that was checked ends, in seconds since the epoch: by its own word or by its age."""
    return min(date_of(claims, "exp"), date_of(claims, "iat") + max_age)


def scopes_of(claims: Claims) -> frozenset[str]:
    """Return the scopes (RFC 8693 section 4.2); none where there is no ``scope`` or an empty one."""
    value = claims.get("scope", "")
    if value == "":
        return frozenset()
    if not isinstance(value, str) or not _SCOPES.fullmatch(value):
        raise NotAuthenticated("the claim scope is not one space-delimited text")
    return frozenset(value.split(" "))


def roles_of(claims: Claims) -> frozenset[str]:
    """Return the roles, groups and entitlements (RFC 9068 section 2.2.3.1), which are lists of printable texts."""
    return frozenset(role for name in ROLE_CLAIMS if name in claims for role in _texts(claims, name))


def client_of(claims: Claims) -> str:
    """Return who asked for the token: ``client_id``, or else ``azp`` of OpenID Connect, or an empty text."""
    name = "client_id" if "client_id" in claims or "azp" not in claims else "azp"
    if name in claims:
        check_text(claims, name)
    return str(claims.get(name, ""))


def read_only(value: Any) -> Any:
    """Return a JSON value that nobody can change: a remembered token serves many requests.

    Arrays become tuples, objects read-only mappings.
    """
    if isinstance(value, dict):
        return MappingProxyType({name: read_only(each) for name, each in value.items()})
    return tuple(map(read_only, value)) if isinstance(value, list) else value


def _texts(claims: Claims, name: str) -> list[str]:
    values = claims[name]
    if not isinstance(values, list) or len(values) > MAX_ROLES:
        raise NotAuthenticated(f"the claim {name} is not a list of at most {MAX_ROLES} texts")
    if not all(isinstance(value, str) and value and value.isprintable() for value in values):
        raise NotAuthenticated(f"the claim {name} has an entry that is not a printable text")
    return values
