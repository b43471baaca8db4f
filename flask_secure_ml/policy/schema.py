"""Options as dataclasses, checked by marshmallow: each option is declared once, with its field, default and help.

:func:`option` declares, :func:`schema_of` creates the schema on first use, :func:`load_options` checks, and
:func:`sentences` turns the errors of marshmallow into lines such as ``plans.gold.requests[1]: 'often' is not a limit``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from marshmallow import EXCLUDE, Schema, ValidationError, post_load, pre_load, validates_schema
from marshmallow import fields as marshmallow_fields
from marshmallow.exceptions import SCHEMA

if TYPE_CHECKING:
    AnyField = marshmallow_fields.Field[Any]
else:
    # Field has type parameters since marshmallow 4.
    AnyField = marshmallow_fields.Field

T = TypeVar("T")
Path = tuple[str | int, ...]
Problem = tuple[Path, str]
"""The path to an option (names and indexes), and a sentence whose subject it is."""

Check = Callable[[Any], Iterator[Problem]]
"""Yields the problems of several options together. A check ends when it reads an option that is invalid itself."""

REQUIRED = object()


def option(kind: AnyField, default: Any = REQUIRED, help_text: str = "") -> Any:
    """Return a dataclass field for one option.

    :param kind: the field that loads the option. If the default is None, users may write None too.
    :param default: the loaded default; without it, the option is required.
    :param help_text: the description of the option, for the reference page.
    """
    if default is REQUIRED:
        kind.required = True
        return field(metadata={"field": kind, "help": help_text})
    kind.allow_none = kind.allow_none or default is None
    # With a factory, the class has no attribute, so an incomplete object lacks the option: see _incomplete.
    return field(default_factory=lambda: default, metadata={"field": kind, "help": help_text})


def inlined(kind: type[Any]) -> Any:
    """Return a dataclass field for a group of options that users write on the same level as the others."""
    return field(default_factory=kind, metadata={"inlined": kind})


def options_of(kind: type[Any]) -> dict[str, Field[Any]]:
    """Return the dataclass field of each option that users can write, by name."""
    found: dict[str, Field[Any]] = {}
    for each in fields(kind):
        group = each.metadata.get("inlined")
        found |= {each.name: each} if group is None else options_of(group)
    return found


@cache
def schema_of(kind: Any) -> OptionsSchema:
    """Return the schema of a dataclass of options, created on first use."""
    declared = {name: each.metadata["field"] for name, each in options_of(kind).items()}
    made: type[OptionsSchema] = type(f"{kind.__name__}Schema", (OptionsSchema,), {"kind": kind, **declared})
    return made()


def load_options(kind: type[T], given: Any) -> T:
    """Load options, checked one by one and by the ``cross_checks`` of the class.

    :raises ValidationError: with every problem, in the nested form of marshmallow.
    """
    return cast("T", schema_of(cast("Hashable", kind)).load(given))


class OptionsSchema(Schema):
    """The schema of a dataclass; it loads instances."""

    class Meta:
        """Unknown options are reported by :meth:`check_together`, which can suggest the closest one."""

        unknown = EXCLUDE
        register = False

    kind: ClassVar[type[Any]]

    def __init__(self) -> None:
        super().__init__()
        self.error_messages["type"] = "must be an object"

    @pre_load
    def drop_null(self, data: Any, **_: Any) -> Any:
        """Return the data without options that may be null and are."""
        if not isinstance(data, Mapping):
            return data
        return {
            name: value
            for name, value in data.items()
            if value is not None or name not in self.fields or not self.fields[name].allow_none
        }

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_together(self, data: Mapping[str, Any], original: Any, **_: Any) -> None:
        """Check options together, even if some of them are invalid.

        :raises ValidationError: an option is unknown, or options contradict each other.
        """
        if not isinstance(original, Mapping):
            return
        found: dict[str | int, Any] = {}
        for path, sentence in (*unknown_names(original, self.fields), *self._cross_check(data, original)):
            _nest(found, path, sentence)
        if found:
            raise ValidationError(found)

    def _cross_check(self, data: Mapping[str, Any], original: Mapping[str, Any]) -> Iterator[Problem]:
        checks: Iterable[Check] = getattr(self.kind, "cross_checks", ())
        options = _incomplete(self.kind, data, original) if checks else None
        for check in checks:
            try:
                yield from check(options)
            except _HasProblemError:
                continue

    @post_load
    def make(self, data: Mapping[str, Any], **_: Any) -> Any:
        """Return the instance."""
        return self.kind(**dict(_arguments(self.kind, data)))


def unknown_names(given: Iterable[Any], known: Collection[str]) -> Iterator[Problem]:
    """Yield a problem for each unknown name, with the closest known one."""
    for name in given:
        if name not in known:
            guess = closest(name, known)
            yield (
                (name if isinstance(name, int) and not isinstance(name, bool) else str(name),),
                "is not known" + (f"; did you mean {guess}?" if guess else f"; choose from {', '.join(known)}"),
            )


def closest(name: Any, known: Collection[str]) -> str | None:
    """Return the known name that is closest to a misspelled one, or None."""
    return next(iter(get_close_matches(str(name), sorted(known), 1, 0.7)), None)


def sentences(messages: Any, path: str = "") -> Iterator[str]:
    """Yield one line for each error of marshmallow: its path, a colon, and the message.

    :param messages: the ``messages`` of a ``ValidationError``.
    :param path: a prefix of each path, such as the name of a setting.
    """
    if isinstance(messages, Mapping):
        for step, inner in messages.items():
            yield from sentences(inner, path if step == SCHEMA else path + _written(step, first=not path))
    elif isinstance(messages, (list, tuple)):
        for each in messages:
            yield from sentences(each, path)
    else:
        yield f"{path}: {messages}" if path else str(messages)


def _written(step: Any, *, first: bool) -> str:
    if isinstance(step, str) and step.isidentifier():
        return step if first else f".{step}"
    return f"[{json.dumps(step, ensure_ascii=False, default=repr)}]"


class _HasProblemError(Exception):
    """The option that a check reads is invalid itself."""


def _unreadable(_: Any, name: str) -> Any:
    raise _HasProblemError(name)


def known(options: Any, name: str) -> Any:
    """Return an option for a check that can continue without it, or None if it is invalid itself."""
    try:
        return getattr(options, name)
    except _HasProblemError:
        return None


def _incomplete(kind: type[Any], loaded: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return an instance without the invalid options; a check ends when it reads one of these."""
    failed = {
        name
        for name, each in options_of(kind).items()
        if name not in loaded and (_is_given(each, given) or each.default_factory is MISSING)
    }
    found: Any = object.__new__(type(kind.__name__, (kind,), {"__getattr__": _unreadable}) if failed else kind)
    for name, value in _arguments(kind, loaded):
        found.__dict__[name] = value
    for each in fields(kind):
        names = options_of(each.metadata["inlined"]) if "inlined" in each.metadata else {each.name}
        if failed & set(names):
            found.__dict__.pop(each.name, None)
        elif each.name not in found.__dict__ and each.default_factory is not MISSING:
            found.__dict__[each.name] = each.default_factory()
    return found


def _is_given(record: Field[Any], given: Mapping[str, Any]) -> bool:
    return record.name in given and (given[record.name] is not None or not record.metadata["field"].allow_none)


def _arguments(kind: type[Any], loaded: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for each in fields(kind):
        group = each.metadata.get("inlined")
        if group is not None:
            yield each.name, group(**{name: loaded[name] for name in options_of(group) if name in loaded})
        elif each.name in loaded:
            yield each.name, loaded[each.name]


def _nest(found: dict[str | int, Any], path: Path, sentence: str) -> None:
    for step in path:
        found = found.setdefault(step, {})
    found.setdefault(SCHEMA, []).append(sentence)
