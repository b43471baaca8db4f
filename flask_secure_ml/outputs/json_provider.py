"""A JSON provider for Flask that serializes numpy arrays and scalars with orjson, directly from memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import orjson
from flask.json.provider import DefaultJSONProvider
from werkzeug.sansio.response import Response as AnyResponse

from .. import strictjson
from ..errors import InternalError
from .bodies import NOT_FINITE, has_constant, names_constant
from .scores import has_non_finite, names_null

if TYPE_CHECKING:
    import werkzeug
    from flask.sansio.app import App

# These go through Flask's `default` (dates as HTTP dates, dataclasses by asdict).
_OPTIONS = (
    orjson.OPT_SERIALIZE_NUMPY
    | orjson.OPT_APPEND_NEWLINE
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
)


class Writer(Protocol):
    """Writes a value as JSON; see :meth:`ArrayJSONProvider.write`."""

    def __call__(self, value: Any, *, allow_nan: bool = False) -> AnyResponse:
        """Return a response with the value as JSON."""


Responder = Callable[[Any, Writer], AnyResponse]
"""Makes the response for a view's value, with a JSON writer."""


class ArrayJSONProvider(DefaultJSONProvider):
    """Flask's JSON provider, for views that return arrays.

    ``return {"predictions": array}`` works, with arrays and numpy scalars at any depth. Types that Flask supports are
    serialized to the same values: dates, decimals, UUIDs, dataclasses, and keys that are not strings. Responses written
    by orjson differ in three ways: strings are unescaped UTF-8, a float32 has the fewest digits that identify it, and
    an enum member is its value. :mod:`json` still writes values that orjson cannot, such as integers beyond 64 bits.

    NaN and Infinity are errors: JSON has no such numbers (RFC 8259 section 6), and a model that returns them is broken.

    The attributes ``default``, ``sort_keys`` and ``compact`` keep their meaning. If the app sets its own ``default``,
    responses are written by :mod:`json` as in Flask, so that ``default`` gets the same values as before.

    ``request.get_json(force=True)`` also parses strict JSON only (:mod:`flask_secure_ml.strictjson`).

    :param max_depth: the maximum depth of arrays and objects that are parsed.
    :param respond: makes the response for a view's value; without it, the value is written as it is.
    """

    def __init__(self, app: App, max_depth: int = 32, respond: Responder | None = None) -> None:
        super().__init__(app)
        self._max_depth = max_depth
        self._respond = respond

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse strict JSON; with options of :mod:`json`, parse as Flask does.

        :raises StrictJSONError: it is not strict JSON; Flask responds with 400.
        """
        if kwargs:
            return super().loads(s, **kwargs)
        return strictjson.loads(s.encode() if isinstance(s, str) else s, max_depth=self._max_depth)

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Serialize to a string with :mod:`json`, including arrays and numpy scalars.

        :raises ValueError: NaN or Infinity, unless ``allow_nan=True``.
        """
        kwargs.setdefault("default", self._plain_default)
        kwargs.setdefault("allow_nan", False)
        return super().dumps(obj, **kwargs)

    def response(self, *args: Any, **kwargs: Any) -> AnyResponse:
        """Return the response for a view's value, or for the arguments of ``jsonify``.

        :raises TypeError: it contains a type that cannot be serialized.
        :raises InternalError: NaN or Infinity.
        """
        value = self._prepare_response_obj(args, kwargs)
        return self.write(value) if self._respond is None else self._respond(value, self.write)

    def write(self, value: Any, *, allow_nan: bool = False) -> AnyResponse:
        """Return a response with the value as JSON, without masking.

        :param allow_nan: write null for NaN and Infinity; if :mod:`json` must write the value, they are still errors.
        :raises TypeError: it contains a type that cannot be serialized.
        :raises InternalError: NaN or Infinity.
        """
        if self.default is not DefaultJSONProvider.default:
            return self._write_by_json(value)
        try:
            body = orjson.dumps(value, default=self._array_default, option=self._options())
        except TypeError:
            # Integers beyond 64 bits, keys that are not strings, named tuples: json writes them or raises an error.
            return self._write_by_json(value)
        # orjson writes null for NaN, so a body without null has none. Searching for it is faster than checking numbers.
        if not allow_nan and names_null(body) and has_non_finite(value, self._plain_default):
            raise InternalError(NOT_FINITE)
        return self._response(body)

    def _write_by_json(self, value: Any) -> AnyResponse:
        layout: dict[str, Any] = {"indent": 2} if self._is_pretty() else {"separators": (",", ":")}
        body = self.dumps(value, allow_nan=True, **layout).encode() + b"\n"
        if names_constant(body) and has_constant(body):
            raise InternalError(NOT_FINITE)
        return self._response(body)

    def _response(self, body: bytes) -> AnyResponse:
        # The attribute is annotated as Werkzeug's base class, which has no body.
        response_class: type[werkzeug.Response] = self._app.response_class  # type: ignore[assignment]
        return response_class(body, mimetype=self.mimetype)

    def _is_pretty(self) -> bool:
        return self._app.debug if self.compact is None else not self.compact

    def _options(self) -> int:
        layout = orjson.OPT_INDENT_2 if self._is_pretty() else 0
        return _OPTIONS | (orjson.OPT_SORT_KEYS if self.sort_keys else 0) | layout

    def _array_default(self, value: Any) -> Any:
        """Convert arrays that orjson does not serialize: it supports only C-contiguous arrays of common types.

        Subclasses are converted because they may have a mask.
        """
        if type(value) is np.ndarray and not value.flags.c_contiguous:
            return np.ascontiguousarray(value)
        return self._plain_default(value)

    def _plain_default(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, np.generic):
            return _plain_scalar(value)
        return self.default(value)


def _plain_scalar(value: np.generic) -> Any:
    if isinstance(value, np.floating):
        # item() of a long double returns a long double.
        return float(value)
    return value.item()
