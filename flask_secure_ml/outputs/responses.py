"""Applying the response schema of a policy, and the score options of policy and plan, to a response.

All masking goes through this module. A value returned by a view is masked in memory before it is serialized. The body
of a response that the view created itself is parsed, masked and serialized again by the filter.

With a response schema, only declared fields are sent, and only with values of their declared type. marshmallow's
``dump`` does not validate: it omits missing fields, and a ``String`` field converts any object to a string with all
its content. So each dumped field is compared with the value from which it was dumped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
from flask import Request, Response
from marshmallow import Schema, ValidationError, fields, missing
from werkzeug.sansio.response import Response as AnyResponse

from ..config.plans import Plan
from ..exchange import Exchange
from ..npy import NPY
from ..policy.options import NO_SCORE_OPTIONS, ScoreOptions
from ..policy.policy import Policy
from .bodies import mark_checked, npy_body
from .formats import JSON, accepted, is_safe, oip_document, single_array
from .json_provider import Writer
from .masking import mask_scores
from .scores import MaskingError, NumberString, with_floats

_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("boolean", (bool, np.bool_)),
    ("number", (int, float, Decimal, np.integer, np.floating)),
    ("string", (str,)),
    ("null", (type(None),)),
    ("list", (list, tuple)),
    ("object", (Mapping,)),
)
# Subclasses of String in marshmallow 3 whose values are objects, not strings.
_FROM_OBJECTS: tuple[type, ...] = (fields.UUID,)
_CACHED_METHODS = frozenset({"GET", "HEAD"})
_COMPUTED = (fields.Function, fields.Method, fields.Constant)


class UndeclaredError(MaskingError):
    """The response does not match its schema. The message has the JSON pointer of the field, but no value."""


def dump_declared(schema: Schema, value: Any) -> Any:
    """Dump a value with only the fields of its schema, as plain data; arrays may remain arrays.

    The hooks of the schema and the validators of fields run. The schema-level validators of nested schemas do not.

    :param value: the view's value: an object, or a list of objects if the schema has ``many=True``.
    :raises UndeclaredError: a required field is missing, or a value does not match its field.
    """
    try:
        dumped = schema.dump(value)
    except Exception as error:  # noqa: BLE001 - a field may raise any exception for a wrong value
        raise UndeclaredError(f"the response cannot be dumped: {type(error).__name__}") from None
    return _nested(schema, schema.many, value, dumped, "")


def _nested(schema: Schema, many: bool, value: Any, dumped: Any, pointer: str) -> Any:
    if not many:
        return _object(schema, value, dumped, pointer)
    pairs = enumerate(_paired(value, dumped, pointer))
    return [_object(schema, one, other, f"{pointer}/{number}") for number, (one, other) in pairs]


def _object(schema: Schema, value: Any, dumped: Any, pointer: str) -> dict[str, Any]:
    if not isinstance(dumped, Mapping) or _kind(value) not in (None, "object") or isinstance(value, np.ndarray):
        raise _undeclared(pointer, "not an object")
    found: dict[str, Any] = {}
    for name, field in schema.dump_fields.items():
        key = name if field.data_key is None else field.data_key
        if key in dumped:
            given = schema.get_attribute(value, field.attribute or name, missing)
            found[key] = _checked(field, given, dumped, key, f"{pointer}/{key}")
        elif field.required:
            raise _undeclared(f"{pointer}/{key}", "missing")
    return found


def _checked(field: fields.Field[Any], value: Any, siblings: Mapping[str, Any], key: str, pointer: str) -> Any:
    dumped = siblings[key]
    if value is missing or isinstance(field, _COMPUTED):
        value = dumped
    if dumped is not None and isinstance(field, fields.Nested) and not isinstance(field, fields.Pluck):
        return _nested(field.schema, field.many or field.schema.many, value, dumped, pointer)
    if dumped is not None and isinstance(field, (fields.List, fields.Tuple, fields.Dict)):
        return _container(field, value, dumped, pointer)
    _check_kind(field, value, dumped, pointer)
    # The field checks the array itself, so it need not be rebuilt from lists.
    given = value if type(value) is np.ndarray and type(dumped) is list else dumped
    try:
        loaded = field.deserialize(given, key, siblings)
    except Exception as error:  # noqa: BLE001 - as above
        what = "not what its field declares" if isinstance(error, ValidationError) else type(error).__name__
        raise _undeclared(pointer, what) from None
    if isinstance(loaded, np.ndarray) and type(dumped) is list:
        return loaded
    # A number serialized as a string is still a score.
    return NumberString(dumped) if type(dumped) is str and _is_score_as_string(field) else dumped


def _is_score_as_string(field: fields.Field[Any]) -> bool:
    return bool(getattr(field, "as_string", False)) and not isinstance(field, fields.Integer)


def _container(field: fields.Field[Any], value: Any, dumped: Any, pointer: str) -> Any:
    if isinstance(field, fields.Dict):
        return _mapping(field, value, dumped, pointer)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    pairs = _paired(value, dumped, pointer)
    inner: Sequence[fields.Field[Any]] = (
        field.tuple_fields if isinstance(field, fields.Tuple) else [field.inner] * len(pairs)  # type: ignore[attr-defined]
    )
    found = [
        _checked(each, one, {"": other}, "", f"{pointer}/{number}")
        for number, (each, (one, other)) in enumerate(zip(inner, pairs, strict=True))
    ]
    return _validated(field, found, pointer)


def _mapping(field: fields.Dict, value: Any, dumped: Any, pointer: str) -> Any:
    if _kind(value) != "object" or _kind(dumped) != "object":
        raise _undeclared(pointer, "not an object")
    if field.value_field is None:
        return _validated(field, dumped, pointer)
    inner = field.value_field
    pairs = zip(value.values(), dumped.items(), strict=True)
    return _validated(
        field, {key: _checked(inner, one, {"": other}, "", f"{pointer}/*") for one, (key, other) in pairs}, pointer
    )


def _validated(field: fields.Field[Any], value: Any, pointer: str) -> Any:
    try:
        for validator in field.validators:
            validator(value)
    except Exception:  # noqa: BLE001 - a validator of the app may raise any exception
        raise _undeclared(pointer, "not what its field declares") from None
    return value


def _paired(value: Any, dumped: Any, pointer: str) -> list[tuple[Any, Any]]:
    if _kind(value) != "list" or _kind(dumped) != "list" or len(value) != len(dumped):
        raise _undeclared(pointer, "not a list")
    return list(zip(value, dumped, strict=True))


def _check_kind(field: fields.Field[Any], value: Any, dumped: Any, pointer: str) -> None:
    kind = _kind(value)
    if kind is None:
        if isinstance(field, fields.String) and not isinstance(field, _FROM_OBJECTS):
            raise _undeclared(pointer, "not a string")
    elif (kind != _kind(dumped) and not getattr(field, "as_string", False)) or _is_no_boolean(field, kind):
        raise _undeclared(pointer, f"its type is {kind}, which its field does not declare")
    elif isinstance(field, fields.Integer) and kind == "number" and int(value) != value:
        raise _undeclared(pointer, "not an integer")
    elif kind == "string" and type(value) is not str and dumped != str.__str__(value):
        raise _undeclared(pointer, "a string that converts to a different one")


def _is_no_boolean(field: fields.Field[Any], kind: str) -> bool:
    # marshmallow 4 dumps any value, and loads several strings and numbers as a boolean.
    return isinstance(field, fields.Boolean) and kind not in ("boolean", "null")


def _kind(value: Any) -> str | None:
    """Return the JSON type of a value; None if it depends on the field, such as for a date or an array."""
    if isinstance(value, Enum):
        return None
    return next((kind for kind, types in _KINDS if isinstance(value, types)), None)


def _undeclared(pointer: str, what: str) -> UndeclaredError:
    return UndeclaredError(f"the response at {pointer or 'its top'}: {what}")


class ResponseRules:
    """Applies the response schema of a policy, and the score options of policy and plan.

    :param default: the plan for requests that are rejected before the caller is known.
    """

    def __init__(self, default: Plan) -> None:
        self._default = default
        self._options: dict[tuple[ScoreOptions, ScoreOptions], ScoreOptions] = {}

    def options(self, exchange: Exchange, policy: Policy) -> ScoreOptions:
        """Return the combined score options of policy and plan."""
        if policy.scores is None:
            return NO_SCORE_OPTIONS
        plan = self._default if exchange.plan is None else exchange.plan
        if plan.scores is NO_SCORE_OPTIONS:
            return policy.scores
        key = (policy.scores, plan.scores)
        found = self._options.get(key)
        if found is None:
            # Bounded by the number of policies times the number of plans.
            found = self._options[key] = policy.scores.stricter(plan.scores)
        return found

    def respond(self, value: Any, write: Writer, request: Request, exchange: Exchange) -> AnyResponse:
        """Return the response for a view's value, masked and in the format that the client accepts.

        A value that cannot be masked yet is written as it is, without a mark. This is not an error at this point: the
        status is not known, and the view may use the response as part of another one. If the response is sent, the
        filter masks it as JSON or replaces it by an error response.

        :raises InternalError: NaN or Infinity, or scores as keys of an object.
        """
        policy = exchange.policy
        if policy is None:
            return write(value)
        options = self.options(exchange, policy)
        try:
            masked = self.mask(value, policy, options)
        except Exception:  # noqa: BLE001 - the filter raises the same error and reports it
            # Decimals become floats, so that the filter recognizes them as scores and not as strings (labels).
            return write(with_floats(value) if options.masks else value, allow_nan=options.allows_nan)
        array = single_array(masked)
        chosen = accepted(request, (JSON,) if array is None else (JSON, NPY))
        if array is not None and chosen == NPY:
            response: AnyResponse = Response(npy_body(array, allow_nan=options.allows_nan), mimetype=NPY)
        else:
            response = write(_protocol_value(masked, request, exchange), allow_nan=options.allows_nan)
        if array is not None and request.method in _CACHED_METHODS:
            # A cache must not serve the npy file of one client to clients that accept JSON.
            response.headers.add("Vary", "Accept")
        # Only the filter knows whether this leaves with a status of success, and needs a format that is accepted.
        mark_checked(response, policy, options, acceptable=chosen is not None)
        return response

    @staticmethod
    def mask(value: Any, policy: Policy, options: ScoreOptions) -> Any:
        """Return the value with only its declared fields, and with masked scores.

        :raises MaskingError: the value does not match its schema, or cannot be masked.
        :raises NotPlainError: it contains a value that only the JSON writer can convert.
        """
        if policy.response is not None:
            value = dump_declared(policy.response, value)
        return mask_scores(value, options) if options.masks else value


def _protocol_value(value: Any, request: Request, exchange: Exchange) -> Any:
    """Return the value as a document of the request's protocol."""
    if exchange.format != "oip":
        return value
    name = (request.view_args or {}).get("model_name")
    return oip_document(value, exchange.format_options, name if is_safe(name) else "model")
