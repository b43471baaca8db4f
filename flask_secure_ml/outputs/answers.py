"""From what a view returns to its answer: declared fields, scores as precise as the caller may see them, one format."""

from __future__ import annotations

from typing import Any

import numpy as np
from flask import Request, Response
from werkzeug.sansio.response import Response as AnyResponse

from ..checks import Plans
from ..errors import InternalError
from ..exchange import Exchange
from ..output_terms import NO_TERMS, OutputTerms
from ..policy import Policy
from .accepted import accepted
from .declared import declared
from .npy import NPY, single_array, write_npy
from .number_text import with_floats
from .oip import oip_document, safe
from .provider import JSON, NOT_FINITE, Writer
from .scores import Array
from .shaping import shape_scores


class Answers:
    """Applies what the route's policy and the caller's plan say of answers.

    :param plans: the plans of ``SECURE_ML_PLANS``.
    """

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def terms(self, exchange: Exchange, policy: Policy) -> OutputTerms:
        """Return the terms of policy and plan together; a caller without a plan has ``default``.

        :raises InternalError: the credential names a plan that is not configured.
        """
        if policy.outputs is None:
            return NO_TERMS
        name = exchange.principal.plan if exchange.principal else "default"
        plan = self._plans.get(name)
        if plan is None:
            raise InternalError(f"the plan {name!r} is not in SECURE_ML_PLANS")
        return policy.outputs if plan.outputs is NO_TERMS else policy.outputs.stricter(plan.outputs)

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
            return write(with_floats(value) if terms.shapes else value, allow_nan=terms.allows_nan)
        response = _written(shaped, write, request, exchange, allow_nan=terms.allows_nan)
        exchange.shaped = sole_chunk(response)
        return response

    @staticmethod
    def shape(value: Any, policy: Policy, terms: OutputTerms) -> Any:
        """Return the value with its declared fields only, and with shaped scores.

        :raises ShapingError: the value is not as declared, or cannot be shaped.
        :raises NotPlainError: there is something in it that JSON writes in a way of its own.
        """
        if policy.returns is not None:
            value = declared(policy.returns, value)
        return shape_scores(value, terms) if terms.shapes else value


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
