"""Parsing without Python objects: the exact numbers, or None."""

from __future__ import annotations

import gzip
import random
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import inf, nextafter
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from flask import Flask
from marshmallow import Schema

from bodies import peak_of
from flask_secure_ml import protect
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.number_arrays import SCALAR, Kind, NumberArrays, Wanted, number_arrays
from support import MakeApp

simdjson = pytest.importorskip("simdjson")
MATRIX: Mapping[str, Kind] = {"x": Kind(2)}
MOST = 10_000_000


def wanted(kinds: Mapping[str, Kind], most_arrays: int = MOST) -> Wanted:
    return Wanted(kinds, sum(not each.dimensions for each in kinds.values()), lambda _: most_arrays)


def read(body: bytes, kinds: Mapping[str, Kind] = MATRIX, max_elements: int = MOST) -> dict[str, Any] | None:
    return NumberArrays(simdjson).read(body, wanted(kinds), max_elements, MOST)


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"x":[1,-0.0,5e-324,1e-400]}', Kind(1), np.array([1, -0.0, 5e-324, 0])),
        (b'{"x":[9007199254740993,18446744073709551615]}', Kind(1), np.array([2.0**53, 2.0**64])),
        (b'{"x":[[1],[2],[3]]}', Kind(2), np.array([[1.0], [2], [3]])),
        (b'{"x":[[[1,2]],[[3,4]]]}', Kind(3), np.array([[[1.0, 2]], [[3, 4]]])),
        (b'{"x":[[-9223372036854775808,-0]]}', Kind(2, "i"), np.array([[-(2**63), 0]])),
        (b'{"x":[18446744073709551615,0]}', Kind(1, "u"), np.array([2**64 - 1, 0], np.uint64)),
        (b' {"\\u0078" :\n[ 1 ,\t2 ] }\r\n', Kind(1), np.array([1.0, 2])),
    ],
)
def test_numbers_are_those_that_were_sent(body: bytes, kind: Kind, expected: np.ndarray[Any, Any]) -> None:
    found = read(body, {"x": kind})
    assert found is not None
    assert found["x"].dtype == expected.dtype
    assert found["x"].tobytes() == expected.tobytes()
    assert found["x"].shape == expected.shape
    assert found["x"].flags.carray


def halfway(chance: random.Random) -> str:
    """Return a number in the middle of two doubles, or almost."""
    low = chance.uniform(1, 2) * 2.0 ** chance.randrange(-60, 60)
    middle = (Fraction(low) + Fraction(nextafter(low, inf))) / 2
    power = middle.denominator.bit_length() - 1
    digits = str(middle.numerator * 5**power).rjust(power + 1, "0")
    whole, rest = digits[: len(digits) - power], digits[len(digits) - power :]
    return f"{whole}.{rest}" + chance.choice(("0", "0" * 30 + "1"))


def any_number(chance: random.Random) -> str:
    digits = "".join(chance.choices("0123456789", k=chance.randrange(1, chance.choice((5, 19, 40, 900)))))
    return f"{chance.choice(('', '-'))}{chance.choice('123456789')}.{digits}e{chance.randrange(-330, 300)}"


def test_numbers_of_any_digits_are_rounded_alike() -> None:
    """Both parsers find the nearest double, also for hundreds of digits, and in the middle of two."""
    chance = random.Random(5)
    numbers = [make(chance) for _ in range(2_000) for make in (halfway, any_number)]
    body = f'{{"x":[{",".join(numbers)}]}}'.encode()
    found = read(body, {"x": Kind(1)})
    assert found is not None
    assert found["x"].tobytes() == np.array(orjson.loads(body)["x"]).tobytes()


