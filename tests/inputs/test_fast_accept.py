"""Bodies accepted by the fast path are loaded as by the loader; all others are left to it."""

from __future__ import annotations

import cProfile
import os
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from marshmallow import Schema, pre_load

from bodies import CAPS, LENGTH, a_guard, a_request, an_exchange, loaded
from fast_reference import by_loader, check_same
from fast_schemas import SCHEMAS, Floats, Integers, Mixed, Named, Optional, Rules, Scalars, Wide
from flask_secure_ml.errors import SecureMLError
from flask_secure_ml.inputs import Tensor, fast_accept
from flask_secure_ml.inputs.fast_accept import Acceptor
from flask_secure_ml.inputs.number_arrays import NumberArrays, number_arrays
from json_mutants import mutant

MUTANTS = int(os.environ.get("MUTANTS", "6000"))
TIGHT = replace(CAPS, max_depth=3, max_members=4, max_string=9, max_elements=14)


@pytest.fixture(params=["objects", "arrays"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NumberArrays | None:
    """Make bodies of any size go through orjson, or through pysimdjson where the schema allows it."""
    if request.param == "objects":
        return None
    pytest.importorskip("simdjson")
    monkeypatch.setattr(fast_accept, "_LARGE", 0)
    return number_arrays()


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_what_is_accepted_is_what_the_loader_loads(schema: type[Schema], road: NumberArrays | None) -> None:
    """Of thousands of mutants, each that is accepted has the same values, dtypes, shapes and order of members."""
    loading, acceptor = schema(), Acceptor(schema(), road)
    chance = random.Random(schema.__name__)
    outcomes: Counter[str] = Counter()
    for _ in range(max(1, MUTANTS // len(SCHEMAS) // 2)):
        body = mutant(SCHEMAS[schema], chance)
        caps = chance.choice((CAPS, CAPS, CAPS, TIGHT))
        found = acceptor.accept(body, caps)
        if found is None:
            outcomes["left to the loader"] += 1
            continue
        outcomes["accepted"] += 1
        try:
            check_same(found, by_loader(loading, body, caps))
        except SecureMLError as error:
            pytest.fail(f"accepted, but {error!r}: {body!r}")
        except AssertionError as error:
            pytest.fail(f"{body!r} is another value: {error}")
    assert min(outcomes["accepted"], outcomes["left to the loader"]) > sum(outcomes.values()) * 0.02, outcomes


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_plain_bodies_are_accepted(schema: type[Schema], road: NumberArrays | None) -> None:
    """The bodies that mutants are made of take the shortcut, and so do the same with blanks."""
    acceptor = Acceptor(schema(), road)
    for body in SCHEMAS[schema]:
        found = acceptor.accept(body, CAPS)
        # A bracket in a string could be one that nests.
        if road is not None and b"x[y" in body:
            assert found is None
            continue
        check_same(found, by_loader(schema(), body, CAPS))
        check_same(acceptor.accept(body.replace(b",", b" ,\n").ljust(900), CAPS), found)


def matrix(rows: int, columns: int, digits: int) -> bytes:
    numbers = np.random.default_rng(3).normal(size=(rows, columns)).round(digits)
    return b'{"instances":' + str(numbers.tolist()).encode() + b"}"


@pytest.mark.parametrize("digits", [6, 17])
@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (9, 11), (100, 20), (1000, 100), (5000, 1)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_batches_of_every_size(rows: int, columns: int, digits: int, dtype: str) -> None:
    """Whichever parser is faster for a size, the array is that of the loader."""
    pytest.importorskip("simdjson")
    schema = Schema.from_dict({"instances": Tensor((None, columns), dtype)})()
    body, caps = matrix(rows, columns, digits), replace(CAPS, max_elements=2_000_000, max_bytes=10**7)
    check_same(Acceptor(schema, number_arrays()).accept(body, caps), by_loader(schema, body, caps))


def test_large_bodies_without_pysimdjson_are_left_to_the_loader() -> None:
    """To parse them twice would cost more than the loader does."""
    caps = replace(CAPS, max_elements=2_000_000)
    schema = Schema.from_dict({"instances": Tensor((None, 100), "float32")})()
    assert Acceptor(schema, None).accept(matrix(100, 100, 6), caps) is None
    assert Acceptor(schema, None).accept(matrix(30, 100, 6), caps) is not None


BODY = SCHEMAS[Floats][0]


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        pytest.param(Floats, b'{"instances":[[1,2,3,4]],"instances":[[1,2,3,4]]}', id="duplicate"),
        pytest.param(Floats, b'{"instances":[[1,2,3,4]],"\\u0069nstances":[[1,2,3,4]]}', id="escaped duplicate"),
        pytest.param(Floats, b'\xef\xbb\xbf{"instances":[[1,2,3,4]]}', id="byte order mark"),
        pytest.param(Floats, b'{"instances":[[1,2,3],[4,5,6,7,8]]}', id="ragged"),
        pytest.param(Floats, b'{"instances":[[[1,2,3,4]]]}', id="too deep"),
        pytest.param(Floats, b'{"instances":[[1,2,3,[4]]]}', id="partly too deep"),
        pytest.param(Floats, b'{"instances":[[],[1,2,3,4]]}', id="empty row"),
        pytest.param(Floats, b'{"instances":[]}', id="empty"),
        pytest.param(Floats, b'{"instances":[[1,2,3,1000000.0001]]}', id="above the maximum"),
        pytest.param(Floats, b'{"instances":[[1,2,3,-1000000.0001]]}', id="below the minimum"),
        pytest.param(Floats, b'{"instances":[[1,2,3,true]]}', id="boolean"),
        pytest.param(Floats, b'{"instances":[[1,2,3,"4"]]}', id="string"),
        pytest.param(Floats, b'{"instances":[[1,2,3,null]]}', id="null"),
        pytest.param(Floats, b'{"instances":null}', id="null for all"),
        pytest.param(Floats, b"{}", id="missing"),
        pytest.param(Floats, b'{"instances":[[1,2,3,4]],"z":1}', id="unknown"),
        pytest.param(Floats, b'[{"instances":[[1,2,3,4]]}]', id="no object"),
        pytest.param(Floats, b"1", id="a number"),
        pytest.param(Integers, b'{"a":[1.0]}', id="float for an integer"),
        pytest.param(Integers, b'{"a":[-129]}', id="below the dtype"),
        pytest.param(Integers, b'{"c":[[0,1]]}', id="below an integer's minimum"),
        pytest.param(Integers, b'{"c":[[-1,1]]}', id="negative"),
        pytest.param(Named, b'{"x":[[1,2,3]],"y":[1,2]}', id="lengths of one name"),
        pytest.param(Named, b'{"x":[[1,2,3]],"z":[[1,2]]}', id="lengths of one name in one field"),
        pytest.param(Scalars, b'{"name":"abcdef"}', id="validator"),
        pytest.param(Scalars, b'{"name":"a","count":"7"}', id="string for an integer"),
        pytest.param(Scalars, b'{"name":"a","share":true}', id="boolean for a float"),
        pytest.param(Scalars, b'{"name":"a","flag":true,"count":true}', id="boolean for an integer"),
        pytest.param(Scalars, b'{"name":"a"}', id="load_default"),
        pytest.param(Mixed, b'{"rows":[[1,2]],"odd":false}', id="boolean that means nothing"),
        pytest.param(Rules, b'{"by_column":[[0.09999999999,1]]}', id="in range after rounding"),
        pytest.param(Wide, b'{"x":[[1],[2]],"y":[70000]}', id="above the dtype, below the maximum"),
        pytest.param(Wide, b'{"x":[[1],[2]],"y":[-70000]}', id="below the dtype, above the minimum"),
        pytest.param(Wide, b'{"x":[[1],[2]],"z":[128]}', id="above an integer's dtype"),
        pytest.param(Optional, b"[]", id="empty list for an object"),
        pytest.param(Optional, b'{"x":null}', id="null for an optional field"),
        pytest.param(Optional, b'{"y":null}', id="null that is allowed"),
        pytest.param(Mixed, b'{"rows":[[1,2]],"threshold":[1]}', id="list for a float"),
        pytest.param(Mixed, b'{"rows":[[1,2]],"threshold":{}}', id="object for a float"),
        pytest.param(Mixed, b'{"rows":1}', id="number for a list"),
        pytest.param(Mixed, b'{"rows":[[1,2]],"other":true}', id="boolean that means what another does"),
    ],
)
def test_these_are_left_to_the_loader(schema: type[Schema], body: bytes, road: NumberArrays | None) -> None:
    """Each is wrong, or not known to be right, for one reason."""
    assert Acceptor(schema(), road).accept(body, CAPS) is None


@pytest.mark.parametrize(
    ("limit", "most"), [("max_depth", 3), ("max_members", 1), ("max_string", 9), ("max_elements", 8)]
)
def test_limits_hold(limit: str, most: int, road: NumberArrays | None) -> None:
    """A body at a limit is accepted, and one beyond it is left to the loader, which rejects it."""
    body = b'{"instances":[[1,2,3,4],[5,6,7,8]]}'
    acceptor = Acceptor(Floats(), road)
    assert acceptor.accept(body, replace(CAPS, **{limit: most})) is not None
    assert acceptor.accept(body, replace(CAPS, **{limit: most - 1})) is None


def test_many_lists_count_as_elements(road: NumberArrays | None) -> None:
    """Lists have a limit of their own, where each has few numbers."""
    schema = Schema.from_dict({"x": Tensor((None, 1, 1), "float32")})()
    body = b'{"x":[[[1]],[[2]],[[3]]]}'
    assert Acceptor(schema, road).accept(body, replace(CAPS, max_elements=8)) is not None
    assert Acceptor(schema, road).accept(body, replace(CAPS, max_elements=7)) is None


class Prepared(Floats):
    @pre_load
    def same(self, data: Any, **_kwargs: Any) -> Any:
        return data


def test_errors_are_those_of_the_loader() -> None:
    """The guard writes the same errors with and without a plan."""
    guard, slow = a_guard(), a_guard()
    for body in (b'{"instances":[[1,2,3,1e7]]}', b'{"instances":[[1,2,3,null]]}', b'{"instances":[[1,2]]}'):
        with pytest.raises(SecureMLError) as caught:
            loaded(guard, Floats, body)
        with pytest.raises(SecureMLError) as expected:
            loaded(slow, Prepared, body)
        assert caught.value.members == expected.value.members


@pytest.mark.parametrize("formats", [("json",), ("json", "oip"), ("oip",)], ids="+".join)
def test_formats_of_json(formats: tuple[str, ...]) -> None:
    """The fast path never accepts an inference request, whatever the schema."""
    inference = b'{"inputs":[{"name":"instances","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
    guard = a_guard(formats)
    if "oip" in formats:
        found = loaded(guard, Floats, inference)
        assert found.format == "oip"
        assert found.payload["instances"].tolist() == [[1, 2, 3, 4]]
    if "json" in formats:
        found = loaded(guard, Floats, BODY, "Application/JSON; charset=UTF-8")
        assert (found.format, dict(found.format_options), found.out_of_range) == ("json", {}, 0)
    else:
        with pytest.raises(SecureMLError):
            loaded(guard, Floats, BODY)
    if "oip" in formats:
        # A length of the JSON makes it an inference request.
        with pytest.raises(SecureMLError):
            loaded(guard, Floats, BODY, **{LENGTH: str(len(BODY))})


def test_few_calls_for_a_small_body() -> None:
    """The guard of a request with four numbers makes at most sixty calls, those to C included."""
    guard, exchange, other = a_guard(), an_exchange(body=Floats), an_exchange()
    guard.check(a_request(BODY), exchange)
    # The plan was made for the schema of this policy.
    other.policy = exchange.policy
    request, profile = a_request(BODY), cProfile.Profile()
    profile.runcall(guard.check, request, other)
    assert other.payload["instances"].shape == (1, 4)
    assert sum(each.callcount for each in profile.getstats()) <= 60
