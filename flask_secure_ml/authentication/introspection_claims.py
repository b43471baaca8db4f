"""What the answer of an introspection endpoint must say (RFC 7662 section 2.2)."""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import NotAuthenticated
from ..exchange import Principal
from ..issuers import IssuerConfig
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
from .verified import VerifiedToken

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


def _refuse(reason: str) -> NoReturn:
    raise NotAuthenticated(reason)
