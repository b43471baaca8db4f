"""What the policy of a route and the plan of its caller allow in a response, applied to its value.

This is the one place where values are masked. A value that a view returns comes here before it is written, straight
from memory; the value of a body that the view wrote itself comes here from the filter, which reads and writes it.

With a response schema, only declared fields leave, and only with values of their declared kind. marshmallow's ``dump``
does not validate: it leaves out what is missing, and a ``String`` field turns any object into a string with all that is
in it. So each dumped field is checked against the value it was made from.
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
# Subclasses of String in marshmallow 3.
_FROM_OBJECTS: tuple[type, ...] = (fields.UUID,)
_COMPUTED = (fields.Function, fields.Method, fields.Constant)


class UndeclaredError(MaskingError):
    """The response is not what its schema declares. The message has the pointer of the field, and no value."""


def dump_declared(schema: Schema, value: Any) -> Any:
    """Return a value with the fields of its schema only, as plain data; arrays may stay arrays.

    The hooks of the schema run, and so do validators of fields; those of nested schemas as a whole do not.

    :param value: what the view returns: an object, or a list of them if the schema has ``many=True``.
    :raises UndeclaredError: a required field is missing, or a value is not what its field declares.
    """
    try:
        dumped = schema.dump(value)
    except Exception as error:  # noqa: BLE001 - fields raise whatever a wrong value causes
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
    # The field checks the array itself, which need not be made from its lists again.
    given = value if type(value) is np.ndarray and type(dumped) is list else dumped
    try:
        loaded = field.deserialize(given, key, siblings)
    except Exception as error:  # noqa: BLE001 - as above
        what = "not what its field declares" if isinstance(error, ValidationError) else type(error).__name__
        raise _undeclared(pointer, what) from None
    if isinstance(loaded, np.ndarray) and type(dumped) is list:
        return loaded
    # Masked as the number that it is.
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
    except Exception:  # noqa: BLE001 - a validator is the user's own
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
        raise _undeclared(pointer, f"its kind is {kind}, which its field does not declare")
    elif isinstance(field, fields.Integer) and kind == "number" and int(value) != value:
        raise _undeclared(pointer, "not an integer")
    elif kind == "string" and type(value) is not str and dumped != str.__str__(value):
        raise _undeclared(pointer, "a string that turns into another one")


def _is_no_boolean(field: fields.Field[Any], kind: str) -> bool:
    # marshmallow 4 dumps any value, and loads several strings and numbers as a boolean.
    return isinstance(field, fields.Boolean) and kind not in ("boolean", "null")


def _kind(value: Any) -> str | None:
    """Return the kind of a value in JSON; None where only its field knows, such as for a date or an array."""
    if isinstance(value, Enum):
        return None
    return next((kind for kind, types in _KINDS if isinstance(value, types)), None)


def _undeclared(pointer: str, what: str) -> UndeclaredError:
    return UndeclaredError(f"the response at {pointer or 'its top'}: {what}")


class ResponseRules:
    """Applies the response schema of a policy, and the score options of policy and plan.

    :param default: the plan for a request that was rejected before its caller was known.
    """

    def __init__(self, default: Plan) -> None:
        self._default = default
        self._options: dict[tuple[ScoreOptions, ScoreOptions], ScoreOptions] = {}

    def options(self, exchange: Exchange, policy: Policy) -> ScoreOptions:
        """Return the score options of policy and plan together."""
        if policy.scores is None:
            return NO_SCORE_OPTIONS
        plan = self._default if exchange.plan is None else exchange.plan
        if plan.scores is NO_SCORE_OPTIONS:
            return policy.scores
        key = (policy.scores, plan.scores)
        found = self._options.get(key)
        if found is None:
            # There are no more than policies times plans.
            found = self._options[key] = policy.scores.stricter(plan.scores)
        return found

    def respond(self, value: Any, write: Writer, request: Request, exchange: Exchange) -> AnyResponse:
        """Return the response for a view's value: masked before it is written, in the format that the client accepts.

        A value that cannot be masked, or whose form as JSON only the writer knows, is written as it is and gets no
        mark. It is too early for an error: the status is not known yet, and the view may use this as a part of
        another response. If it leaves, the filter masks it as JSON, or replaces it by an error response.

        :raises InternalError: NaN or Infinity, or scores that are keys.
        """
        policy = exchange.policy
        if policy is None:
            return write(value)
        options = self.options(exchange, policy)
        try:
            masked = self.mask(value, policy, options)
        except Exception:  # noqa: BLE001 - the filter meets the same fault, and reports it
            # The filter must still find the scores: a decimal is written as a string, and strings are labels.
            return write(with_floats(value) if options.masks else value, allow_nan=options.allows_nan)
        array = single_array(masked)
        chosen = accepted(request, (JSON,) if array is None else (JSON, NPY))
        if array is not None and chosen == NPY:
            response: AnyResponse = Response(npy_body(array, allow_nan=options.allows_nan), mimetype=NPY)
        else:
            response = write(_protocol_value(masked, request, exchange), allow_nan=options.allows_nan)
        # Only the filter knows whether this leaves with a status of success, and needs a format that is accepted.
        mark_checked(response, policy, options, acceptable=chosen is not None)
        return response

    @staticmethod
    def mask(value: Any, policy: Policy, options: ScoreOptions) -> Any:
        """Return the value with its declared fields only, and with masked scores.

        :raises MaskingError: the value is not as declared, or cannot be masked.
        :raises NotPlainError: only a writer of JSON knows the form of something in it.
        """
        if policy.response is not None:
            value = dump_declared(policy.response, value)
        return mask_scores(value, options) if options.masks else value


def _protocol_value(value: Any, request: Request, exchange: Exchange) -> Any:
    """Return the value as the protocol of the request writes it."""
    if exchange.format != "oip":
        return value
    name = (request.view_args or {}).get("model_name")
    return oip_document(value, exchange.format_options, name if is_safe(name) else "model")
