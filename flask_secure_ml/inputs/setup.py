"""Builds the input room of one app from its settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from .body import InputGuard
from .caps import Caps
from .csv_format import CsvFormat
from .encodings import Encodings
from .formats import Format, Formats
from .json_format import JsonFormat
from .messagepack import MessagePackFormat
from .npy import NpyFormat
from .oip import OipFormat

if TYPE_CHECKING:
    from ..config import Settings

_OTHERS: Mapping[str, Callable[[Caps], Format]] = {
    "npy": NpyFormat,
    "msgpack": MessagePackFormat,
    "csv": CsvFormat,
}


def build_input_guard(settings: Settings) -> InputGuard:
    """Return the guard of one app.

    :raises ConfigError: a format or an encoding needs a package that is not installed.
    """
    build = partial(build_formats, settings.wire_formats)
    return InputGuard(Caps.of(settings), build, Encodings(settings.content_encodings))


def build_formats(names: Collection[str], caps: Caps) -> Formats:
    """Return the formats of these names: ``json``, ``oip``, ``npy``, ``msgpack`` and ``csv``.

    :raises ConfigError: a format needs a package that is not installed.
    """
    return Formats(list(_formats(names, caps)))


def _formats(names: Collection[str], caps: Caps) -> Iterator[Format]:
    # Both are JSON, so one of them must tell them apart.
    if "oip" in names:
        yield OipFormat(caps, plain_json="json" in names)
    elif "json" in names:
        yield JsonFormat(caps)
    for name, make in _OTHERS.items():
        if name in names:
            yield make(caps)
