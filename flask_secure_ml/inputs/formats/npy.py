"""Arrays as ``application/x-npy``, the format of :func:`numpy.save`, for a schema's one tensor field."""

from __future__ import annotations

import numpy as np
from flask import Request
from marshmallow import Schema, ValidationError

from ...errors import MalformedRequest
from ...npy import NPY, NpyError, read_array, read_header
from ..body_stream import Caps
from ..problems import validation_failed
from . import Decoded, single_tensor

# Sizes by kind, without strings, objects, structured dtypes, complex numbers and long doubles.
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}
_DTYPES = {
    f"{order}{kind}{size}": np.dtype(f"{order}{kind}{size}")
    for kind, sizes in _SIZES.items()
    for size in sizes
    for order in ("<>|" if size == 1 else "<>")
}


class NpyFormat:
    """One array of booleans, integers or floats of up to 64 bits, in any byte order."""

    name = "npy"
    media_types: tuple[str, ...] = (NPY,)

    def __init__(self, caps: Caps) -> None:
        self._caps = caps

    def fits(self, schema: Schema) -> bool:
        """Return True if the schema has exactly one tensor field."""
        return single_tensor(schema) is not None

    def decode(self, body: bytes, request: Request, schema: Schema) -> Decoded:
        """Return the array under the name of the tensor field; it is a view of the body.

        :raises MalformedRequest: 400, it is not an npy file, has a structured dtype, or has more or fewer bytes than
            its header declares.
        :raises PayloadTooLarge: 413, the declared array is over the limit.
        :raises ValidationFailed: 422, the array has another dtype.
        """
        key, _ = single_tensor(schema) or ("", None)
        try:
            header = read_header(body, records=False)
            dtype = _DTYPES.get(header.descr)
            if dtype is None:
                raise validation_failed(ValidationError({key: ["Not an array of booleans, integers or floats."]}))
            self._caps.check_declared(header.shape, dtype.itemsize)
            return Decoded({key: read_array(body, header, dtype)}, self.name)
        except NpyError as error:
            raise MalformedRequest(f"the body is not an accepted npy file: {error}") from None
