"""MessagePack bodies: the same values as JSON, with the same rules. Needs the extra ``[msgpack]``."""

from __future__ import annotations

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
# Each array and map is counted by a call, which takes as long as some eight values.
_PER_CONTAINER = 8
_FREE_CONTAINERS = 1_000
_JSON_TYPES = frozenset({dict, list, str, int, float, bool, type(None)})
# The first bytes of bytes and of extension types; in a body without any of them, the types of values are not checked.
_OTHER_TYPES = b"\xc4\xc5\xc6\xc7\xc8\xc9\xd4\xd5\xd6\xd7\xd8"


class MessagePackFormat:
    """What JSON has, and nothing else: no bytes, no extension types, no time stamps, only strings as names.

    Arrays and maps may be an eighth of the values that the limits allow (or a thousand, if that is more), because a
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
        self._unpack_error: type[Exception] = msgpack.UnpackException

    def fits(self, schema: Schema) -> bool:
        """Return True: MessagePack has whatever a schema needs."""
        return True

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the value of the body.

        :raises MalformedRequest: 400, it is broken, has what JSON does not have, a name twice, or nests too deep.
        :raises PayloadTooLarge: 413, it has too many values or members, or too long a string.
        """
        try:
            self._check_structure(body)
            return Decoded(self._value(body), self.name)
        # None of these is chained: some of them quote the body.
        except (self._unpack_error, UnicodeDecodeError) as error:
            raise MalformedRequest(f"the body is not MessagePack that is accepted: {type(error).__name__}") from None
        except ValueError:
            # Of what is complete and in UTF-8, only lengths are left to be wrong, and time stamps that nobody writes.
            raise PayloadTooLarge("MessagePack with too long an array, map or string") from None

    def _check_structure(self, body: bytes) -> None:
        reader = self._unpacker(max_buffer_size=max(len(body), 1))
        reader.feed(body)
        reader.skip()
        if reader.tell() != len(body):
            raise MalformedRequest("something follows the MessagePack value")

    def _value(self, body: bytes) -> Any:
        found = _Containers(self._caps, may_have_others=any(each in body for each in _OTHER_TYPES))
        unpacker = self._unpacker(
            list_hook=found.array,
            object_pairs_hook=found.map,
            ext_hook=_reject_extension,
            max_buffer_size=len(body),
            max_array_len=self._caps.max_elements,
            max_map_len=self._caps.max_members,
            max_str_len=self._caps.max_string,
            # What is not JSON is rejected by its type, whatever its length.
            max_bin_len=len(body),
            max_ext_len=len(body),
            strict_map_key=False,
        )
        unpacker.feed(body)
        value = unpacker.unpack()
        if type(value) not in _JSON_TYPES:
            raise MalformedRequest("MessagePack with a type that JSON does not have")
        if _depth(value, found.containers, self._caps.max_depth) > self._caps.max_depth:
            raise MalformedRequest(f"arrays and objects nest deeper than {self._caps.max_depth}")
        return value


class _Containers:
    """Counts arrays and maps as they are finished, innermost first, and checks them against the limits."""

    def __init__(self, caps: Caps, *, may_have_others: bool) -> None:
        self._most = caps.max_elements
        self._most_containers = min(caps.max_elements, max(_FREE_CONTAINERS, caps.max_elements // _PER_CONTAINER))
        self._may_have_others = may_have_others
        self.containers = 0
        self._others = 0

    def array(self, items: list[Any]) -> list[Any]:
        self._count(items)
        return items

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        if not {str}.issuperset([type(name) for name, _ in pairs]):
            raise MalformedRequest("an object has a name that is not a string")
        found = dict(pairs)
        if len(found) != len(pairs):
            raise MalformedRequest("an object has duplicate members")
        self._count(found.values())
        return found

    def _count(self, values: Collection[Any]) -> None:
        """Count an array or map, and its values; a container that has any is not an element itself."""
        self.containers += 1
        if values:
            self._others += len(values) - 1
            if self._may_have_others and not _JSON_TYPES.issuperset(map(type, values)):
                raise MalformedRequest("MessagePack with a type that JSON does not have")
        if self.containers > self._most_containers:
            raise PayloadTooLarge(f"there are more than {self._most_containers} arrays and objects")
        if self._others >= self._most:
            raise PayloadTooLarge(f"there are more than {self._most} values")


def _reject_extension(_code: int, _data: bytes) -> Any:
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
