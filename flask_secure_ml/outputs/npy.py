"""Arrays as ``application/x-npy``, the format of :func:`numpy.save`. Objects, which are pickled there, never are."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from .scores import Array, ShapingError

NPY = "application/x-npy"


def single_array(value: Any) -> Array | None:
    """Return the one array that an answer is, or is an object of; None when there is no such one."""
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if type(value) is np.ndarray and not value.dtype.hasobject:
        return value
    return None


def write_npy(array: Array) -> bytes:
    """Return the file of an array.

    :raises ValueError: it holds objects.
    """
    file = BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def read_npy(raw: bytes) -> Array:
    """Return the array of a file.

    :raises ShapingError: it is no such file, or holds objects, records, or more than one array.
    """
    file = BytesIO(raw)
    try:
        found: Array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - its header is parsed as Python
        raise ShapingError(f"the answer is no npy file: {type(error).__name__}") from None
    if found.dtype.kind == "V" or file.read(1):
        raise ShapingError("the npy file holds records, or something after its array")
    return found
