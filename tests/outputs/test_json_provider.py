from __future__ import annotations

import dataclasses
import enum
import json
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from flask import Flask, jsonify
from flask.json.provider import DefaultJSONProvider
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from flask_secure_ml.errors import InternalError
from flask_secure_ml.outputs import ArrayJSONProvider

Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - the kind that has no annotations is meant


@dataclasses.dataclass
class Point:
    x: int
    when: date


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


@pytest.fixture(scope="module")
def app() -> Flask:
    app = Flask(__name__)
    app.json = ArrayJSONProvider(app)
    return app


def written(provider: Any, *args: Any, **kwargs: Any) -> bytes:
    body: bytes = provider.response(*args, **kwargs).get_data()
    return body


def answer(app: Flask, value: Any) -> Any:
    """Return the response as parsed by a client, after checking that it is strict JSON."""
    raw = written(app.json, value)
    return json.loads(raw, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def stock_response(app: Flask, value: Any) -> Any:
    return json.loads(written(DefaultJSONProvider(app), value))


SAME: list[Any] = [
    None, True, 0, -1.5, 1e300, "text", "é 😀 \u2028 \x00 \ud800", "</script>", [], {}, [[]], {"": {}},
    {"b": 1, "a": {"d": [1, (2, 3)], "c": None}}, (1, 2), 2**63, 2**64, -(2**70), {"n": [2**64, 1.5]},
    datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC), datetime(2024, 1, 2), date(2024, 1, 2), Decimal("1.10"),  # noqa: DTZ001
    UUID(int=5), Point(1, date(2024, 1, 2)), {"p": [Point(1, date(2024, 1, 2))]}, Markup("<b>"), Level.HIGH,
    Pair(1, Pair(2, 3)), OrderedDict(b=1, a=2), defaultdict(list, a=[1]), Text("x"), {Text("x"): 1},
    {1: "a", 2: "b"}, {10: "a", 9: "b"}, {1.5: 1}, {None: 1}, {True: 1}, [[[[[[[[[[1]]]]]]]]]],
]  # fmt: skip


@pytest.mark.parametrize("value", SAME, ids=ascii)
def test_what_flask_writes_is_written_alike(app: Flask, value: Any) -> None:
    """A client reads the same value, with the same order of members, as from Flask's own provider."""
    found, stock = answer(app, value), stock_response(app, value)
    assert found == stock
    assert json.dumps(found) == json.dumps(stock)


@pytest.mark.parametrize(
    "value",
    [..., {1, 2}, b"bytes", 1j, time(1, 2), {(1, 2): 3}, {"a": ...}, np.complex64(1), np.array([1j]),
     np.array([...]), {np.int64(1): 1}],
    ids=ascii,
)  # fmt: skip
def test_what_json_cannot_write_is_a_type_error(app: Flask, value: Any) -> None:
    """Something else is rejected as by Flask, not guessed."""
    with pytest.raises(TypeError):
        app.json.response(value)


