from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError, fields, validate
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

from field_loading import load, message
from flask_secure_ml.errors import ValidationFailed
from flask_secure_ml.inputs import Image
from flask_secure_ml.inputs.fields.image import ImageError, bare_jpeg, bare_png, orientation
from flask_secure_ml.inputs.loading import Loader

UNREADABLE = "Not a whole image of a format that is accepted here: PNG, JPEG."
RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def file(pixels: Any = RGB, kind: str = "PNG", **options: Any) -> bytes:
    picture = pixels if isinstance(pixels, Pillow.Image) else Pillow.fromarray(pixels)
    target = BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def text(data: bytes) -> str:
    return b64encode(data).decode()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def smooth(height: int = 64, width: int = 48) -> NDArray[np.uint8]:
    """Return pixels that JPEG hardly changes."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 3, columns * 4, rows + columns], axis=2).astype(np.uint8)


def test_a_png_is_loaded_pixel_by_pixel() -> None:
    """Base64 text, or the bytes that a binary format has, become an array of height, width and channel."""
    for value in (text(file()), file()):
        found = load(Image(), value)
        assert (found.dtype, found.shape, found.flags.carray) == (np.uint8, (2, 3, 3), True)
        assert found.tolist() == RGB.tolist()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "subsampling": 0}], ids=str)
def test_a_jpeg_is_loaded(options: dict[str, Any]) -> None:
    """JPEG files of each kind are loaded; their pixels are those that Pillow makes of the whole file."""
    data = file(smooth(), "JPEG", quality=95, **options)
    assert load(Image(), text(data)).tolist() == np.asarray(Pillow.open(BytesIO(data))).tolist()


def as_mode(mode: str) -> Pillow.Image:
    picture = Pillow.fromarray(smooth(4, 5)).convert("RGBA")
    picture.putalpha(128)
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize(("wanted", "shape"), [("L", (4, 5)), ("RGB", (4, 5, 3)), ("RGBA", (4, 5, 4))])
def test_modes(mode: str, wanted: Any, shape: tuple[int, ...]) -> None:
    """Every kind of picture of up to 8 bits becomes the mode that the model takes."""
    picture = as_mode(mode)
    found = load(Image(wanted), text(file(picture)))
    assert (found.shape, found.flags.carray) == (shape, True)
    if mode == wanted:
        assert found.tolist() == np.asarray(picture).tolist()


@pytest.mark.parametrize("wanted", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize(
    ("picture", "transparency"),
    [
        (as_mode("P"), bytes(range(16))),
        (as_mode("P"), 3),
        (as_mode("RGB"), (0, 0, 0)),
        (as_mode("L"), 0),
        (as_mode("1"), 0),
    ],
    ids=["palette", "palette of one", "colour", "gray", "bit"],
)
def test_transparent_colours_warn_nobody(picture: Pillow.Image, transparency: Any, wanted: Any) -> None:
    """Pillow warns about such files; the cause is handled before."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load(Image(wanted), text(file(picture, transparency=transparency)))
    assert found.shape[:2] == (4, 5)
    if wanted == "RGBA":
        assert found[..., 3].min() < 255 or picture.mode != "RGB"


