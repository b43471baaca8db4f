"""The :class:`Image` field: PNG and JPEG files, reduced to their pixels (no text, profiles, previews or frames).

Only the parts that define the pixels are passed to the decoder, so other parts cannot be decompressed, misread or
cause warnings (PNG third edition, sections 5 and 11; ITU-T T.81, annex B).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from ..load_context import is_spent
from . import AnyField, checked_count, required_by_default
from .base64_tensor import decode, decoded_size

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile


_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_ANCILLARY = 0x20
# JFIF and Adobe define the colours; other APPn segments and comments are removed.
_JPEG_KEPT = frozenset({0xE0, 0xEE})
_JPEG_DROPPED = frozenset({*range(0xE0, 0xF0), 0xFE}) - _JPEG_KEPT
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})
_START_OF_SCAN = 0xDA
_EXIF, _SEVERAL = b"Exif\0\0", b"MPF\0"
# Each scan of a progressive file processes all pixels again; encoders write about ten.
_MAX_SCANS = 64
_MAX_PARTS = 65_536


class ImageError(ValueError):
    """The file is rejected; ``key`` is the key of the error message."""

    def __init__(self, key: str = "image") -> None:
        self.key = key
        super().__init__(key)


@dataclass
class Bare:
    """The remaining parts of a file, and its EXIF data (a TIFF file)."""

    parts: list[bytes | memoryview] = field(default_factory=list)
    exif: bytes = b""

    @property
    def data(self) -> bytes:
        """The file to decode."""
        return b"".join(self.parts)


def bare_png(data: bytes) -> Bare:
    """Return a PNG file with only its critical chunks and ``tRNS``.

    :raises ImageError: the file is truncated, or has an unknown critical chunk or several frames.
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
    """Yield the type and the bytes of each chunk; data after the last chunk is ignored."""
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

    :raises ImageError: the file is truncated, or has several images or more scans than any encoder writes.
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
    # In entropy-coded data, FF is followed by 0, so this counts scans.
    if data.count(b"\xff\xda", len(data) - len(bare.parts[-1])) > _MAX_SCANS:
        raise ImageError
    return bare


