"""Loading what a body says with a schema, so that a million wrong items cost no more than the first few.

marshmallow looks at every item of a list and keeps an error for each. So long lists are loaded in steps here, and
after twenty wrong items nothing more is looked at: no more than twenty are told anyway. And it asks a ``Length``
validator of a list after all items are loaded, which may be thousands of pictures. So the list as it was sent is held
to it here first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from marshmallow import Schema, ValidationError, fields, validate

from .problems import MAX_ERRORS, validation_failed

_STEP = 100

if TYPE_CHECKING:
    ListField = fields.List[Any]
else:
    # List takes type parameters from marshmallow 4 on.
    ListField = fields.List


def load(schema: Schema, value: Any) -> Any:
    """Return the loaded value.

    From the first load on, the fields of the schema that are plain ``List`` and ``Nested`` stop after twenty wrong
    items. With a hook of the schema that takes the collection as a whole (``pass_collection``), objects of ``many`` are
    loaded at once, and all of them. The ``Length`` of a ``List``, a ``Dict`` or a ``Nested`` of many is checked before
    anything in it is loaded. What fields may use together is counted for each load.

    :raises ValidationFailed: 422, with at most 20 errors and JSON pointers.
    """
    try:
        with opened():
            return _load_all(schema, schema.load, value)
    except ValidationError as error:
        raise validation_failed(error) from None


def _load_all(schema: Schema, load_some: Callable[[Any], Any], value: Any) -> Any:
    _bound_fields(schema.load_fields.values())
    if schema.many and type(value) is list and not _has_collection_hooks(schema):
        return _in_steps(load_some, value)
    return load_some(value)


def _in_steps(load_some: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Load some items after the others, until enough of them are wrong.

    :raises ValidationError: the errors by item.
    """
    found: list[Any] = []
    errors: dict[Any, Any] = {}
    for start in range(0, len(items), _STEP):
        try:
            found += load_some(items[start : start + _STEP])
        except ValidationError as error:
            errors |= _moved(error, start)
            if len(errors) >= MAX_ERRORS:
                break
    if errors:
        raise ValidationError(errors)
    return found


def _moved(error: ValidationError, start: int) -> Mapping[Any, Any]:
    """Return the errors of items with their places in the whole list.

    :raises ValidationError: they are not by item, because the schema says ``index_errors = False``.
    """
    messages = error.messages
    if not isinstance(messages, dict) or not {int}.issuperset(map(type, messages)):
        raise error
    return {start + place: message for place, message in messages.items()}


def _has_collection_hooks(schema: Schema) -> bool:
    hooks: Any = schema._hooks  # noqa: SLF001 - of each tag: name, whether it takes the collection, arguments
    return any(takes_collection for tagged in hooks.values() for _, takes_collection, _ in tagged)


def _check_length(value: Any, validators: Sequence[Any]) -> None:
    """Ask the validators of the length alone, with the messages that they have; the others need what is loaded.

    :raises ValidationError: it is too short or too long.
    """
    for each in validators:
        if type(each) is validate.Length:
            each(value)
        elif type(each) is validate.And:
            _check_length(value, each.validators)


class _BoundedList(ListField):
    """A list that stops after enough wrong items, and of the wrong length before the first."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if type(value) is not list:
            return super()._deserialize(value, attr, data, **kwargs)
        _check_length(value, self.validators)
        plain = super()._deserialize
        return _in_steps(lambda items: plain(items, attr, data, **kwargs), value)


class _BoundedNested(fields.Nested):
    """Objects that stop after enough wrong ones, and whose own fields do the same."""

    def _load(self, value: Any, partial: Any = None) -> Any:
        plain = super()._load
        # A hook of the collection may change how many there are.
        if type(value) is list and not _has_collection_hooks(self.schema):
            _check_length(value, self.validators)
        return _load_all(self.schema, lambda items: plain(items, partial=partial), value)


class _BoundedDict(fields.Dict):
    """An object with any members; of the wrong number of them, none is loaded."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if type(value) is dict:
            _check_length(value, self.validators)
        load_items: Any = super()._deserialize
        return load_items(value, attr, data, **kwargs)


_BOUNDED: Mapping[type, type[fields.Field[Any]]] = {
    fields.List: _BoundedList,
    fields.Nested: _BoundedNested,
    fields.Dict: _BoundedDict,
}


def _bound_fields(found: Any) -> None:
    """Change what a plain field does with many items, in place: the schema made it for itself when it was made."""
    for field in found:
        kind = type(field)
        if kind in _BOUNDED:
            # Its items first, so that another thread sees a list that is done, or does it once more.
            _bound_fields(_items_of(field))
            field.__class__ = _BOUNDED[kind]
        elif kind is fields.Tuple:
            _bound_fields(field.tuple_fields)


def _items_of(field: Any) -> list[Any]:
    if type(field) is fields.Dict:
        return [field.key_field, field.value_field]
    return [field.inner] if type(field) is fields.List else []


Used = Literal["pixels", "lookups"]

_opened: ContextVar[dict[Used, int] | None] = ContextVar("flask_secure_ml_budget", default=None)


@contextmanager
def opened() -> Iterator[None]:
    """Count from 0 while the block runs."""
    token = _opened.set({})
    try:
        yield
    finally:
        _opened.reset(token)


def is_spent(what: Used, amount: int, limit: int) -> bool:
    """Count some more, also where that is too much, and tell whether the load is over the limit now."""
    used = _opened.get()
    if used is None:
        return False
    used[what] = used.get(what, 0) + amount
    return used[what] > limit
