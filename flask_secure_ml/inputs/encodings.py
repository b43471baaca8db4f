"""Content decoding of bodies (RFC 9110 section 8.4), in blocks, so that decompression bombs stop at the limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from flask import Request

from ..errors import ConfigError, MalformedRequest, PayloadTooLarge, UnsupportedMediaType

IDENTITY = "identity"
_BLOCK = 65_536
_GZIP_WINDOW = 31
# 8 MB, the largest window that a sender may use (RFC 9659 section 3).
_ZSTD_WINDOW_LOG = 23


@dataclass(frozen=True)
class _Coding:
    """The decoder of one content encoding.

    :param open: returns a decompressor with ``eof`` and ``unused_data``.
    :param feed: yields the decompressed content of a block, in pieces of at most 64 KB.
    :param error: the exception that a decompressor raises for corrupt data.
    """

    open: Callable[[], Any]
    feed: Callable[[Any, bytes], Iterator[bytes]]
    error: type[Exception]


class Encodings:
    """The content encodings that an app accepts.

    :param names: any of ``identity``, ``gzip`` and ``zstd``; ``identity`` is always accepted.
    :raises ConfigError: ``zstd`` is listed, but its package is not installed.
    """

    def __init__(self, names: Collection[str] = (IDENTITY,)) -> None:
        makers: Mapping[str, Callable[[], _Coding]] = {"gzip": _gzip, "zstd": _zstd}
        self._codings = {name: makers[name]() for name in names if name != IDENTITY}
        self._accepted = ", ".join([*self._codings, IDENTITY])

    def of(self, request: Request) -> str | None:
        """Return the content encoding of the body; None if it needs no decoding.

        :raises UnsupportedMediaType: 415, the encoding is not accepted, or there is more than one; the response lists
            the accepted ones in ``Accept-Encoding`` (RFC 9110 section 15.5.16).
        """
        value: str | None = request.environ.get("HTTP_CONTENT_ENCODING")
        if not value or (name := value.strip().lower()) in ("", IDENTITY):
            return None
        # RFC 9110 section 8.4.1.3.
        name = name.removeprefix("x-") if name == "x-gzip" else name
        if name not in self._codings:
            headers = [("Accept-Encoding", self._accepted)]
            raise UnsupportedMediaType("the body has a content encoding that is not accepted", headers=headers)
        return name

    def decode(self, name: str, body: bytes, limit: int) -> bytes:
        """Return the decoded body. Decoding stops at most 64 KB beyond the limit.

        :raises PayloadTooLarge: 413, it expands to more than the limit.
        :raises MalformedRequest: 400, it is corrupt, truncated, or followed by other data. A second gzip member or
            zstd frame is also rejected, because some decoders ignore it.
        """
        coding = self._codings[name]
        found: list[bytes] = []
        size = 0
        try:
            for piece in _pieces(coding, body):
                found.append(piece)
                size += len(piece)
                if size > limit:
                    raise PayloadTooLarge(f"the {name} body expands to more than {limit} bytes")
        except coding.error:
            raise MalformedRequest(f"the {name} body is corrupt") from None
        return b"".join(found)


def _pieces(coding: _Coding, body: bytes) -> Iterator[bytes]:
    decompressor = coding.open()
    for start in range(0, len(body), _BLOCK):
        block = body[start : start + _BLOCK]
        yield from coding.feed(decompressor, block)
        if decompressor.eof:
            if decompressor.unused_data or start + len(block) < len(body):
                raise MalformedRequest("trailing data after the compressed body")
            return
    raise MalformedRequest("the compressed body is truncated")


def _gzip() -> _Coding:
    return _Coding(lambda: zlib.decompressobj(_GZIP_WINDOW), _feed_zlib, zlib.error)


def _feed_zlib(decompressor: Any, block: bytes) -> Iterator[bytes]:
    while not decompressor.eof and (piece := decompressor.decompress(block, _BLOCK)):
        yield piece
        block = decompressor.unconsumed_tail


def _zstd() -> _Coding:
    zstd = _zstd_module()
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return _Coding(lambda: zstd.ZstdDecompressor(options=options), _feed_zstd, zstd.ZstdError)


def _zstd_module() -> Any:
    """Return the zstd module of the standard library (Python 3.14), or its backport."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ConfigError(["SECURE_ML_CONTENT_ENCODINGS: zstd requires a package: pip install 'flask-secure-ml[zstd]'"])


def _feed_zstd(decompressor: Any, block: bytes) -> Iterator[bytes]:
    yield decompressor.decompress(block, _BLOCK)
    while not decompressor.eof and not decompressor.needs_input:
        yield decompressor.decompress(b"", _BLOCK)
