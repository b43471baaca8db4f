"""Detecting model files that run code or read other files when they are loaded.

Every part of a file is examined: the content of compressed files and the members of archives, up to four levels deep.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import BinaryIO, TypeVar, cast

from .. import npy
from . import hdf5, keras, onnx, protobuf
from .hdf5_bytes import hdf5_begins
from .pickles import is_pickle, runs_code
from .streams import WRAPPERS, Opaque, Part, Wrapper, container, salvage

T = TypeVar("T")

MAX_DEPTH = 4

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "pickle": "a pickle, as written by pickle, joblib and cloudpickle, possibly compressed",
        "torch": "an archive with a pickle, as written by torch.save",
        "numpy-objects": "a NumPy array of objects, which contains a pickle",
        "keras-lambda": "a Keras model with a Lambda layer, or with classes or functions not known to be harmless",
        "external": "a model with parts in other files, which are not verified",
        "opaque": "content that cannot be examined: encrypted, damaged, nested too deeply, 7-Zip, RAR or Zstandard",
    }
)
"""The names that ``allow`` accepts, with their meaning."""

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
    """A part of a model file that runs or could run code, or reads other files.

    :param kind: a name in :data:`KINDS`.
    :param where: the path to the part, from the outermost, such as ``("gzip", "data.pkl")``; empty for the file itself.
    :param why: for ``opaque``, why the part cannot be examined; for ``external``, what refers to other files.
    :param files: for ``external``, the paths of these files, if they are known.
    """

    kind: str
    where: tuple[str, ...]
    why: str = ""
    files: frozenset[str] = frozenset()

    @property
    def consequence(self) -> str:
        """The consequence of loading it, as the end of a clause."""
        return "read unverified files" if self.kind == "external" else "run arbitrary code"

    def reads_only(self, name: str, verified: Collection[str]) -> bool:
        """Return True if it reads only verified files. Paths are relative to the directory of the file ``name``.

        The paths must be plain, because libraries differ in their handling of ``..``, links and absolute paths.
        """
        folder = PurePosixPath(name).parent
        paths = [PurePosixPath(file) for file in self.files]
        plain = all(file and ".." not in path.parts for file, path in zip(self.files, paths, strict=True))
        return plain and bool(paths) and not self.where and all(str(folder / path) in verified for path in paths)

    def __str__(self) -> str:
        within = f" (in {' > '.join(self.where)!a})" if self.where else ""
        return f"{KINDS[self.kind]}{within}{': ' if self.why else ''}{self.why}"


def find_code(data: bytes, limit: int) -> Iterator[Finding]:
    """Yield the parts of a file that would run code or read other files when it is loaded.

    No code is run or imported, and no object is created. Compressed files and archives are examined up to four levels
    deep.

    :param limit: the maximum size of a decompressed part; a larger part is ``opaque``.
    """
    whole = Part((), lambda: io.BytesIO(data))
    yield from _inside(whole, limit)


def _inside(part: Part, limit: int) -> Iterator[Finding]:
    try:
        yield from _examine(part, part.head(), limit)
    except Opaque as reason:
        yield Finding("opaque", part.where, str(reason))
    except _DAMAGED:
        yield Finding("opaque", part.where, "it is damaged")


def _examine(part: Part, head: bytes, limit: int) -> Iterator[Finding]:
    # A zip archive begins with P, the opcode of a persistent id, and the next bytes could complete a pickle by chance.
    if _test(part, runs_code if head.startswith(_ZIP) else is_pickle):
        yield Finding("torch" if part.in_archive else "pickle", part.where)
    if head.startswith(npy.MAGIC) and _test(part, _holds_objects):
        yield Finding("numpy-objects", part.where)
    yield from _model(part, head, limit)
    if packed := _test(part, container):
        yield Finding("opaque", part.where, f"it is packed with {packed}")
    for wrapper in WRAPPERS:
        if wrapper.begins(head):
            yield from _unwrapped(part, wrapper, limit)
    if head.startswith(_ZIP) or (not part.where and _test(part, zipfile.is_zipfile)):
        yield from _zip(part, limit, certain=head.startswith(_ZIP))
    if _begins_tar(head):
        yield from _tar(part, limit)


def _holds_objects(stream: BinaryIO) -> bool:
    """Return True if an npy file contains a pickle, or if its header cannot be parsed."""
    try:
        return npy.read_header(stream.read(npy.MAX_PREFIX)).has_objects
    except npy.NpyError:
        return True


def _unwrapped(part: Part, wrapper: Wrapper, limit: int) -> Iterator[Finding]:
    expand = wrapper.expand
    if expand is None:
        raise Opaque(f"it is compressed with {wrapper.name}")
    _check_depth(part)
    inner = Part((*part.where, wrapper.name), lambda: expand(part.open()), part.in_archive)
    try:
        inner.head()
    except _DAMAGED:
        if wrapper.certain:
            raise
        # It may be another format. However, a loader that reads in small pieces gets the data before the damage.
        content = salvage(part.open(), expand)
        inner = replace(inner, open=lambda: io.BytesIO(content))
    yield from _inside(inner, limit)


def _zip(part: Part, limit: int, *, certain: bool) -> Iterator[Finding]:
    _check_depth(part)
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
    _check_depth(part)
    with tarfile.open(fileobj=io.BytesIO(part.whole(limit)), mode="r:") as archive:
        for info in archive:
            member = Part((*part.where, info.name), partial(_tar_member, archive, info), in_archive=True)
            yield from _inside(member, limit)


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    # No model loader follows links inside an archive, and the target of a link is a member itself.
    return cast("BinaryIO", (archive.extractfile(info) if info.isreg() else None) or io.BytesIO())


def _begins_tar(head: bytes) -> bool:
    # Archives older than POSIX have no magic "ustar", but every header has a checksum.
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _names_code(part: Part, head: bytes, limit: int) -> bool:
    limit = min(limit, keras.MAX_CONFIG)
    if part.in_archive and part.where[-1] == "config.json":
        return keras.config_holds_code(part.whole(limit))
    if keras.begins_json(head) and _test(part, keras.names_classes):
        return keras.json_holds_code(part.whole(limit))
    return False


def _model(part: Part, head: bytes, limit: int) -> Iterator[Finding]:
    begins = _test(part, hdf5_begins)
    if begins is not None:
        yield from _hdf5(part, begins, limit)
    elif _names_code(part, head, limit):
        yield Finding("keras-lambda", part.where)
    if protobuf.could_begin(head):
        yield from _onnx(part, limit)
    if _names_files(part, head, limit):
        yield Finding("external", part.where, "ONNX in text format refers to other files")
    if _could_be_xml(head) and _test(part, _xml_names_files):
        yield Finding("external", part.where, "XML with a document type can refer to other files")


def _names_files(part: Part, head: bytes, limit: int) -> bool:
    if onnx.is_text(head) and _test(part, onnx.text_names_files):
        return True
    if keras.begins_json(head) and _test(part, keras.names_classes):
        return onnx.json_names_files(part.whole(min(limit, keras.MAX_CONFIG)))
    return False


def _hdf5(part: Part, begins: int, limit: int) -> Iterator[Finding]:
    data = part.whole(limit)
    contents = None
    try:
        contents = hdf5.examine(data, begins, limit)
    except Opaque as reason:
        yield Finding("opaque", part.where, str(reason))
    if contents and contents.pickle:
        yield Finding("torch" if part.in_archive else "pickle", part.where)
    if contents and contents.external:
        yield Finding("external", part.where, contents.external)
    hidden = contents is not None and contents.hidden
    if hidden or keras.hdf5_holds_code(data, contents.configs if contents else ()):
        yield Finding("keras-lambda", part.where)


def _onnx(part: Part, limit: int) -> Iterator[Finding]:
    files = onnx.other_files(part.whole(limit))
    if files is not None:
        yield Finding("external", part.where, f"ONNX refers to {onnx.listed(files)}", files)


def _check_depth(part: Part) -> None:
    if len(part.where) >= MAX_DEPTH:
        raise Opaque("it is nested too deeply")


def _test(part: Part, test: Callable[[BinaryIO], T]) -> T:
    with part.open() as stream:
        return test(stream)


_CHUNK = 1 << 20
_BEFORE = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
_DOCUMENT_TYPE = b"<!DOCTYPE"
_ENCODING = re.compile(rb"""\A<\?xml[^>]*?encoding\s*=\s*["']([^"']*)""")
# In these encodings, markup characters are ASCII bytes, possibly with zero bytes in between.
_PLAIN_ENCODING = re.compile(
    rb"utf-?(8|16|32)(le|be)?|ucs-?[24]|(us-)?ascii|iso-8859-\d+|latin-?1|windows-125\d", re.IGNORECASE
)
_EBCDIC = b"\x4c\x6f\xa7\x94"


def _could_be_xml(head: bytes) -> bool:
    return head.lstrip(_BEFORE).startswith(b"<") or head.startswith(_EBCDIC)


def _xml_names_files(stream: BinaryIO) -> bool:
    # A document type declaration, or an entity in it, can refer to a local file (CWE-611; Extensible Markup Language
    # 1.0, sections 2.8, 4.2.2 and F). XML models, such as PMML and OpenVINO, have none. An encoding in which it cannot
    # be searched for counts as well.
    window = stream.read(_CHUNK)
    declared = _ENCODING.match(window.replace(b"\0", b"").lstrip(_BEFORE))
    if window.startswith(_EBCDIC) or (declared and not _PLAIN_ENCODING.fullmatch(declared[1])):
        return True
    tail = b""
    while window:
        tail += window.replace(b"\0", b"")
        if _DOCUMENT_TYPE in tail:
            return True
        tail = tail[-len(_DOCUMENT_TYPE) :]
        window = stream.read(_CHUNK)
    return False