@pytest.mark.parametrize("value", ["text", 'a"b', "\u00e9", 1, -0.0, 2**64 - 1, True, None], ids=repr)
def test_scalars_are_read_beside_arrays(value: Any) -> None:
    import json

    body = json.dumps({"s": value, "x": [[1, 2]]}, ensure_ascii=False).encode()
    found = read(body, {"x": Kind(2), "s": SCALAR})
    # More quotation marks than the strings have could be those of other members.
    assert found is None if value == 'a"b' else found is not None and repr(found["s"]) == repr(value)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'\xef\xbb\xbf{"x":[[1]]}', id="byte order mark"),
        pytest.param(b'{"x":[[1]],"x":[[1]]}', id="duplicate"),
        pytest.param(b'{"x":[[1]],"\\u0078":[[1]]}', id="escaped duplicate"),
        pytest.param(b'{"x":[[1]],"s":1}', id="other member"),
        pytest.param(b'{"x":[1,2]}', id="too flat"),
        pytest.param(b'{"x":[[1],2]}', id="partly too flat"),
        pytest.param(b'{"x":[[[1]]]}', id="too deep"),
        pytest.param(b'{"x":[[[1],[]]]}', id="too deep, and as many numbers"),
        pytest.param(b'{"x":[[[1]],[2]]}', id="partly too deep"),
        pytest.param(b'{"x":[[],[1,2]]}', id="ragged, and as many numbers"),
        pytest.param(b'{"x":[[1],[2,3]]}', id="ragged"),
        pytest.param(b'{"x":[]}', id="empty"),
        pytest.param(b'{"x":[[],[]]}', id="empty rows"),
        pytest.param(b'{"x":[["1"]]}', id="string"),
        pytest.param(b'{"x":[[true]]}', id="boolean"),
        pytest.param(b'{"x":[[null]]}', id="null"),
        pytest.param(b'{"x":[[{}]]}', id="object"),
        pytest.param(b'{"x":[[1e999]]}', id="beyond a double"),
        pytest.param(b'{"x":[[18446744073709551616]]}', id="beyond 64 bits"),
        pytest.param(b'{"x":[[-9223372036854775809]]}', id="below 64 bits"),
        pytest.param(b'{"x":[[NaN]]}', id="NaN"),
        pytest.param(b'{"x":[[1]]}1', id="something follows"),
        pytest.param(b'{"x":{"y":[1]}}', id="object for an array"),
        pytest.param(b'{"x":1}', id="scalar for an array"),
        pytest.param(b"[[1]]", id="no object"),
        pytest.param(b"[]", id="empty list"),
        pytest.param(b"1", id="number"),
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"x":[[1]]}'.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"x":[[1]],"\xff":1}', id="no UTF-8"),
    ],
)
def test_nothing_else_is_read(body: bytes) -> None:
    """Documents that orjson or the schema would reject or read differently are left to them."""
    assert read(body) is None


@pytest.mark.parametrize("value", [b"[1]", b'{"a":1}', b"[]", b'"["', b'"{"', b'"\\ud800"'], ids=repr)
def test_scalars_are_nothing_else(value: bytes) -> None:
    """A bracket in a string could be one that nests."""
    assert read(b'{"x":[[1]],"s":' + value + b"}", {"x": Kind(2), "s": SCALAR}) is None


def test_integers_are_no_floats() -> None:
    for number in (b"1.0", b"1e0", b"-0.0", b"9223372036854775808"):
        assert read(b'{"x":[' + number + b"]}", {"x": Kind(1, "i")}) is None
    assert read(b'{"x":[-1]}', {"x": Kind(1, "u")}) is None


def test_elements_are_limited_before_they_are_parsed() -> None:
    """Numbers, and arrays and objects, are counted by commas and brackets."""
    assert read(b'{"x":[[1,2],[3,4]]}', max_elements=4) is not None
    assert read(b'{"x":[[1,2],[3,4]]}', max_elements=3) is None
    assert read(b'{"x":[[1],[2],[3]]}', max_elements=5) is not None
    assert read(b'{"x":[[1],[2],[3]]}', max_elements=4) is None


class NeverParses:
    Object = Array = object

    class Parser:
        def parse(self, body: bytes) -> Any:
            raise AssertionError("parsed")


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"x":[[1]]}',
        b'{"x":[' + b"[]," * 20 + b"[]]}",
        b'{"x":[' + b"{}," * 20 + b"[]]}",
        b'{"x":[' + b'"",' * 20 + b"[]]}",
        b'{"x":[[1]],"y":1}',
        b'{"x":[[' + b"1," * 300 + b"1]]}",
        b'{"' + b"x" * 701 + b'":1}',
    ],
    ids=lambda body: repr(body[:16]),
)
def test_what_cannot_be_wanted_is_not_parsed(body: bytes) -> None:
    """Parsing millions of empty lists would cost more than the loader takes to reject them."""
    assert NumberArrays(NeverParses).read(body, wanted(MATRIX, 9), 100, 700) is None


