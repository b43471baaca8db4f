"""A fast path for valid bodies: returns the result of ``Schema.load``, or None.

A result is identical to that of :class:`Loader`: the same values, dtypes, shapes and order of members. If that is not
certain, the body is left to the loader. Only the loader reports errors; the fast path never rejects a body.

A schema has a plan if loading it with marshmallow only means loading known fields one by one:

* one object, ``unknown=RAISE``, not partial, without context, hooks and overridden methods, loaded as a ``dict``;
* fields of exactly the classes below, without ``pre_load``, ``post_load``, ``attribute`` and overridden methods;
  tensors without validators, and scalars with marshmallow's own.

A body is accepted if it is strict JSON within the limits and each member has the simplest type that its field loads:
no null, no string for a number, no missing member with a ``load_default``. Schemas and fields can change after their
plan is made, so the plan is compared with them before each use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from marshmallow import RAISE, Schema, ValidationError, fields, missing, validate

from ..strictjson import TooLargeError, check_size
from .body_stream import Caps
from .fast_tensors import NOT_SURE, AcceptTensor, kind_of
from .fields.tensor import Tensor
from .formats.json import most_lists
from .marshmallow_internals import has_any_hook, has_post_load, has_pre_load
from .number_arrays import SCALAR, Kind, NumberArrays, Wanted

# From this size, numbers are parsed without creating Python objects, if possible; for smaller bodies orjson is faster.
_LARGE = 1_500
# If that is not possible, bodies of at least this size are left to the loader: parsing twice would cost too much.
_HUGE = 65_536

Accept = Callable[[Any], Any]


class Acceptor:
    """The fast path for one schema. It is thread-safe.

    :param arrays: the parser for arrays of numbers; None if pysimdjson is not installed.
    """

    def __init__(self, schema: Schema, arrays: NumberArrays | None) -> None:
        self._schema = schema
        self._arrays = arrays
        self._plan = plan_of(schema)

    def accept(self, body: bytes, caps: Caps) -> dict[str, Any] | None:
        """Return the loaded body; None if the loader must decide."""
        plan, size = self._plan, len(body)
        if plan is not None and plan.is_outdated():
            plan = self._plan = plan_of(self._schema)
        if plan is None or plan.depth > caps.max_depth or plan.size > caps.max_members:
            return None
        if size >= _LARGE and self._arrays is not None and plan.wanted is not None:
            members = self._arrays.read(body, plan.wanted, caps.max_elements, caps.max_string)
        else:
            members = _parse(body, size, caps) if size < _HUGE else None
        return None if members is None else plan.load(members)


def _parse(body: bytes, size: int, caps: Caps) -> dict[str, Any] | None:
    """Return the members of an object, or None.

    Names are known to be unique if no value is an object and no string has a colon: then there is one colon per member.
    """
    try:
        # A smaller body cannot exceed either limit.
        if size > caps.max_string or size >= 2 * caps.max_elements:
            check_size(body, max_string=caps.max_string, max_elements=caps.max_elements)
        found = orjson.loads(body)
    except (TooLargeError, orjson.JSONDecodeError):
        return None
    return found if type(found) is dict and body.count(b":") == len(found) else None


@dataclass(frozen=True, slots=True)
class _Member:
    """A field, and the function that loads a value with it or returns ``NOT_SURE``."""

    name: str
    key: str
    field: Any
    state: Mapping[str, Any]
    accept: Accept


class Plan:
    """The steps for loading a body with a schema.

    ``wanted`` describes the members for :class:`NumberArrays`; None if they must be parsed as Python objects. ``depth``
    and ``size`` are the maximum depth of a valid body and its maximum number of members.
    """

    def __init__(self, schema: Schema, members: tuple[_Member, ...], wanted: Wanted | None) -> None:
        self._schema = schema
        self._state = _state(schema, dict)
        self._members = members
        self.wanted = wanted
        self.size: int = len(members)
        self._is_named = any(getattr(each.field, "is_named", False) for each in members)
        self.depth: int = 1 + max((len(getattr(each.field, "shape", ())) for each in members), default=0)

    def is_outdated(self) -> bool:
        """Return True if the schema or a field has changed since the plan was made."""
        try:
            if self._schema.__dict__ != self._state:
                return True
            for each in self._members:
                if each.field.__dict__ != each.state:
                    return True
        except ValueError:
            # Comparing different numpy arrays has no truth value.
            return True
        return False

    def load(self, members: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the loaded members in the order of the fields; None if one is not known to be valid."""
        found: dict[str, Any] = {}
        for each in self._members:
            if each.key in members:
                value = each.accept(members[each.key])
                if value is NOT_SURE:
                    return None
                found[each.name] = value
            elif each.field.required or each.field.load_default is not missing:
                return None
        if len(found) != len(members) or (self._is_named and not self._has_common_lengths(found)):
            return None
        return found

    def _has_common_lengths(self, found: Mapping[str, Any]) -> bool:
        """Return True if each named dimension has the same length in all arrays."""
        lengths: dict[str, int] = {}
        for each in self._members:
            if each.name in found and getattr(each.field, "is_named", False):
                for name, length in zip(each.field.dimensions, found[each.name].shape, strict=True):
                    if name and lengths.setdefault(name, length) != length:
                        return False
        return True


