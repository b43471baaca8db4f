"""The options of a policy for the caller, the size of a body, and the precision of scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, TypedDict

from marshmallow import ValidationError
from werkzeug.utils import ImportStringError, import_string

from ..principal import Principal
from .fields import Boolean, Choice, Integer, StrictField, Strings
from .schema import option

Scalar = str | bool | int | float
Predicate = Callable[[Principal], bool]
OwnerHook = Callable[[Principal, Mapping[str, Any]], bool]
"""Returns True if a principal may access the object that the URL arguments identify."""

SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""One scope (RFC 6749 section 3.3): characters that are allowed in a quoted string, without spaces."""


def scope(entry: str) -> str:
    """Return a scope after checking it.

    :raises ValidationError: it is not a valid scope.
    """
    if not SCOPE_TOKEN.fullmatch(entry):
        raise ValidationError(f"{entry!r} has a space, a quote or another character that RFC 6749 section 3.3 forbids")
    return entry


def imported(name: str) -> Any:
    """Return the object with an import name such as ``package.module:object``.

    :raises ValidationError: it cannot be imported.
    """
    try:
        return import_string(name)
    except ImportError as error:
        # Werkzeug's own message has a paragraph of possible reasons.
        reason = error.exception if isinstance(error, ImportStringError) else error
        example = "" if {":", "."} & set(name) else "; write it as 'package.module:Schema'"
        raise ValidationError(f"cannot import {name!r}: {reason}{example}") from None


class Claims(StrictField):
    """The allowed values of claims, by name."""

    def __init__(self) -> None:
        super().__init__('an object such as {"tenant": ["acme"]}', nullable=True)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise self.wrong(value)
        if not value:
            raise ValidationError("is empty; omit it, or name at least one claim")
        errors = {name: [error] for name, given in value.items() if (error := _claim_error(given))}
        if errors:
            raise ValidationError(errors)
        return tuple((name, _allowed(given)) for name, given in value.items())


def _claim_error(given: Any) -> str | None:
    values = () if isinstance(given, Mapping) else _allowed(given)
    if isinstance(given, Mapping) or not all(isinstance(each, (str, bool, int, float)) for each in values):
        return "must be a string, a number, true or false, or a list of these"
    return None if values else "has no value, so no caller could match"


def _allowed(given: Any) -> tuple[Scalar, ...]:
    return tuple(given) if isinstance(given, Collection) and not isinstance(given, str) else (given,)


class Function(StrictField):
    """A synchronous function. An async function returns a coroutine, which is always truthy and never ``True``.

    :param named: accept an import name, true and false too.
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
    """The arguments of :class:`AccessOptions` as users write them."""

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
    """Who may call a route.

    The caller must meet every given option; without options, every principal may call the route.

    :param scopes: the required scopes.
    :param any_scopes: scopes of which at least one is required.
    :param roles: roles of which the principal must have at least one.
    :param claims: the allowed values of claims in the token, by name. A claim that is a list must contain one of them.
        Types are compared too: ``true`` is not ``1``.
    :param principals: the only allowed callers, each by its :attr:`~flask_secure_ml.Principal.id`.
    :param when: a function of the principal that must return exactly ``True``.
    :param owner: a function of the principal and the URL arguments that must return exactly ``True``; or True for the
        function in ``SecureML(owner=...)``.
    :param acr_values: the allowed authentication contexts, as in the claim ``acr`` (RFC 9470).
    :param max_auth_age: the maximum number of seconds since the user authenticated, by ``auth_time`` (RFC 9470).
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
    """The arguments of :class:`CapOptions` as users write them."""

    max_body_bytes: int
    max_json_depth: int
    max_json_members: int
    max_string_length: int
    max_elements: int
    max_decoded_bytes: int


@dataclass(frozen=True)
class CapOptions:
    """The maxima of one route.

    Each replaces the setting with that name (``SECURE_ML_MAX_BODY_BYTES`` and so on).

    :param max_body_bytes: the bytes of the body.
    :param max_json_depth: the nesting depth of arrays and objects.
    :param max_json_members: the members of one object.
    :param max_string_length: the bytes of one string.
    :param max_elements: the total number of values.
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
"""The maximum of decimals; a double has about as many digits, so more would not change any value."""


class ScoreArguments(TypedDict, total=False):
    """The arguments of :class:`ScoreOptions` as users write them."""

    round: int | None
    top_k: int | None
    label_only: bool
    nan: str | None


@dataclass(frozen=True)
class ScoreOptions:
    """The precision of the scores in a response. Scores are its floating-point numbers, by type.

    :param round: the number of decimals of scores.
    :param top_k: how many scores along the last dimension of an array keep their value.
    :param label_only: remove scores; integers, strings and booleans are kept.
    :param nan: ``reject``, the default, replaces a response with NaN or Infinity by an error response; ``null`` sends
        them as null, since JSON has no such numbers (RFC 8259 section 6).
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
        """Return True if NaN and Infinity are allowed; never with ``top_k``, because they have no rank."""
        return self.nan == "null" and self.top_k is None

    def stricter(self, other: ScoreOptions) -> ScoreOptions:
        """Return the stricter value of each option."""
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
