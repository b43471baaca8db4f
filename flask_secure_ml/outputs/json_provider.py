"""Flask's JSON provider with numpy arrays and scalars, written by orjson straight from their memory."""

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

# What Flask writes in its own way goes through Flask's `default` (dates as in HTTP, dataclasses by asdict).
_OPTIONS = (
    orjson.OPT_SERIALIZE_NUMPY
    | orjson.OPT_APPEND_NEWLINE
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
)


class Writer(Protocol):
    """Writes a value as JSON; see :meth:`ArrayJSONProvider.write`."""

    def __call__(self, value: Any, *, allow_nan: bool = False) -> AnyResponse:
        """Return the response with the value."""


Responder = Callable[[Any, Writer], AnyResponse]
"""Makes the response of a view's value, with a writer of JSON."""


class ArrayJSONProvider(DefaultJSONProvider):
    """Flask's JSON provider, for views that return arrays.

    ``return {"predictions": array}`` works, with arrays and numpy scalars anywhere inside. What Flask can write is
    written with the same values: dates, decimals, UUIDs, dataclasses, and keys that are not strings. Three things
    differ in a response that orjson writes: strings are UTF-8 and not escaped, float32 has the fewest digits that name
    it, and a member of an enumeration is its value. :mod:`json` still writes what orjson cannot, such as integers
    beyond 64 bits.

    NaN and Infinity are errors: JSON has no such numbers (RFC 8259 section 6), and a model that returns them is broken.

    The attributes ``default``, ``sort_keys`` and ``compact`` keep their meaning. With a ``default`` of the app's
    own, responses are written by :mod:`json` as in Flask, so that it sees what it always saw.

    What a view reads with ``request.get_json(force=True)`` is strict JSON (:mod:`flask_secure_ml.strictjson`), too.

    :param max_depth: how deep the arrays and objects that are read may nest.
    :param respond: makes the response of a view's value; without it, the value is written as it is.
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
        """Serialize to a string with :mod:`json`, arrays and numpy scalars included.

        :raises ValueError: NaN or Infinity, unless ``allow_nan=True``.
        """
        kwargs.setdefault("default", self._plain_default)
        kwargs.setdefault("allow_nan", False)
        return super().dumps(obj, **kwargs)

    def response(self, *args: Any, **kwargs: Any) -> AnyResponse:
        """Return the response for a view's value, or for the arguments of ``jsonify``.

        :raises TypeError: JSON cannot write something in it.
        :raises InternalError: NaN or Infinity.
        """
        value = self._prepare_response_obj(args, kwargs)
        return self.write(value) if self._respond is None else self._respond(value, self.write)

    def write(self, value: Any, *, allow_nan: bool = False) -> AnyResponse:
        """Return the response with a value as it is.

        :param allow_nan: write null for NaN and Infinity; where :mod:`json` must write, they stay errors.
        :raises TypeError: JSON cannot write something in it.
        :raises InternalError: NaN or Infinity.
        """
        if self.default is not DefaultJSONProvider.default:
            return self._write_by_json(value)
        try:
            body = orjson.dumps(value, default=self._array_default, option=self._options())
        except TypeError:
            # Integers beyond 64 bits, keys that are not strings, named tuples: json writes them, or names the fault.
            return self._write_by_json(value)
        # orjson writes null for NaN: a body without null has none, and a word is found faster than any number.
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
        # The attribute's declared class is the one without a body.
        response_class: type[werkzeug.Response] = self._app.response_class  # type: ignore[assignment]
        return response_class(body, mimetype=self.mimetype)

    def _is_pretty(self) -> bool:
        return self._app.debug if self.compact is None else not self.compact

    def _options(self) -> int:
        layout = orjson.OPT_INDENT_2 if self._is_pretty() else 0
        return _OPTIONS | (orjson.OPT_SORT_KEYS if self.sort_keys else 0) | layout

    def _array_default(self, value: Any) -> Any:
        """Help orjson: it takes C-contiguous arrays of common types by itself. Subclasses can have a mask."""
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
        # item() of a long double is itself.
        return float(value)
    return value.item()
