"""Options applied to whole responses."""

from __future__ import annotations

import enum
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.outputs.masking import NotPlainError, mask_scores, unranked
from flask_secure_ml.outputs.scores import MaskingError, NumberString
from flask_secure_ml.policy.options import ScoreOptions

ROUND, TOP, LABEL = ScoreOptions(round=1), ScoreOptions(top_k=1), ScoreOptions(label_only=True)
GRID = np.array([[0.12, 0.88], [0.77, 0.23]])


class Level(enum.Enum):
    HIGH = 0.9


def shaped(value: Any, options: ScoreOptions) -> Any:
    """Return the response as parsed by a client."""
    return read(mask_scores(value, options))


def read(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value, default=np.ndarray.tolist, option=orjson.OPT_SERIALIZE_NUMPY))


CASES = [
    # a response; rounded to one decimal; the largest; labels only
    pytest.param({"y": GRID}, {"y": [[0.1, 0.9], [0.8, 0.2]]}, {"y": [[0, 0.88], [0.77, 0]]}, {}, id="array"),
    pytest.param({"y": GRID.astype("f4")}, {"y": [[0.1, 0.9], [0.8, 0.2]]}, {"y": [[0, 0.88], [0.77, 0]]}, {}, id="f4"),
    pytest.param({"y": GRID.tolist()}, {"y": [[0.1, 0.9], [0.8, 0.2]]}, {"y": [[0, 0.88], [0.77, 0]]}, {}, id="lists"),
    pytest.param({"y": list(GRID)}, {"y": [[0.1, 0.9], [0.8, 0.2]]}, {"y": [[0, 0.88], [0.77, 0]]}, {"y": []},
                 id="list of arrays"),
    pytest.param({"y": [[0.12], [0.77, 0.23]]}, {"y": [[0.1], [0.8, 0.2]]}, {"y": [[0.12], [0.77, 0]]}, {"y": []},
                 id="ragged"),
    pytest.param({"y": np.array([0.12, None], object)}, {"y": [0.1, None]}, {"y": [0.12, None]}, {"y": [None]},
                 id="objects"),
    pytest.param({"y": np.ma.masked_array([0.12, 0.5], [False, True])}, {"y": [0.1, None]}, {"y": [0.12, None]},
                 {"y": [None]}, id="masked"),
    pytest.param({"y": np.array([(3, 0.12)], "i4,f8")}, {"y": [[3, 0.1]]}, {"y": [[3, 0]]}, {}, id="records"),
    pytest.param({"y": 0.123, "n": 3}, {"y": 0.1, "n": 3}, {"y": 0.123, "n": 3}, {"n": 3}, id="alone"),
    pytest.param({"y": np.float32(0.123)}, {"y": 0.1}, {"y": np.float32(0.123)}, {}, id="scalar of numpy"),
    pytest.param({"y": Decimal("0.123")}, {"y": 0.1}, {"y": 0.123}, {}, id="decimal"),
    pytest.param({"a": {"b": [{"y": [0.12, 0.88]}]}}, {"a": {"b": [{"y": [0.1, 0.9]}]}},
                 {"a": {"b": [{"y": [0, 0.88]}]}}, {"a": {"b": [{}]}}, id="deep"),
    pytest.param([0.12, 0.88], [0.1, 0.9], [0, 0.88], MaskingError, id="top is a list"),
    pytest.param(GRID[0], [0.1, 0.9], [0, 0.88], MaskingError, id="top is an array"),
    pytest.param(0.123, 0.1, 0.123, MaskingError, id="top is a score"),
    pytest.param(["cat", 0.123], ["cat", 0.1], ["cat", 0.123], ["cat"], id="pair"),
    pytest.param([["cat", 0.12], ["dog", 0.88]], [["cat", 0.1], ["dog", 0.9]], MaskingError, [["cat"], ["dog"]],
                 id="pairs"),
    pytest.param([{"label": "cat", "y": 0.12}], [{"label": "cat", "y": 0.1}], [{"label": "cat", "y": 0.12}],
                 [{"label": "cat"}], id="objects with scores"),
    pytest.param({"cat": 0.12, "dog": 0.88}, {"cat": 0.1, "dog": 0.9}, MaskingError, {}, id="scores by name"),
    pytest.param({"y": [0.12, None]}, {"y": [0.1, None]}, {"y": [0.12, None]}, {"y": [None]}, id="null among scores"),
    pytest.param(OrderedDict(y=(0.12, 0.88)), {"y": [0.1, 0.9]}, {"y": [0, 0.88]}, {}, id="subclasses"),
    pytest.param({"y": np.array(0.123)}, {"y": 0.1}, {"y": 0.123}, {}, id="array of no dimension"),
    pytest.param({"y": [float("nan"), 0.12]}, {"y": [None, 0.1]}, MaskingError, {}, id="nan"),
    pytest.param({"y": {"b64": "zczMPQ==", "dtype": "float32", "shape": [1]}}, MaskingError, MaskingError, MaskingError,
                 id="base64"),
    pytest.param({"y": np.array([0.5j])}, MaskingError, MaskingError, MaskingError, id="complex"),
    pytest.param({"y": [2**60, 0.5]}, MaskingError, MaskingError, MaskingError, id="large integer among scores"),
    pytest.param({"when": datetime(2024, 1, 1, tzinfo=UTC)}, NotPlainError, NotPlainError, NotPlainError, id="date"),
    pytest.param({1: 0.5}, NotPlainError, NotPlainError, NotPlainError, id="number as key"),
    pytest.param({"y": Level.HIGH}, NotPlainError, NotPlainError, NotPlainError, id="enum"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "rounded", "largest", "labels"), CASES)
