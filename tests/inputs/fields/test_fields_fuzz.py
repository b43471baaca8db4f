"""Whatever JSON is sent to whatever field, it is loaded or rejected with a ValidationError, and never echoed."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from marshmallow import Schema, ValidationError

from field_loading import JSON
from flask_secure_ml.inputs import Base64Tensor, Categorical, Image, Tensor, Text, Url
from flask_secure_ml.inputs.problems import validation_failed


class Everything(Schema):
    tensor = Tensor(("n", None), minimum=0, total=(0, 5))
    clipped = Tensor((None,), "int8", maximum=1, outside="clip", allowed=[1, 2])
    booleans = Tensor(("n",), "bool")
    packed = Base64Tensor(("n", 2), norm=(0, 3))
    bits = Base64Tensor((None, None), "uint8", max_items=3)
    choice = Categorical(["a", "b"])
    choices = Categorical([1, 2], ("n", None), codes=True)
    text = Text(5, max_bytes=8, unassigned="reject")
    stripped = Text(5, normalise="NFKC", control="strip", bidi="strip", keep="")
    image = Image(upright=True)
    url = Url([".example.com"], resolver=lambda _host, _port: ["1.1.1.1"])


SCHEMA = Everything()
ARRAYS = hnp.arrays(
    st.sampled_from(["f4", ">f8", "u1", "i8", "?", "U3", "O", "c8", "M8[s]", "S2"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
ENVELOPES = st.fixed_dictionaries(
    {"b64": st.binary(max_size=16).map(lambda data: b64encode(data).decode()) | st.text()},
    optional={
        "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=3),
        "dtype": st.sampled_from(["float32", "uint8", "bool", "int64"]) | st.text(max_size=4),
    },
)
VALUES = JSON | ARRAYS | ENVELOPES | st.binary(max_size=20)


@pytest.mark.parametrize("name", list(SCHEMA.fields))
def test_fuzz_one_field(name: str) -> None:
    """A field alone only raises ValidationError."""

    @given(VALUES)
    def ask(value: Any) -> None:
        try:
            SCHEMA.fields[name].deserialize(value)
        except ValidationError as error:
            json.dumps(error.messages)

    ask()


@given(st.dictionaries(st.sampled_from(list(SCHEMA.fields)), VALUES, min_size=6))
def test_fuzz_all_fields_together(value: dict[str, Any]) -> None:
    """A whole body makes a response of at most twenty errors."""
    errors = SCHEMA.validate(value)
    assert not errors or 1 <= len(validation_failed(ValidationError(errors)).members["errors"]) <= 20


SECRET = "Zq7-secret"


@pytest.mark.parametrize("name", list(SCHEMA.fields))
@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        [SECRET],
        [[SECRET, 1]],
        {"b64": SECRET},
        {"b64": "AAAA", "shape": [SECRET], "dtype": SECRET},
        {"b64": "AAAA", "dtype": SECRET},
        f"https://{SECRET}.example/",
        np.array([SECRET]),
        SECRET + "\x00\u202e",
    ],
    ids=repr,
)
def test_no_error_repeats_the_value(name: str, value: Any) -> None:
    """The input occurs in no message, pointer or reason."""
    error = SCHEMA.validate({name: value})
    assert error.get(name)
    rejection = validation_failed(ValidationError(error))
    assert SECRET not in json.dumps(rejection.members) + rejection.reason
