"""The checks of an access token's claims (RFC 9068 section 4, RFC 7519 section 4.1).

:func:`check_claims` checks those of a JWT. The response of an introspection endpoint may omit more claims, and those it
has pass the same checks, one by one. Each raises ``NotAuthenticated`` with the name of the claim that is missing or
wrong, never with its value. What an issuer's options relax is exactly what they name.
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
"""The most roles, groups and entitlements of each kind."""

_LAST_SECOND = 253_402_300_799  # of the year 9999
# Claims of ID tokens and logout tokens; without typ nothing else distinguishes these.
_FOREIGN = frozenset({"nonce", "at_hash", "c_hash", "s_hash", "events"})
_KINDS = ("bearer", "dpop", "at+jwt", "application/at+jwt")
_USES = ("access", "access_token")
# Where null is not the same as a missing claim: what a token is, for whom, until when, and what it is bound to.
_NEVER_NULL = _FOREIGN | {"iss", "aud", "exp", "iat", "scope", "cnf", "typ", "token_use", "token_type"}
Claims = Mapping[str, Any]


def sound(claims: Claims) -> dict[str, Any]:
    """Return the claims without those that are null, and without those that only inform and are malformed.

    A policy that needs one of these rejects the caller, as it does where the claim is missing.
    """
    return {name: value for name, value in claims.items() if _is_sound(name, value)}


def _is_sound(name: str, value: Any) -> bool:
    if value is None:
        return name in _NEVER_NULL
    check = _INFORMING.get(name)
    return check is None or check(value)


def find(claims: Claims, path: str) -> Any:
    """Return the value at a path, or None; a name may contain dots itself, and the longest that is there counts."""
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
    """Return the first of some paths that has a value, and the value; an empty name and None where none has."""
    found = ((path, find(claims, path)) for path in paths)
    return next(((path, value) for path, value in found if value is not None), ("", None))


def check_claims(claims: Claims, issuer: IssuerConfig, *, typed: bool, now: float, leeway: float) -> None:
    """Reject a token with a claim that is missing or wrong, but for who its caller is.

    :param claims: those of a JWT that are sound.
    :param issuer: has the audience, the longest lifetime, and the claims that may be missing.
    :param typed: the header declares an access token.
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
    """Return a claim that is a string; reject one that is missing, empty, very long, or could forge a line of a log."""
    if not is_string(value):
        raise NotAuthenticated(f"the claim {name} is missing or not a printable string")
    return str(value)


def is_string(value: Any) -> bool:
    """Return True for a printable string of a usual length."""
    return isinstance(value, str) and 0 < len(value) <= MAX_STRING and value.isprintable()


def check_required(claims: Claims, issuer: IssuerConfig) -> None:
    """Reject a token without the ``required_claims`` of its issuer; types count, so that true is not 1."""
    for path, accepted in issuer.required_claims:
        found = find(claims, path)
        values = found if isinstance(found, (list, tuple)) else (found,)
        if not any(type(value) is type(each) and value == each for value in values for each in accepted):
            raise NotAuthenticated(f"the claim {path} is missing or has another value than required_claims")


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


def check_audience(value: Any, audiences: tuple[str, ...]) -> None:
    """Reject a token whose audience neither is nor contains one of these, character by character."""
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries) or not set(audiences) & set(entries):
        raise NotAuthenticated("the token is for another audience")


def check_purpose(claims: Claims, *, typed: bool, allowed: frozenset[str] = frozenset()) -> None:
    """Reject other kinds of JWT (RFC 8725bis section 3.12).

    :param typed: the header declares an access token; otherwise the claims are checked more strictly.
    :param allowed: claims of other kinds that access tokens of this issuer have too.
    """
    if claims.get("token_use", "access") not in _USES:
        raise NotAuthenticated("token_use is not that of an access token")
    if typed:
        return
    if foreign := sorted((_FOREIGN - allowed) & claims.keys()):
        raise NotAuthenticated(f"a token without typ at+jwt has {', '.join(foreign)}, which no access token has")
    # Not in any RFC: servers whose tokens all have the typ JWT declare the kind of each here.
    kind = claims.get("typ", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in _KINDS:
        raise NotAuthenticated("the claim typ is not that of an access token")


def date_of(claims: Claims, name: str) -> float:
    """Return a NumericDate; the comparison also rejects NaN, infinity and integers of any length."""
    value = claims.get(name)
    if not _is_date(value):
        raise NotAuthenticated(f"the claim {name} is missing or not a number of seconds")
    return float(value)


def _is_date(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LAST_SECOND


def end_of(claims: Claims, max_age: float) -> float:
    """Return when a checked token expires, in seconds since the epoch: by its ``exp`` or by its age."""
    return min(date_of(claims, "exp"), date_of(claims, "iat") + max_age)


def read_only(value: Any) -> Any:
    """Return an immutable JSON value: a cached token serves many requests.

    Arrays become tuples, objects read-only mappings.
    """
    if isinstance(value, dict):
        return MappingProxyType({name: read_only(each) for name, each in value.items()})
    return tuple(map(read_only, value)) if isinstance(value, list) else value


def is_list_of_strings(value: Any) -> bool:
    """Return True for a list of printable strings that is not too long."""
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