@pytest.mark.parametrize("options", [ROUND, TOP, LABEL], ids=["round", "top_k", "label_only"])
def test_every_form_of_response(value: Any, rounded: Any, largest: Any, labels: Any, options: ScoreOptions) -> None:
    """Scores are masked wherever they are, or the response is rejected."""
    expected = {ROUND: rounded, TOP: largest, LABEL: labels}[options]
    if isinstance(expected, type):
        with pytest.raises(expected):
            mask_scores(value, options)
    else:
        assert shaped(value, options) == read(expected)


@pytest.mark.parametrize(
    "value",
    [
        {"classes": [3, 1], "names": ["a", "b"], "ok": True, "none": None},
        {"classes": [[3, 1], [2, 0]], "deep": [{"n": 1}, [], {}]},
        {"b64": "AQ==", "dtype": "uint8", "shape": [1]},
        {"big": [2**63, 2**64 - 1], "one": 2**70},
        "text",
        7,
        None,
        [],
        {},
        [True, 1],
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [ROUND, TOP, LABEL], ids=["round", "top_k", "label_only"])
def test_labels_stay(value: Any, options: ScoreOptions) -> None:
    """Integers, strings, booleans and null are not scores."""
    assert mask_scores(value, options) == value


@pytest.mark.parametrize("dtype", ["i8", "u1", "bool", "U3", "M8[s]"])
def test_arrays_of_labels_stay(dtype: str) -> None:
    """So are arrays of them."""
    array = np.zeros((2, 2), dtype)
    assert mask_scores(array, LABEL) is array


def tensor(data: Any, shape: Any, datatype: str = "FP32", **others: Any) -> dict[str, Any]:
    return {"outputs": [{"name": "y", "shape": shape, "datatype": datatype, "data": data, **others}]}


@pytest.mark.parametrize(
    ("data", "shape", "expected"),
    [
        pytest.param([0.1, 0.9, 0.8, 0.2], [2, 2], [0, 0.9, 0.8, 0], id="flat"),
        pytest.param(GRID.ravel(), [2, 2], [0, 0.88, 0.77, 0], id="flat array"),
        pytest.param([[0.1, 0.9], [0.8, 0.2]], [2, 2], [[0, 0.9], [0.8, 0]], id="nested"),
        pytest.param([0.1, 0.9, 0.8, 0.2], [4], [0, 0.9, 0, 0], id="one row"),
        pytest.param([0.1, 0.9], [2, 1], [0, 0.9], id="one column"),
        pytest.param([1, 2], [1, 2], [0, 2], id="whole numbers without a point"),
        pytest.param([], [0, 2], [], id="empty"),
    ],
)
def test_tensors_of_the_open_inference_protocol(data: Any, shape: list[int], expected: Any) -> None:
    """Their data are flat, and the last dimension is that of the shape."""
    assert shaped(tensor(data, shape), TOP) == tensor(expected, shape)
    assert shaped(tensor(data, shape, parameters={"y": 0.123}), ROUND)["outputs"][0]["parameters"] == {"y": 0.1}
    assert shaped(tensor(data, shape), LABEL) == {"outputs": []}


@pytest.mark.parametrize(
    ("data", "datatype"),
    [([3, 1], "INT64"), (["a", "b"], "BYTES"), ([True, False], "BOOL"), (np.array([3, 1]), "INT64"), (None, "FP32")],
    ids=str,
)
def test_tensors_of_labels_stay(data: Any, datatype: str) -> None:
    """Their data are not scores; neither are missing data, because binary data follow the JSON."""
    value = tensor(data, [2], datatype)
    assert mask_scores(value, TOP) == value


@pytest.mark.parametrize(
    ("data", "shape", "datatype"),
    [
        pytest.param([0.1, 0.9], [3], "FP32", id="too few"),
        pytest.param([0.1, 0.9], [-1, -2], "FP32", id="negative"),
        pytest.param([0.1, 0.9], 2, "FP32", id="no list"),
        pytest.param([0.1, 0.9], [2.0], "FP32", id="float in shape"),
        pytest.param([0.1, 0.9], None, "FP32", id="no shape"),
        pytest.param(["0.1", "0.9"], [2], "FP32", id="texts as floats"),
        pytest.param([0.1, None], [2], "FP64", id="null among floats"),
    ],
)
def test_tensors_that_contradict_themselves(data: Any, shape: Any, datatype: str) -> None:
    """Where rows begin is then not known."""
    with pytest.raises(MaskingError):
        mask_scores(tensor(data, shape, datatype), ROUND)


def test_scores_that_lie_about_their_datatype() -> None:
    """Floats are scores, whatever their datatype."""
    assert shaped(tensor([0.12, 0.88], [2], "INT64"), ROUND) == tensor([0.1, 0.9], [2], "INT64")


def test_options_together() -> None:
    """Ranking precedes rounding: the largest of the exact scores are kept."""
    options = ScoreOptions(round=1, top_k=1)
    assert shaped({"y": [0.141, 0.142, 0.14]}, options) == {"y": [0, 0.1, 0]}


_scores = st.floats(0, 1)
_responses = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3), _scores, st.lists(_scores)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)
_options = st.builds(
    ScoreOptions, round=st.none() | st.integers(0, 4), top_k=st.none() | st.integers(1, 3), label_only=st.booleans()
)