DEEP = Pillow.fromarray(np.array([[0, 65_535]], np.uint16))
ANIMATED = file(Pillow.new("RGB", (2, 2)), save_all=True, append_images=[Pillow.new("RGB", (2, 2), "red")])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(5, "Not a base64 string.", id="number"),
        pytest.param([text(file())], "Not a base64 string.", id="list"),
        pytest.param("", UNREADABLE, id="empty"),
        pytest.param(
            "data:image/png;base64," + text(file()),
            "Must be the base64 alone, without the start of a data URL.",
            id="data URL",
        ),
        pytest.param(text(file())[:-1] + "\n", "Not canonical base64.", id="newline"),
        pytest.param(text(file(kind="GIF")), UNREADABLE, id="GIF"),
        pytest.param(text(file(kind="BMP")), UNREADABLE, id="BMP"),
        pytest.param(text(file(kind="TIFF")), UNREADABLE, id="TIFF"),
        pytest.param(text(file(kind="WEBP")), UNREADABLE, id="WebP"),
        pytest.param(text(file(kind="PPM")), UNREADABLE, id="PPM"),
        pytest.param(text(b"%!PS-Adobe-3.0 EPSF-3.0\n"), UNREADABLE, id="EPS"),
        pytest.param(text(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), UNREADABLE, id="SVG"),
        pytest.param(text(b"\x89PNG\r\n\x1a\n"), UNREADABLE, id="signature alone"),
        pytest.param(text(b"\xff\xd8\xff"), UNREADABLE, id="JPEG signature alone"),
        pytest.param(text(file(DEEP)), "Must have 8 bits a channel, and be gray, RGB or with a palette.", id="16 bits"),
        pytest.param(
            text(file(as_mode("RGB").convert("CMYK"), "JPEG")),
            "Must have 8 bits a channel, and be gray, RGB or with a palette.",
            id="CMYK",
        ),
        pytest.param(text(ANIMATED), "Must be a single image.", id="animated"),
        pytest.param(text(png(header(1, 1), chunk(b"IEND"))), UNREADABLE, id="no pixels"),
        pytest.param(text(png(header(0, 1), chunk(b"IDAT"), chunk(b"IEND"))), UNREADABLE, id="empty picture"),
        pytest.param(text(png(chunk(b"IDAT"), chunk(b"IEND"))), UNREADABLE, id="no header"),
        pytest.param(file()[:33] + chunk(b"ABCD") + file()[33:], UNREADABLE, id="unknown critical chunk"),
    ],
)  # fmt: skip
def test_rejects(value: Any, expected: str) -> None:
    """Everything but one whole PNG or JPEG file is rejected."""
    assert message(Image(), value) == expected


def test_formats_are_those_named() -> None:
    """A format that the schema does not name is rejected although the package knows it."""
    assert message(Image(formats=["PNG"]), text(file(smooth(), "JPEG"))).endswith("accepted here: PNG.")
    assert message(Image(formats=["JPEG"]), text(file())).endswith("accepted here: JPEG.")
    assert load(Image(formats=["JPEG"]), text(file(smooth(), "JPEG"))).shape == (64, 48, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_file_that_is_cut_short_is_rejected(kind: str) -> None:
    """No part of a file passes for the whole."""
    data = file(smooth(9, 9), kind)
    for end in range(len(data) - (2 if kind == "JPEG" else 0)):
        assert message(Image(), data[:end]) == UNREADABLE


def test_a_damaged_chunk_is_rejected() -> None:
    """The checksums of PNG are verified."""
    data = bytearray(file(smooth()))
    data[data.index(b"IDAT") + 10] ^= 1
    assert message(Image(), bytes(data)) == UNREADABLE


def test_what_stands_before_and_after_the_picture_never_reaches_the_decoder() -> None:
    """Text, profiles, previews and whatever follows the end are dropped, however large they unpack."""
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 80_000_000))
    extra = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 9_000_000)) + bomb + chunk(b"gAMA", b"\0\0\0\0")
    whole = file()
    at = whole.index(b"IDAT") - 4
    odd = whole[:at] + extra + whole[at:] + b"PK\x03\x04 trailing"
    assert load(Image(), odd).tolist() == RGB.tolist()
    assert bare_png(odd).data == whole
    plain = file(smooth(), "JPEG")
    talkative = file(smooth(), "JPEG", comment=b"c" * 99, exif=b"Exif\0\0broken", icc_profile=b"i" * 99)
    assert load(Image(), talkative).tolist() == load(Image(), plain).tolist()
    assert bare_jpeg(talkative).data == plain


