"""PNG and JPEG files without what a model has no use for: text, profiles, previews, further frames.

Only the parts that make the pixels go to the decoder, so nothing else can be unpacked, read wrongly or warned
about (PNG third edition, sections 5 and 11; ITU-T T.81, annex B).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_ANCILLARY = 0x20
# JFIF and Adobe say what the colours are; no other APPn and no comment is kept.
_JPEG_KEPT = frozenset({0xE0, 0xEE})
_JPEG_DROPPED = frozenset({*range(0xE0, 0xF0), 0xFE}) - _JPEG_KEPT
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})
_START_OF_SCAN = 0xDA
_EXIF, _SEVERAL = b"Exif\0\0", b"MPF\0"
# Each scan of a progressive file goes over all pixels again; encoders write about ten.
_MAX_SCANS = 64
_MAX_PARTS = 65_536


class ImageError(ValueError):
    """The file is not what it should be; ``key`` is that of the message."""

    def __init__(self, key: str = "image") -> None:
        self.key = key
        super().__init__(key)


@dataclass
class Bare:
    """What is left of a file, and its EXIF data (a TIFF file)."""

    parts: list[bytes | memoryview] = field(default_factory=list)
    exif: bytes = b""

    @property
    def data(self) -> bytes:
        """The file to decode."""
        return b"".join(self.parts)


def bare_png(data: bytes) -> Bare:
    """Return a PNG file with its critical chunks and ``tRNS``.

    :raises ImageError: cut short, with an unknown critical chunk, or with several frames.
    """
    bare = Bare([data[:8]])
    for kind, chunk in _chunks(data):
        if kind == b"acTL" and bytes(chunk[8:12]) != b"\0\0\0\1":
            raise ImageError("frames")
        if kind == b"eXIf":
            bare.exif = bytes(chunk[8:-4])
        if kind in _PNG_KEPT:
            bare.parts.append(chunk)
        elif not kind[0] & _ANCILLARY:
            raise ImageError
    return bare


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and bytes of each chunk to the last; what follows that is not looked at."""
    view, start = memoryview(data), 8
    for _ in range(_MAX_PARTS):
        kind = data[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(data[start : start + 4])
        if not kind or end > len(data):
            raise ImageError
        yield kind, view[start:end]
        if kind == b"IEND":
            return
        start = end
    raise ImageError


def bare_jpeg(data: bytes) -> Bare:
    """Return a JPEG file without comments and application data.

    :raises ImageError: cut short, with several images, or with more scans than any encoder writes.
    """
    bare = Bare([data[:2]])
    for marker, segment in _segments(data):
        content = bytes(segment[4:]) if marker in _JPEG_DROPPED else b""
        if content.startswith(_SEVERAL):
            raise ImageError("frames")
        if content.startswith(_EXIF):
            bare.exif = content[len(_EXIF) :]
        if marker not in _JPEG_DROPPED:
            bare.parts.append(segment)
    # FF within coded data is followed by 0, so this finds the scans.
    if data.count(b"\xff\xda", len(data) - len(bare.parts[-1])) > _MAX_SCANS:
        raise ImageError
    return bare


def _segments(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield marker and bytes of each segment before the first scan, and then the rest of the file."""
    view, start = memoryview(data), 2
    for _ in range(_MAX_PARTS):
        marker, length = struct.unpack(">HH", data[start : start + 4].ljust(4, b"\0"))
        kind = marker & 0xFF
        # A length below 2, which would not even count itself, is what is read as the next marker, and is none.
        if marker < 0xFF00 or kind in _ALONE:  # noqa: PLR2004  every marker begins with FF
            raise ImageError
        end = len(data) if kind == _START_OF_SCAN else start + 2 + length
        if end > len(data):
            raise ImageError
        yield kind, view[start:end]
        if kind == _START_OF_SCAN:
            return
        start = end
    raise ImageError


def orientation(exif: bytes) -> int:
    """Return how the picture was held, 1 to 8 (EXIF 2.32, tag 274); 1, upright, where nothing valid says so."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        entries = (struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * number) for number in range(count))
        held = next((value for tag, kind, _, value in entries if (tag, kind) == (0x0112, 3)), 1)
    except struct.error:
        return 1
    return held if 1 <= held <= 8 else 1  # noqa: PLR2004  the eight ways