def _state(owner: Any, *changed_in_place: type) -> dict[str, Any]:
    """Return the attributes of a schema or a field, copying those of the given types."""
    return {
        name: copy.copy(value) if isinstance(value, changed_in_place) else value for name, value in vars(owner).items()
    }


# Attributes that a schema class may define without affecting how it loads.
_HARMLESS = frozenset({"Meta", "opts", "_abc_impl", "_declared_fields", "_hooks", "error_messages"})
# The methods that marshmallow calls on a schema and on a field while loading, in both major releases.
_OF_SCHEMAS = frozenset(name for name in vars(Schema) if not name.startswith("__")) - _HARMLESS


def plan_of(schema: Schema) -> Plan | None:
    """Return the plan of a schema; None if loading it can involve more than loading known fields."""
    if not _is_plain(schema):
        return None
    members: list[_Member] = []
    kinds: dict[str, Kind | None] = {}
    for name, field in schema.load_fields.items():
        found = _accept_of(field) if _is_plain_field(name, field) else None
        if found is None:
            return None
        accept, kind = found
        key = name if field.data_key is None else field.data_key
        members.append(_Member(name, key, field, _state(field, list), accept))
        kinds[key] = kind
    # Otherwise two fields load the same member.
    if len(kinds) != len(members):
        return None
    return Plan(schema, tuple(members), _wanted(members, kinds))


def _wanted(members: Sequence[_Member], kinds: Mapping[str, Kind | None]) -> Wanted | None:
    known = {key: kind for key, kind in kinds.items() if kind is not None}
    if len(known) < len(kinds):
        return None
    tensors = [each.field for each in members if type(each.field) is Tensor]
    return Wanted(known, len(kinds) - len(tensors), lambda size: sum(most_lists(field, size) for field in tensors))


def _is_plain(schema: Schema) -> bool:
    defined = {name for each in type(schema).__mro__ if each not in Schema.__mro__ for name in vars(each)}
    return not (
        schema.many
        or schema.partial
        or schema.unknown != RAISE
        or schema.dict_class is not dict
        or getattr(schema, "context", None)
        or has_any_hook(schema)
        or defined & _OF_SCHEMAS
        or _overrides(schema)
    )


def _is_plain_field(name: str, field: Any) -> bool:
    return not (
        "." in name or field.attribute is not None or has_pre_load(field) or has_post_load(field) or _overrides(field)
    )


def _overrides(owner: Any) -> bool:
    """Return True if an attribute of the instance overrides a method of its class."""
    return any(callable(getattr(type(owner), name, None)) for name in vars(owner))


def _accept_of(field: Any) -> tuple[Accept, Kind | None] | None:
    kind = type(field)
    if kind is Tensor:
        return None if field.validators else (AcceptTensor(field), kind_of(field))
    if kind in _SCALARS:
        known = all(type(each) in _VALIDATORS for each in field.validators)
        return (_validated(field, _SCALARS[kind]), SCALAR) if known else None
    # Fields of this package, which are not imported for that. The mark is not inherited.
    if vars(kind).get("loads_by_value_alone"):
        return None if field.validators or getattr(field, "is_named", False) else (_loaded(field), None)
    return None


# Validators whose result depends only on the value.
_VALIDATORS = frozenset(
    {validate.Equal, validate.Length, validate.NoneOf, validate.OneOf, validate.Range, validate.Regexp}
)


def _number(_field: Any, value: Any) -> Any:
    return float(value) if type(value) is float or type(value) is int else NOT_SURE


def _integer(_field: Any, value: Any) -> Any:
    return value if type(value) is int else NOT_SURE


def _string(_field: Any, value: Any) -> Any:
    return value if type(value) is str else NOT_SURE


def _boolean(field: Any, value: Any) -> Any:
    """Return the loaded boolean; a field may map other values to True and False."""
    if type(value) is not bool or not field.truthy:
        return NOT_SURE
    return True if value in field.truthy else False if value in field.falsy else NOT_SURE


_SCALARS: Mapping[type, Callable[[Any, Any], Any]] = {
    fields.Boolean: _boolean,
    fields.Float: _number,
    fields.Integer: _integer,
    fields.String: _string,
}


def _validated(field: Any, accept: Callable[[Any, Any], Any]) -> Accept:
    def accept_valid(value: Any) -> Any:
        found = accept(field, value)
        if found is not NOT_SURE:
            try:
                for each in field.validators:
                    each(found)
            except ValidationError:
                return NOT_SURE
        return found

    return accept_valid


def _loaded(field: Any) -> Accept:
    """Return a function that loads with a field whose result depends only on the value."""

    def accept(value: Any) -> Any:
        try:
            return field._deserialize(value, None, None)  # noqa: SLF001 - ours
        except ValidationError:
            return NOT_SURE

    return accept