def test_pixels_are_counted_before_any_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that promises gigabytes is rejected without them, and without Pillow's own warning."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _self: pytest.fail("decoded"))
    for width, height in ((65_000, 65_000), (12_000, 10_000), (2**31 - 1, 2**31 - 1), (2_049, 2_048)):
        bomb = png(header(width, height), chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND"))
        assert message(Image(), text(bomb)) == "Must have at most 4194304 pixels."
    large = bytearray(file(smooth(), "JPEG"))
    at = large.index(b"\xff\xc0") + 5
    large[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    assert message(Image(), bytes(large)) == "Must have at most 4194304 pixels."


class Album(Schema):
    cover = Image("L", required=False)
    pages = fields.List(Image("L"), validate=validate.Length(max=250))
    named = fields.Dict(fields.String(), Image("L"))


def too_much(value: Any) -> list[str]:
    with pytest.raises(ValidationFailed) as caught:
        Loader(Album()).load(value)
    found: list[dict[str, str]] = caught.value.members["errors"]
    assert {each["message"] for each in found} == {"All images together must have at most 16777216 pixels."}
    return [each["pointer"] for each in found]


def test_pixels_of_a_whole_body_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoded size of many small files is limited over all fields of a load, before the next is decoded."""
    decoded: list[tuple[int, int]] = []

    def converted(_field: Image, image: ImageFile.ImageFile) -> NDArray[np.uint8]:
        decoded.append(image.size)
        return np.zeros((1, 1), np.uint8)

    monkeypatch.setattr(Image, "_converted", converted)
    page = text(file(Pillow.new("1", (2_048, 2_048))))
    assert len(Loader(Album()).load({"pages": [page] * 4})["pages"]) == 4
    decoded.clear()
    assert too_much({"pages": [page] * 200})[0] == "/pages/4"
    assert too_much({"cover": page, "pages": [page] * 4}) == ["/pages/3"]
    assert too_much({"named": {str(number): page for number in range(5)}}) == ["/named/4/value"]
    assert decoded == [(2_048, 2_048)] * 3 * 4
    assert len(Loader(Album()).load({"pages": [page] * 4})["pages"]) == 4


def test_small_images_count_for_their_opening() -> None:
    """As many files as there are pixels would take minutes, so a file of one pixel counts for more."""
    dot = text(file(Pillow.new("L", (1, 1))))
    names = map(str, range(1_025))
    assert too_much({"named": dict.fromkeys(names, dot)}) == ["/named/1024/value"]


def test_the_total_of_a_field_is_its_own() -> None:
    """A larger max_pixels raises the total, a schema may set it, and direct loading does not count."""
    assert Image(max_pixels=20_000_000).max_total_pixels == 20_000_000
    field = Image("L", max_pixels=20_000, max_total_pixels=32_768)
    pages = Schema.from_dict({"pages": fields.List(field)})
    dots = {"pages": [text(file(Pillow.new("L", (1, 1))))] * 3}
    assert len(Loader(pages()).load({"pages": dots["pages"][:2]})["pages"]) == 2
    with pytest.raises(ValidationFailed):
        Loader(pages()).load(dots)
    assert len(pages().load(dots)["pages"]) == 3
    for wrong in (0, 19_999):
        with pytest.raises(ValueError, match="max_total_pixels must"):
            Image(max_pixels=20_000, max_total_pixels=wrong)
    with pytest.raises(ValueError, match="nor than 16384"):
        Image(max_pixels=1, max_total_pixels=16_383)


def test_caps() -> None:
    """The most pixels and the most bytes are the largest that pass."""
    data = file()
    assert load(Image(max_pixels=6, max_bytes=len(data)), text(data)).shape == (2, 3, 3)
    assert message(Image(max_pixels=5), text(data)) == "Must have at most 5 pixels."
    expected = f"Must have at most {len(data) - 1} bytes."
    assert message(Image(max_bytes=len(data) - 1), text(data)) == expected
    assert message(Image(max_bytes=len(data) - 1), data) == expected


def test_scans_without_end_are_rejected() -> None:
    """Each scan of a progressive file processes all pixels, so a small file could take minutes."""
    data = file(smooth(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert data.count(b"\xff\xda") < 20
    many = data[:last] + data[last:-2] * 65 + data[-2:]
    assert message(Image(), many) == UNREADABLE


def test_several_pictures_in_a_jpeg_are_rejected() -> None:
    """A multi-picture file looks like a JPEG with one picture."""
    several = file(smooth(), "MPO", save_all=True, append_images=[Pillow.fromarray(smooth())])
    assert several.startswith(b"\xff\xd8\xff")
    assert message(Image(), several) == "Must be a single image."


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xd9\0\x02",
        b"\xff\xd0\0\x02",
        b"\0\xfe\0\x02",
        b"\xff\xfe\0\0",
        b"\xff\xfe\0\x01",
        b"\xff\xfe\xff\xff",
        b"",
    ],
    ids=["end", "restart", "no marker", "length of 0", "length of 1", "length beyond the end", "nothing"],
)
def test_the_segments_of_a_jpeg_are_walked_strictly(segment: bytes) -> None:
    """Bytes that are not a segment with a length are not skipped."""
    scan = b"\xff\xda\0\x02"
    assert bare_jpeg(b"\xff\xd8\xff\xfe\0\x02" + scan).data == b"\xff\xd8" + scan
    with pytest.raises(ImageError):
        bare_jpeg(b"\xff\xd8" + segment + (scan if segment else b""))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("held", range(1, 9))
def test_upright(kind: str, held: int) -> None:
    """The image is rotated only with the option, in the same way as by Pillow."""
    exif = Pillow.Exif()
    exif[0x0112] = held
    data = file(smooth(), kind, exif=exif)
    assert load(Image(), data).shape == (64, 48, 3)
    expected = np.asarray(ImageOps.exif_transpose(Pillow.open(BytesIO(data))))
    found = load(Image(upright=True), data)
    assert found.tolist() == expected.tolist()
    assert found.flags.carray


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0", 6),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 6),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", 1),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0", 1),
        (b"II*\0\x08\0\0\0\xff\xff", 1),
        (b"II*\0\xff\xff\xff\xff", 1),
        (b"II*\0", 1),
        (b"XX*\0\x08\0\0\0", 1),
        (b"", 1),
    ],
)
def test_orientation(exif: bytes, expected: int) -> None:
    """EXIF data of both byte orders is read, and invalid data is ignored."""
    assert orientation(exif) == expected


def test_a_switch_of_the_process_does_not_let_parts_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the app configured Pillow to accept truncated files, this field still rejects them."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert message(Image(), file()) == UNREADABLE


def test_only_the_decoders_named_are_loaded() -> None:
    """Reading an image neither imports nor registers another decoder of Pillow, nor does the package import any."""
    code = (
        "import sys; from flask_secure_ml.inputs import Image; assert 'PIL' not in sys.modules;"
        f"Image().deserialize({file()!r});"
        "print(sorted(n for n in sys.modules if n.startswith('PIL.') and n.endswith('Plugin')))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['PIL.JpegImagePlugin', 'PIL.PngImagePlugin']"


def test_without_pillow_the_schema_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app does not start, and the message has the install command."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"flask-secure-ml\[image\]"):
        Image()


def test_options_of_a_field() -> None:
    """It is required by default, and is never dumped."""
    schema = Schema.from_dict({"x": Image(), "y": Image(required=False)})()
    assert list(schema.validate({})) == ["x"]
    assert schema.dump({"x": RGB}) == {}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"mode": "CMYK"}, "mode must be"),
        ({"formats": ["GIF"]}, "formats must be"),
        ({"formats": []}, "formats must be"),
        ({"formats": "PNG"}, "formats must be"),
        ({"max_pixels": 0}, "max_pixels must be"),
        ({"max_bytes": True}, "max_bytes must be"),
    ],
)
def test_a_wrong_definition_fails_at_once(arguments: dict[str, Any], part: str) -> None:
    """The field is rejected where it is written."""
    with pytest.raises(ValueError, match=part):
        Image(**arguments)


def test_one_field_serves_many_threads() -> None:
    """No state is shared between requests, not even warning filters."""
    before, field = list(warnings.filters), Image("RGBA")
    values = [text(file(smooth(size, size))) for size in range(1, 20)]
    with ThreadPoolExecutor(8) as pool:
        sizes = [found.shape[0] for found in pool.map(lambda value: load(field, value), values * 5)]
    assert sizes == list(range(1, 20)) * 5
    assert list(warnings.filters) == before


def damaged(make: Callable[[], bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy of a file with a few bytes changed, and sometimes cut short."""
    whole = make()
    place = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))
    return st.tuples(st.lists(place, max_size=6), st.integers(0, len(whole))).map(
        lambda change: _changed(whole, change[0])[: change[1] or None]
    )


def _changed(whole: bytes, changes: list[tuple[int, int]]) -> bytes:
    data = bytearray(whole)
    for place, value in changes:
        data[place] = value
    return bytes(data)


FILES = [
    lambda: file(smooth(8, 8)),
    lambda: file(as_mode("P"), transparency=bytes(16)),
    lambda: ANIMATED,
    lambda: file(smooth(16, 16), "JPEG", progressive=True),
    lambda: file(smooth(16, 16), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"),
]


@given(st.one_of(*map(damaged, FILES)) | st.binary(max_size=200))
def test_fuzz_damaged_files(data: bytes) -> None:
    """A damaged file is rejected or loaded as an array within the limit, without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for field in (Image("L", max_pixels=300, upright=True), Image("RGBA", max_pixels=300)):
            try:
                found = field.deserialize(data)
            except ValidationError:
                continue
            assert found.dtype == np.uint8
            assert found.shape[0] * found.shape[1] <= 300
