"""The array fields of this package as JSON Schema (2020-12): nested arrays with their lengths and bounds.

Extensions describe constraints without a JSON Schema keyword: ``x-dtype``, ``x-shape`` (null for any length, a name for
a dimension that must have the same length everywhere), ``x-features`` (the names of the positions in the last
dimension), ``x-max-elements``, ``x-total``, ``x-norm``, and ``x-outside`` with bounds that do not reject.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..inputs.fields.arrays import ArrayField, is_taken
from ..inputs.fields.base64_tensor import Base64Tensor
from ..inputs.fields.categorical import Categorical
from ..inputs.fields.tensor import Tensor
from ..inputs.formats.oip import DATATYPES
from ..inputs.problems import number_text

JsonSchema = dict[str, Any]

MOST_COLUMNS = 64
"""The maximum number of columns with separate bounds; beyond it, all columns have the widest bounds."""

MAX_EXAMPLE = 1_024
"""The maximum number of numbers in an example."""

_TYPES = {"f": "number", "i": "integer", "u": "integer", "b": "boolean"}
_BOUNDS = ("minimum", "maximum")
_OUTSIDE = {"reject": "", "clip": " (others are changed to the bound)", "report": " (others are accepted and reported)"}


def tensor_schema(field: Tensor) -> JsonSchema:
    """Return the schema of the nested arrays that a tensor field accepts."""
    return _nested(field, _innermost(field)) | _about(field) | {"description": tensor_text(field)}


def base64_schema(field: Base64Tensor) -> JsonSchema:
    """Return the schema of a tensor in base64: an object, or a string if the shape follows from its length."""
    encoded = {"type": "string", "contentEncoding": "base64"}
    lengths = [{"type": "integer", "minimum": 1} if each is None else {"const": each} for each in field.shape]
    needs_shape = field.shape.count(None) > 1
    envelope = {
        "type": "object",
        "required": ["b64", "shape"] if needs_shape else ["b64"],
        "properties": {
            "b64": encoded,
            "shape": {"type": "array", "prefixItems": lengths, "minItems": len(lengths), "maxItems": len(lengths)},
            "dtype": {"enum": _sent_dtypes(field), "default": field.dtype.name},
        },
        "additionalProperties": False,
    }
    example = _base64_example(field)
    return {
        "oneOf": [envelope] if needs_shape else [envelope, encoded],
        "description": f"The bytes of an array in base64, little-endian and in C order: {tensor_text(field)}",
        **_about(field),
        **({} if example is None else {"examples": [example]}),
    }


def categorical_schema(field: Categorical) -> JsonSchema:
    """Return the schema of a choice, or of nested arrays of choices."""
    kind = "string" if isinstance(field.choices[0], str) else "integer"
    leaf: JsonSchema = {"type": kind, "enum": list(field.choices)}
    if not field.shape:
        return leaf
    description = f"Choices in the shape {_shape_text(field)}."
    return _nested(field, {"items": leaf}) | {"x-shape": _shape(field), "description": description}


def tensor_text(field: Tensor) -> str:
    """Return the constraints of a tensor as a sentence."""
    parts = [f"{field.dtype.name} of the shape {_shape_text(field)}", *_bound_texts(field)]
    if field.max_items is not None:
        parts.append(f"at most {field.max_items} in the first dimension")
    for span, what in ((field.total, "a sum"), (field.norm, "a Euclidean norm")):
        if span is not None:
            parts.append(f"the last dimension with {what} {_span_text(span)}")
    return "; ".join(parts) + "."


def _nested(field: ArrayField, innermost: JsonSchema) -> JsonSchema:
    """Return the schema of nested arrays of the field's shape.

    :param innermost: ``items`` or ``prefixItems`` of the last dimension.
    """
    found = innermost
    for number, length in reversed(list(enumerate(field.shape))):
        most = length if number or length is not None else field.max_items
        array = {"type": "array", "minItems": length or 1} | ({} if most is None else {"maxItems": most}) | found
        found = {"items": array} if number else array
    return found


def _innermost(field: Tensor) -> JsonSchema:
    columns = field.shape[-1]
    if not _is_by_column(field) or columns is None or columns > MOST_COLUMNS:
        return {"items": _leaf(field)}
    return {"prefixItems": [_leaf(field, column) for column in range(columns)]}


def _is_by_column(field: Tensor) -> bool:
    """Return True if columns have separate bounds that reject values."""
    varied = any(bound is not None and bound.ndim for bound in (field.minimum, field.maximum))
    return varied and field.outside == "reject" and field.allowed is None


def _leaf(field: Tensor, column: int | None = None) -> JsonSchema:
    """Return the schema of a number in the given column, or in any column."""
    found: JsonSchema = {"type": _TYPES[field.dtype.kind]}
    if field.allowed is not None:
        # Infinite values are rejected even if allowed. If there are no finite ones, no value is valid.
        finite = [number for each in field.allowed if (number := _number(each, field)) is not None]
        return {**found, "enum": finite} if finite else {**found, "not": {}}
    return found | dict(_limits(field, column))


def _limits(field: Tensor, column: int | None) -> Iterator[tuple[str, float]]:
    limits = _representable(field)
    for name, widest, inner in (("minimum", np.min, max), ("maximum", np.max, min)):
        found: list[float] = [] if limits is None else [limits[name == "maximum"]]
        bound = getattr(field, name) if field.outside == "reject" else None
        if bound is not None:
            number = _number(widest(bound) if column is None or not bound.ndim else bound[column], field)
            found += [] if number is None else [number]
        if found:
            yield name, inner(found)


def _representable(field: Tensor) -> tuple[float, float] | None:
    """Return the range of an integer or float16 dtype; None for others."""
    if field.dtype.kind in "iu":
        limits = np.iinfo(field.dtype)
        return int(limits.min), int(limits.max)
    most = float(np.finfo(np.float16).max)
    return (-most, most) if field.dtype == np.float16 else None


def _number(bound: Any, field: Tensor) -> float | None:
    """Return a bound as a JSON number; None if it is infinite."""
    value = float(bound)
    if math.isinf(value):
        return None
    return int(bound) if field.dtype.kind in "iu" and value == int(bound) else value


def _about(field: Tensor) -> JsonSchema:
    found: JsonSchema = {"x-dtype": field.dtype.name, "x-shape": _shape(field), "x-max-elements": field.max_elements}
    found |= {"x-features": list(field.features)} if field.features else {}
    spans = {name: span for name in ("total", "norm") if (span := getattr(field, name)) is not None}
    found |= {f"x-{name}": [_finite(each) for each in span] for name, span in spans.items()}
    if field.outside == "reject":
        return found
    given = {f"x-{name}": _plain(bound, field) for name in _BOUNDS if (bound := getattr(field, name)) is not None}
    return found | {"x-outside": field.outside, **given}


def _plain(bound: Any, field: Tensor) -> Any:
    return [_number(each, field) for each in bound] if bound.ndim else _number(bound, field)


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None


def _sent_dtypes(field: Tensor) -> list[str]:
    return sorted(each.name for each in DATATYPES.values() if is_taken(each, field.dtype))


def _shape(field: ArrayField) -> list[int | str | None]:
    return [length or name for length, name in zip(field.shape, field.dimensions, strict=True)]


def _shape_text(field: ArrayField) -> str:
    return "(" + ", ".join("any" if each is None else str(each) for each in _shape(field)) + ")"


def _bound_texts(field: Tensor) -> Iterator[str]:
    sides = (("from", field.minimum, np.min), ("to", field.maximum, np.max))
    limits = [(word, float(widest(bound))) for word, bound, widest in sides if bound is not None]
    texts = [f"{word} {number_text(limit)}" for word, limit in limits if math.isfinite(limit)]
    varied = any(bound is not None and bound.ndim for _, bound, _ in sides)
    if texts:
        yield f"values {' '.join(texts)}{', others by column' if varied else ''}{_OUTSIDE[field.outside]}"
    if field.allowed is not None and len(field.allowed) <= MOST_COLUMNS:
        yield f"values {', '.join(map(number_text, filter(math.isfinite, field.allowed)))}"


def _span_text(span: tuple[float, float]) -> str:
    sides = zip(("from", "to"), span, strict=True)
    return " ".join(f"{word} {number_text(bound)}" for word, bound in sides if math.isfinite(bound)) or "of any size"


def _base64_example(field: Base64Tensor) -> JsonSchema | None:
    lengths = [length or 1 for length in field.shape]
    if math.prod(lengths) > MAX_EXAMPLE or field.total or field.norm or _is_by_column(field):
        return None
    leaf = _leaf(field)
    if "not" in leaf:
        return None
    value = leaf["enum"][0] if "enum" in leaf else nearest_to_zero(leaf)
    array = np.full(lengths, value, field.dtype.newbyteorder("<"))
    return {"b64": b64encode(array.tobytes()).decode(), "shape": lengths, "dtype": field.dtype.name}


def nearest_to_zero(schema: JsonSchema) -> Any:
    """Return 0, or the bound of a number's schema that is nearest to 0."""
    least, most = schema.get("minimum", 0), schema.get("maximum", 0)
    return least if least > 0 else min(0, most)
