"""MessagePack bodies: the same values and rules as for JSON. Needs the extra ``[msgpack]``."""

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

# The first is registered; the others are older and still in use.
_MEDIA_TYPES = ("application/vnd.msgpack", "application/msgpack", "application/x-msgpack")
# Counting an array or map takes one call, which costs about as much as eight values.
_PER_CONTAINER = 8
_FREE_CONTAINERS = 1_000
_JSON_TYPES = frozenset({dict, list, str, int, float, bool, type(None)})
# The first bytes of binary and extension types. In a body without any of these bytes, types of values are not checked.
_OTHER_TYPES = b"\xc4\xc5\xc6\xc7\xc8\xc9\xd4\xd5\xd6\xd7\xd8"


class MessagePackFormat:
    """MessagePack with the types of JSON only: no binary, extension types or timestamps; names are strings.

    The number of arrays and maps is limited to an eighth of the allowed number of values (or a thousand, if that is
    more), because a client needs only one byte for each.

    The structure is checked first, without creating objects: an array can claim four billion items in five bytes, and
    arrays can be nested. Only complete bodies are decoded.

    :raises ConfigError: the package ``msgpack`` is missing.
    """

    name = "msgpack"
    media_types = _MEDIA_TYPES

    def __init__(self, caps: Caps) -> None:
        try:
            msgpack: Any = import_module("msgpack")
        except ImportError:
            raise ConfigError(
                ["SECURE_ML_WIRE_FORMATS: msgpack requires a package: pip install 'flask-secure-ml[msgpack]'"]
            ) from None
        self._caps = caps
        self._unpacker: Any = msgpack.Unpacker
        self._unpack_error: type[Exception] = msgpack.UnpackException

    def fits(self, schema: Schema) -> bool:
        """Return True: every schema can be loaded from MessagePack."""
        return True

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the value of the body.

        :raises MalformedRequest: 400, it is malformed, has types that JSON does not have or duplicate names, or nests
            too deep.
        :raises PayloadTooLarge: 413, it has too many values or members, or a string that is too long.
        """
        try:
            self._check_structure(body)
            return Decoded(self._value(body), self.name)
        # Exceptions are not chained, because some of them quote the body.
        except (self._unpack_error, UnicodeDecodeError) as error:
            rule = "the body cannot be read as MessagePack"
            raise MalformedRequest(f"{rule}: {type(error).__name__}", rule=rule) from None
        except ValueError:
            # For a complete body in UTF-8, the only remaining errors are lengths, and timestamps that nobody writes.
            raise PayloadTooLarge("MessagePack with too long an array, map or string") from None

    def _check_structure(self, body: bytes) -> None:
        reader = self._unpacker(max_buffer_size=max(len(body), 1))
        reader.feed(body)
        reader.skip()
        if reader.tell() != len(body):
            raise MalformedRequest("trailing data after the MessagePack value")

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
            # Other types than those of JSON are rejected whatever their length.
            max_bin_len=len(body),
            max_ext_len=len(body),
            strict_map_key=False,
        )
        unpacker.feed(body)
        value = unpacker.unpack()
        if type(value) not in _JSON_TYPES:
            raise MalformedRequest("a MessagePack value has a type that JSON does not have")
        if _depth(value, found.containers, self._caps.max_depth) > self._caps.max_depth:
            raise MalformedRequest(f"arrays and objects are nested deeper than {self._caps.max_depth}")
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
        """Count an array or map and its values; a container that is not empty is not an element itself."""
        self.containers += 1
        if values:
            self._others += len(values) - 1
            if self._may_have_others and not _JSON_TYPES.issuperset(map(type, values)):
                raise MalformedRequest("a MessagePack value has a type that JSON does not have")
        if self.containers > self._most_containers:
            raise PayloadTooLarge(f"there are more than {self._most_containers} arrays and objects")
        if self._others >= self._most:
            raise PayloadTooLarge(f"there are more than {self._most} values")


def _reject_extension(_code: int, _data: bytes) -> Any:
    raise MalformedRequest("a MessagePack value has an extension type")


def _depth(value: Any, containers: int, most: int) -> int:
    """Return the depth of containers, or one more than the maximum. It stops at the last container."""
    depth = 0
    level = [value]
    while containers and depth <= most:
        level = [item for item in level if type(item) is list or type(item) is dict]
        containers -= len(level)
        depth += 1
        if containers:
            level = list(chain.from_iterable(each.values() if type(each) is dict else each for each in level))
    return depth
