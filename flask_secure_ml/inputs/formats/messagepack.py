"""MessagePack bodies: the same values as JSON, with the same rules. Needs the extra ``[msgpack]``."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import import_module
from itertools import chain
from typing import Any

from flask import Request
from marshmallow import Schema

from ...errors import ConfigError, MalformedRequest, PayloadTooLarge
from ..body_stream import Caps
from . import Decoded

# The first of them is registered; the others are older than that.
_MEDIA_TYPES = ("application/vnd.msgpack", "application/msgpack", "application/x-msgpack")
# How the decoder says which of the lengths that it was given is exceeded.
_OVER_A_CAP = re.compile(r"max_(array|map|str)_len")
# Each array and map is counted by a call, which takes as long as some eight values.
_PER_CONTAINER = 8
_FREE_CONTAINERS = 1_000
# Bytes of length 0, which no cap on a length refuses.
_NO_BYTES = (b"\xc4\x00", b"\xc5\x00\x00", b"\xc6\x00\x00\x00\x00")


class MessagePackFormat:
    """What JSON has, and nothing else: no bytes, no extension types, no time stamps, only text as names.

    Arrays and maps may be an eighth of the values that the caps allow (or a thousand, if that is more), because a
    client needs only a byte for each of them.

    The structure is walked once without making anything: an array may claim four billion items in five bytes, and
    arrays nest. Only what is complete is decoded.

    :raises ConfigError: the package ``msgpack`` is missing.
    """

    name = "msgpack"
    media_types = _MEDIA_TYPES

    def __init__(self, caps: Caps) -> None:
        try:
            msgpack: Any = import_module("msgpack")
        except ImportError:
            raise ConfigError(
                ["SECURE_ML_WIRE_FORMATS has msgpack, which needs a package: pip install 'flask-secure-ml[msgpack]'"]
            ) from None
        self._caps = caps
        self._unpacker: Any = msgpack.Unpacker
        self._errors = (ValueError, msgpack.UnpackException)

    def fits(self, schema: Schema) -> bool:
        """Tell that MessagePack has whatever a schema needs."""
        return True

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the value of the body.

        :raises MalformedRequest: 400, it is broken, has what JSON has not, a name twice, or nests too deep.
        :raises PayloadTooLarge: 413, it has too many values or members, or too long a text.
        """
        try:
            self._check_structure(body)
            return Decoded(self._value(body), self.name)
        except self._errors as error:
            # Not chained: some of them quote the data.
            if _OVER_A_CAP.search(str(error)):
                raise PayloadTooLarge("MessagePack with too long an array, map or text") from None
            raise MalformedRequest(f"the body is no MessagePack that is accepted: {type(error).__name__}") from None

    def _check_structure(self, body: bytes) -> None:
        reader = self._unpacker(max_buffer_size=max(len(body), 1))
        reader.feed(body)
        reader.skip()
        if reader.tell() != len(body):
            raise MalformedRequest("something follows the MessagePack value")

    def _value(self, body: bytes) -> Any:
        found = _Containers(self._caps, may_have_bytes=any(each in body for each in _NO_BYTES))
        unpacker = self._unpacker(
            list_hook=found.array,
            object_pairs_hook=found.map,
            ext_hook=_refuse_extension,
            max_buffer_size=len(body),
            max_array_len=self._caps.max_elements,
            max_map_len=self._caps.max_members,
            max_str_len=self._caps.max_text,
            max_bin_len=0,
            max_ext_len=0,
        )
        unpacker.feed(body)
        value = unpacker.unpack()
        if _depth(value, found.containers, self._caps.max_depth) > self._caps.max_depth:
            raise MalformedRequest(f"arrays and objects nest deeper than {self._caps.max_depth}")
        return value


class _Containers:
    """Counts arrays and maps as they are finished, innermost first, and holds them against the caps."""

    def __init__(self, caps: Caps, *, may_have_bytes: bool) -> None:
        self._most = caps.max_elements
        self._most_containers = min(caps.max_elements, max(_FREE_CONTAINERS, caps.max_elements // _PER_CONTAINER))
        self._may_have_bytes = may_have_bytes
        self.containers = 0
        self._others = 0

    def array(self, items: list[Any]) -> list[Any]:
        self._count(items)
        return items

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise MalformedRequest("an object has duplicate members")
        # A name that is not text is bytes: the decoder refuses all others.
        if self._may_have_bytes and bytes in set(map(type, found)):
            raise MalformedRequest("an object has a name that is no text")
        self._count(found.values())
        return found

    def _count(self, values: Collection[Any]) -> None:
        """Count an array or map, and its values; one that has any is no element itself."""
        self.containers += 1
        if values:
            self._others += len(values) - 1
            if self._may_have_bytes and bytes in set(map(type, values)):
                raise MalformedRequest("MessagePack with bytes")
        if self.containers > self._most_containers:
            raise PayloadTooLarge(f"there are more than {self._most_containers} arrays and objects")
        if self._others >= self._most:
            raise PayloadTooLarge(f"there are more than {self._most} values")


def _refuse_extension(_code: int, _data: bytes) -> Any:
    raise MalformedRequest("MessagePack with an extension type")


def _depth(value: Any, containers: int, most: int) -> int:
    """Return how deep containers nest, or one more than the most. It ends at the last one, before the numbers."""
    depth = 0
    level = [value]
    while containers and depth <= most:
        level = [item for item in level if type(item) is list or type(item) is dict]
        containers -= len(level)
        depth += 1
        if containers:
            level = list(chain.from_iterable(each.values() if type(each) is dict else each for each in level))
    return depth