def floats_in(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [each for item in inside for each in floats_in(item)]


def attempt(value: Any, options: ScoreOptions) -> Any:
    """Return the response as parsed by a client, or the error response."""
    try:
        return shaped(value, options)
    except MaskingError:
        return MaskingError


@given(_responses, _options)
def test_fuzz_every_response(value: Any, options: ScoreOptions) -> None:
    """A response is masked or rejected, meets the options, and is not changed by masking it again."""
    found = attempt(value, options)
    if found is MaskingError:
        return
    scores = floats_in(found)
    assert not (options.label_only and scores)
    assert options.round is None or all(round(each, options.round) == each for each in scores)
    assert attempt(found, options) == found


@given(_responses, _options, _options)
def test_fuzz_stricter_options_tell_no_more(value: Any, one: ScoreOptions, other: ScoreOptions) -> None:
    """Under both options no more different scores leave than under either alone, and no more that are not 0."""
    both = attempt(value, one.stricter(other))
    if both is MaskingError:
        return
    for each in (one, other):
        alone = attempt(value, each)
        if alone is not MaskingError:
            assert np.count_nonzero(floats_in(both)) <= np.count_nonzero(floats_in(alone))


UNRANKED = [
    {"cat": [0.1234], "dog": [0.7]},
    {"cat": {"p": 0.1}, "dog": {"p": 0.7}},
    [{"c": "cat", "p": [0.1]}, {"c": "dog", "p": [0.7]}],
    [["cat", [0.1]], ["dog", [0.7]]],
    [[0.1], [], [0.7], [0.2]],
    {"p": [[0.1], [0.7, 0.2], [0.3]]},
    {"p": [0.1, None, 0.7]},
    {"a": np.array(0.1), "b": np.array(0.2)},
    {"a": np.array([0.1]), "b": np.array([[0.2]])},
    {"a": Decimal("0.1"), "b": {"c": Decimal("0.2")}},
    {"deep": [[[{"x": 0.1}]], {"y": [0.2, "b"]}]},
    {"outputs": [{"name": str(n), "datatype": "FP32", "shape": [1], "data": [0.1 * n]} for n in range(2)]},
    np.array([[0.1, "cat"], [0.7, "dog"]], object),
    np.ma.masked_array([0.1, 0.7, 0.2], [False, False, True]),
    {"cat": [Decimal("0.1")], "dog": [Decimal("0.7")]},
    tensor([0.1, 0.7], [2], parameters={"cat": 0.1, "dog": 0.7}),
    tensor([0.1], [1], more=[0.7]),
]


@pytest.mark.parametrize("value", UNRANKED, ids=str)
def test_scores_that_are_ranked_with_nothing(value: Any) -> None:
    """More than k of them are rejected anywhere; up to k reveal no more than k."""
    for k in range(1, 4):
        if unranked(value) > k:
            with pytest.raises(MaskingError, match="outside of arrays"):
                mask_scores(value, ScoreOptions(top_k=k))
        else:
            mask_scores(value, ScoreOptions(top_k=k))
    assert unranked(value) >= 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([[0.1], [0.7], [0.2]]), [[0], [0.7], [0]]),
        ({"p": [[[0.1]], [[0.7]]]}, {"p": [[[0]], [[0.7]]]}),
        ({"p": [[0.1, 0.7], [0.6, 0.2]]}, {"p": [[0, 0.7], [0.6, 0]]}),
        ({"p": [[0.1, 0.7], [0.6, 0.2, 0.1]]}, {"p": [[0, 0.7], [0.6, 0, 0]]}),
        (np.array([[0.1]]), [[0.1]]),
    ],
    ids=str,
)
def test_a_last_dimension_of_one_ranks_nothing(value: Any, expected: Any) -> None:
    """The scores are then along the dimension before."""
    assert shaped(value, TOP) == read(expected)


def test_bytes_of_unknown_numbers() -> None:
    """Only data that is certainly not floats may be sent in base64."""
    for dtype in ("float32", "<f4", "f8", "bfloat16", "complex64", "O", "no dtype", None, 7, "(2,)f4"):
        with pytest.raises(MaskingError, match="base64"):
            mask_scores({"b64": "AACAPw==", "dtype": dtype}, ROUND)
    for dtype in ("int8", "<i4", "bool", "uint8"):
        assert mask_scores({"b64": "AQ==", "dtype": dtype}, ROUND)["b64"] == "AQ=="


def test_texts_of_numbers() -> None:
    """A score that a field writes as a string is a score, and stays a string."""
    value = {"y": NumberString("0.12345"), "n": "0.12345"}
    assert mask_scores(value, ROUND) == {"y": "0.1", "n": "0.12345"}
    assert mask_scores(value, LABEL) == {"n": "0.12345"}
    assert mask_scores(value, TOP) == value
    assert NumberString("-0.04").rounded(1) == "0.0"
    with pytest.raises(MaskingError):
        mask_scores({"a": NumberString("0.1"), "b": 0.2}, TOP)
    with pytest.raises(MaskingError):
        NumberString("a").rounded(1)
