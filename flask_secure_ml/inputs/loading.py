"""Loading a value with a schema, with bounded work for invalid items.

marshmallow loads every item of a list and keeps an error for each. Here long lists are loaded in steps, and loading
stops after twenty invalid items, because a response reports no more than twenty. marshmallow also runs the ``Length``
validator of a list after loading its items, which may be thousands of images; here the length is checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

from .load_context import budgets
from .marshmallow_internals import (
    AnyList,
    copy_as,
    has_collection_hook,
    inner_fields,
    with_inner_fields,
    with_load_fields,
)
from .problems import MAX_ERRORS, validation_failed

_STEP = 100


class Loader:
    """Loads values with a schema, using a modified copy if fields must stop early.

    Plain ``List`` and ``Nested`` fields stop after twenty invalid items. The ``Length`` of a ``List``, a ``Dict`` or a
    ``Nested`` with ``many`` is checked before its items are loaded. If a hook of the schema takes the whole collection
    (``pass_collection``), all objects of ``many`` are loaded at once. Subclasses of these fields are not changed,
    because only marshmallow's own are known to load items one by one.

    :param schema: the schema of the app; it is not modified.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = _bounded_schema(schema)

    def load(self, value: Any) -> Any:
        """Return the loaded value; shared budgets of fields start at 0.

        :raises ValidationFailed: 422, with at most 20 errors and JSON pointers.
        """
        try:
            with budgets():
                return _load_all(self._schema, self._schema.load, value)
        except ValidationError as error:
            raise validation_failed(error) from None


def _load_all(schema: Schema, load_some: Callable[[Any], Any], value: Any) -> Any:
    if schema.many and type(value) is list and not has_collection_hook(schema):
        return _in_steps(load_some, value)
    return load_some(value)


def _in_steps(load_some: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Load the items in steps, until enough of them are invalid.

    :raises ValidationError: the errors by item.
    """
    found: list[Any] = []
    errors: dict[Any, Any] = {}
    for start in range(0, len(items), _STEP):
        try:
            found += load_some(items[start : start + _STEP])
        except ValidationError as error:
            errors |= _shifted(error, start)
            if len(errors) >= MAX_ERRORS:
                break
    if errors:
        raise ValidationError(errors)
    return found


def _shifted(error: ValidationError, start: int) -> Mapping[Any, Any]:
    """Return the errors by position in the whole list.

    :raises ValidationError: they are not by item, because the schema sets ``index_errors = False``.
    """
    messages = error.messages
    if not isinstance(messages, dict) or not {int}.issuperset(map(type, messages)):
        raise error
    return {start + position: message for position, message in messages.items()}


def _check_length(value: Any, validators: Sequence[Any]) -> None:
    """Run only the ``Length`` validators, with their own messages; other validators need the loaded value.

    :raises ValidationError: the value is too short or too long.
    """
    for each in validators:
        if type(each) is validate.Length:
            each(value)
        elif type(each) is validate.And:
            _check_length(value, each.validators)


class _BoundedList(AnyList):
    """A list that stops after enough invalid items, and is not loaded if its length is invalid."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if type(value) is not list:
            return super()._deserialize(value, attr, data, **kwargs)
        _check_length(value, self.validators)
        plain = super()._deserialize
        return _in_steps(lambda items: plain(items, attr, data, **kwargs), value)


class _BoundedDict(fields.Dict):
    """An object that is not loaded if its number of members is invalid."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if type(value) is dict:
            _check_length(value, self.validators)
        load_items: Any = super()._deserialize
        return load_items(value, attr, data, **kwargs)


class _BoundedNested(fields.Nested):
    """Nested objects that stop after enough invalid ones, with a bounded schema."""

    original: fields.Nested
    bounded: Schema | None = None

    @property
    def schema(self) -> Schema:
        """The bounded copy of the nested schema, created at first use because a schema may contain itself."""
        if self.bounded is None:
            self.bounded = _bounded_schema(self.original.schema)
        return self.bounded

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, partial: Any = None, **kwargs: Any
    ) -> Any:
        # A collection hook may change the number of items.
        if type(value) is list and not has_collection_hook(self.schema):
            _check_length(value, self.validators)
        plain: Any = super()._deserialize
        return _load_all(self.schema, lambda items: plain(items, attr, data, partial=partial, **kwargs), value)


def _bounded_schema(schema: Schema) -> Schema:
    """Return a copy of the schema with bounded fields, or the schema itself if no field needs a copy."""
    bounded = {name: _bounded_field(field) for name, field in schema.load_fields.items()}
    if all(bounded[name] is field for name, field in schema.load_fields.items()):
        return schema
    return with_load_fields(schema, bounded)


def _bounded_field(field: Any) -> Any:
    """Return a bounded copy of a field, or the field itself if it cannot have many items."""
    kind = type(field)
    if kind is fields.Nested:
        nested = copy_as(field, _BoundedNested)
        nested.original = field
        return nested
    if kind is fields.List or kind is fields.Dict:
        bounded = _BoundedList if kind is fields.List else _BoundedDict
        return with_inner_fields(field, bounded, map(_bounded_field, inner_fields(field)))
    if kind is fields.Tuple:
        return with_inner_fields(field, fields.Tuple, map(_bounded_field, inner_fields(field)))
    return field
