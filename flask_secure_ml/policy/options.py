"""The terms of a policy that are about the caller: what a credential, its issuer and the object must say."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, TypedDict

from werkzeug.utils import import_string

from ..principal import Principal

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


CapTerms = tuple[tuple[str, int], ...]


class CapArguments(TypedDict, total=False):
    """Some caps by the names of their settings, in lower case and without the prefix."""

    max_json_depth: int
    max_json_members: int
    max_string_length: int
    max_elements: int
    max_decoded_bytes: int


def checked_caps(given: Any) -> CapTerms:
    """Return the caps in the order of their names.

    :raises ValueError: anything but an object of known caps, each a number from 1; the message completes a sentence
        that begins with the name of the term.
    """
    known = CapArguments.__annotations__.keys()
    if not isinstance(given, Mapping) or not given or not known >= given.keys():
        raise ValueError(f"must be an object with at least one of {', '.join(known)}")
    for name, cap in given.items():
        if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
            raise ValueError(f"has a {name} that is no whole number from 1")
    return tuple(sorted(given.items()))


MOST_DECIMALS = 15
"""A double names about as many digits, so more would round nothing."""


class ScoreArguments(TypedDict, total=False):
    """What users write of :class:`ScoreOptions`."""

    round: int | None
    top_k: int | None
    label_only: bool
    nan: str | None


@dataclass(frozen=True)
class ScoreOptions:
    """What happens to the scores of an answer, which are its numbers with a fraction part by type: its floats.

    :param round: the decimals that scores keep.
    :param top_k: how many of the scores along the last dimension of an array keep their value.
    :param label_only: scores are removed; integers, texts and booleans stay.
    :param nan: ``refuse`` withholds an answer with NaN or Infinity, which is also what happens without this term;
        ``null`` lets them pass, as null in JSON, which has no such numbers (RFC 8259 section 6).
    """

    round: int | None = None
    top_k: int | None = None
    label_only: bool = False
    nan: str | None = None

    @classmethod
    def build(cls, terms: Any) -> ScoreOptions:
        """Make the terms from what users write, such as ``{"round": 3, "top_k": 2}``.

        :raises ValueError: anything else; the message completes a sentence that begins with the name of the setting.
        """
        if not isinstance(terms, Mapping) or not terms:
            raise ValueError('must be an object such as {"round": 3, "top_k": 2}, with at least one term')
        unknown = sorted(map(str, terms.keys() - cls.__dataclass_fields__.keys()))
        if unknown:
            raise ValueError(f"has no term {unknown[0]!r}; the terms are round, top_k, label_only and nan")
        return cls(
            round=_whole("round", terms.get("round"), 0, MOST_DECIMALS),
            top_k=_whole("top_k", terms.get("top_k"), 1),
            label_only=_flag(terms.get("label_only", False)),
            nan=_nan(terms.get("nan")),
        )

    @property
    def shapes(self) -> bool:
        """Whether any term changes scores."""
        return self.round is not None or self.top_k is not None or self.label_only

    @property
    def allows_nan(self) -> bool:
        """Whether NaN and Infinity may pass. They have no rank, so never beside ``top_k``."""
        return self.nan == "null" and self.top_k is None

    def stricter(self, other: ScoreOptions) -> ScoreOptions:
        """Return terms that are as strict as both, term by term."""
        return ScoreOptions(
            round=_least(self.round, other.round),
            top_k=_least(self.top_k, other.top_k),
            label_only=self.label_only or other.label_only,
            nan="refuse" if "refuse" in (self.nan, other.nan) else self.nan or other.nan,
        )


NO_TERMS = ScoreOptions()


def _whole(name: str, value: Any, low: int, high: int | None = None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        limits = f"{low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"must have a whole number for {name}, {limits}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must have true or false for label_only")
    return value


def _nan(value: Any) -> str | None:
    if value not in (None, "refuse", "null"):
        raise ValueError("must have 'refuse' or 'null' for nan")
    found: str | None = value
    return found


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
