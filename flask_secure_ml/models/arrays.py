"""Telling which NumPy files hold objects: those are pickles inside (``numpy.lib.format``, format versions 1 to 3)."""

from __future__ import annotations

import ast
from typing import BinaryIO

import numpy as np

MAGIC = b"\x93NUMPY"

# How each major version stores the length of the header, and the header itself.
_VERSIONS = {1: (2, "latin-1"), 2: (4, "latin-1"), 3: (4, "utf-8")}
# NumPy itself refuses longer ones, because reading them as a Python literal could exhaust the stack.
_MAX_HEADER = 10_000


def holds_objects(stream: BinaryIO) -> bool:
    """Return whether an ``.npy`` file has a dtype with objects, or a header that cannot be understood.

    :param stream: at the beginning of the file, which begins with :data:`MAGIC`.
    """
    version = stream.read(len(MAGIC) + 2)[len(MAGIC) :]
    if not version or version[0] not in _VERSIONS:
        return True
    size, encoding = _VERSIONS[version[0]]
    length = int.from_bytes(stream.read(size), "little")
    return length > _MAX_HEADER or _names_objects(stream.read(length), encoding)


def _names_objects(header: bytes, encoding: str) -> bool:
    try:
        members = ast.literal_eval(header.decode(encoding).strip())
        return np.lib.format.descr_to_dtype(members["descr"]).hasobject
    except (KeyError, IndexError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return True
