"""The Open Inference Protocol: inputs are loaded by field name, in JSON and binary; the corpus has rejected bodies."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import INCLUDE, Schema, fields

from bodies import LENGTH, OCTETS, a_guard, a_request, an_exchange, loaded, peak_of
from flask_secure_ml import Exchange
from flask_secure_ml.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType, ValidationFailed
from flask_secure_ml.inputs import Categorical, Tensor, Text

GUARD = a_guard(["json", "oip"])


class Predict(Schema):
    pixels = Tensor((None, 2), data_key="input-0")
    mask = Tensor((None,), "bool", required=False)
    kind = Categorical(["a", "b"], (None,), required=False)
    one_kind = Categorical(["a", "b"], required=False)
    code = Categorical([1, 2], (None,), required=False)
    text = Text(required=False)
    texts = fields.List(fields.String())
    temperature = fields.Float(load_default=1.0)
    weights = fields.List(fields.Float())


PIXELS = {"name": "input-0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}


def infer(*inputs: dict[str, Any], schema: type[Schema] = Predict, **members: Any) -> Exchange:
    return loaded(GUARD, schema, json.dumps({"inputs": inputs, **members}).encode())


def tensor(name: str, datatype: str, data: Any, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape) or [len(data)], "data": data}


def binary(document: Any, raw: bytes, media_type: str | None = OCTETS, schema: type[Schema] = Predict) -> Exchange:
    header = json.dumps(document).encode()
    return loaded(GUARD, schema, header + raw, media_type, **{LENGTH: str(len(header))})


def raw_input(name: str, datatype: str, size: int, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "parameters": {"binary_data_size": size}}


def test_an_input_fills_the_field_of_its_name() -> None:
    """The name is that of the field in a body."""
    exchange = infer(PIXELS)
    assert exchange.payload["pixels"].tolist() == [[1, 2.5]]
    assert exchange.payload["temperature"] == 1.0
    assert (exchange.format, exchange.format_options) == ("oip", {})


@pytest.mark.parametrize(
    ("given_input", "name", "expected"),
    [
        (tensor("mask", "BOOL", [True, False]), "mask", [True, False]),
        (tensor("kind", "BYTES", ["a", "b"]), "kind", ["a", "b"]),
        (tensor("one_kind", "BYTES", ["a"]), "one_kind", "a"),
        (tensor("code", "INT8", [1, 2]), "code", [1, 2]),
        (tensor("text", "BYTES", ["hello"]), "text", "hello"),
        (tensor("text", "BYTES", [["hello"]], 1, 1), "text", "hello"),
        (tensor("texts", "BYTES", ["hello"]), "texts", ["hello"]),
        (tensor("temperature", "FP32", [0.5]), "temperature", 0.5),
        (tensor("temperature", "FP64", [0.5], 1, 1), "temperature", 0.5),
        (tensor("weights", "FP64", [0.5]), "weights", [0.5]),
        (tensor("weights", "INT32", [1, 2]), "weights", [1.0, 2.0]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fields_of_every_kind_are_filled(given_input: dict[str, Any], name: str, expected: Any) -> None:
    """An array where the field takes one, a list or a scalar where it does not."""
    found = infer(PIXELS, given_input).payload[name]
    assert (found.tolist() if isinstance(found, np.ndarray) else found) == expected


def test_tensors_of_a_name_that_the_schema_lets_in() -> None:
    """The schema decides what to do with names that it does not know."""

    class Open(Schema):
        class Meta:
            unknown = INCLUDE

    assert infer(PIXELS, schema=Open).payload["input-0"].tolist() == [[1, 2.5]]


def test_what_the_response_is_asked_for() -> None:
    """The id, and the names of the outputs that are wanted."""
    exchange = infer(PIXELS, id="42", outputs=[{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}])
    assert exchange.format_options == {"id": "42", "outputs": ("a", "b")}
    assert infer(PIXELS, id=None, outputs=[]).format_options == {}


def test_binary_inputs_follow_the_json_in_their_order() -> None:
    """Each input takes its own bytes; one in JSON between them takes none."""
    rows = np.array([[1, 2], [3, 4.5]], "<f8")
    document = {
        "inputs": [
            raw_input("input-0", "FP64", 32, 2, 2),
            tensor("temperature", "FP64", [0.5]),
            raw_input("mask", "BOOL", 2, 2),
            raw_input("texts", "BYTES", 4 + 2 + 4 + 0, 2),
        ]
    }
    raw = rows.tobytes() + b"\x01\x00" + b"\x02\x00\x00\x00\xc3\xa9" + b"\x00\x00\x00\x00"
    found = binary(document, raw).payload
    assert found["pixels"].tolist() == rows.tolist()
    assert found["mask"].tolist() == [True, False]
    assert found["texts"] == ["\u00e9", ""]
    assert found["temperature"] == 0.5


@pytest.mark.parametrize("media_type", [OCTETS, "application/json", None])
def test_media_types_of_the_binary_extension(media_type: str | None) -> None:
    """Triton clients omit the media type; the header is sufficient."""
    document = {"inputs": [raw_input("input-0", "FP32", 8, 1, 2)]}
    assert binary(document, bytes(8), media_type).payload["pixels"].tolist() == [[0, 0]]


def test_other_media_types_are_not_told_by_the_header() -> None:
    """A form stays a form."""
    with pytest.raises(UnsupportedMediaType):
        binary({"inputs": []}, b"", "multipart/form-data")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x01\x00\x00\x00",
        b"\x01\x00\x00",
        b"\xff\xff\xff\x7fa",
        b"\x02\x00\x00\x00a",
        b"\x00\x00\x00\x00a",
        b"\x01\x00\x00\x00a" * 2,
        b"\x01\x00\x00\x00\xff",
        b"\x03\x00\x00\x00\xed\xa0\x80",
    ],
    ids=["nothing", "no text", "half a length", "huge", "cut off", "too much", "two", "not UTF-8", "surrogate"],
)
def test_texts_in_binary_must_fill_their_bytes(raw: bytes) -> None:
    """A length beyond the bytes, a byte too many, or anything but UTF-8."""
    document = {"inputs": [PIXELS, raw_input("text", "BYTES", len(raw), 1)]}
    with pytest.raises((ValidationFailed, PayloadTooLarge)) as caught:
        binary(document, raw)
    assert isinstance(caught.value, PayloadTooLarge) == (raw[3:4] == b"\x7f")


def test_texts_in_binary_have_the_caps_of_texts() -> None:
    """As long as a string of JSON may be, and as many as values."""
    for length, is_too_long in ((1_000, False), (1_001, True)):
        raw = length.to_bytes(4, "little") + b"a" * length
        document = {"inputs": [PIXELS, raw_input("texts", "BYTES", len(raw), 1)]}
        if is_too_long:
            with pytest.raises(PayloadTooLarge):
                binary(document, raw)
        else:
            assert binary(document, raw).payload["texts"] == ["a" * length]
    with pytest.raises(PayloadTooLarge):
        binary({"inputs": [PIXELS, raw_input("texts", "BYTES", 40_004, 10_001)]}, bytes(40_004))


@pytest.mark.parametrize(
    "value",
    [
        {"instances": [[1, 2]]},
        {"inputs": [[1, 2]]},
        {"inputs": {"a": 1}},
        {"inputs": []},
        [],
        None,
        {"inputs": [{"a": 1}]},
    ],
    ids=repr,
)
def test_json_that_is_no_inference_request(value: Any) -> None:
    """With both formats on, other JSON is JSON; with this one alone it is rejected."""

    class Inputs(Schema):
        inputs = fields.Raw()
        instances = fields.Raw()

    body = json.dumps(value).encode()
    if isinstance(value, dict):
        exchange = loaded(GUARD, Inputs, body)
        assert (exchange.format, exchange.payload) == ("json", value)
    with pytest.raises(ValidationFailed):
        loaded(a_guard(["oip"]), Inputs, body)


def test_an_inference_request_for_a_schema_with_a_field_named_inputs() -> None:
    """A ``datatype`` identifies an inference request; without it the body is for the field."""

    class Inputs(Schema):
        inputs = Tensor((None,))

    assert infer(tensor("inputs", "FP32", [1, 2]), schema=Inputs).payload["inputs"].tolist() == [1, 2]
    with pytest.raises(ValidationFailed) as caught:
        infer({"name": "inputs"}, schema=Inputs)
    assert caught.value.members["errors"] == [{"pointer": "/inputs/0", "message": "Not a number."}]
    with pytest.raises(ValidationFailed) as caught:
        infer({"name": "input-0", "shape": [1]})
    assert caught.value.members["errors"][0]["pointer"] == "/inputs/0/datatype"


def test_a_schema_of_many_objects_has_no_names_for_inputs() -> None:
    """It takes plain JSON only."""
    exchange = an_exchange(body=Schema.from_dict({"inputs": fields.Raw()})(many=True))
    GUARD.check(a_request(b'[{"inputs": [{"datatype": "FP32"}]}]'), exchange)
    assert exchange.format == "json"
    with pytest.raises(UnsupportedMediaType):
        a_guard(["oip"]).check(a_request(b"[]"), exchange)


def test_an_output_that_is_null_or_wrong_is_the_requests_fault() -> None:
    """The wish for a response is checked as the inputs are."""
    wrong: list[Any] = [[{"name": 1}], [{}], {}, [1]]
    for outputs in wrong:
        with pytest.raises(ValidationFailed):
            infer(PIXELS, scores=outputs)


@given(count=st.integers(0, 30), extra=st.integers(-3, 3))
def test_fuzz_binary_data_are_used_up_exactly(count: int, extra: int) -> None:
    """One byte less or more than all inputs need is never taken."""
    document = {"inputs": [raw_input("input-0", "FP32", 8 * count, count, 2)]}
    raw = bytes(max(0, 8 * count + extra))
    if extra == 0 and count:
        assert binary(document, raw).payload["pixels"].shape == (count, 2)
    else:
        with pytest.raises((ValidationFailed, MalformedRequest)):
            binary(document, raw)


class Labelled(Schema):
    instances = Tensor((None, 2), required=False)
    note = fields.String(required=False)
    anything = fields.Raw(required=False)
    numbers = fields.List(fields.Float(), required=False)


# A shape is a few bytes, whatever it would make of lists.
BOMBS = [
    pytest.param("INT8", (50_000, 0), id="empty rows"),
    pytest.param("INT8", (200, 200, 0, 3), id="empty rows in rows"),
    pytest.param("FP64", (10_000, 1), id="a list a value"),
    pytest.param("BYTES", (50_000, 0), id="empty rows of texts"),
    pytest.param("BYTES", (20_001, 0, 7), id="empty texts in rows"),
]


@pytest.mark.parametrize("name", ["note", "anything", "numbers", "nope"])
@pytest.mark.parametrize(("datatype", "shape"), BOMBS)
def test_shapes_that_would_make_lists(datatype: str, shape: tuple[int, ...], name: str) -> None:
    """Lists are counted before they are made, for fields of any kind and for names that no field has."""
    sent = tensor(name, datatype, [0.5] * 10_000 if datatype == "FP64" else [], *shape)
    body = json.dumps({"inputs": [sent]}).encode()

    def ask() -> None:
        a_guard(["oip"], max_elements=10_000).check(a_request(body), an_exchange(body=Labelled))

    assert peak_of(ask) < 60 * len(body) + 300_000


def test_many_dimensions_of_texts() -> None:
    """Each dimension of one text more is a list more for every text."""
    texts = ["a"] * 3_000
    body = json.dumps({"inputs": [tensor("nope", "BYTES", texts, 3_000, *[1] * 31)]}).encode()
    with pytest.raises(PayloadTooLarge):
        a_guard(["oip"], max_elements=10_000).check(a_request(body), an_exchange(body=Labelled))


def test_lists_within_the_cap_are_made() -> None:
    """Values that a field without dimensions can accept are still passed to it."""
    found = infer(tensor("numbers", "FP64", [0.5, 1.5], 2), tensor("note", "BYTES", ["a"], 1), schema=Labelled)
    assert found.payload == {"numbers": [0.5, 1.5], "note": "a"}
