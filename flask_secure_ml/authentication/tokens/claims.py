"""The checks of an access token's claims (RFC 9068 section 4, RFC 7519 section 4.1).

:func:`check_claims` checks those of a JWT, in which none may be missing. The response of an introspection endpoint may
omit claims, and those it has pass the same checks, one by one. Each raises ``NotAuthenticated`` with the name of the
claim that is missing or wrong, never with its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ...config.issuers import IssuerConfig
from ...errors import NotAuthenticated
from ...policy.options import SCOPE_TOKEN

MAX_STRING = 512
"""The longest ``sub``, ``client_id`` and ``jti`` in characters; they become limiter keys and log fields."""

MAX_ROLES = 500
"""The most roles, groups and entitlements of each kind."""

ROLE_CLAIMS = ("roles", "groups", "entitlements")
_SCOPES = re.compile(rf"{SCOPE_TOKEN.pattern}(?: {SCOPE_TOKEN.pattern})*")
_LAST_SECOND = 253_402_300_799  # of the year 9999
# Claims of ID tokens and logout tokens; without typ nothing else distinguishes these.
_FOREIGN = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})
_KINDS = ("bearer", "dpop", "at+jwt", "application/at+jwt")
_USES = ("access", "access_token")
Claims = Mapping[str, Any]


def check_claims(claims: Claims, issuer: IssuerConfig, *, typed: bool, now: float, leeway: float) -> frozenset[str]:
    """Return the scopes of a token whose claims are all valid.

    :param issuer: has the audience, the longest lifetime, and the claims that may be missing.
    :param typed: the header declares an access token.
    :param now: seconds since the epoch.
    :param leeway: seconds by which the clocks may differ.
    :raises NotAuthenticated: names the claim that is missing or wrong, never its value.
    """
    check_string(claims, "sub")
    for name in ("client_id", "jti"):
        if name in claims or name not in issuer.omits:
            check_string(claims, name)
    check_times(claims, issuer.max_age, now, leeway)
    check_audience(claims.get("aud"), issuer.audience)
    check_purpose(claims, typed=typed)
    check_authentication(claims)
    return scopes_of(claims)


def check_string(claims: Claims, name: str) -> None:
    """Reject a claim that is missing, not a string, empty, very long, or could forge a line of a log."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_STRING or not value.isprintable():
        raise NotAuthenticated(f"the claim {name} is missing or not a printable string")


def check_times(claims: Claims, max_age: float, now: float, leeway: float) -> None:
    """Reject a token outside its lifetime, or one whose lifetime is longer than ``max_age`` seconds.

    A longer lifetime is a mistake of the issuer or an attack, and is rejected from the first day. So a token that
    passes is never older than ``max_age`` and the leeway.
    """
    expires, issued = date_of(claims, "exp"), date_of(claims, "iat")
    if expires + leeway <= now:
        raise NotAuthenticated("the token has expired")
    if issued - leeway > now:
        raise NotAuthenticated("the token was issued in the future")
    if "nbf" in claims and date_of(claims, "nbf") - leeway > now:
        raise NotAuthenticated("the token is not valid yet")
    if expires - issued > max_age:
        raise NotAuthenticated(f"the lifetime of the token is longer than {max_age} s")


def check_audience(value: Any, audience: str) -> None:
    """Reject a token whose ``aud`` neither is nor contains the audience, character by character."""
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries) or audience not in entries:
        raise NotAuthenticated("the token is for another audience")


def check_purpose(claims: Claims, *, typed: bool) -> None:
    """Reject other kinds of JWT (RFC 8725bis section 3.12).

    :param typed: the header declares an access token; otherwise the claims are checked more strictly.
    """
    if claims.get("token_use", "access") not in _USES:
        raise NotAuthenticated("token_use is not that of an access token")
    if typed:
        return
    if foreign := sorted(_FOREIGN & claims.keys()):
        raise NotAuthenticated(f"a token without typ at+jwt has {', '.join(foreign)}, which no access token has")
    # Not in any RFC: servers whose tokens all have the typ JWT declare the kind of each here.
    kind = claims.get("typ", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in _KINDS:
        raise NotAuthenticated("the claim typ is not that of an access token")


def check_authentication(claims: Claims) -> None:
    """Check the types of the claims about the user's authentication (RFC 9068 section 2.2.1)."""
    if "auth_time" in claims:
        date_of(claims, "auth_time")
    if "acr" in claims:
        check_string(claims, "acr")
    if "amr" in claims:
        _strings(claims, "amr")


def date_of(claims: Claims, name: str) -> float:
    """Return a NumericDate; the comparison also rejects NaN, infinity and integers of any length."""
    value = claims.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= _LAST_SECOND:
        raise NotAuthenticated(f"the claim {name} is missing or not a number of seconds")
    return float(value)


def end_of(claims: Claims, max_age: float) -> float:
    """Return when a checked token expires, in seconds since the epoch: by its ``exp`` or by its age."""
    return min(date_of(claims, "exp"), date_of(claims, "iat") + max_age)


def scopes_of(claims: Claims) -> frozenset[str]:
    """Return the scopes (RFC 8693 section 4.2); none where there is no ``scope`` or an empty one."""
    value = claims.get("scope", "")
    if value == "":
        return frozenset()
    if not isinstance(value, str) or not _SCOPES.fullmatch(value):
        raise NotAuthenticated("the claim scope is not one space-delimited string")
    return frozenset(value.split(" "))


def roles_of(claims: Claims) -> frozenset[str]:
    """Return the roles, groups and entitlements (RFC 9068 section 2.2.3.1), which are lists of printable strings."""
    return frozenset(role for name in ROLE_CLAIMS if name in claims for role in _strings(claims, name))


def client_of(claims: Claims) -> str:
    """Return the client of the token: ``client_id``, or else ``azp`` of OpenID Connect, or an empty string."""
    name = "client_id" if "client_id" in claims or "azp" not in claims else "azp"
    if name in claims:
        check_string(claims, name)
    return str(claims.get(name, ""))


def read_only(value: Any) -> Any:
    """Return an immutable JSON value: a cached token serves many requests.

    Arrays become tuples, objects read-only mappings.
    """
    if isinstance(value, dict):
        return MappingProxyType({name: read_only(each) for name, each in value.items()})
    return tuple(map(read_only, value)) if isinstance(value, list) else value


def _strings(claims: Claims, name: str) -> list[str]:
    values = claims[name]
    if not isinstance(values, list) or len(values) > MAX_ROLES:
        raise NotAuthenticated(f"the claim {name} is not a list of at most {MAX_ROLES} strings")
    if not all(isinstance(value, str) and value and value.isprintable() for value in values):
        raise NotAuthenticated(f"the claim {name} has an entry that is not a printable string")
    return values
