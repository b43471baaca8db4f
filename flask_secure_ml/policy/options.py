"""The options of a policy that are about the caller, the size of a body, and the precision of scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, TypedDict

from marshmallow import ValidationError
from werkzeug.utils import import_string

from ..principal import Principal
from .fields import Boolean, Choice, Integer, StrictField, Strings
from .schema import option

Scalar = str | bool | int | float
Predicate = Callable[[Principal], bool]
OwnerHook = Callable[[Principal, Mapping[str, Any]], bool]
"""Returns True if a principal may touch the object that the arguments of the URL name."""

SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""One scope (RFC 6749 section 3.3); what fits between the quotes of a header and has no space."""


def scope(entry: str) -> str:
    """Return a scope.

    :raises ValidationError: it is not one.
    """
    if not SCOPE_TOKEN.fullmatch(entry):
        raise ValidationError(f"{entry!r} has a space, a quote or another character that RFC 6749 section 3.3 forbids")
    return entry


def imported(name: str) -> Any:
    """Return the object of an import name such as ``package.module:object``.

    :raises ValidationError: there is none.
    """
    try:
        return import_string(name)
    except ImportError as error:
        raise ValidationError(f"cannot import {name!r}: {error}") from None


class Claims(StrictField):
    """Names of claims, and for each the values that are allowed."""

    def __init__(self) -> None:
        super().__init__('an object such as {"tenant": ["acme"]}', nullable=True)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise self.wrong(value)
        if not value:
            raise ValidationError("is empty; leave it out, or name at least one claim")
        errors = {name: [error] for name, given in value.items() if (error := _claim_error(given))}
        if errors:
            raise ValidationError(errors)
        return tuple((name, _allowed(given)) for name, given in value.items())


def _claim_error(given: Any) -> str | None:
    values = () if isinstance(given, Mapping) else _allowed(given)
    if isinstance(given, Mapping) or not all(isinstance(each, (str, bool, int, float)) for each in values):
        return "must be a string, a number, true or false, or a list of these"
    return None if values else "has no value, so nobody could call"


def _allowed(given: Any) -> tuple[Scalar, ...]:
    return tuple(given) if isinstance(given, Collection) and not isinstance(given, str) else (given,)


class Function(StrictField):
    """A synchronous function. An async one returns a coroutine, which is truthy in every condition and never ``True``.

    :param named: an import name, and true or false, will do too.
    """

    def __init__(self, *, named: bool = False) -> None:
        super().__init__("a function that is not async" + (", the import name of one, or true" if named else ""))
        self.named = named

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if self.named and isinstance(value, bool):
            return value
        found = imported(value) if self.named and isinstance(value, str) else value
        if not callable(found) or iscoroutinefunction(found):
            raise self.wrong(value)
        return found


class AccessArguments(TypedDict, total=False):
    """What users write of :class:`AccessOptions`."""

    scopes: Collection[str]
    any_scopes: Collection[str] | None
    roles: Collection[str] | None
    claims: Mapping[str, Scalar | Collection[Scalar]] | None
    principals: Collection[str] | None
    when: Predicate | None
    owner: bool | str | OwnerHook
    acr_values: Sequence[str] | None
    max_auth_age: int | None


