"""Looking for the classes that a Keras model names in text that lies somewhere in a file.

HDF5 holds the JSON of a model as it is. Where Keras reads it is found by walking the file; all other text in it, and
the whole file where it cannot be walked, is searched for the keys that matter, whatever is around them. What cannot be
judged so counts as code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import BinaryIO

from . import keras_names
from .hdf5_bytes import Span

_CHUNK = 1 << 20
_OVERLAP = 1 << 12
_LAMBDAS = tuple(f'"{name}"'.encode() for name in sorted(keras_names.LAMBDAS))
# A key in a text within the text is not a key of the model.
_QUOTED = (b"class_name\\", b"registered_name\\")
# No writer escapes letters of ASCII.
_ESCAPE = b"\\u00"
_LETTER = re.compile(rb"\\u00[2-7]")
_KEYS = re.compile(
    rb'"(class_name|module|registered_name|vocabulary)"[ \t\r\n]*:[ \t\r\n]*(?:"([^"\\]{0,200})"|(null)|(\[))?'
)
_MARKS = (b'"class_name"', b'"module"', b'"registered_name"', b'"vocabulary"')


def names_classes(stream: BinaryIO) -> bool:
    """Return whether a text could have a key of Keras in it, in UTF-8, 16 or 32."""
    marks = (b"class_name", b"registered_name", _ESCAPE)
    windows = (window.replace(b"\0", b"") if b"\0" in window else window for window, _ in _windows(stream, sys.maxsize))
    return any(mark in window for window in windows for mark in marks)


def holds_code(stream: BinaryIO, without: Collection[Span] = ()) -> bool:
    """Return whether a text names a class that is not known to be harmless, or hides what it names.

    :param without: the parts of it that are configurations of a model and were judged as JSON.
    """
    keys: set[bytes] = set()
    harmful = hidden = False
    for window, end in _windows_without(stream, sorted(without)):
        if _hides(window):
            return True
        hidden = hidden or b"model_config" in window
        for match in _keys(window, end):
            keys.add(match[1])
            harmful = harmful or not _is_harmless(match)
    # A file that names no class has modules of another kind, unless it is a model: then they are somewhere else.
    return harmful if b"class_name" in keys else hidden and not without


def _hides(window: bytes) -> bool:
    # Looking for plain bytes is many times faster than a pattern, and weights have none of them.
    plain = any(text in window for text in (*_LAMBDAS, *_QUOTED))
    return plain or (_ESCAPE in window and bool(_LETTER.search(window)))


def _keys(window: bytes, end: int) -> Iterator[re.Match[bytes]]:
    if any(mark in window for mark in _MARKS):
        yield from (match for match in _KEYS.finditer(window) if match.start() < end)


def _is_harmless(match: re.Match[bytes]) -> bool:
    key, text, null, array = match.groups()
    if key == b"vocabulary" or text is None:
        return key != b"class_name" and bool(null or (array and key == b"vocabulary"))
    value = text.decode("utf-8", "replace")
    return keras_names.is_module(value) if key == b"module" else keras_names.is_class(None, value)


def _windows_without(stream: BinaryIO, spans: Iterable[Span]) -> Iterator[tuple[bytes, int]]:
    position = 0
    for start, end in spans:
        yield from _windows(stream, max(start - position, 0))
        position = max(position, end)
        stream.seek(position)
    yield from _windows(stream, sys.maxsize)


def _windows(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    # What begins behind the end, too near to the edge to be whole, is in the next window again.
    window = stream.read(min(size, _CHUNK))
    size -= len(window)
    while fresh := stream.read(min(size, _CHUNK)):
        size -= len(fresh)
        window += fresh
        end = len(window) - _OVERLAP
        yield window, end
        window = window[max(end, 0) :]
    yield window, len(window)
