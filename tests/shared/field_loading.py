"""Loading one field with a schema, as for a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError

CORPUS = Path(__file__).parents[1] / "corpus" / "fields"
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.characters(categories=["Cs", "Cc"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["b64", "shape", "dtype", "x"]) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def load(field: Any, value: Any) -> Any:
    """Return the value that a schema with this field loads."""
    return Schema.from_dict({"x": field})().load({"x": value})["x"]


def errors(field: Any, value: Any) -> Any:
    """Return the messages of the field for an invalid value."""
    with pytest.raises(ValidationError) as caught:
        load(field, value)
    messages = caught.value.messages
    assert isinstance(messages, dict)
    return messages["x"]


def message(field: Any, value: Any) -> str:
    """Return the only message, which must be about the whole value."""
    (found,) = errors(field, value)
    return str(found)


def corpus(name: str) -> list[Any]:
    """Return the cases of one file as test parameters."""
    cases = json.loads((CORPUS / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(case, id=case["id"]) for case in cases]