@dataclass(frozen=True)
class AccessOptions:
    """Who may call a route. Every option that is given must be met; without any, every principal may.

    :param scopes: all of these scopes are needed.
    :param any_scopes: at least one of these scopes is needed.
    :param roles: at least one of these roles of the principal is needed.
    :param claims: for each claim of the token by its name, the values that are allowed. A claim that is a list must
        contain one of them. Types count: ``true`` is not ``1``.
    :param principals: the only callers, each by its :attr:`~flask_secure_ml.Principal.id`.
    :param when: a function of the principal; only ``True`` itself lets it pass.
    :param owner: a function of the principal and the arguments of the URL; only ``True`` itself lets it pass. True
        means the function that ``SecureML(owner=...)`` was given.
    :param acr_values: one of these authentication contexts is needed, as the claim ``acr`` (RFC 9470).
    :param max_auth_age: the most seconds since the user authenticated, as the claim ``auth_time`` (RFC 9470).
    """

    scopes: frozenset[str] = option(Strings("predict", scope, unordered=True), frozenset())
    any_scopes: frozenset[str] = option(
        Strings("predict", scope, minimum=1, unordered=True, nullable=True), frozenset()
    )
    roles: frozenset[str] = option(Strings("admin", minimum=1, unordered=True, nullable=True), frozenset())
    claims: tuple[tuple[str, tuple[Scalar, ...]], ...] = option(Claims(), ())
    principals: frozenset[str] = option(Strings("mtls:trainer", minimum=1, unordered=True, nullable=True), frozenset())
    when: Predicate | None = option(Function(), None)
    owner: bool | OwnerHook = option(Function(named=True), False)
    acr_values: tuple[str, ...] = option(Strings("phr", scope, minimum=1, nullable=True), ())
    max_auth_age: int | None = option(Integer(1, unit="seconds"), None)


class CapArguments(TypedDict, total=False):
    """What users write of :class:`CapOptions`."""

    max_body_bytes: int
    max_json_depth: int
    max_json_members: int
    max_string_length: int
    max_elements: int
    max_decoded_bytes: int


@dataclass(frozen=True)
class CapOptions:
    """How much one route takes, each instead of the setting of that name (``SECURE_ML_MAX_BODY_BYTES`` and so on).

    :param max_body_bytes: the bytes of the body.
    :param max_json_depth: how deep arrays and objects may nest.
    :param max_json_members: the members of one object.
    :param max_string_length: the bytes of one string.
    :param max_elements: the values in all.
    :param max_decoded_bytes: the bytes of an array that a body declares.
    """

    max_body_bytes: int | None = option(Integer(0, unit="bytes"), None)
    max_json_depth: int | None = option(Integer(1, 1_000), None)
    max_json_members: int | None = option(Integer(1), None)
    max_string_length: int | None = option(Integer(1, unit="bytes"), None)
    max_elements: int | None = option(Integer(1), None)
    max_decoded_bytes: int | None = option(Integer(1, unit="bytes"), None)


NO_CAPS = CapOptions()

MOST_DECIMALS = 15
"""A double has about as many digits, so more would round nothing."""


class ScoreArguments(TypedDict, total=False):
    """What users write of :class:`ScoreOptions`."""

    round: int | None
    top_k: int | None
    label_only: bool
    nan: str | None


@dataclass(frozen=True)
class ScoreOptions:
    """How precise the scores of a response may be. Scores are its floats: numbers with a fraction part by type.

    :param round: the decimals that scores keep.
    :param top_k: how many of the scores along the last dimension of an array keep their value.
    :param label_only: scores are removed; integers, strings and booleans stay.
    :param nan: ``reject`` replaces a response with NaN or Infinity by an error response, which is also the default;
        ``null`` sends them as null, since JSON has no such numbers (RFC 8259 section 6).
    """

    round: int | None = option(Integer(0, MOST_DECIMALS), None)
    top_k: int | None = option(Integer(1), None)
    label_only: bool = option(Boolean(), False)
    nan: str | None = option(Choice("reject", "null"), None)

    @property
    def masks(self) -> bool:
        """Return True if any option changes scores."""
        return self.round is not None or self.top_k is not None or self.label_only

    @property
    def allows_nan(self) -> bool:
        """Return True if NaN and Infinity may pass. They have no rank, so never beside ``top_k``."""
        return self.nan == "null" and self.top_k is None

    def stricter(self, other: ScoreOptions) -> ScoreOptions:
        """Return options that are as strict as both, option by option."""
        return ScoreOptions(
            round=_least(self.round, other.round),
            top_k=_least(self.top_k, other.top_k),
            label_only=self.label_only or other.label_only,
            nan="reject" if "reject" in {self.nan, other.nan} else self.nan or other.nan,
        )


NO_SCORE_OPTIONS = ScoreOptions()


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
