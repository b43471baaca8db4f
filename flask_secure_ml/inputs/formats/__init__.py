"""The wire formats of request bodies, and finding the format of a request.

A format only decodes. The schema of the route loads the decoded value, so the same rules apply to all formats. JSON is
decoded to nested lists; binary and tabular formats to an array for the schema's one :class:`Tensor` field.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol

from flask import Request
from marshmallow import Schema

from ...errors import UnsupportedMediaType
from ..body_stream import Caps
from ..fields.tensor import Tensor

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_LENGTH = "HTTP_INFERENCE_HEADER_CONTENT_LENGTH"
_UTF8 = frozenset({"utf-8"})


@dataclass(frozen=True)
class Decoded:
    """A decoded body.

    :param value: the value for the schema to load.
    :param format: the name of the format of the body.
    :param options: options of the request for the response, in this format.
    """

    value: Any
    format: str
    options: Mapping[str, Any] = field(default_factory=lambda: NO_OPTIONS)


class Format(Protocol):
    """Decodes bodies of some media types. Implementations are thread-safe."""

    @property
    def name(self) -> str:
        """The name in ``SECURE_ML_WIRE_FORMATS``."""

    @property
    def media_types(self) -> tuple[str, ...]:
        """The media types, in lower case; 415 responses list the first one."""

    def fits(self, schema: Schema) -> bool:
        """Return True if a body of this format can match the schema."""

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the decoded body.

        :raises MalformedRequest: 400, the body breaks its format.
        :raises PayloadTooLarge: 413, it exceeds a limit.
        :raises UnsupportedMediaType: 415, a parameter of the media type is not supported.
        :raises ValidationFailed: 422, it is well-formed, but inconsistent.
        """


_OTHERS: Mapping[str, tuple[str, str]] = {
    "npy": ("npy", "NpyFormat"),
    "msgpack": ("messagepack", "MessagePackFormat"),
    "csv": ("csv", "CsvFormat"),
}
"""The module and the class of each format that is not JSON."""


def build_formats(names: Collection[str], caps: Caps) -> Formats:
    """Return the formats with these names: ``json``, ``oip``, ``npy``, ``msgpack`` and ``csv``.

    Their modules are imported here, so an app loads only the formats that it accepts.

    :raises ConfigError: a format needs a package that is not installed.
    """
    return Formats(list(_formats(names, caps)))


def _formats(names: Collection[str], caps: Caps) -> Iterator[Format]:
    # Both are JSON, so the format oip must distinguish them.
    if "oip" in names:
        from .oip import OipFormat

        yield OipFormat(caps, plain_json="json" in names)
    elif "json" in names:
        from .json import JsonFormat

        yield JsonFormat(caps)
    for name, (module, class_name) in _OTHERS.items():
        if name in names:
            yield getattr(import_module(f".{module}", __name__), class_name)(caps)


class Formats:
    """The formats that an app accepts on routes with a schema. Each media type belongs to one format."""

    def __init__(self, formats: Collection[Format]) -> None:
        self._formats = tuple(formats)
        self._by_media_type = {name: each for each in self._formats for name in each.media_types}

    def fitting(self, schema: Schema) -> list[Format]:
        """Return the formats that can represent a body for the schema."""
        return [each for each in self._formats if each.fits(schema)]

    def find(self, request: Request, schema: Schema) -> Format:
        """Return the format of a request.

        :raises UnsupportedMediaType: 415, with the media types that the route accepts in ``Accept`` (RFC 9110 section
            15.5.16), which are those of :meth:`fitting`.
        """
        # Most requests send the media type exactly as listed, without parameters.
        found = self._by_media_type.get(request.environ.get("CONTENT_TYPE", ""))
        if found is None:
            found = self._by_media_type.get(request.mimetype or _implied(request))
        if found is not None and found.fits(schema):
            return found
        accepted = ", ".join(dict.fromkeys(each.media_types[0] for each in self.fitting(schema)))
        headers = [("Accept", accepted)] if accepted else []
        raise UnsupportedMediaType("the media type is not one that the route accepts", headers=headers)


def _implied(request: Request) -> str:
    """Return the media type of a body without one. Triton clients omit it when they send this header."""
    return "application/octet-stream" if _LENGTH in request.environ else ""


def is_plain_json(found: Format, request: Request) -> bool:
    """Return True if a JSON object without nested objects is in the format ``json``.

    It is not if there is a header for the length of the JSON, or if the charset is not accepted.
    """
    if not getattr(found, "plain_json", False) or _LENGTH in request.environ:
        return False
    named, media_type = request.environ.get("CONTENT_TYPE"), found.media_types[0]
    return named == media_type or (request.mimetype == media_type and _is_in(request, _UTF8))


def check_charset(request: Request, media_type: str, charsets: Collection[str] = _UTF8) -> None:
    """Reject a body whose charset is not accepted.

    :raises UnsupportedMediaType: 415, with the media type in ``Accept``.
    """
    if not _is_in(request, charsets):
        raise UnsupportedMediaType("the charset is not UTF-8", headers=[("Accept", media_type)])


def _is_in(request: Request, charsets: Collection[str]) -> bool:
    return request.mimetype_params.get("charset", "utf-8").lower() in charsets


def single_tensor(schema: Schema) -> tuple[str, Tensor] | None:
    """Return the only tensor field of a schema, with its name in a body; None if there are none or several."""
    found = [(name, each) for name, each in schema.load_fields.items() if isinstance(each, Tensor)]
    if schema.many or len(found) != 1:
        return None
    ((name, tensor),) = found
    return (name if tensor.data_key is None else tensor.data_key), tensor


def field_of(schema: Schema, key: str) -> Any:
    """Return the field that loads a member of a body; None if there is none."""
    found = ((name if each.data_key is None else each.data_key, each) for name, each in schema.load_fields.items())
    return next((each for name, each in found if name == key), None)
