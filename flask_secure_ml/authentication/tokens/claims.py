"""The checks of an access token's claims (RFC 9068 section 4, RFC 7519 section 4.1).

:func:`check_claims` checks the claims of a JWT. The response of an introspection endpoint may omit more of them, so
each claim that it has is checked separately, by the same functions. Each function raises ``NotAuthenticated`` with the
name of the claim that is missing or wrong, never with its value. An issuer's options relax only the checks that they
name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeGuard

from ...config.issuers import IssuerConfig
from ...errors import NotAuthenticated

MAX_STRING = 512
"""The longest ``sub``, ``client_id`` and ``jti`` in characters; they become limiter keys and log fields."""

MAX_ROLES = 500
"""The maximum number of roles, of groups and of entitlements."""

_LAST_SECOND = 253_402_300_799  # of the year 9999
# Claims of ID tokens and logout tokens; without typ, only these distinguish them from access tokens.
_FOREIGN = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})
_KINDS = ("bearer", "dpop", "at+jwt", "application/at+jwt")
_USES = ("access", "access_token")
# Claims for which null is not the same as missing: they state the kind, audience, lifetime and binding of a token.
_NEVER_NULL = _FOREIGN | {"iss", "aud", "exp", "iat", "scope", "cnf", "typ", "token_use", "token_type"}
Claims = Mapping[str, Any]


def sound(claims: Claims) -> dict[str, Any]:
    """Return the claims without those that are null, and without malformed ones that are informational.

    A policy that requires such a claim rejects the caller, as if the claim were missing.
    """
    return {name: value for name, value in claims.items() if _is_sound(name, value)}


def _is_sound(name: str, value: Any) -> bool:
    if value is None:
        return name in _NEVER_NULL
    check = _INFORMING.get(name)
    return check is None or check(value)


def find(claims: Claims, path: str) -> Any:
    """Return the value at a dotted path, or None.

    Names may contain dots themselves; the longest matching name is used.
    """
    if path in claims:
        return claims[path]
    end = path.rfind(".")
    while end > 0:
        inner = claims.get(path[:end])
        if isinstance(inner, Mapping):
            return find(inner, path[end + 1 :])
        end = path.rfind(".", 0, end)
    return None


def first(claims: Claims, paths: Iterable[str]) -> tuple[str, Any]:
    """Return the first path that has a value, and the value, or else an empty string and None."""
    found = ((path, find(claims, path)) for path in paths)
    return next(((path, value) for path, value in found if value is not None), ("", None))


def check_claims(claims: Claims, issuer: IssuerConfig, *, typed: bool, now: float, leeway: float) -> None:
    """Reject a token with a missing or wrong claim.

    The claims that identify the caller are not checked here.

    :param claims: the claims of a JWT, from :func:`sound`.
    :param issuer: has the audience, the maximum lifetime, and the claims that may be missing.
    :param typed: whether the header declares an access token.
    :param now: seconds since the epoch.
    :param leeway: seconds by which the clocks may differ.
    :raises NotAuthenticated: names the claim that is missing or wrong, never its value.
    """
    if "jti" in claims or "jti" not in issuer.omits:
        check_string("jti", claims.get("jti"))
    check_times(claims, issuer.max_age, now, leeway)
    check_audience(first(claims, issuer.audience_claims)[1], issuer.audiences)
    check_purpose(claims, typed=typed, allowed=issuer.id_token_claims)
    check_required(claims, issuer)


def check_string(name: str, value: Any) -> str:
    """Return the value of a claim that must be a string.

    Reject one that is missing, empty or too long, or that could forge a log line.
    """
    if not is_string(value):
        raise NotAuthenticated(f"the claim {name} is missing or not a printable string")
    return str(value)


def is_string(value: Any) -> bool:
    """Return True if a value is a printable string of 1 to ``MAX_STRING`` characters."""
    return isinstance(value, str) and 0 < len(value) <= MAX_STRING and value.isprintable()


def check_required(claims: Claims, issuer: IssuerConfig) -> None:
    """Reject a token without the ``required_claims`` of its issuer.

    Types are compared too: true is not 1.
    """
    for path, accepted in issuer.required_claims:
        found = find(claims, path)
        values = found if isinstance(found, (list, tuple)) else (found,)
        if not any(type(value) is type(each) and value == each for value in values for each in accepted):
            raise NotAuthenticated(f"the claim {path} is missing or does not have the value in required_claims")


def check_times(claims: Claims, max_age: float, now: float, leeway: float) -> None:
    """Reject a token outside its lifetime, or one whose lifetime is longer than ``max_age`` seconds.

    A longer lifetime is a mistake of the issuer or an attack, and the token is rejected even while it is new. An
    accepted token is therefore never older than ``max_age`` plus the leeway.
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


def check_audience(value: Any, audiences: tuple[str, ...]) -> None:
    """Reject a token whose audience neither equals nor contains one of these strings, compared exactly."""
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries) or not set(audiences) & set(entries):
        raise NotAuthenticated("the token is for another audience")


def check_purpose(claims: Claims, *, typed: bool, allowed: frozenset[str] = frozenset()) -> None:
    """Reject other kinds of JWT (RFC 8725bis section 3.12).

    :param typed: whether the header declares an access token; if not, the claims are checked more strictly.
    :param allowed: claims of other kinds of token that access tokens of this issuer have too.
    """
    if claims.get("token_use", "access") not in _USES:
        raise NotAuthenticated("token_use is not that of an access token")
    if typed:
        return
    if foreign := sorted((_FOREIGN - allowed) & claims.keys()):
        raise NotAuthenticated(f"a token without typ at+jwt has {', '.join(foreign)}, so it is not an access token")
    # Not in any RFC: some servers set the header typ to JWT for all tokens, and declare the kind in this claim.
    kind = claims.get("typ", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in _KINDS:
        raise NotAuthenticated("the claim typ is not that of an access token")


def date_of(claims: Claims, name: str) -> float:
    """Return a NumericDate; the range check also rejects NaN, infinity and huge integers."""
    value = claims.get(name)
    if not _is_date(value):
        raise NotAuthenticated(f"the claim {name} is missing or not a number of seconds")
    return float(value)


def _is_date(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LAST_SECOND


def end_of(claims: Claims, max_age: float) -> float:
    """Return when a checked token expires, in seconds since the epoch: by ``exp`` or by ``max_age``."""
    return min(date_of(claims, "exp"), date_of(claims, "iat") + max_age)


def read_only(value: Any) -> Any:
    """Return an immutable copy of a JSON value.

    It must be immutable because a cached token is used for many requests. Arrays become tuples, objects read-only
    mappings.
    """
    if isinstance(value, dict):
        return MappingProxyType({name: read_only(each) for name, each in value.items()})
    return tuple(map(read_only, value)) if isinstance(value, list) else value


def is_list_of_strings(value: Any) -> bool:
    """Return True if a value is a list of at most ``MAX_ROLES`` printable strings."""
    return (
        isinstance(value, list)
        and len(value) <= MAX_ROLES
        and all(isinstance(each, str) and each and each.isprintable() for each in value)
    )


_INFORMING: Mapping[str, Callable[[Any], bool]] = {
    "acr": is_string,
    "amr": is_list_of_strings,
    "auth_time": _is_date,
    "groups": lambda value: is_string(value) or is_list_of_strings(value),
}
