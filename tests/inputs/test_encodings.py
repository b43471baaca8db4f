"""Content decoding within the limit; corrupt, truncated and extended bodies are rejected."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from io import BytesIO
from typing import Any

import pytest
from flask import Request
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema

from bodies import CHUNKED, a_guard, a_request, an_exchange, loaded, mutated, peak_of
from flask_secure_ml.errors import ConfigError, MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.encodings import Encodings

try:
    zstd: Any = import_module("compression.zstd")
except ImportError:
    zstd = import_module("backports.zstd")

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
ENCODINGS = Encodings(["identity", "gzip", "zstd"])
BODY = b'{"instances": [[1, 2.5]]}'
GUARD = a_guard(encodings=("identity", "gzip", "zstd"), max_bytes=1_000)


class Predict(Schema):
    instances = Tensor((None, 2))


@pytest.fixture(params=sorted(COMPRESS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_body_is_read_as_it_was_before(name: str) -> None:
    """The schema and the view get the decoded body; the received size is that on the wire."""
    raw = COMPRESS[name](BODY)
    request, exchange = a_request(raw, HTTP_CONTENT_ENCODING=name), an_exchange(body=Predict)
    GUARD.check(request, exchange)
    assert exchange.payload["instances"].tolist() == [[1, 2.5]]
    assert exchange.received_bytes == len(raw)
    assert request.get_json() == {"instances": [[1, 2.5]]}
    assert "Content-Encoding" not in request.headers
    assert request.content_length == len(BODY)


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "image/png"])
@pytest.mark.parametrize("environ", [{}, CHUNKED], ids=["declared", "chunked"])
def test_a_body_without_schema_is_read_too(name: str, media_type: str, environ: dict[str, str | bool]) -> None:
    """A view without support for content encodings gets the decoded body."""
    raw = COMPRESS[name](BODY)
    request = a_request(None if environ else raw, media_type, BytesIO(raw), HTTP_CONTENT_ENCODING=name, **environ)
    GUARD.check(request, an_exchange())
    assert Request(request.environ).get_data() == BODY


def test_a_body_that_was_read_before(name: str) -> None:
    """Code that reads the compressed bytes first does not prevent the view from reading the decoded body."""
    request = a_request(COMPRESS[name](BODY), HTTP_CONTENT_ENCODING=name)
    request.get_data()
    GUARD.check(request, an_exchange())
    assert request.get_data() == BODY


@pytest.mark.parametrize("written", ["GZIP", " gzip ", "x-gzip", "X-GZip"])
def test_ways_to_write_gzip(written: str) -> None:
    """Any case, and the old name (RFC 9110 section 8.4.1.3)."""
    assert loaded(GUARD, Predict, gzip.compress(BODY), HTTP_CONTENT_ENCODING=written).payload["instances"].size == 2


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "gzip, identity", "x-zstd", "compress"])
def test_others_are_rejected_with_what_is_accepted(encoding: str) -> None:
    """One encoding of those that are on, and the response names them."""
    with pytest.raises(UnsupportedMediaType) as caught:
        GUARD.check(a_request(BODY, HTTP_CONTENT_ENCODING=encoding), an_exchange(body=Predict))
    assert caught.value.extra_headers == (("Accept-Encoding", "gzip, zstd, identity"),)


@pytest.mark.parametrize("names", [["identity"], ["gzip"]], ids=["identity", "gzip"])
def test_what_is_off_is_rejected(names: list[str]) -> None:
    """Only configured encodings are decoded; identity needs no decoding."""
    guard = a_guard(encodings=names)
    with pytest.raises(UnsupportedMediaType):
        guard.check(a_request(zstd.compress(BODY), HTTP_CONTENT_ENCODING="zstd"), an_exchange(body=Predict))
    assert loaded(guard, Predict, BODY, HTTP_CONTENT_ENCODING="identity").payload


@pytest.mark.parametrize("size", [0, 1, 1_000, 65_535, 65_536, 65_537, 131_072, 400_000])
@pytest.mark.parametrize(
    "make", [os.urandom, bytes, lambda size: (b"abc" * size)[:size]], ids=["random", "zero", "text"]
)
def test_every_size_comes_through(name: str, size: int, make: Callable[[int], bytes]) -> None:
    """Blocks end wherever they end, and the limit is the largest that passes."""
    original = make(size)
    raw = COMPRESS[name](original)
    assert ENCODINGS.decode(name, raw, size) == original
    if size:
        with pytest.raises(PayloadTooLarge):
            ENCODINGS.decode(name, raw, size - 1)
    for broken in (raw[:-1], raw + b"x", raw + raw, raw[: len(raw) // 2], b""):
        with pytest.raises(MalformedRequest):
            ENCODINGS.decode(name, broken, 2 * size + 1)


def _with_window(log: int) -> bytes:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
    return bytes(compressor.compress(BODY) + compressor.flush())


def test_the_largest_window_that_http_allows_passes() -> None:
    """8 MB (RFC 9659 section 3)."""
    assert loaded(GUARD, Predict, _with_window(23), HTTP_CONTENT_ENCODING="zstd").payload["instances"].size == 2


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        ("gzip", zlib.compress(BODY)),
        ("gzip", zlib.compress(BODY, wbits=-15)),
        ("gzip", BODY),
        ("gzip", zstd.compress(BODY)),
        ("zstd", gzip.compress(BODY)),
        ("zstd", BODY),
        ("gzip", gzip.compress(BODY)[:-8] + bytes(8)),
        ("zstd", zstd.compress(BODY, options={zstd.CompressionParameter.checksum_flag: 1})[:-4] + bytes(4)),
        ("zstd", zstd.compress(BODY, zstd_dict=zstd.ZstdDict(b"instances" * 4, is_raw=True))),
        (
            "zstd",
            zstd.compress(BODY, options={zstd.CompressionParameter.window_log: 27})[:0] + b"\x28\xb5\x2f\xfd\x04\x98",
        ),
    ],
    ids=["zlib", "deflate", "plain", "zstd", "gzip", "plain", "check sum", "check sum", "dictionary", "window"],
)
def test_what_is_broken_is_malformed(encoding: str, raw: bytes) -> None:
    """Another format, a wrong check sum, a dictionary or a window of more than 8 MB: 400."""
    with pytest.raises(MalformedRequest):
        GUARD.check(a_request(raw, HTTP_CONTENT_ENCODING=encoding), an_exchange(body=Predict))


def test_a_bomb_costs_no_more_than_the_cap(name: str) -> None:
    """Half a gigabyte of zeros, which gzip makes a thousandth and zstd a thirty-thousandth of, is cut at the limit."""
    bomb = COMPRESS[name](bytes(300_000_000))
    guard = a_guard(encodings=[name], max_bytes=1_000_000)

    def send() -> None:
        with pytest.raises(PayloadTooLarge) as caught:
            guard.check(a_request(bomb, HTTP_CONTENT_ENCODING=name), an_exchange(body=Predict))
        assert "expands to more than 1000000 bytes" in caught.value.reason

    assert peak_of(send) < 3_000_000


def test_the_compressed_body_has_the_same_cap() -> None:
    """A compressed body that is too large is not read, and a policy's own limit applies to both sizes."""
    raw = gzip.compress(os.urandom(2_000))
    for options, size in (({}, 1_000), ({"caps": {"max_body_bytes": 30}}, 30)):
        with pytest.raises(PayloadTooLarge, match="413") as caught:
            GUARD.check(a_request(raw, HTTP_CONTENT_ENCODING="gzip"), an_exchange(**options))
        assert caught.value.reason.endswith(f"over the limit of {size} bytes")
    with pytest.raises(PayloadTooLarge):
        GUARD.check(
            a_request(gzip.compress(b"a" * 90), HTTP_CONTENT_ENCODING="gzip"), an_exchange(caps={"max_body_bytes": 80})
        )


def test_a_missing_package_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """zstd without its package is an error at start; without zstd in the setting none is needed."""
    for module in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"SECURE_ML_CONTENT_ENCODINGS: zstd.*\[zstd\]"):
        Encodings(["zstd"])
    assert Encodings(["gzip"]).decode("gzip", gzip.compress(b"a"), 1) == b"a"


@given(data=st.data(), encoding=st.sampled_from(sorted(COMPRESS)), cap=st.integers(0, 2_000))
def test_fuzz_only_rejects(data: st.DataObject, encoding: str, cap: int) -> None:
    """For any input, the result is within the limit, or the body is rejected."""
    raw = data.draw(mutated([COMPRESS[encoding](original) for original in (b"", BODY, bytes(100_000))]))
    with suppress(MalformedRequest, PayloadTooLarge):
        assert len(ENCODINGS.decode(encoding, raw, cap)) <= cap