def _segments(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield the marker and the bytes of each segment before the first scan, then the rest of the file."""
    view, start = memoryview(data), 2
    for _ in range(_MAX_PARTS):
        marker, length = struct.unpack(">HH", data[start : start + 4].ljust(4, b"\0"))
        kind = marker & 0xFF
        # A length includes its own two bytes. After a smaller one, the next marker is invalid.
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
    """Return the EXIF orientation, 1 to 8 (EXIF 2.32, tag 274); 1 (upright) if there is no valid entry."""
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
    return held if 1 <= held <= 8 else 1  # noqa: PLR2004  the eight orientations


Pixels = NDArray[np.uint8]

_SIGNATURES: Mapping[str, tuple[bytes, Callable[[bytes], Bare]]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n", bare_png),
    "JPEG": (b"\xff\xd8\xff", bare_jpeg),
}
# Four images of the default maximum. Small images have a minimum cost for opening, so there are at most 1,024 of them.
_MAX_TOTAL = 16_777_216
_LEAST_COUNTED = 16_384
_MODES = ("L", "RGB", "RGBA")
# Modes with eight bits per channel; converting other modes loses precision.
_SOURCES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_UPRIGHT: Mapping[int, Callable[[Pixels], Pixels]] = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.fliplr(np.rot90(pixels, -1)),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.fliplr(np.rot90(pixels, 1)),
    8: lambda pixels: np.rot90(pixels, 1),
}
_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "string": "Not a base64 string.",
    "base64": "Not canonical base64.",
    "data_url": "Must be the base64 alone, without the start of a data URL.",
    "max_bytes": "Must have at most {max_bytes} bytes.",
    "image": "Not a whole image of a format that is accepted here: {formats}.",
    "frames": "Must be a single image.",
    "max_pixels": "Must have at most {max_pixels} pixels.",
    "max_total_pixels": "All images together must have at most {max_total_pixels} pixels.",
    "depth": "Must have 8 bits a channel, and be gray, RGB or with a palette.",
}


class Image(AnyField):
    """A PNG or JPEG file in canonical base64, or as :class:`bytes` from a binary format.

    Loaded as an array of ``uint8``: (height, width) with mode L, (height, width, 3) with RGB, (height, width, 4) with
    RGBA. Only the parts of the file that define its pixels are passed to the decoder, and only decoders of the named
    formats are used. The number of pixels is read from the header and checked before decoding. Files that are
    truncated, animated or deeper than 8 bits per channel are rejected.

    :param mode: the mode to which pixels are converted; L and RGB drop transparency.
    :param formats: PNG, JPEG or both.
    :param max_pixels: the maximum number of pixels, height times width.
    :param max_total_pixels: the maximum number of pixels of all images in one request, including those of other fields
        and of lists, counted before each image is decoded. An image counts as at least 16,384 pixels. The default is
        16,777,216, or ``max_pixels`` if that is more. It applies to request bodies, not when code loads a schema
        directly.
    :param max_bytes: the maximum size of the file in bytes.
    :param upright: rotate the image by the orientation in its EXIF data.
    :raises ImportError: Pillow is not installed.
    :raises TypeError, ValueError: the definition is invalid.

    Required unless ``required=False`` or ``load_default`` is given. Images are not dumped.
    """

    default_error_messages = _MESSAGES

    def __init__(
        self,
        mode: Literal["L", "RGB", "RGBA"] = "RGB",
        *,
        formats: Collection[str] = ("PNG", "JPEG"),
        max_pixels: int = 4_194_304,
        max_total_pixels: int | None = None,
        max_bytes: int = 4_194_304,
        upright: bool = False,
        **options: Any,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}")
        self.mode = mode
        self.formats: tuple[str, ...] = _checked_formats(formats)
        self.max_pixels: int = checked_count("max_pixels", max_pixels)
        self.max_total_pixels: int = _checked_total(max_total_pixels, self.max_pixels)
        self.max_bytes: int = checked_count("max_bytes", max_bytes)
        self.upright = upright
        _check_pillow()
        super().__init__(**({"load_only": True} | required_by_default(options)))

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_kwargs: Any) -> Pixels:
        file = self._file(value)
        try:
            return self._pixels(file)
        except ImageError as error:
            raise self._error(error.key) from None

    def _error(self, key: str) -> ValidationError:
        limits = {"max_pixels": self.max_pixels, "max_total_pixels": self.max_total_pixels}
        return self.make_error(key, formats=", ".join(self.formats), **limits)

    def _file(self, value: Any) -> bytes:
        if type(value) not in (str, bytes):
            raise self.make_error("string")
        size = len(value) if type(value) is bytes else decoded_size(value)
        if size is not None and size > self.max_bytes:
            raise self.make_error("max_bytes", max_bytes=self.max_bytes)
        try:
            return value if type(value) is bytes else decode(value)
        except ValueError:
            # What FileReader.readAsDataURL of a browser returns.
            of_browser = isinstance(value, str) and value.startswith("data:")
            raise self.make_error("data_url" if of_browser else "base64") from None

    def _pixels(self, file: bytes) -> Pixels:
        kind = next((name for name in self.formats if file.startswith(_SIGNATURES[name][0])), None)
        if kind is None:
            raise ImageError
        self._spend(_LEAST_COUNTED)
        bare = _SIGNATURES[kind][1](file)
        pixels = self._decoded(kind, bare.data)
        return np.ascontiguousarray(_UPRIGHT[orientation(bare.exif) if self.upright else 1](pixels))

    def _decoded(self, kind: str, data: bytes) -> Pixels:
        try:
            with _opened(kind, data) as image:
                self._check_header(image)
                return self._converted(image)
        except ImageError:
            raise
        except Exception as error:
            # Pillow's parsers raise many kinds of exceptions for invalid files.
            raise ImageError from error

    def _check_header(self, image: ImageFile) -> None:
        if image.width * image.height > self.max_pixels:
            raise ImageError("max_pixels")
        if image.mode not in _SOURCES:
            raise ImageError("depth")
        self._spend(max(0, image.width * image.height - _LEAST_COUNTED))

    def _spend(self, pixels: int) -> None:
        if is_spent("pixels", pixels, self.max_total_pixels):
            raise ImageError("max_total_pixels")

    def _converted(self, image: ImageFile) -> Pixels:
        image.load()
        # Avoids Pillow's warning about dropped palette transparency.
        whole = image.convert("RGBA") if image.mode == "P" else image
        return np.array(whole.convert(self.mode), dtype=np.uint8)


def _opened(kind: str, data: bytes) -> ImageFile:
    """Return an image after reading its header, using the class of its format to avoid detection and warnings."""
    from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError
    opener = PngImagePlugin.PngImageFile if kind == "PNG" else JpegImagePlugin.JpegImageFile
    return opener(BytesIO(data))


def _check_pillow() -> None:
    try:
        from PIL import JpegImagePlugin, PngImagePlugin  # noqa: F401
    except ImportError as error:
        raise ImportError('the field Image needs Pillow: pip install "flask-secure-ml[image]"') from error


def _checked_formats(formats: Collection[str]) -> tuple[str, ...]:
    found = () if isinstance(formats, str) else tuple(formats)
    if not found or not _SIGNATURES.keys() >= set(found):
        raise ValueError("formats must be 'PNG', 'JPEG' or both")
    return found


def _checked_total(total: int | None, each: int) -> int:
    if total is None:
        return max(_MAX_TOTAL, each)
    if checked_count("max_total_pixels", total) < max(each, _LEAST_COUNTED):
        raise ValueError(f"max_total_pixels must not be less than max_pixels, nor than {_LEAST_COUNTED}")
    return total