def test_a_parser_is_used_again() -> None:
    """Its memory is kept up to six megabytes, and not after a document that failed."""
    made: list[Any] = []

    def make() -> Any:
        made.append(simdjson.Parser())
        return made[-1]

    reader = NumberArrays(SimpleNamespace(Object=simdjson.Object, Array=simdjson.Array, Parser=make))
    for _ in range(3):
        assert reader.read(b'{"x":[[1,2]]}', wanted(MATRIX), MOST, MOST) is not None
    assert len(made) == 1
    uses = 1
    for body in (b'{"x":[[1,2' + b" " * 6_300_000 + b"]]}", b'{"x":[[' + b"1," * 250_000 + b"1]]}", b'{"x":[[1,]]}'):
        reader.read(body, wanted(MATRIX), MOST, MOST)
        assert len(made) == uses
        assert reader.read(b'{"x":[[1,2]]}', wanted(MATRIX), MOST, MOST) is not None
        uses += 1
        assert len(made) == uses


def test_one_parser_is_kept() -> None:
    """Where two threads read at once, each has a parser, and only one of the two is kept."""
    made: list[Any] = []

    class Parser:
        def __init__(self) -> None:
            made.append(self)
            self.parse_one = simdjson.Parser().parse

        def parse(self, body: bytes) -> Any:
            if len(made) == 1:
                # What another thread does in the meantime.
                assert reader.read(b'{"x":[[1]]}', wanted(MATRIX), MOST, MOST) is not None
            return self.parse_one(body)

    reader = NumberArrays(SimpleNamespace(Object=simdjson.Object, Array=simdjson.Array, Parser=Parser))
    assert reader.read(b'{"x":[[1]]}', wanted(MATRIX), MOST, MOST) is not None
    assert (len(made), len(reader._idle)) == (2, 1)


def test_arrays_outlive_the_next_document() -> None:
    """An array has its own memory, so a parser can be used for the next request while a view reads it."""
    reader = NumberArrays(simdjson)
    first = reader.read(b'{"x":[[1,2]],"s":"abc"}', wanted({"x": Kind(2), "s": SCALAR}), MOST, MOST)
    second = reader.read(b'{"x":[[3,4]],"s":"xyz"}', wanted({"x": Kind(2), "s": SCALAR}), MOST, MOST)
    assert first is not None
    assert second is not None
    assert (first["x"].tolist(), first["s"]) == ([[1, 2]], "abc")
    assert (second["x"].tolist(), second["s"]) == ([[3, 4]], "xyz")


def test_threads_share_a_reader() -> None:
    """Each document is read by one parser at a time."""
    reader = NumberArrays(simdjson)

    def reads(number: int) -> bool:
        body = b'{"x":[' + b",".join([b"[%d,%d]" % (number, number)] * 500) + b"]}"
        expected = np.full((500, 2), float(number))
        found = [reader.read(body, wanted(MATRIX), MOST, MOST) for _ in range(40)]
        return all(each is not None and np.array_equal(each["x"], expected) for each in found)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(reads, range(8)))


def test_rows_are_not_held_at_once() -> None:
    """Counting the lengths of a hundred thousand rows takes no memory for each of them."""
    body = b'{"x":[' + b"[1]," * 100_000 + b"[1]]}"
    assert peak_of(lambda: read(body)) < 3 * 100_000 * 8


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_an_app_reads_large_bodies_with_it(
    protected: MakeApp, monkeypatch: pytest.MonkeyPatch, encoding: str | None
) -> None:
    """No setting is needed, and without the package the view gets the same values."""
    schema = Schema.from_dict({"instances": Tensor((None, 20), "float32")})
    rows = np.random.default_rng(1).normal(size=(100, 20)).tolist()
    read: list[Any] = []
    original = NumberArrays.read

    def reading(*args: Any) -> Any:
        read.append(original(*args))
        return read[-1]

    monkeypatch.setattr(NumberArrays, "read", reading)
    body = orjson.dumps({"instances": rows})
    headers = {"X-Test-Caller": "ann", "Content-Type": "application/json"} | (
        {"Content-Encoding": encoding} if encoding else {}
    )
    responses = []
    for module in (simdjson, None):
        monkeypatch.setitem(sys.modules, "simdjson", module)
        app = protected(Flask("model_app"), CONTENT_ENCODINGS=["identity", "gzip"])

        @app.post("/")
        @protect(body=schema)
        def view(payload: dict[str, Any]) -> Any:
            return {"sums": payload["instances"].sum(axis=1), "type": payload["instances"].dtype.name}

        data = gzip.compress(body) if encoding else body
        response = app.test_client().post("/", "https://localhost", data=data, headers=headers)
        assert response.status_code == 200, response.text
        responses.append(response.get_json())
    assert len(read) == 1
    assert read[0] is not None
    assert responses[0] == responses[1]


def test_without_the_package_there_is_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(number_arrays(), NumberArrays)
    monkeypatch.setitem(sys.modules, "simdjson", None)
    assert number_arrays() is None
