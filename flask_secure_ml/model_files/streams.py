"""Parts of a model file as streams: the file itself, what a compressed file holds, the members of an archive."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

HEAD = 512

_CHUNK = 1 << 16
_DEFLATE = 8
_FDICT = 0x20
# RFC 8878 section 3.1.2, and the same in LZ4: a frame of anything, before the others.
_SKIPPABLE = 5
_LZMA_HEADER = 13
# (lp * 5 + pb) * 9 + lc, of which the greatest is 224.
_LZMA_PROPERTIES = 225
# A power of two, one and a half of it, or the greatest number.
_LZMA_DICTIONARIES = frozenset({(1 << 32) - 1, *(each << bit for bit in range(31) for each in (1, 2, 3))})
_UNKNOWN_SIZE = (1 << 64) - 1
_SALVAGED = 1 << 20


class Opaque(Exception):
    """A part cannot be examined; the message is the reason."""


@dataclass(frozen=True)
class Part:
    """Something in a model file.

    :param where: the path to it from outside, such as ``("gzip", "data.pkl")``; empty for the file itself.
    :param open: opens it again, at its beginning.
    :param in_archive: whether it is in a zip or tar archive.
    """

    where: tuple[str, ...]
    open: Callable[[], BinaryIO]
    in_archive: bool = False

    def head(self) -> bytes:
        """Return the first 512 bytes, or what there is."""
        with self.open() as stream:
            return stream.read(HEAD)

    def whole(self, limit: int) -> bytes:
        """Return all of it.

        :raises Opaque: it expands to more than ``limit`` bytes.
        """
        with self.open() as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Opaque("it expands to more than max_bytes")
        return data


class _Zlib(io.RawIOBase):
    """What a zlib stream (RFC 1950) holds; the standard library has no file object for it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._engine = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(cast("bytearray", buffer))
        data = b""
        while not data and not self._engine.eof:
            fresh = self._engine.unconsumed_tail or self._source.read(_CHUNK)
            if not fresh:
                raise EOFError("the zlib stream ends early")
            data = self._engine.decompress(fresh, len(target))
        target[: len(data)] = data
        return len(data)


class _Bytes:
    """Another source that gives one byte at a time, and not more of them than :func:`salvage` takes."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._left = _SALVAGED

    def read(self, _: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise Opaque("it is damaged, and more than 1 MiB precedes the damage")
        return self._source.read(1)


def salvage(source: BinaryIO, expand: Callable[[BinaryIO], BinaryIO]) -> bytes:
    """Return what a damaged stream holds before the damage, which reading it in larger pieces loses.

    :raises Opaque: more than 1 MiB comes before the damage.
    """
    found = bytearray()
    with suppress(EOFError, OSError, lzma.LZMAError, zlib.error):
        stream = cast("io.BufferedReader", expand(cast("BinaryIO", _Bytes(source))))
        while len(found) < _SALVAGED and (fresh := stream.read1(_CHUNK)):
            found += fresh
    return bytes(found)


def _zlib(source: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Zlib(source))


def _gzip(source: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile(fileobj=source, mode="rb"))


def _bz2(source: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", bz2.BZ2File(source))


def _lzma(source: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", lzma.LZMAFile(source))


@dataclass(frozen=True)
class Wrapper:
    """A kind of compression.

    :param begins: returns True if it could have written the first bytes of a file.
    :param certain: nothing else begins so; then what cannot be expanded is damaged, and not something else.
    """

    name: str
    begins: Callable[[bytes], bool]
    certain: bool
    expand: Callable[[BinaryIO], BinaryIO] | None


def _magic(beginning: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(beginning)


def _begins_zlib(head: bytes) -> bool:
    """Return True if RFC 1950 section 2.2 allows these two bytes: deflate, any window, and the check bits."""
    # The high half of the first byte is the window, of which the greatest is 7.
    return len(head) > 1 and head[0] & 0x8F == _DEFLATE and (head[0] << 8 | head[1]) % 31 == 0


def _begins_zlib_with_dictionary(head: bytes) -> bool:
    """Return True if what follows the dictionary's checksum could be expanded, whatever the dictionary is."""
    if not _begins_zlib(head) or not head[1] & _FDICT:
        return False
    engine = zlib.decompressobj(-zlib.MAX_WBITS, zdict=bytes(1 << zlib.MAX_WBITS))
    try:
        engine.decompress(head[6:])
    except zlib.error:
        return False
    return engine.eof or len(head) == HEAD


def _begins_lzma(head: bytes) -> bool:
    """Return True if liblzma would read this as its older format, by properties and sizes: it has no magic number."""
    if len(head) < _LZMA_HEADER or head[0] >= _LZMA_PROPERTIES:
        return False
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    return dictionary in _LZMA_DICTIONARIES and (size < 1 << 38 or size == _UNKNOWN_SIZE)


WRAPPERS = (
    Wrapper("gzip", _magic(b"\x1f\x8b"), True, _gzip),
    Wrapper("bzip2", _magic(b"BZh"), True, _bz2),
    Wrapper("xz", _magic(b"\xfd7zXZ\x00"), True, _lzma),
    Wrapper("lzip", _magic(b"LZIP"), True, _lzma),
    Wrapper("lzma", _begins_lzma, False, _lzma),
    Wrapper("zlib", _begins_zlib, False, _zlib),
    Wrapper("zlib and a dictionary", _begins_zlib_with_dictionary, True, None),
    Wrapper("LZ4", _magic(b"\x04\x22\x4d\x18"), True, None),
    Wrapper("Zstandard", _magic(b"\x28\xb5\x2f\xfd"), True, None),
    Wrapper("LZ4 or Zstandard", lambda head: head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == _SKIPPABLE, True, None),
)

# What no module of the standard library opens; LZ4 and Zstandard are above, with their frames.
_CONTAINERS = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"MSCF\0\0\0\0": "Cabinet",
    b"\x1f\x9d": "compress",
    b"\x89LZO\0\r\n\x1a\n": "lzop",
    b"LRZI": "lrzip",
    b"7kSt\xa01\x83\xd3\x8c\xb2": "ZPAQ",
    b"\xff\x06\0\0sNaPpY": "Snappy",
    b"age-encryption.org/": "age",
    b"Salted__": "OpenSSL",
}
# Readers of these pass over a program before them, which extracts them.
_AFTER_A_PROGRAM = {b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!\x1a\x07\x00": "RAR", b"Rar!\x1a\x07\x01\x00": "RAR"}
_PROGRAM = 1 << 21


def container(stream: BinaryIO) -> str:
    """Return the packer of a file that cannot be examined, or an empty string."""
    beginning = stream.read(_PROGRAM)
    names = [name for magic, name in _CONTAINERS.items() if beginning.startswith(magic)]
    return next(iter([*names, *(name for magic, name in _AFTER_A_PROGRAM.items() if magic in beginning)]), "")
