"""Limits on the content of bodies: the limit is accepted, one more is rejected, and counting precedes parsing."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields

from bodies import CAPS, a_guard, a_request, an_exchange
from flask_secure_ml import strictjson
from flask_secure_ml.config import Settings
from flask_secure_ml.errors import MalformedRequest, PayloadTooLarge
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.body_stream import Caps

PADDING = b" " * 5_000


@pytest.fixture(params=[b"", PADDING], ids=["small", "large"])
def padding(request: pytest.FixtureRequest) -> bytes:
    """White space that only changes how the limits are checked."""
    return bytes(request.param)


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        (b"[1,2,3]", 3),
        (b"[[],[],{}]", 4),
        (b'{"a":1,"b":2,"c":3}', 3),
        (b'["a,b","c,d",1]', 3),
        (b'["\\",\\",",{"a\\\\":[2]},1]', 3),
        (b'["[[[[[{{{{{",2,1]', 3),
        (b"[[[[1]]]]", 4),
        (b"[[1],[2],[3]]", 4),
        (b"1", 1),
        (b"[]", 1),
    ],
    ids=[
        "numbers",
        "empty",
        "members",
        "commas in texts",
        "escapes",
        "brackets in texts",
        "nested",
        "rows",
        "one",
        "none",
    ],
)
def test_values_are_counted(raw: bytes, values: int, padding: bytes) -> None:
    """The larger of two numbers counts: values without inner values, and arrays and objects."""
    raw += padding
    assert strictjson.loads(raw, max_elements=values) == json.loads(raw)
    if values > 1:
        with pytest.raises(strictjson.TooLargeError, match=f"more than {values - 1} values"):
            strictjson.loads(raw, max_elements=values - 1)


@pytest.mark.parametrize("name", ["{%s:1}", "[%s]", "[1,%s]", '{"a":%s}'], ids=["name", "first", "last", "value"])
@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b'"' + b"a" * 50 + b'"', 50),
        ('"' + "\u00e9" * 25 + '"', 50),
        (b'"' + b"\\u00e9" * 10 + b'"', 60),
        (b'"' + b'\\"' * 25 + b'"', 50),
        (b'"' + b"\\\\" * 25 + b'"', 50),
    ],
    ids=["ascii", "utf-8", "escapes", "quotes", "backslashes"],
)
def test_texts_are_measured(name: str, text: bytes | str, size: int, padding: bytes) -> None:
    """A string or a name is as long as it is written."""
    raw = name.encode() % (text.encode() if isinstance(text, str) else text) + padding
    assert strictjson.loads(raw, max_string=size) == json.loads(raw)
    with pytest.raises(strictjson.TooLargeError, match=f"more than {size - 1} bytes"):
        strictjson.loads(raw, max_string=size - 1)


def test_what_is_between_texts_is_no_text(padding: bytes) -> None:
    """A long array between two short strings is not a long text."""
    raw = b'["a",' + b"1," * 200 + b'"b"]' + padding
    assert strictjson.loads(raw, max_string=1)[0] == "a"


@pytest.mark.parametrize("place", ["%s", "[%s]", '[1,{"a":[%s]}]', "[{},%s]"], ids=["top", "array", "deep", "second"])
def test_members_are_counted_by_object(place: str, padding: bytes) -> None:
    """The cap is for each object, wherever it is; together they may have more."""
    one = json.dumps({str(number): [0] for number in range(5)})
    raw = (place % one).encode() + padding
    assert strictjson.loads(raw, max_members=5) == json.loads(raw)
    assert strictjson.loads(b"[" + raw + b"," + raw + b"]", max_members=5)
    with pytest.raises(strictjson.TooLargeError, match="more than 4 members"):
        strictjson.loads(raw, max_members=4)


def _leaves(value: Any) -> int:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return sum(map(_leaves, children)) if children else 1


def _containers(value: Any) -> int:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return isinstance(value, (dict, list)) + sum(map(_containers, children))


_VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.text('a",[]{}:\\', max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a",[{:\\', max_size=3), inner, max_size=4),
    max_leaves=30,
)


@given(value=_VALUES, most=st.integers(1, 30))
def test_fuzz_counting_agrees_with_walking(value: Any, most: int) -> None:
    """Counting bytes gives the same numbers as walking the document."""
    raw = json.dumps(value).encode()
    if max(_leaves(value), _containers(value)) > most:
        with pytest.raises(strictjson.TooLargeError):
            strictjson.loads(raw, max_elements=most)
    else:
        assert strictjson.loads(raw, max_elements=most) == value


@given(raw=st.binary(max_size=60) | st.text('a",[]{}:\\1', max_size=60).map(str.encode))
def test_fuzz_caps_of_what_is_no_json(raw: bytes) -> None:
    """Counting does not need valid JSON."""
    try:
        strictjson.loads(raw, max_elements=3, max_string=3, max_members=1)
    except strictjson.StrictJSONError:
        return
    json.loads(raw)


@pytest.mark.parametrize(
    "body",
    [b"[" + b"0," * 10_000 + b"0]", b"[" + b"[]," * 9_999 + b"[[]]]", b"[" * 20_001, b'["' + b"a" * 1_001 + b'"]'],
    ids=["numbers", "arrays", "brackets", "text"],
)
def test_what_is_over_a_cap_is_not_parsed(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that counting rejects is rejected before a value of it is made, with a schema or without."""
    monkeypatch.setattr(orjson, "loads", lambda _raw: pytest.fail("it was parsed"))
    for options in ({}, {"body": Schema}):
        with pytest.raises(PayloadTooLarge) as caught:
            a_guard().check(a_request(body), an_exchange(**options))
        assert caught.value.reason.startswith("the JSON of the body is too large: ")


