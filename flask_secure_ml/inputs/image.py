"""The :class:`Image` field: a PNG or JPEG file in base64 to an array of pixels. Needs Pillow, extra ``[image]``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from . import base64_text, budgets
from .field_base import AnyField, required_by_default
from .image_files import Bare, ImageError, bare_jpeg, bare_png, orientation
from .tensor_terms import checked_count

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Pixels = NDArray[np.uint8]

_SIGNATURES: Mapping[str, tuple[bytes, Callable[[bytes], Bare]]] = {
    "PNG": (b"\x89PNG\r\n\x1a\n", bare_png),
    "JPEG": (b"\xff\xd8\xff", bare_jpeg),
}
# Four pictures of the default size. A small file costs its opening, so there are 1,024 of them at most.
_MAX_TOTAL = 16_777_216
_LEAST_COUNTED = 16_384
_MODES = ("L", "RGB", "RGBA")
# Eight bits a channel; the others lose something on the way to them.
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
    "text": "Not base64 text.",
    "base64": "Not canonical base64.",
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
    RGBA. Nothing but the parts of the file that make its pixels reaches the decoder, and no other decoder than that
    of the formats named is ever asked. The number of pixels is read from the header and checked before any is
    decoded. Files that are cut short, animated or deeper than 8 bits a channel are refused.

    :param mode: what the pixels are converted to; transparency is dropped by L and RGB.
    :param formats: PNG, JPEG or both.
    :param max_pixels: the most pixels, height times width.
    :param max_total_pixels: the most pixels of all images of one request, those of other fields and of lists included,
        counted before each is decoded; an image counts as 16,384 pixels at least. Without it 16,777,216, or
        ``max_pixels`` if that is more. It holds in bodies of requests, not where a schema is loaded by hand.
    :param max_bytes: the most bytes of the file.
    :param upright: turn the picture as its EXIF data says that the camera was held.
    :raises ImportError: Pillow is not installed.
    :raises TypeError, ValueError: when the definition itself is wrong.

    Required unless ``required=False`` or ``load_default`` says otherwise, and left out of what a schema dumps.
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
        self.formats = _checked_formats(formats)
        self.max_pixels = checked_count("max_pixels", max_pixels)
        self.max_total_pixels = _checked_total(max_total_pixels, self.max_pixels)
        self.max_bytes = checked_count("max_bytes", max_bytes)
        self.upright = upright
        _check_pillow()
        super().__init__(**({"load_only": True} | required_by_default(options)))

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_kwargs: Any) -> Pixels:
        file = self._file(value)
        try:
            return self._pixels(file)
        except ImageError as error:
            raise self._told(error.key) from None

    def _told(self, key: str) -> ValidationError:
        terms = {"max_pixels": self.max_pixels, "max_total_pixels": self.max_total_pixels}
        return self.make_error(key, formats=", ".join(self.formats), **terms)

    def _file(self, value: Any) -> bytes:
        if type(value) not in (str, bytes):
            raise self.make_error("text")
        size = len(value) if type(value) is bytes else base64_text.decoded_size(value)
        if size is not None and size > self.max_bytes:
            raise self.make_error("max_bytes", max_bytes=self.max_bytes)
        try:
            return value if type(value) is bytes else base64_text.decode(value)
        except ValueError:
            raise self.make_error("base64") from None

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
            # Pillow raises whatever its parsers meet.
            raise ImageError from error

    def _check_header(self, image: ImageFile) -> None:
        if image.width * image.height > self.max_pixels:
            raise ImageError("max_pixels")
        if image.mode not in _SOURCES:
            raise ImageError("depth")
        self._spend(max(0, image.width * image.height - _LEAST_COUNTED))

    def _spend(self, pixels: int) -> None:
        if budgets.is_spent("pixels", pixels, self.max_total_pixels):
            raise ImageError("max_total_pixels")

    def _converted(self, image: ImageFile) -> Pixels:
        image.load()
        # Pillow warns when it has to drop the transparency of a palette.
        whole = image.convert("RGBA") if image.mode == "P" else image
        return np.array(whole.convert(self.mode), dtype=np.uint8)


def _opened(kind: str, data: bytes) -> ImageFile:
    """Return an image of which the header is read; with its own class, so that nothing is guessed or warned about."""
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
