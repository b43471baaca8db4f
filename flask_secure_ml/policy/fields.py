"""Strict marshmallow fields for options.

marshmallow's own fields convert: ``Boolean`` accepts ``"n"`` and ``0``, ``Float`` accepts ``"1e3"``, ``List`` accepts
sets. In security settings, such conversions hide mistakes. Each field here accepts one type, which its messages name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from marshmallow import ValidationError
from marshmallow.exceptions import SCHEMA

from .schema import AnyField, Problem, closest, load_options, options_of

LONGEST_SHOWN = 80


def described(value: Any, *, secret: bool = False) -> str:
    """Return a description of a wrong value for messages, without the content of objects and lists.

    :param secret: leave out the content of a string too.
    """
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, str) and secret:
        return "a string (or it is JSON with a mistake in it)"
    if value is None or isinstance(value, (str, bool, int, float)):
        return repr(value) if len(repr(value)) <= LONGEST_SHOWN else f"{repr(value)[:LONGEST_SHOWN]}..."
    return f"a {type(value).__name__}"


class StrictField(AnyField):
    """A field that accepts one type.

    :param takes: completes the sentence "must be ...".
    """

    def __init__(self, takes: str, *, nullable: bool = False) -> None:
        # marshmallow formats these messages.
        plain = takes.replace("{", "{{").replace("}", "}}")
        super().__init__(
            allow_none=nullable,
            error_messages={"required": f"is missing; it must be {plain}", "null": f"must be {plain}, not None"},
        )
        self.takes = takes

    def wrong(self, value: Any, *, secret: bool = False) -> ValidationError:
        """Return the error for a value that the field does not accept."""
        return ValidationError(f"must be {self.takes}, not {described(value, secret=secret)}")


class Boolean(StrictField):
    """True or false, but not a string or a number."""

    def __init__(self) -> None:
        super().__init__("true or false")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.wrong(value)
        return value


class Integer(StrictField):
    """A whole number between two inclusive bounds."""

    def __init__(self, low: int, high: int | None = None, *, unit: str = "") -> None:
        bounds = f", {low} or more" if high is None else f" from {low} to {high}"
        super().__init__(f"a whole number{unit and f' of {unit}'}{bounds}")
        self.low: int = low
        self.high: int | None = high

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        # A bool is an int in Python.
        if isinstance(value, bool) or not isinstance(value, int) or value < self.low:
            raise self.wrong(value)
        if self.high is not None and value > self.high:
            raise self.wrong(value)
        return value


class Number(StrictField):
    """A finite number between two inclusive bounds."""

    def __init__(self, low: float, high: float, *, unit: str = "") -> None:
        super().__init__(f"a number{unit and f' of {unit}'} from {low:g} to {high:g}")
        self.low: float = low
        self.high: float = high

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise self.wrong(value)
        return float(value)


class String(StrictField):
    """A string that is not blank.

    :param pattern: a pattern that the whole string must match.
    """

    def __init__(self, takes: str = "a non-empty string", pattern: re.Pattern[str] | None = None) -> None:
        super().__init__(takes)
        self.pattern = pattern

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(value)
        if self.pattern is not None and not self.pattern.fullmatch(value):
            raise self.wrong(value)
        return value


class Choice(StrictField):
    """One of a few words."""

    def __init__(self, *choices: str, nullable: bool = False) -> None:
        super().__init__(f"one of {', '.join(map(repr, choices))}", nullable=nullable)
        self.choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise self.wrong(value)
        return value


class Strings(StrictField):
    """A list of strings, loaded as a tuple.

    A single string is rejected, because it would be taken for a list of characters.

    :param example: one entry, for messages.
    :param entry: converts an entry.
    :param minimum: the minimum number of entries.
    :param unordered: accept a set too, and load a frozenset.
    """

    def __init__(
        self,
        example: str,
        entry: Callable[[str], Any] | None = None,
        *,
        minimum: int = 0,
        unordered: bool = False,
        nullable: bool = False,
    ) -> None:
        super().__init__(f'a list of strings such as ["{example}"]', nullable=nullable)
        self.entry = entry
        self.minimum = minimum
        self.unordered = unordered

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            raise ValidationError(f"must be a list, not one string{_remedy(value)}")
        is_set = isinstance(value, (set, frozenset)) and self.unordered
        if not isinstance(value, (list, tuple)) and not is_set:
            raise self.wrong(value)
        if len(value) < self.minimum:
            raise ValidationError("is empty; omit it, or name at least one")
        found = _each(value, self._checked)
        return frozenset(found) if self.unordered else self.joined(found)

    def joined(self, found: list[Any]) -> Any:
        """Return the loaded value for the checked entries."""
        return tuple(found)

    def _checked(self, entry: Any) -> Any:
        if not isinstance(entry, str):
            raise ValidationError(f"must be a string, not {described(entry)}")
        if self.minimum and not entry.strip():
            raise ValidationError("must not be empty")
        return entry if self.entry is None else self.entry(entry)


def _remedy(value: str) -> str:
    """Return how to write the list, in a form that is valid in Python and in the JSON of an environment variable."""
    if value.lstrip().startswith("["):
        return " (or it is JSON with a mistake in it)"
    shown = json.dumps([value], ensure_ascii=False) if len(value) <= LONGEST_SHOWN else "[...] around it"
    return f"; write {shown}"


class Choices(Strings):
    """A list of one or more of a few words, without duplicates."""

    def __init__(self, *choices: str) -> None:
        super().__init__(choices[0], minimum=1)
        self.takes: str = f"a list of {', '.join(map(repr, choices))}"
        self.choices = choices

    def _checked(self, entry: Any) -> Any:
        if entry not in self.choices:
            guess = closest(entry, self.choices)
            known = f"did you mean {guess!r}?" if guess else f"choose from {', '.join(self.choices)}"
            raise ValidationError(f"{described(entry)} is not known; {known}")
        return entry

    def joined(self, found: list[Any]) -> Any:
        """Return each word once."""
        return tuple(dict.fromkeys(found))


class Options(StrictField):
    """An object with the options of a class.

    :param minimum: the minimum number of options.
    """

    def __init__(self, kind: type[Any], *, minimum: int = 0, nullable: bool = False) -> None:
        super().__init__("an object", nullable=nullable)
        self.kind = kind
        self.minimum = minimum

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, Mapping):
            raise self.wrong(value, secret=True)
        if len(value) < self.minimum:
            raise ValidationError(f"is empty; it must have at least one of {', '.join(options_of(self.kind))}")
        try:
            return load_options(self.kind, value)
        except ValidationError as error:
            # Without the valid options, because they are not an instance.
            raise ValidationError(error.messages) from None


class ListOf(StrictField):
    """A list of objects with the options of a class.

    :param together: yields the problems of several entries together, given the valid entries by index.
    """

    def __init__(self, kind: type[Any], together: Callable[[Mapping[int, Any]], Iterator[Problem]]) -> None:
        super().__init__("a list of objects")
        self.inner: Options = Options(kind)
        self.together = together

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, Mapping):
            raise ValidationError("must be a list of objects, not one object; put it in a list")
        if not isinstance(value, (list, tuple)):
            raise self.wrong(value, secret=True)
        found, errors = _split(enumerate(value), self.inner.deserialize)
        for (index, *path), sentence in self.together(found):
            _add(errors, index, {".".join(map(str, path)) or SCHEMA: [sentence]})
        if errors:
            raise ValidationError(errors)
        return tuple(found.values())


class MappingOf(StrictField):
    """An object with names that users choose.

    :param example: the whole object, for messages.
    :param needed: the required names.
    """

    def __init__(self, kind: type[Any], example: str, needed: Collection[str] = ()) -> None:
        super().__init__(f"an object such as {example}")
        self.inner: Options = Options(kind)
        self.needed = needed

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, Mapping):
            raise self.wrong(value, secret=True)
        found, errors = _split(value.items(), self.inner.deserialize)
        errors |= {name: "must have a string for its name" for name in value if not isinstance(name, str)}
        for name in self.needed:
            if name not in value:
                _add(errors, name, {SCHEMA: [f"is missing; there must be one named {name!r}"]})
        if errors:
            raise ValidationError(errors)
        return found


def _each(values: Iterable[Any], check: Callable[[Any], Any]) -> list[Any]:
    found, errors = _split(enumerate(values), check)
    if errors:
        raise ValidationError(errors)
    return list(found.values())


def _split(pairs: Iterable[tuple[Any, Any]], check: Callable[[Any], Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return the valid values and the messages for the others, both by name or index."""
    found: dict[Any, Any] = {}
    errors: dict[Any, Any] = {}
    for key, value in pairs:
        try:
            found[key] = check(value)
        except ValidationError as error:
            errors[key] = error.messages
    return found, errors


def _add(errors: dict[Any, Any], key: Any, messages: Mapping[str, Any]) -> None:
    errors[key] = [errors[key], messages] if key in errors else messages