def test_a_plain_body_is_not_even_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits cost nothing for a body that is too short to exceed them."""
    monkeypatch.setattr(strictjson, "_has_more_than", lambda *_: pytest.fail("it was counted"))
    monkeypatch.setattr(strictjson, "_has_string_over", lambda *_: pytest.fail("it was measured"))
    a_guard().check(a_request(b"[" + b"10," * 300 + b"0]"), an_exchange())


def test_members_over_the_cap_are_too_large() -> None:
    """The status is that of every cap."""
    body = json.dumps(dict.fromkeys(map(str, range(101)))).encode()
    with pytest.raises(PayloadTooLarge):
        a_guard().check(a_request(body), an_exchange())


@pytest.mark.parametrize(
    ("shape", "itemsize", "fits"),
    [
        ((), 8, True),
        ((10, 1_000), 8, True),
        ((10, 1_001), 8, False),
        ((0, 10_000), 8, True),
        ((0, 10_001), 8, False),
        ((2**62, 4), 1, False),
        ((2**64, 0), 1, False),
        ((80_000,), 1, True),
        ((80_001,), 1, False),
    ],
)
def test_what_a_shape_claims(shape: tuple[int, ...], itemsize: int, fits: bool) -> None:
    """The product is that of whole numbers without end, and a length of 0 does not make others harmless."""
    if fits:
        CAPS.check_declared(shape, itemsize)
    else:
        with pytest.raises(PayloadTooLarge):
            CAPS.check_declared(shape, itemsize)


def test_the_caps_are_the_settings() -> None:
    """Each setting is the limit of its name."""
    keys = ("BODY_BYTES", "JSON_DEPTH", "JSON_MEMBERS", "STRING_LENGTH", "ELEMENTS", "DECODED_BYTES")
    settings = Settings.load({f"SECURE_ML_MAX_{key}": number for number, key in enumerate(keys, 1)})
    assert Caps.of(settings) == Caps(1, 2, 3, 4, 5, 6)


_MEMORY = """
import json, resource, sys
import numpy as np
from bodies import CAPS, a_guard, a_request, an_exchange
from marshmallow import Schema, fields
from flask_secure_ml.inputs import Tensor

class Predict(Schema):
    instances = Tensor((None, 100), "float32", max_elements=2_000_000)

a_guard().check(a_request(b'{"instances": [[' + b"0.5," * 99 + b"0.5]]}"), an_exchange(body=Predict))
row = b"[" + b",".join(repr(float(x)).encode() for x in np.random.default_rng(1).random(100)) + b"],"
body = b'{"instances": [' + (row * (20_000_000 // len(row)))[:-1] + b"]}"
guard = a_guard(max_bytes=30_000_000, max_elements=2_000_000)
request, exchange = a_request(body), an_exchange(body=Predict)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
guard.check(request, exchange)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / len(body))
"""


def test_20_megabytes_need_at_most_6_times_their_size() -> None:
    """Reading, parsing and checking take less than six times the body, which is one of the six."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert float(done.stdout) < 6


def test_media_types_with_a_suffix_are_json_too() -> None:
    """The limits apply to every body that Flask's ``get_json`` would read."""
    with pytest.raises(PayloadTooLarge):
        a_guard().check(a_request(b"[" * 20_001, "application/vnd.model+json"), an_exchange())


def nested(depth: int) -> bytes:
    return b"[" * depth + b"1" + b"]" * depth


OF_ROUTES = [
    pytest.param("max_json_depth", 40, nested(40), nested(41), MalformedRequest, id="depth"),
    pytest.param("max_json_members", 2, b'{"a":1,"b":2}', b'{"a":1,"b":2,"c":3}', PayloadTooLarge, id="members"),
    pytest.param("max_string_length", 3, b'"abc"', b'"abcd"', PayloadTooLarge, id="text"),
    pytest.param("max_elements", 2, b"[1,2]", b"[1,2,3]", PayloadTooLarge, id="elements"),
]


@pytest.mark.parametrize(("name", "cap", "within", "over", "error"), OF_ROUTES)
@pytest.mark.parametrize("has_schema", [False, True], ids=["no schema", "schema"])
def test_caps_of_a_route(
    name: str, cap: int, within: bytes, over: bytes, error: type[Exception], *, has_schema: bool
) -> None:
    """A cap of a route takes the place of that of the settings, up and down, and other routes keep theirs."""
    guard = a_guard(["json", "oip"])
    body = Schema.from_dict({"x": fields.Raw()}) if has_schema else None

    def check(raw: bytes, **options: Any) -> None:
        raw = b'{"x":%s}' % raw if has_schema and raw[:1] != b"{" else raw
        guard.check(a_request(raw), an_exchange(body=body, **options))

    cap += has_schema and name == "max_json_depth"
    if not (has_schema and name == "max_json_members"):
        check(within, caps={name: cap})
    with pytest.raises(error):
        check(over, caps={name: cap})
    if name == "max_json_depth":
        with pytest.raises(error):
            check(within)
    elif not has_schema:
        check(over)


def test_the_declared_size_of_a_route() -> None:
    """An array over the limit of the settings passes where the route allows it, and only there."""
    values = np.zeros((100, 200), np.float64)
    schema = Schema.from_dict({"x": Tensor((None, None), "float64")})
    with BytesIO() as file:
        np.save(file, values)
        raw = file.getvalue()
    guard = a_guard(["npy"], max_bytes=200_000)
    guard.check(a_request(raw, "application/x-npy"), an_exchange(body=schema, caps={"max_decoded_bytes": 160_000}))
    for options in ({}, {"caps": {"max_decoded_bytes": 159_999}}):
        with pytest.raises(PayloadTooLarge):
            guard.check(a_request(raw, "application/x-npy"), an_exchange(body=schema, **options))
