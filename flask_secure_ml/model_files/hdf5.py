"""Examining the objects of an HDF5 file for references to other files and for Keras configurations and pickles.

A dataset can store its values in other files (external data files, virtual datasets), and a link can refer to another
file; the HDF5 library opens these by path. So every reachable object is examined. This is an allow-list: a file with
unknown messages is :class:`~.streams.Opaque`.

The package ``h5py`` is not needed, so the result is the same on every machine.
Source: HDF5 File Format Specification 4.0 (superblocks 0 to 3, object headers 1 and 2).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from . import hdf5_bytes as values
from .hdf5_bytes import CONTINUATION, Damaged, Headers, Message, Reader, Span
from .hdf5_groups import Records, old_group
from .pickles import is_pickle
from .streams import Opaque

_SIZES = frozenset({2, 4, 8, 16, 32})
_VERSIONS = range(4)
_LATER_VERSIONS = range(4, 16)
_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _FILES, _LAYOUT = 1, 2, 3, 6, 7, 8
_ATTRIBUTE, _SYMBOL_TABLE, _ATTRIBUTE_INFO = 0x0C, 0x11, 0x15
# NIL, two fill values, group info, filters, comment, two times, B-tree K values, reference count, file space; and
# continuations, which are already followed.
_HARMLESS = frozenset({0, 4, 5, 0x0A, 0x0B, 0x0D, 0x0E, 0x12, 0x13, 0x16, 0x17, CONTINUATION})
_HARD, _SOFT, _EXTERNAL_LINK = 0, 1, 64
_STRING, _REFERENCE, _VARIABLE = 3, 7, 9
_CONFIGS = frozenset({b"model_config", b"training_config"})
# The value "object" marks a dataset of pickles. PyTables writes strings of fixed length.
_OF_PYTABLES = frozenset({b"PSEUDOATOM", b"FLAVOR"})


@dataclass
class Contents:
    """The result of examining an HDF5 file.

    :param external: why reading the file can read other files; empty if it cannot.
    :param configs: the positions of strings that Keras reads as model configurations.
    :param hidden: a model configuration is not a string.
    :param pickle: PyTables, and pandas through it, would unpickle data.
    """

    external: str = ""
    configs: list[Span] = field(default_factory=list)
    hidden: bool = False
    pickle: bool = False


def examine(data: bytes, start: int, limit: int) -> Contents | None:
    """Return the contents of a file, or None if no library can open it.

    :param start: the position of the signature, after an optional user block.
    :param limit: the maximum size that all datasets together may declare.
    :raises Opaque: the file is corrupt, of an unknown kind, or declares more.
    """
    version = data[start + 8] if len(data) > start + 8 else -1
    sizes = data[start + 13 : start + 15] if version < 2 else data[start + 9 : start + 11]  # noqa: PLR2004
    if version in _LATER_VERSIONS:
        raise Opaque("it is HDF5 of an unknown version")
    if version not in _VERSIONS or len(sizes) < 2 or not _SIZES.issuperset(sizes):  # noqa: PLR2004  two sizes
        return None
    walk = _Walk(Reader(data, start, *sizes), limit)
    try:
        walk.superblock(version)
        walk.objects()
    except Damaged:
        raise Opaque("it is damaged or unsupported HDF5") from None
    return walk.contents


@dataclass
class _Object:
    """The properties of one object that its messages declare."""

    items: int = 0
    size: int = 0
    chunk: int = 0
    is_dataset: bool = False


class _Walk:
    def __init__(self, reader: Reader, limit: int) -> None:
        self.contents = Contents()
        self._read = reader
        self._limit = limit
        self._declared = 0
        self._headers = Headers(reader)
        self._pending: list[int] = []
        self._groups: list[int] = []
        self._seen: set[int] = set()

    # The superblock ----------------------------------------------------------------------------------------------

    def superblock(self, version: int) -> None:
        read = self._read
        offsets = read.cursor(read.base + 12 if version > 1 else read.base + (24 if version == 0 else 28))
        if offsets.offset() != read.base:
            # Depending on its version, the library would count addresses from one base or the other.
            raise Damaged
        if version > 1:
            extension, _, root = offsets.address(), offsets.offset(), offsets.address()
            self._reach(self._pending, extension)
        else:
            _, _, driver = offsets.offset(), offsets.offset(), offsets.address()
            if driver is not None:
                self._external("a driver stores its data in several files")
            self._entry(offsets.position)
            # The root group is an object, whatever its entry says.
            offsets.offset()
            root = offsets.address()
        self._reach(self._pending, root)

    # Objects -----------------------------------------------------------------------------------------------------

    def objects(self) -> None:
        while self._pending or self._groups:
            if self._groups:
                self._group(self._groups.pop())
            else:
                self._object(self._pending.pop())

    def _object(self, position: int) -> None:
        found = _Object()
        for message in self._headers.messages(position):
            self._message(message, found)
        if found.is_dataset:
            self._declare(max(found.items * found.size, found.chunk))

    def _group(self, tree: int) -> None:
        for entry in old_group(self._read, tree):
            self._headers.count()
            self._reach(self._pending, self._entry(entry))

    def _reach(self, where: list[int], position: int | None) -> None:
        if position is not None and position not in self._seen:
            self._seen.add(position)
            where.append(position)

    def _external(self, why: str) -> None:
        self.contents.external = self.contents.external or why

    def _declare(self, size: int) -> None:
        self._declared += size
        if self._declared > self._limit:
            raise Opaque("its datasets declare more than max_bytes")

    def _message(self, message: Message, found: _Object) -> None:
        start, end = message.span
        if message.shared and message.kind != _DATATYPE:
            raise Opaque("it is HDF5 with shared messages")
        if message.kind == _DATASPACE:
            found.items = max(found.items, values.items(self._read, start, end))
        elif message.kind == _DATATYPE:
            found.size = max(found.size, self._datatype(start, shared=message.shared)[1])
        elif message.kind == _LAYOUT:
            found.is_dataset = True
            kind, chunk = values.layout(self._read, start)
            found.chunk = max(found.chunk, chunk)
            if kind == values.VIRTUAL:
                self._external("a dataset consists of datasets in other files")
        elif message.kind not in _HARMLESS:
            self._leads_on(message.kind, start, end)

    def _leads_on(self, kind: int, start: int, end: int) -> None:
        if kind == _FILES:
            self._external("a dataset has its values in other files")
        elif kind == _LINK:
            self._link(start, end)
        elif kind == _ATTRIBUTE:
            self._attribute(start, end)
        elif kind == _SYMBOL_TABLE:
            self._reach(self._groups, self._read.cursor(start).address())
        elif kind in (_LINK_INFO, _ATTRIBUTE_INFO):
            self._dense(kind, start)
        else:
            # These include shared message tables, multi-file drivers and metadata cache images.
            raise Damaged

    # Groups ------------------------------------------------------------------------------------------------------

    def _entry(self, position: int) -> int | None:
        """Return the position of the object of a symbol table entry; cached groups are also examined."""
        cursor = self._read.cursor(position)
        cursor.offset()
        target, cached = cursor.address(), cursor.uint(4)
        if cached == 1:
            cursor.uint(4)
            self._reach(self._groups, cursor.address())
        elif cached not in (0, 2):
            raise Damaged
        return None if cached == 2 else target  # noqa: PLR2004  a soft link has no object

    def _dense(self, kind: int, position: int) -> None:
        """Examine links or attributes in dense storage, which has one index or two equivalent ones."""
        cursor = self._read.cursor(position)
        version, flags = cursor.uint(1), cursor.uint(1)
        if version:
            raise Damaged
        if flags & 1:
            cursor.uint(8 if kind == _LINK_INFO else 2)
        heap, *indexes = (cursor.address() for _ in range(3 if flags & 2 else 2))
        if heap is None:
            return
        records = Records(self._read, heap)
        for index in indexes:
            for span in () if index is None else records.spans(index, links=kind == _LINK_INFO):
                self._headers.count()
                (self._link if kind == _LINK_INFO else self._attribute)(*span)

    def _link(self, start: int, end: int) -> None:
        cursor = self._read.cursor(start)
        version, flags = cursor.uint(1), cursor.uint(1)
        if version != 1:
            raise Damaged
        kind = cursor.uint(1) if flags & 8 else _HARD
        cursor.skip((8 if flags & 4 else 0) + (1 if flags & 0x10 else 0))
        cursor.skip(cursor.uint(1 << (flags & 3)))
        if cursor.position > end:
            raise Damaged
        if kind == _HARD:
            self._reach(self._pending, cursor.address())
        elif kind >= _EXTERNAL_LINK:
            self._external("a link refers to another file")
        elif kind != _SOFT:
            raise Damaged

    # Datasets and attributes -------------------------------------------------------------------------------------

    def _datatype(self, position: int, *, shared: bool) -> tuple[int, int]:
        """Return the class and the size of a datatype, which may be a separate object."""
        if shared:
            return self._named_datatype(position)
        first, size = self._read.uint(position, 1), self._read.uint(position + 4, 4)
        kind = first & 0xF
        # These kinds of references can refer to another file.
        if kind == _REFERENCE and self._read.uint(position + 1, 1) & 0xF > 1:
            self._external("a dataset has references that can point to another file")
        return kind, size

    def _named_datatype(self, position: int) -> tuple[int, int]:
        version, kind = self._read.uint(position, 1), self._read.uint(position + 1, 1)
        if version not in (2, 3) or kind == 1 or (version == 3 and kind != 2):  # noqa: PLR2004  1 is a heap, 2 an object
            raise Damaged
        target = self._read.cursor(position + 2).address()
        if target is None:
            raise Damaged
        self._reach(self._pending, target)
        types = [each for each in self._headers.messages(target) if each.kind == _DATATYPE]
        if not types or any(each.shared for each in types):
            raise Damaged
        return max((self._datatype(each.span[0], shared=False) for each in types), key=lambda found: found[1])

    def _attribute(self, start: int, end: int) -> None:
        cursor = self._read.cursor(start)
        version, flags = cursor.uint(1), cursor.uint(1)
        if version not in (1, 2, 3) or (version > 1 and flags & 2):
            raise Damaged
        sizes = [cursor.uint(2) for _ in range(3)]
        cursor.skip(1 if version == 3 else 0)  # noqa: PLR2004  the character set of the name
        positions = []
        for size in sizes:
            positions.append(cursor.position)
            cursor.skip(size + (-size % 8 if version == 1 else 0))
        name, datatype, dataspace = positions
        kind, size = self._datatype(datatype, shared=version > 1 and bool(flags & 1))
        items = values.items(self._read, dataspace, dataspace + sizes[2])
        value = (cursor.position, cursor.position + items * size)
        if value[1] > end:
            raise Damaged
        title = self._read.bytes(name, sizes[0]).split(b"\0")[0]
        if title in _CONFIGS:
            self._config(kind, items, value)
        elif title in _OF_PYTABLES and kind == _VARIABLE:
            self.contents.pickle = True
        elif kind == _STRING:
            self._string(title, self._read.bytes(value[0], value[1] - value[0]))

    def _string(self, title: bytes, value: bytes) -> None:
        """Record a string that PyTables would unpickle, or that makes it unpickle a dataset."""
        is_pickled = value.rstrip(b"\0").endswith(b".") and is_pickle(io.BytesIO(value))
        objects = title in _OF_PYTABLES and value.lower().startswith(b"object")
        self.contents.pickle = self.contents.pickle or is_pickled or objects

    def _config(self, kind: int, items: int, value: Span) -> None:
        if items != 1 or kind not in (_STRING, _VARIABLE):
            self.contents.hidden = True
        else:
            self.contents.configs.append(self._read.string(value[0]) if kind == _VARIABLE else value)