def test_a_circle_is_an_error(app: Flask) -> None:
    """A value that contains itself ends in an error, not in a crash."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        app.json.response(circle)


GRID = np.arange(6.0).reshape(2, 3)
ARRAYS = [
    pytest.param(GRID, [[0, 1, 2], [3, 4, 5]], id="contiguous"),
    pytest.param(GRID.T, [[0, 3], [1, 4], [2, 5]], id="transposed"),
    pytest.param(GRID[:, ::-2], [[2, 0], [5, 3]], id="strided"),
    pytest.param(np.asfortranarray(GRID), [[0, 1, 2], [3, 4, 5]], id="column order"),
    pytest.param(np.array(1.5), 1.5, id="no dimension"),
    pytest.param(np.array(7), 7, id="no dimension, integer"),
    pytest.param(np.zeros((0, 3)), [], id="no rows"),
    pytest.param(np.zeros((2, 0)), [[], []], id="empty rows"),
    pytest.param(np.array([1, 2], ">i4"), [1, 2], id="big endian"),
    pytest.param(np.array([0.5, 1], "f2"), [0.5, 1], id="float16"),
    pytest.param(np.array([0.5, 1], "longdouble"), [0.5, 1], id="long double"),
    pytest.param(np.array([True, False]), [True, False], id="booleans"),
    pytest.param(np.array([2**64 - 1], "u8"), [2**64 - 1], id="uint64"),
    pytest.param(np.array(["a", "é"]), ["a", "é"], id="text"),
    pytest.param(np.array([1, "a", None, [2]], object), [1, "a", None, [2]], id="objects"),
    pytest.param(np.array([GRID[0], UUID(int=1)], object), [[0, 1, 2], str(UUID(int=1))], id="nested objects"),
    pytest.param(np.array([2**64, 1], object), [2**64, 1], id="large objects"),
    pytest.param(np.array([(1, 0.5)], "i4,f8"), [[1, 0.5]], id="records"),
    pytest.param(np.ma.masked_array([1.0, 2.0], [False, True]), [1, None], id="masked"),
    pytest.param(np.ma.masked_array(GRID, GRID > 4).T, [[0, 3], [1, 4], [2, None]], id="masked and transposed"),
    pytest.param(np.float32(0.5), 0.5, id="float32 scalar"),
    pytest.param(np.float64(0.5), 0.5, id="float64 scalar"),
    pytest.param(np.longdouble(0.5), 0.5, id="long double scalar"),
    pytest.param(np.int8(-1), -1, id="int8 scalar"),
    pytest.param(np.uint64(2**64 - 1), 2**64 - 1, id="uint64 scalar"),
    pytest.param(np.bool_(True), True, id="boolean scalar"),
    pytest.param(np.str_("a"), "a", id="text scalar"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), ARRAYS)
@pytest.mark.parametrize("large", [{}, {"large": 2**64}], ids=["orjson", "json"])
def test_arrays_and_scalars(app: Flask, value: Any, expected: Any, large: dict[str, Any]) -> None:
    """Arrays of every kind are written as lists, anywhere in a response, by both writers."""
    found = answer(app, {"deep": [{"value": value}], "pair": (value, 1)} | large)
    assert found == {"deep": [{"value": expected}], "pair": [expected, 1]} | large
    assert answer(app, value) == expected


@pytest.mark.parametrize(("value", "expected"), ARRAYS)
def test_dumps_knows_arrays(app: Flask, value: Any, expected: Any) -> None:
    """JSON for templates and streams may contain arrays too."""
    assert json.loads(app.json.dumps({"value": value})) == {"value": expected}


NAN = float("nan")
NOT_FINITE = [
    pytest.param(NAN, id="alone"),
    pytest.param(float("-inf"), id="infinity"),
    pytest.param({"y": [1.0, NAN]}, id="in a list"),
    pytest.param({"a": [None, {"b": (None, NAN)}]}, id="deep, among nulls"),
    pytest.param({"y": np.array([[0.5, np.inf]])}, id="in an array"),
    pytest.param({"y": np.array([[0.5, np.nan]]).T}, id="in a transposed array"),
    pytest.param({"y": np.array([0.5, np.nan], "longdouble")}, id="in an array of long doubles"),
    pytest.param({"y": np.array([None, np.nan], object)}, id="among objects"),
    pytest.param({"y": np.ma.masked_array([np.nan, 1.0], [False, True])}, id="in a masked array"),
    pytest.param(np.float32("nan"), id="scalar of numpy"),
    pytest.param(np.longdouble("nan"), id="long double scalar"),
    pytest.param(dataclasses.make_dataclass("Answer", [("y", float)])(NAN), id="in a dataclass"),
    pytest.param({"y": enum.Enum("Level", {"HIGH": NAN}).HIGH}, id="in an enumeration"),  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("large", [False, True], ids=["orjson", "json"])
def test_numbers_that_json_has_not_are_rejected(app: Flask, value: Any, large: bool) -> None:
    """NaN and Infinity are rejected by both writers, and not converted."""
    with pytest.raises((InternalError, TypeError)) as raised:
        app.json.response([2**64, value] if large else value)
    # An enumeration is not JSON for json.
    assert isinstance(raised.value, InternalError) or (large and "Level" in str(raised.value))


def test_json_text_is_strict(app: Flask) -> None:
    """JSON for templates and streams rejects NaN too, unless it is allowed."""
    with pytest.raises(ValueError, match="Out of range"):
        app.json.dumps([NAN])
    assert app.json.dumps([NAN], allow_nan=True) == "[NaN]"


def test_null_where_it_is_allowed(app: Flask) -> None:
    """With NaN allowed, null is written, as JSON has no such number; :mod:`json` still rejects it."""
    provider = ArrayJSONProvider(app)
    value = [np.array([np.nan, np.inf]), NAN, np.float32("-inf")]
    body = provider.write(value, allow_nan=True).get_data()  # type: ignore[attr-defined]
    assert json.loads(body) == [[None, None], None, None]
    with pytest.raises(InternalError):
        provider.write([2**64, NAN], allow_nan=True)


@pytest.mark.parametrize(
    "value",
    [None, [None, 1.0], {"null": "null"}, {"a": [{"b": None}]}, [Decimal("NaN")], Point(1, date(2024, 1, 2)),
     np.array([None], object), "u null", [[[]], {}, None]],
    ids=ascii,
)  # fmt: skip
def test_null_is_no_number(app: Flask, value: Any) -> None:
    """A response with null, or a string with that word, leaves as it is."""
    assert app.json.response(value).status_code == 200


def test_a_response_of_somebody_else(app: Flask) -> None:
    """``respond`` gets the value and the writer, and makes the response."""
    seen: list[Any] = []

    def answer(value: Any, write: Any) -> Any:
        seen.append(value)
        return write({"other": value})

    provider = ArrayJSONProvider(app, respond=answer)
    assert (written(provider, a=1), seen) == (b'{"other":{"a":1}}\n', [{"a": 1}])


def test_float32_is_short_and_exact(app: Flask) -> None:
    """A float32 has the digits that name it, and reads back as the same float32."""
    array = np.random.default_rng(0).random(1000, dtype=np.float32)
    raw = written(app.json, array)
    assert np.array_equal(np.array(json.loads(raw), np.float32), array)
    assert written(app.json, np.array([0.1], np.float32)) == b"[0.1]\n"


def test_views_and_jsonify() -> None:
    """A view returns a dict or list with arrays, and jsonify takes them, with its status and media type."""
    app = Flask(__name__)
    app.json = ArrayJSONProvider(app)
    app.add_url_rule("/dict", view_func=lambda: {"y": GRID}, endpoint="dict")
    app.add_url_rule("/list", view_func=lambda: ([GRID], 201), endpoint="list")
    app.add_url_rule("/jsonify", view_func=lambda: jsonify(y=GRID, n=np.int64(1)), endpoint="jsonify")
    client = app.test_client()
    assert client.get("/dict").json == {"y": GRID.tolist()}
    assert (client.get("/list").json, client.get("/list").status_code) == ([GRID.tolist()], 201)
    response = client.get("/jsonify")
    assert (response.json, response.mimetype) == ({"y": GRID.tolist(), "n": 1}, "application/json")


def test_arguments_of_jsonify(app: Flask) -> None:
    """No argument is null, several are a list, both kinds are an error: as in Flask."""
    assert written(app.json) == b"null\n"
    assert written(app.json, 1, 2) == b"[1,2]\n"
    assert written(app.json, a=1) == b'{"a":1}\n'
    with pytest.raises(TypeError):
        app.json.response(1, a=1)


@pytest.mark.parametrize(
    ("compact", "debug", "pretty"),
    [(None, False, False), (None, True, True), (True, True, False), (False, False, True)],
)
def test_pretty_responses(compact: bool | None, debug: bool, pretty: bool) -> None:
    """Responses are indented in debug mode, or according to ``compact``, exactly as by Flask."""
    app = Flask(__name__)
    app.debug = debug
    app.json = provider = ArrayJSONProvider(app)
    stock = DefaultJSONProvider(app)
    provider.compact = stock.compact = compact
    value = {"b": [1, {"c": []}], "a": {}}
    assert written(app.json, value) == written(stock, value)
    assert (b"\n  " in written(app.json, value)) is pretty


def test_order_of_members(app: Flask) -> None:
    """Members are sorted unless ``sort_keys`` is false."""
    assert written(app.json, {"b": 1, "a": 2}) == b'{"a":2,"b":1}\n'
    provider = ArrayJSONProvider(app)
    provider.sort_keys = False
    assert written(provider, {"b": 1, "a": 2}) == b'{"b":1,"a":2}\n'


class Colour(enum.Enum):
    RED = 1


def test_a_default_of_the_apps_own(app: Flask) -> None:
    """An app's own function sees all that it saw in Flask, and arrays still work."""

    def default(value: Any) -> Any:
        return f"{type(value).__name__}!"

    provider = ArrayJSONProvider(app)
    provider.default = default
    value = {"colour": Colour.RED, "uuid": UUID(int=1), "array": GRID, "n": np.int64(1)}
    expected = {"colour": "Colour!", "uuid": "UUID!", "array": GRID.tolist(), "n": 1}
    assert json.loads(written(provider, value)) == expected
    assert json.loads(provider.dumps(value, default=repr))["colour"] == repr(Colour.RED)


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.dates(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner) | st.tuples(inner),
    max_leaves=15,
)


@given(_values)
def test_any_value_is_written_as_by_flask(value: Any) -> None:
    """For any value of the kinds that Flask knows, a client reads the same."""
    app = Flask(__name__)
    app.json = ArrayJSONProvider(app)
    assert answer(app, value) == stock_response(app, value)


def test_reading_is_strict(app: Flask) -> None:
    """Text and bytes are checked against strict JSON; with options of the json module they are parsed as in Flask."""
    provider = ArrayJSONProvider(app, max_depth=2)
    assert provider.loads('{"a": [1]}') == provider.loads(b'{"a": [1]}') == {"a": [1]}
    for text in ("NaN", '{"a": 1, "a": 2}', "[[[1]]]", "\ud800"):
        with pytest.raises(ValueError, match=r"."):
            provider.loads(text)
    assert provider.loads("[1.5]", parse_float=str) == ["1.5"]
