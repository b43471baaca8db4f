"""The terms of a policy that are about the caller: what a credential, its issuer and the object must say."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, TypedDict

from werkzeug.utils import import_string

from .exchange import Principal

Scalar = str | bool | int | float
Predicate = Callable[[Principal], bool]
OwnerHook = Callable[[Principal, Mapping[str, Any]], bool]
"""Tells whether a principal may touch the object that the arguments of the URL name."""

SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""One scope (RFC 6749 section 3.3); what fits between the quotes of a header and has no space."""


class AccessArguments(TypedDict, total=False):
    """What users write of :class:`AccessTerms`."""

    scopes: Collection[str]
    any_scopes: Collection[str] | None
    roles: Collection[str] | None
    claims: Mapping[str, Scalar | Collection[Scalar]] | None
    principals: Collection[str] | None
    when: Predicate | None
    owner: bool | str | OwnerHook
    acr_values: Collection[str] | None
    max_auth_age: int | None


@dataclass(frozen=True)
class AccessTerms:
    """Who may call a route. Every term that is given must be met; without any, every principal may.

    :param scopes: all of these scopes are needed.
    :param any_scopes: at least one of these scopes is needed.
    :param roles: at least one of these roles of the principal is needed.
    :param claims: a name and the values that are allowed for it, for each claim of the token that is asked for. A claim
        that is a list must contain one of them. Types count: ``true`` is not ``1``.
    :param principals: the only callers, each by its :attr:`~flask_secure_ml.Principal.id`.
    :param when: a function of the principal; only ``True`` itself lets it pass.
    :param owner: a function of the principal and the arguments of the URL; only ``True`` itself lets it pass. True
        stands for the function that ``SecureML(owner=...)`` was given.
    :param acr_values: one of these authentication contexts is needed, as the claim ``acr`` (RFC 9470).
    :param max_auth_age: the most seconds since the user authenticated, as the claim ``auth_time`` (RFC 9470).
    """

    scopes: frozenset[str] = frozenset()
    any_scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    claims: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()
    principals: frozenset[str] = frozenset()
    when: Predicate | None = None
    owner: bool | OwnerHook = False
    acr_values: tuple[str, ...] = ()
    max_auth_age: int | None = None

    @classmethod
    def build(
        cls,
        *,
        scopes: Collection[str] = (),
        any_scopes: Collection[str] | None = None,
        roles: Collection[str] | None = None,
        claims: Mapping[str, Scalar | Collection[Scalar]] | None = None,
        principals: Collection[str] | None = None,
        when: Predicate | None = None,
        owner: bool | str | OwnerHook = False,
        acr_values: Collection[str] | None = None,
        max_auth_age: int | None = None,
    ) -> AccessTerms:
        """Make the terms from what users write; ``owner`` may be an import name such as ``package.module:function``.

        :raises TypeError: a value of another kind, such as a single string where a list is meant.
        :raises ValueError: a value that could never be met or cannot be sent in a header.
        :raises ImportError: ``owner`` names nothing that can be imported.
        """
        return cls(
            scopes=frozenset(_tokens("scopes", strings("scopes", scopes))),
            any_scopes=frozenset(_tokens("any_scopes", _some("any_scopes", any_scopes))),
            roles=frozenset(_some("roles", roles)),
            claims=_claims(claims),
            principals=frozenset(_some("principals", principals)),
            when=_predicate(when),
            owner=_owner(owner),
            acr_values=_tokens("acr_values", _some("acr_values", acr_values)),
            max_auth_age=_age(max_auth_age),
        )


def strings(name: str, value: Any) -> tuple[str, ...]:
    """Return the entries of a list of strings.

    :raises TypeError: it is something else; one string would otherwise be taken for a list of letters.
    """
    listed = isinstance(value, Collection) and not isinstance(value, (str, Mapping))
    if not listed or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{name} must be a list of strings")
    return tuple(value)


def _some(name: str, value: Any) -> tuple[str, ...]:
    """Return the entries of a list that is not empty; an empty one could be meant to let all in, or nobody."""
    if value is None:
        return ()
    found = strings(name, value)
    if not found or not all(each.strip() for each in found):
        raise ValueError(f"{name} is empty or has an empty entry; leave it out to ask for nothing")
    return found


def _tokens(name: str, found: tuple[str, ...]) -> tuple[str, ...]:
    if not all(SCOPE_TOKEN.fullmatch(each) for each in found):
        raise ValueError(f"{name} has a space, a quote or another character that RFC 6749 section 3.3 forbids")
    return found


def _claims(value: Any) -> tuple[tuple[str, tuple[Scalar, ...]], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError('claims must be an object such as {"tenant": ["acme"]}')
    if not value:
        raise ValueError("claims is empty; leave it out to ask for nothing")
    return tuple((name, _allowed(name, given)) for name, given in value.items())


def _allowed(name: str, given: Any) -> tuple[Scalar, ...]:
    listed = isinstance(given, Collection) and not isinstance(given, str)
    values = tuple(given) if listed else (given,)
    if isinstance(given, Mapping) or not all(isinstance(each, (str, bool, int, float)) for each in values):
        raise TypeError(f"claims must name a text, a number, true or false, or a list of these for {name!r}")
    if not values:
        raise ValueError(f"claims has no value for {name!r}, so nobody could call")
    return values


def _predicate(when: Any) -> Predicate | None:
    if when is not None:
        _check_callable("when", when)
    found: Predicate | None = when
    return found


def _owner(owner: Any) -> bool | OwnerHook:
    if isinstance(owner, bool):
        return owner
    found: OwnerHook = import_string(owner) if isinstance(owner, str) else owner
    _check_callable("owner", found)
    return found


def _check_callable(name: str, hook: Any) -> None:
    # What an async function returns is true in every condition, and never True.
    if not callable(hook) or iscoroutinefunction(hook):
        raise TypeError(f"{name} must be a function that is not async")


def _age(seconds: Any) -> int | None:
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1):
        raise ValueError("max_auth_age must be a whole number of seconds, 1 or more")
    found: int | None = seconds
    return found
