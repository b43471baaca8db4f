"""Finding references to other files in ONNX models.

The values of a tensor with ``data_location: EXTERNAL`` are in the file named by ``external_data`` (ONNX, "External
Data"). onnx and onnxruntime look for it in the directory of the model, or in the working directory if the model is
passed as bytes. A node may refer to a compiled file in the same way (onnxruntime, "EP Context Design": ``embed_mode``
0).

Protocol buffers have no magic number, and repeated messages are merged, so evidence counts at any position in a
message. The package ``onnx`` is not needed.
Source: ``onnx.proto`` of ONNX 1.23, whose field numbers never change.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from typing import BinaryIO

from . import protobuf
from .streams import HEAD, Opaque

MAX_FIELDS = 1 << 24

_EXTERNAL = 1
_LOCATION = 14
_NUMBER = 3
_NAME = 1
_ENTRIES = 13
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
# A file may contain only one of these. Many other messages use the same field numbers, so only full evidence counts.
_PARTS = ("graph", "function", "tensor")
_LISTED = 3
_CHUNK = 1 << 20
_TEXT_NAMES = (b"data_location", b"dataLocation", b"external_data", b"externalData")
_LONGEST_NAME = max(map(len, _TEXT_NAMES))
_HARMLESS_KEYS = (b"offset", b"length", b"checksum", b"prepacked")


def other_files(data: bytes) -> frozenset[str] | None:
    """Return the paths of other files in an ONNX model, or None.

    An empty path stands for a reference that no verified file can satisfy.

    :raises Opaque: it has more fields than any model.
    """
    for kind in ("model", *_PARTS):
        found = _Search(data)
        # A later release of a library may interpret a model with half of the evidence differently.
        if not found.run(kind):
            continue
        half = kind == "model" and (found.external or found.names)
        if half or (found.external and found.names - {""}):
            return frozenset(found.names or {""})
    return None


def is_text(head: bytes) -> bool:
    """Return True if a file that begins like this could be UTF-8 text; comments may contain any character."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.end == len(head) >= HEAD
    return bool(head)


def text_names_files(stream: BinaryIO) -> bool:
    """Return True if a text model refers to other files, in the text or JSON format of protocol buffers.

    The text format allows comments anywhere, so only the two field names are searched for.
    """
    found: set[bytes] = set()
    tail = b""
    while chunk := stream.read(_CHUNK):
        window = tail + chunk
        found.update(name for name in _TEXT_NAMES if name in window)
        tail = window[-_LONGEST_NAME:]
    return not found.isdisjoint(_TEXT_NAMES[:2]) and not found.isdisjoint(_TEXT_NAMES[2:])


def json_names_files(raw: bytes) -> bool:
    """Return True if JSON refers to other files after decoding its escapes."""
    try:
        plain = json.dumps(json.loads(raw), ensure_ascii=False)
    except (ValueError, RecursionError):
        return False
    return text_names_files(io.BytesIO(plain.encode("utf-8", "surrogatepass")))


def listed(files: Collection[str]) -> str:
    """Return some of the paths for a message."""
    names = sorted(ascii(name) for name in files if name)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}" if names else "no file"


class _Search:
    """Searches a message for external tensors and paths."""

    def __init__(self, data: bytes) -> None:
        self.external = False
        self.names: set[str] = set()
        self._data = data
        self._left = MAX_FIELDS

    def run(self, kind: str) -> bool:
        """Parse the file as a message of a kind; return True if it is one."""
        pending = [(kind, 0, len(self._data))]
        try:
            while pending:
                pending.extend(self._message(*pending.pop()))
        except protobuf.Malformed:
            return False
        return True

    def _message(self, kind: str, start: int, end: int) -> list[tuple[str, int, int]]:
        inner: list[tuple[str, int, int]] = []
        name, numbers = b"", []
        for number, wire, first, last in protobuf.fields(self._data, start, end):
            self._count()
            if wire == protobuf.LENGTH and number in _MESSAGES[kind]:
                inner.append((_MESSAGES[kind][number], first, last))
            elif kind == "tensor":
                self._tensor(number, wire, first, last)
            elif kind == "attribute" and wire == protobuf.LENGTH and number == _NAME:
                name = self._data[first:last]
            elif kind == "attribute" and wire == protobuf.VARINT and number == _NUMBER:
                numbers.append(first)
        if name == b"embed_mode" and numbers[-1:] != [1]:
            self.external = True
            self.names.add("")
        return inner

    def _tensor(self, number: int, wire: int, first: int, last: int) -> None:
        if wire == protobuf.VARINT and number == _LOCATION:
            # An enum has 32 bits; higher bits are dropped.
            self.external = self.external or first & 0xFFFFFFFF == _EXTERNAL
        elif wire == protobuf.LENGTH and number == _ENTRIES:
            self._entry(first, last)

    def _entry(self, start: int, end: int) -> None:
        keys: list[bytes] = []
        values: list[bytes] = []
        for number, wire, first, last in protobuf.fields(self._data, start, end):
            self._count()
            if wire == protobuf.LENGTH:
                (keys if number == _NAME else values).append(self._data[first:last])
        harmless = [key.startswith(_HARMLESS_KEYS) or (key == b"basepath" and not any(values)) for key in keys]
        if b"location" in keys:
            self.names.update(value.decode("utf-8", "replace") for value in values or [b""])
        elif not (keys and all(harmless)):
            self.names.add("")

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Opaque("it has too many fields to examine")
