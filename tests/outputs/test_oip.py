"""Responses of the Open Inference Protocol, version 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flask_secure_ml.outputs.formats import is_safe, oip_document


def outputs(value: Any, **options: Any) -> Any:
    document = oip_document(value, options, "digits")
    return [{name: plain(each) for name, each in output.items()} for output in document["outputs"]]


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def output(data: list[Any], shape: list[int], datatype: str, name: str = "y") -> list[dict[str, Any]]:
    return [{"name": name, "shape": shape, "datatype": datatype, "data": data}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(np.array([[0.5, 1], [2, 3]]), output([0.5, 1, 2, 3], [2, 2], "FP64"), id="doubles"),
        pytest.param(np.array([[1, 2], [3, 4]], "f4").T, output([1, 3, 2, 4], [2, 2], "FP32"), id="transposed"),
        pytest.param(np.array([1], "f2"), output([1], [1], "FP16"), id="half"),
        pytest.param(np.array([1], ">f4"), output([1], [1], "FP32"), id="big endian"),
        pytest.param(np.array([1], "i8"), output([1], [1], "INT64"), id="integers"),
        pytest.param(np.array([1], "u1"), output([1], [1], "UINT8"), id="bytes"),
        pytest.param(np.array([True]), output([True], [1], "BOOL"), id="booleans"),
        pytest.param(np.array(["a", "b"]), output(["a", "b"], [2], "BYTES"), id="texts"),
        pytest.param(np.array(["a", "b"], object), output(["a", "b"], [2], "BYTES"), id="texts as objects"),
        pytest.param(["a", "b"], output(["a", "b"], [2], "BYTES"), id="list of texts"),
        pytest.param([[0.5], [1]], output([0.5, 1], [2, 1], "FP64"), id="lists"),
        pytest.param(0.5, output([0.5], [1], "FP64"), id="number"),
        pytest.param("a", output(["a"], [1], "BYTES"), id="text"),
        pytest.param(np.float32(0.5), output([0.5], [1], "FP32"), id="scalar of numpy"),
        pytest.param(np.zeros((0, 3)), output([], [0, 3], "FP64"), id="no rows"),
    ],
)
def test_outputs(value: Any, expected: Any) -> None:
    """Each member is an output with its shape, its datatype and flat data."""
    assert outputs({"y": value}) == expected


def test_names() -> None:
    """The view may return model and version; a single array has a name too."""
    value = {"y": np.zeros(1), "model_name": "mnist", "model_version": "3"}
    document = oip_document(value, {}, "digits")
    assert (document["model_name"], document["model_version"], len(document["outputs"])) == ("mnist", "3", 1)
    assert oip_document({"y": np.zeros(1)}, {}, "digits")["model_name"] == "digits"
    assert outputs(np.zeros(1)) == output([0], [1], "FP64", "output-0")


def test_wanted_outputs() -> None:
    """With names of outputs in the request, only those are reported."""
    value = {"y": np.zeros(1), "z": np.ones(1)}
    assert outputs(value, outputs=["z", "w"]) == output([1], [1], "FP64", "z")
    assert len(outputs(value, outputs=[])) == 2


@pytest.mark.parametrize(
    "value",
    [
        {"outputs": [{"name": "y"}], "model_name": "mine"},
        {"error": "no such model"},
        {"y": None},
        {"y": {"a": 1}},
        {"y": [[1], [1, 2]]},
        {"y": ["a", 1]},
        {"y": [["a"], [0.5]]},
        {"y": np.array([1j])},
        {"y": np.array([None], object)},
        {"y": np.array([2**70])},
        {"y": np.zeros(1, "M8[s]")},
        {"y": np.zeros(1, "i4,f4")},
        None,
        [{"a": 1}],
    ],
    ids=str,
)
def test_what_stays_as_it_is(value: Any) -> None:
    """Responses already in this format, errors, and values that it cannot represent."""
    assert oip_document(value, {"id": "7"}, "digits") is value


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("7", True), ("a-b_c.d:e@f/g", True), ("x" * 128, True),
        ("x" * 129, False), ("", False), ("a b", False), ("a\n", False), ("<b>", False), ('"', False),
        ("\u0660", False), ("é", False), ("a\u202eb", False), (7, False), (None, False), (["7"], False),
    ],
    ids=ascii,
)  # fmt: skip
def test_the_id_of_the_request(sent: Any, echoed: bool) -> None:
    """It is echoed only as a short text without anything that means more than itself somewhere."""
    document = oip_document({"y": np.zeros(1)}, {"id": sent}, "digits")
    assert ("id" in document) is is_safe(sent) is echoed
    assert not echoed or document["id"] == sent


_DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


@given(st.sampled_from(_DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=4))))
def test_fuzz_round_trip(array: Any) -> None:
    """Shape, datatype and data give the array back."""
    (found,) = oip_document({"y": array}, {}, "digits")["outputs"]
    dtype = {"BOOL": "bool", "FP": "float"}.get(found["datatype"].rstrip("0123456789"), found["datatype"].lower())
    width = found["datatype"].removeprefix("FP") if dtype == "float" else ""
    back = np.array(found["data"], dtype + width).reshape(found["shape"])
    assert back.dtype == array.dtype
    assert np.array_equal(back, array, equal_nan=array.dtype.kind == "f")
