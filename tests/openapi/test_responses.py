"""Described responses: all error responses that occur, and schemas that real responses match."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from marshmallow import Schema, fields
from openapi_spec_validator import OpenAPIV31SpecValidator

from flask_secure_ml import SecureML, protect, public
from flask_secure_ml.inputs import Base64Tensor, Categorical, Tensor
from flask_secure_ml.openapi import build_document
from support import HTTPS, MakeApp, NameAuthenticator, caller

NPY = "application/x-npy"


class Row(Schema):
    label = fields.String(required=True)
    chance = fields.Float(required=True)


class Answer(Schema):
    label = fields.String(required=True)
    number = fields.Integer(required=True)
    scores = Tensor((None,), "float64", minimum=-5, maximum=0.75, load_default=None, allow_none=True)
    price = fields.Float(required=True, as_string=True)
    chance = fields.Float(required=True, allow_nan=True, allow_none=True)
    rows = fields.List(fields.Nested(Row), required=True)
    within = fields.Nested(lambda: Answer(only=("label", "chance")))


class Numbers(Schema):
    x = Tensor((None, 2))


def value(**changes: Any) -> dict[str, Any]:
    usual = {
        "label": "a",
        "number": 3,
        "scores": np.array([-1.0, -4.9, 0.75]),
        "price": 0.123456,
        "chance": 0.5,
        "rows": [{"label": "b", "chance": 0.25}],
        "within": {"label": "c", "chance": 0.125},
    }
    return usual | changes


def app_of(settings: dict[str, Any], options: dict[str, Any], response: Any) -> Flask:
    app = Flask("answers")
    app.config.update({f"SECURE_ML_{name}": each for name, each in settings.items()}, TESTING=True)
    app.config["SECURE_ML_REQUEST_LOG"] = "off"
    SecureML(app, authenticators=[NameAuthenticator()])

    @app.post("/x")
    @protect(**options)
    def x(payload: Any = None) -> Any:
        return response

    return app


def described(document: dict[str, Any]) -> Any:
    """Return a validator for JSON responses of the route."""
    content = document["paths"]["/x"]["post"]["responses"]["2XX"]["content"]["application/json"]
    return Draft202012Validator({"components": document["components"], "allOf": [content["schema"]]})


def asked(app: Flask, **options: Any) -> Any:
    return app.test_client().post("/x", base_url=HTTPS, headers=caller("ada"), **options)


OPTIONS = [
    pytest.param({}, id="none"),
    pytest.param({"label_only": True}, id="label only"),
    pytest.param({"top_k": 2}, id="cut below the minimum"),
    pytest.param({"round": 1}, id="rounded beyond the maximum"),
    pytest.param({"nan": "null"}, id="null"),
    pytest.param({"round": 0, "nan": "null"}, id="rounded and null"),
]


@pytest.mark.parametrize("by_plan", [False, True], ids=["by route", "by plan"])
@pytest.mark.parametrize("outputs", OPTIONS)
def test_responses_fit_their_schema(outputs: dict[str, Any], by_plan: bool) -> None:
    """With any options, the response matches its schema."""
    settings = {"PLANS": {"default": {"scores": outputs}}} if by_plan and outputs else {}
    options = {"response": Answer} | ({"scores": outputs} if outputs and not by_plan else {})
    odd = {"chance": float("nan")} if "nan" in outputs else {}
    few = {"rows": [], "within": {"label": "c"}, "price": 1.0} if "top_k" in outputs else {}
    app = app_of(settings, options, value(**odd, **few))
    document = build_document(app)
    OpenAPIV31SpecValidator(document).validate()
    response = asked(app)
    if "top_k" in outputs:
        # Single scores beside the array are rejected, which no schema can say.
        assert response.status_code in (200, 500)
    else:
        assert response.status_code == 200
    if response.status_code == 200:
        assert [each.message for each in described(document).iter_errors(response.json)] == []


class Logits(Schema):
    logits = Tensor((None,), "float64", minimum=-5, maximum=0.75)


@given(
    numbers=st.lists(st.floats(-5, 0.75), min_size=1, max_size=6),
    outputs=st.fixed_dictionaries({}, optional={"top_k": st.integers(1, 3), "round": st.integers(0, 3)}),
)
def test_fuzz_shaped_arrays_fit(numbers: list[float], outputs: dict[str, int]) -> None:
    """No array that a view may return becomes one that its schema rejects."""
    options = {"response": Logits} | ({"scores": outputs} if outputs else {})
    app = app_of({}, options, {"logits": np.array(numbers)})
    response = asked(app)
    assert response.status_code == 200
    assert described(build_document(app)).is_valid(response.json)


def test_the_schema_says_something() -> None:
    """It rejects values that the view cannot return: extra members, other types, and scores with label_only."""
    app = app_of({}, {"response": Answer, "scores": {"label_only": True}}, value())
    check = described(build_document(app))
    good = asked(app).json
    assert check.is_valid(good)
    assert good.keys() >= {"label", "number"}
    assert not check.is_valid(good | {"chance": 0.5})
    assert not check.is_valid(good | {"label": 1})
    assert not check.is_valid({"label": "a"})


def test_null_for_what_is_no_number() -> None:
    """Where NaN leaves as null, a field that declares no null may have it; elsewhere it may not."""
    returns = Schema.from_dict({"chance": fields.Float(allow_nan=True)})
    app = app_of({}, {"response": returns, "scores": {"nan": "null"}}, {"chance": float("nan")})
    response = asked(app)
    assert (response.status_code, response.json) == (200, {"chance": None})
    assert described(build_document(app)).is_valid(response.json)
    assert not described(build_document(app_of({}, {"response": returns}, {}))).is_valid(response.json)


def test_a_schema_of_its_own_for_each_options() -> None:
    """Two routes with one schema and different options have separate response schemas; body schemas are unchanged."""
    app = app_of({}, {"response": Row, "scores": {"round": 3}, "body": Row}, {})

    @app.post("/y")
    @protect(response=Row, scores={"label_only": True})
    def y() -> Any:
        return {}

    schemas = build_document(app)["components"]["schemas"]
    assert schemas["Row"]["required"] == ["chance", "label"]
    assert schemas["Row.round3"]["required"] == ["chance", "label"]
    assert schemas["Row.label_only"]["required"] == ["label"]


def test_options_that_do_not_apply() -> None:
    """Responses of a route without scores are as declared, whatever the plan."""
    plans = {"default": {"scores": {"label_only": True}}}
    app = app_of({"PLANS": plans}, {"response": Row, "scores": False}, {"label": "a", "chance": 0.5})
    document = build_document(app)
    assert "Scores" not in document["paths"]["/x"]["post"]["responses"]["2XX"]["description"]
    assert described(document).is_valid(asked(app).json)
    assert not described(document).is_valid({"label": "a"})


def test_inference_responses() -> None:
    """With the protocol on, a response may be of its form, and is for a request of its form."""
    options = {"response": Row, "body": Numbers}
    app = app_of({"WIRE_FORMATS": ["json", "oip"]}, options, {"label": "a", "chance": 0.5})
    check = described(build_document(app))
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    for body in ({"x": [[1, 2]]}, {"inputs": [tensor]}):
        response = asked(app, json=body)
        assert response.status_code == 200
        assert check.is_valid(response.json)
    assert not check.is_valid({"outputs": []})


@pytest.mark.parametrize(
    ("field", "response", "is_array"),
    [
        pytest.param(Tensor((None,)), [1.0], True, id="tensor"),
        pytest.param(Categorical([1, 2], (None,)), [1], True, id="numbers to choose from"),
        pytest.param(Categorical(["a"], (None,)), ["a"], False, id="texts to choose from"),
        pytest.param(Categorical([1, 2]), 1, False, id="one choice"),
        pytest.param(Base64Tensor((None,)), np.ones(1, "float32"), False, id="base64"),
    ],
)
def test_npy_where_it_is_written(field: Any, response: Any, is_array: bool) -> None:
    """The media type of arrays is named just where Accept gets it."""
    app = app_of({}, {"response": Schema.from_dict({"x": field})}, {"x": response})
    content = build_document(app)["paths"]["/x"]["post"]["responses"]["2XX"]["content"]
    headers = caller("ada") | {"Accept": f"{NPY}, application/json;q=0.1"}
    got = app.test_client().post("/x", base_url=HTTPS, headers=headers)
    assert (got.status_code, got.mimetype == NPY, NPY in content) == (200, is_array, is_array)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        pytest.param({"data": b"{", "content_type": "application/json"}, 400, id="broken JSON"),
        pytest.param({"environ_overrides": {"QUERY_STRING": "a=\xff"}}, 400, id="query"),
        pytest.param({"data": b" " * 101, "content_type": "text/plain"}, 413, id="too large"),
        pytest.param({"headers": {"Content-Encoding": "br"}}, 415, id="content encoding"),
        pytest.param({"data": "{}", "content_type": "application/json; charset=latin-1"}, 415, id="charset"),
        pytest.param({"headers": {"Accept": "image/png"}}, 406, id="Accept"),
    ],
)
def test_rejections_where_no_body_is_asked_for(protected: MakeApp, options: dict[str, Any], status: int) -> None:
    """A route without a schema can also reject a body, even for GET."""
    app = protected(MAX_BODY_BYTES=100)

    @app.get("/x")
    @public
    def x() -> dict[str, Any]:
        return {}

    assert app.test_client().get("/x", base_url=HTTPS, **options).status_code == status
    assert str(status) in build_document(app)["paths"]["/x"]["get"]["responses"]


@pytest.mark.parametrize(
    ("settings", "limits", "expected"),
    [
        pytest.param({"PLANS": {"default": {}}}, [], [], id="nothing counts"),
        pytest.param({"PLANS": {"default": {}, "gold": {"requests": ["5/minute"]}}}, [], [], id="another's plan"),
        pytest.param({"PLANS": {"default": {}}}, ["5/minute"], ["429", "503"], id="its own limit"),
        pytest.param({"PLANS": {"default": {}}, "LIMIT_OUTAGE": "degrade"}, ["5/minute"], ["429"], id="never closed"),
    ],
)
def test_only_what_can_come(
    protected: MakeApp, settings: dict[str, Any], limits: list[str], expected: list[str]
) -> None:
    """An open route is limited by itself and the default plan, and needs the counters only then."""
    app = protected(**({"LIMIT_OUTAGE": "closed"} | settings))

    @app.get("/x")
    @public(limits=limits)
    def x() -> dict[str, Any]:
        return {}

    found = build_document(app)["paths"]["/x"]["get"]["responses"]
    assert [status for status in ("429", "503") if status in found] == expected


def test_one_response_for_all_routes_that_have_it(document: dict[str, Any]) -> None:
    """Every response that is referred to exists, every one that exists is referred to, and has an example a code."""
    text = json.dumps(document["paths"])
    for name, response in document["components"]["responses"].items():
        assert f'"#/components/responses/{name}"' in text
        content = response["content"]["application/problem+json"]
        assert list(content["examples"]) == content["schema"]["allOf"][1]["properties"]["code"]["enum"]
    schema = {"components": document["components"], "$ref": "#/components/schemas/Problem"}
    for response in document["components"]["responses"].values():
        for example in response["content"]["application/problem+json"]["examples"].values():
            assert Draft202012Validator(schema).is_valid(example["value"])
