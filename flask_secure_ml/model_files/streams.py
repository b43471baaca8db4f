"""Parts of a model file as streams: the file itself, the content of compressed files, the members of archives."""

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
# RFC 8878 section 3.1.2, and the same in LZ4: a skippable frame, which may precede others.
_SKIPPABLE = 5
_LZMA_HEADER = 13
# (pb * 5 + lp) * 9 + lc, which is at most 224.
_LZMA_PROPERTIES = 225
# A power of two, 1.5 times a power of two, or the maximum.
_LZMA_DICTIONARIES = frozenset({(1 << 32) - 1, *(each << bit for bit in range(31) for each in (1, 2, 3))})
_UNKNOWN_SIZE = (1 << 64) - 1
_SALVAGED = 1 << 20


class Opaque(Exception):
    """A part cannot be examined; the message is the reason."""


@dataclass(frozen=True)
class Part:
    """A part of a model file.

    :param where: the path to the part, from the outermost, such as ``("gzip", "data.pkl")``; empty for the file itself.
    :param open: returns a new stream at the beginning of the part.
    :param in_archive: the part is in a zip or tar archive.
    """

    where: tuple[str, ...]
    open: Callable[[], BinaryIO]
    in_archive: bool = False

    def head(self) -> bytes:
        """Return the first 512 bytes, or fewer if the part is shorter."""
        with self.open() as stream:
            return stream.read(HEAD)

    def whole(self, limit: int) -> bytes:
        """Return the whole content.

        :raises Opaque: it expands to more than ``limit`` bytes.
        """
        with self.open() as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Opaque("it expands to more than max_bytes")
        return data


class _Zlib(io.RawIOBase):
    """The content of a zlib stream (RFC 1950), for which the standard library has no file object."""

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
    """A wrapper of a stream that returns one byte at a time, up to the limit of :func:`salvage`."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._left = _SALVAGED

    def read(self, _: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise Opaque("it is damaged, and more than 1 MiB precedes the damage")
        return self._source.read(1)


def salvage(source: BinaryIO, expand: Callable[[BinaryIO], BinaryIO]) -> bytes:
    """Return the content of a damaged stream before the damage, which reading in larger pieces would lose.

    :raises Opaque: more than 1 MiB precedes the damage.
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
    """A compression format.

    :param begins: returns True if the first bytes of a file can be this format.
    :param certain: no other format begins in the same way, so a file that cannot be decompressed is damaged.
    """

    name: str
    begins: Callable[[bytes], bool]
    certain: bool
    expand: Callable[[BinaryIO], BinaryIO] | None


def _magic(beginning: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(beginning)


def _begins_zlib(head: bytes) -> bool:
    """Return True if the first two bytes are a valid zlib header (RFC 1950 section 2.2) for deflate."""
    # The high half of the first byte is the window size, which is at most 7.
    return len(head) > 1 and head[0] & 0x8F == _DEFLATE and (head[0] << 8 | head[1]) % 31 == 0


def _begins_zlib_with_dictionary(head: bytes) -> bool:
    """Return True if the data after the dictionary's checksum could be decompressed with some dictionary."""
    if not _begins_zlib(head) or not head[1] & _FDICT:
        return False
    engine = zlib.decompressobj(-zlib.MAX_WBITS, zdict=bytes(1 << zlib.MAX_WBITS))
    try:
        engine.decompress(head[6:])
    except zlib.error:
        return False
    return engine.eof or len(head) == HEAD


def _begins_lzma(head: bytes) -> bool:
    """Return True if liblzma would detect its legacy format, which has no magic number, by properties and sizes."""
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

# Formats that the standard library does not support; LZ4 and Zstandard, which consist of frames, are above.
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
# Readers of these formats skip a self-extracting program before the archive.
_AFTER_A_PROGRAM = {b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!\x1a\x07\x00": "RAR", b"Rar!\x1a\x07\x01\x00": "RAR"}
_PROGRAM = 1 << 21


def container(stream: BinaryIO) -> str:
    """Return the name of an archive format that cannot be examined; an empty string for others."""
    beginning = stream.read(_PROGRAM)
    names = [name for magic, name in _CONTAINERS.items() if beginning.startswith(magic)]
    return next(iter([*names, *(name for magic, name in _AFTER_A_PROGRAM.items() if magic in beginning)]), "")
