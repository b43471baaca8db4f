"""Finding what would run code when a model file is loaded, by its content and not by its name."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import BinaryIO, cast

from . import arrays, keras, keras_text
from .pickles import is_pickle, runs_code
from .streams import WRAPPERS, Opaque, Part, Wrapper, salvage

MAX_DEPTH = 4

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "pickle": "a pickle, as pickle, joblib and cloudpickle write, also compressed",
        "torch": "an archive with a pickle in it, as torch.save writes",
        "numpy-objects": "a NumPy array of objects, which is a pickle inside",
        "keras-lambda": "a Keras model with a Lambda layer, or with classes or functions not known to be harmless",
        "opaque": "content that cannot be looked into: encrypted, damaged, nested too deep, LZ4 or Zstandard",
    }
)
"""Every name that ``allow`` takes, and what it stands for."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_ENCRYPTED = 1
_DAMAGED = (
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Finding:
    """Something in a model file that would run code, or could.

    :param kind: a name in :data:`KINDS`.
    :param where: the way to it from outside, such as ``("gzip", "data.pkl")``; empty for the file itself.
    :param why: for ``opaque``, why it cannot be looked into.
    """

    kind: str
    where: tuple[str, ...]
    why: str = ""

    def __str__(self) -> str:
        within = f" (in {' > '.join(self.where)!a})" if self.where else ""
        return f"{KINDS[self.kind]}{within}{': ' if self.why else ''}{self.why}"


def find_code(data: bytes, limit: int) -> Iterator[Finding]:
    """Yield everything in a file that would run code when it is loaded; nothing for formats that hold data only.

    Nothing is run, imported or built. Compressed files and archives are looked into, four deep.

    :param limit: the most bytes that a compressed part may expand to; more is ``opaque``.
    """
    whole = Part((), lambda: io.BytesIO(data))
    yield from _inside(whole, limit)


def _inside(part: Part, limit: int) -> Iterator[Finding]:
    try:
        yield from _look(part, part.head(), limit)
    except Opaque as reason:
        yield Finding("opaque", part.where, str(reason))
    except _DAMAGED:
        yield Finding("opaque", part.where, "it is damaged")


def _look(part: Part, head: bytes, limit: int) -> Iterator[Finding]:
    # A zip archive begins with the P of a persistent id, and what follows could complete a pickle by chance.
    if _test(part, runs_code if head.startswith(_ZIP) else is_pickle):
        yield Finding("torch" if part.in_archive else "pickle", part.where)
    if head.startswith(arrays.MAGIC) and _test(part, arrays.holds_objects):
        yield Finding("numpy-objects", part.where)
    if _names_code(part, head, limit):
        yield Finding("keras-lambda", part.where)
    for wrapper in WRAPPERS:
        if wrapper.begins(head):
            yield from _unwrapped(part, wrapper, limit)
    if head.startswith(_ZIP) or (not part.where and _test(part, zipfile.is_zipfile)):
        yield from _zip(part, limit, certain=head.startswith(_ZIP))
    if _begins_tar(head):
        yield from _tar(part, limit)


def _unwrapped(part: Part, wrapper: Wrapper, limit: int) -> Iterator[Finding]:
    expand = wrapper.expand
    if expand is None:
        raise Opaque(f"it is compressed with {wrapper.name}")
    _refuse_depth(part)
    inner = Part((*part.where, wrapper.name), lambda: expand(part.open()), part.in_archive)
    try:
        inner.head()
    except _DAMAGED:
        if wrapper.certain:
            raise
        # Perhaps it is something else; but a loader that reads in small pieces gets what comes before the damage.
        content = salvage(part.open(), expand)
        inner = replace(inner, open=lambda: io.BytesIO(content))
    yield from _inside(inner, limit)


def _zip(part: Part, limit: int, *, certain: bool) -> Iterator[Finding]:
    _refuse_depth(part)
    try:
        archive = zipfile.ZipFile(io.BytesIO(part.whole(limit)))
    except zipfile.BadZipFile:
        if certain:
            raise
        return
    with archive:
        for info in archive.infolist():
            yield from _zip_member(part, archive, info, limit)


def _zip_member(part: Part, archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> Iterator[Finding]:
    where = (*part.where, info.filename)
    if info.flag_bits & _ENCRYPTED:
        yield Finding("opaque", where, "it is encrypted")
        return
    member = Part(where, lambda: cast("BinaryIO", archive.open(info)), in_archive=True)
    yield from _inside(member, limit)


def _tar(part: Part, limit: int) -> Iterator[Finding]:
    _refuse_depth(part)
    with tarfile.open(fileobj=io.BytesIO(part.whole(limit)), mode="r:") as archive:
        for info in archive:
            member = Part((*part.where, info.name), partial(_tar_member, archive, info), in_archive=True)
            yield from _inside(member, limit)


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    # A link inside an archive is followed by nothing that loads models; its target is a member too.
    return cast("BinaryIO", (archive.extractfile(info) if info.isreg() else None) or io.BytesIO())


def _begins_tar(head: bytes) -> bool:
    # The magic "ustar" came with POSIX; the checksum of the header was always there.
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _names_code(part: Part, head: bytes, limit: int) -> bool:
    limit = min(limit, keras.MAX_CONFIG)
    if _test(part, keras_text.is_hdf5):
        return _test(part, keras_text.holds_code)
    if part.in_archive and part.where[-1] == "config.json":
        return keras.config_holds_code(part.whole(limit))
    if keras.begins_json(head) and _test(part, keras_text.names_classes):
        return keras.json_holds_code(part.whole(limit))
    return False


def _refuse_depth(part: Part) -> None:
    if len(part.where) >= MAX_DEPTH:
        raise Opaque("it is nested too deep")


def _test(part: Part, test: Callable[[BinaryIO], bool]) -> bool:
    with part.open() as stream:
        return test(stream)
