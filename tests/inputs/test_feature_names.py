"""Feature names of tensors: their sources, and matching of ranges and columns by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flask import Flask
from marshmallow import Schema, ValidationError

from flask_secure_ml import protect
from flask_secure_ml.inputs import Profile, Tensor
from flask_secure_ml.inputs.feature_names import order_of
from flask_secure_ml.inputs.profiles.fit import columns_of, fit
from support import HTTPS, MakeApp, caller

TABLE = np.array([[18.0, 0.0], [90.0, 1e6]])


def a_profile(*names: str) -> Profile:
    return fit(columns_of(TABLE, names or None))


def a_model(*names: str) -> Any:
    """Return the description of a fitted estimator."""
    return SimpleNamespace(n_features_in_=len(names), feature_names_in_=np.array(names, object))


def bounds(field: Tensor) -> list[list[float]]:
    assert field.minimum is not None
    assert field.maximum is not None
    return [field.minimum.tolist(), field.maximum.tolist()]


AGE_FIRST, INCOME_FIRST = [[18, 0], [90, 1e6]], [[0, 18], [1e6, 90]]


def test_names_of_a_profile() -> None:
    """A profile of named data names the features; one of an array does not."""
    assert Tensor(profile=a_profile("age", "income")).features == ("age", "income")
    assert Tensor(profile=a_profile()).features == ()
    assert Tensor((None, 2)).features == ()


def test_names_of_the_author() -> None:
    """The author names features where neither data nor a model do, or ignores the names of both."""
    assert Tensor((None, 2), features=["age", "income"]).features == ("age", "income")
    assert Tensor((3, 2), features=("age", "income")).features == ("age", "income")
    assert Tensor(profile=a_profile("age", "income"), features=()).features == ()
    assert Tensor.for_model(a_model("age", "income"), features=()).features == ()


def test_a_profile_is_matched_to_the_model() -> None:
    """Training data may have the features in another order than the model; each keeps its own range."""
    model = a_model("income", "age")
    field = Tensor.for_model(model, profile=a_profile("age", "income"))
    assert (field.features, bounds(field)) == (("income", "age"), INCOME_FIRST)
    assert bounds(Tensor.for_model(model, profile=a_profile("income", "age"))) == AGE_FIRST
    assert bounds(Tensor(profile=a_profile("age", "income"), features=["income", "age"])) == INCOME_FIRST
    assert bounds(Tensor(profile=a_profile(" age", "income"), features=["income", "age"])) == INCOME_FIRST


def test_a_profile_without_names_goes_by_position() -> None:
    """There are no names to match, or they are ignored explicitly."""
    model = a_model("income", "age")
    assert bounds(Tensor.for_model(model, profile=a_profile())) == AGE_FIRST
    assert bounds(Tensor.for_model(model, profile=a_profile("age", "income"), features=())) == AGE_FIRST
    assert bounds(Tensor(profile=a_profile("age", "income"))) == AGE_FIRST


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param(("Column_0", "Column_1"), "'age': Unknown", id="other names"),
        pytest.param(("age", "income", "rooms"), "'rooms': Missing", id="more"),
        pytest.param(("age",), "'income': Unknown", id="fewer"),
    ],
)
def test_a_profile_of_other_features(names: tuple[str, ...], reason: str) -> None:
    """The app does not start, and learns which name is wrong and how to go by position."""
    with pytest.raises(ValueError, match=rf"features of the profile.*{reason}.*features=\(\)"):
        Tensor.for_model(a_model(*names), profile=a_profile("age", "income"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"features": "ab"}, "list of names", id="one string"),
        pytest.param({"features": [1, 2]}, "list of names", id="numbers"),
        pytest.param({"features": ["a"]}, "one name for each", id="too few"),
        pytest.param({"features": ["a", "b", "c"]}, "one name for each", id="too many"),
        pytest.param({"features": ["a", "b"], "shape": (2, None)}, "one name for each", id="any number"),
        pytest.param({"features": ["a", "b"], "shape": (2, "n")}, "one name for each", id="named dimension"),
        pytest.param({"features": ["a", "a"]}, "must be unique", id="repeated"),
    ],
)
def test_wrong_names(options: dict[str, Any], reason: str) -> None:
    """A wrong definition is an error where the schema is written."""
    with pytest.raises((TypeError, ValueError), match=reason):
        Tensor(**({"shape": (None, 2)} | options))


def test_a_model_with_a_name_twice() -> None:
    """Its columns cannot be distinguished, so its author decides."""
    with pytest.raises(ValueError, match=r"features=\(\)"):
        Tensor.for_model(a_model("age", "age"))
    assert Tensor.for_model(a_model("age", "age"), features=()).shape == (None, 2)


def test_order() -> None:
    """For each feature, which column it is."""
    assert order_of(["b", "c", "a"], ["a", "b", "c"]) == [2, 0, 1]
    assert order_of([], []) == []
    with pytest.raises(ValidationError) as caught:
        order_of(["b", "b", "x"], ["a", "b"])
    assert caught.value.messages == {"b": ["Repeated column."], "x": ["Unknown column."], "a": ["Missing column."]}


def test_a_prediction_from_a_table_with_names(protected: MakeApp, tmp_path: Path) -> None:
    """From the training data to the response: a client's order of columns changes no prediction."""
    a_profile("age", "income").save(tmp_path / "profile.json")
    schema = Schema.from_dict({"instances": Tensor(profile=tmp_path / "profile.json")})
    app: Flask = protected(WIRE_FORMATS=["json", "csv"])

    @app.post("/predict")
    @protect(body=schema, cost="instances")
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": payload["instances"] @ np.array([1000.0, 1.0])}

    def post(text: str, media_type: str = "text/csv; header=present") -> Any:
        sent: dict[str, Any] = {"data": text, "content_type": media_type, "headers": caller()}
        return app.test_client().post("/predict", base_url=HTTPS, **sent)

    for text in ("age,income\n31,50\n", "income,age\n50,31\n", '"income", age\r\n50,31\r\n'):
        assert post(text).json == {"predictions": [31050]}
    assert post("31,50\n", "text/csv").json == {"predictions": [31050]}
    wrong = post("income,years\n50,31\n")
    assert (wrong.status_code, wrong.json["errors"]) == (
        422,
        [
            {"pointer": "/instances/years", "message": "Unknown column."},
            {"pointer": "/instances/age", "message": "Missing column."},
        ],
    )
