"""Answers: numpy arrays and scalars as JSON, written by orjson straight from their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import orjson
from flask import Request, Response
from flask.json.provider import DefaultJSONProvider
from werkzeug.sansio.response import Response as AnyResponse

from .. import strictjson
from ..config.plans import Plans
from ..errors import InternalError
from ..exchange import Exchange
from ..policy.options import NO_SCORE_OPTIONS, ScoreOptions
from ..policy.policy import Policy
from .formats import NPY, accepted, oip_document, safe, single_array, write_npy
from .masking import shape_scores
from .response_schema import declared
from .scores import Array, has_non_finite, names_null, with_floats

if TYPE_CHECKING:
    import werkzeug
    from flask.sansio.app import App


JSON = "application/json"
NOT_FINITE = "the answer has NaN or Infinity"
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
        """Return the answer with the value."""


Answer = Callable[[Any, Writer], AnyResponse]
"""Gets the value of an answer before it is written, and what writes it."""


class ArrayJSONProvider(DefaultJSONProvider):
    """Flask's JSON provider, for views that return arrays.

    ``return {"predictions": array}`` works, with arrays and numpy scalars anywhere inside. What Flask can write is
    written with the same values: dates, decimals, UUIDs, dataclasses, and keys that are no strings. Three things
    differ in an answer that orjson writes: text is UTF-8 and not escaped, float32 has as few digits as name it, and an
    enumeration's member is its value. :mod:`json` still writes what orjson cannot, such as integers beyond 64 bits.

    NaN and Infinity are refused: JSON has no such numbers (RFC 8259 section 6), and a model that answers with them is
    broken.

    The attributes ``default``, ``sort_keys`` and ``compact`` keep their meaning. With a ``default`` of the app's
    own, answers are written by :mod:`json` as in Flask, so that it sees what it always saw.

    What a view reads with ``request.get_json(force=True)`` is held to :mod:`flask_secure_ml.strictjson`, too.

    :param max_depth: how deep the arrays and objects that are read may nest.
    :param answer: makes the answer from a view's value, with the writer that it is given; without it, the value is
        written as it is.
    """

    def __init__(self, app: App, max_depth: int = 32, answer: Answer | None = None) -> None:
        super().__init__(app)
        self._max_depth = max_depth
        self._answer = answer

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse strict JSON; with options of :mod:`json`, parse as Flask does.

        :raises StrictJSONError: the text is not strict JSON, which Flask answers with 400.
        """
        if kwargs:
            return super().loads(s, **kwargs)
        return strictjson.loads(s.encode() if isinstance(s, str) else s, max_depth=self._max_depth)

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Serialise to text with :mod:`json`, arrays and numpy scalars included.

        :raises ValueError: NaN or Infinity, unless ``allow_nan=True`` is said.
        """
        kwargs.setdefault("default", self._plain_default)
        kwargs.setdefault("allow_nan", False)
        return super().dumps(obj, **kwargs)

    def response(self, *args: Any, **kwargs: Any) -> AnyResponse:
        """Return the answer for a view's value, or for the arguments of ``jsonify``.

        :raises TypeError: something that JSON cannot write.
        :raises InternalError: NaN or Infinity.
        """
        value = self._prepare_response_obj(args, kwargs)
        return self.write(value) if self._answer is None else self._answer(value, self.write)

    def write(self, value: Any, *, allow_nan: bool = False) -> AnyResponse:
        """Return the answer with a value as it is.

        :param allow_nan: write null for NaN and Infinity; :mod:`json`, where it must write, refuses them all the same.
        :raises TypeError: something that JSON cannot write.
        :raises InternalError: NaN or Infinity.
        """
        if self.default is not DefaultJSONProvider.default:
            return self._write_slowly(value)
        try:
            body = orjson.dumps(value, default=self._array_default, option=self._options())
        except TypeError:
            # Integers beyond 64 bits, keys that are no strings, named tuples: json knows what to do, or says what not.
            return self._write_slowly(value)
        # orjson writes null for NaN, so an answer without null has none, and that is found faster than any number.
        if not allow_nan and names_null(body) and has_non_finite(value, self._plain_default):
            raise InternalError(NOT_FINITE)
        # The attribute's declared class is the one without a body.
        response_class = cast("type[werkzeug.Response]", self._app.response_class)
        return response_class(body, mimetype=self.mimetype)

    def _write_slowly(self, value: Any) -> AnyResponse:
        try:
            return super().response(value)
        except ValueError as error:
            if str(error).startswith("Out of range float"):
                raise InternalError(NOT_FINITE) from None
            raise

    def _options(self) -> int:
        pretty = self._app.debug if self.compact is None else not self.compact
        return _OPTIONS | (orjson.OPT_SORT_KEYS if self.sort_keys else 0) | (orjson.OPT_INDENT_2 if pretty else 0)

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


class Answers:
    """Applies what the route's policy and the caller's plan say of answers.

    :param plans: the plans of ``SECURE_ML_PLANS``.
    """

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def terms(self, exchange: Exchange, policy: Policy) -> ScoreOptions:
        """Return the terms of policy and plan together; a caller without a plan has ``default``.

        :raises InternalError: the credential names a plan that is not configured.
        """
        if policy.scores is None:
            return NO_SCORE_OPTIONS
        name = exchange.principal.plan if exchange.principal else "default"
        plan = self._plans.get(name)
        if plan is None:
            raise InternalError(f"the plan {name!r} is not in SECURE_ML_PLANS")
        return policy.scores if plan.scores is NO_SCORE_OPTIONS else policy.scores.stricter(plan.scores)

    def respond(self, value: Any, write: Writer, request: Request, exchange: Exchange) -> AnyResponse:
        """Return the answer for a view's value: shaped before it is written, in the format that the client accepts.

        Nothing is decided here about an answer that cannot leave: its status is not yet known, and this may be no
        answer at all, but a part of one. It is written as it is and not marked as shaped, so the filter withholds it.
        That is also how a value goes whose form as JSON only the writer knows.

        :raises InternalError: NaN or Infinity, or scores that are keys.
        """
        if exchange.policy is None:
            return write(value)
        terms = self.terms(exchange, exchange.policy)
        try:
            shaped = self.shape(value, exchange.policy, terms)
        except Exception:  # noqa: BLE001 - the filter meets the same fault, and tells it
            # It must still find the scores: a decimal that was written is a text, and texts are labels.
            return write(with_floats(value) if terms.masks else value, allow_nan=terms.allows_nan)
        response = _written(shaped, write, request, exchange, allow_nan=terms.allows_nan)
        exchange.shaped = sole_chunk(response)
        return response

    @staticmethod
    def shape(value: Any, policy: Policy, terms: ScoreOptions) -> Any:
        """Return the value with its declared fields only, and with shaped scores.

        :raises ShapingError: the value is not as declared, or cannot be shaped.
        :raises NotPlainError: there is something in it that JSON writes in a way of its own.
        """
        if policy.response is not None:
            value = declared(policy.response, value)
        return shape_scores(value, terms) if terms.masks else value


def npy_body(array: Array, *, allow_nan: bool) -> bytes:
    """Return an array as an npy file.

    :raises InternalError: it has NaN or Infinity, and they are not allowed.
    """
    if not allow_nan and array.dtype.kind in "fc" and not np.isfinite(array).all():
        raise InternalError(NOT_FINITE)
    return write_npy(array)


def sole_chunk(response: AnyResponse) -> bytes | None:
    """Return the object that is the whole body; None for a stream, a file and a body in several pieces."""
    chunks = getattr(response, "response", None)
    # Bytes only: what was looked at must not change afterwards.
    return chunks[0] if type(chunks) is list and len(chunks) == 1 and type(chunks[0]) is bytes else None


def _written(value: Any, write: Writer, request: Request, exchange: Exchange, *, allow_nan: bool) -> AnyResponse:
    array = single_array(value)
    chosen = accepted(request, (JSON,) if array is None else (JSON, NPY))
    # Only the filter knows whether this becomes the answer, and no error, for which any format will do.
    exchange.unacceptable = chosen is None
    if array is not None and chosen == NPY:
        return Response(npy_body(array, allow_nan=allow_nan), mimetype=NPY)
    if exchange.format == "oip":
        value = oip_document(value, exchange.format_options, _model_name(request))
    return write(value, allow_nan=allow_nan)


def _model_name(request: Request) -> str:
    name = (request.view_args or {}).get("model_name")
    return name if safe(name) and isinstance(name, str) else "model"
