"""What the policy of a route and the plan of its caller allow in a response, applied to its value.

This is the one place where values are masked. A value that a view returns comes here before it is written, straight
from memory; the value of a body that the view wrote itself comes here from the filter, which reads and writes it.
"""

from __future__ import annotations

from typing import Any

from flask import Request, Response
from werkzeug.sansio.response import Response as AnyResponse

from ..config.plans import Plan
from ..exchange import Exchange
from ..npy import NPY
from ..policy.options import NO_SCORE_OPTIONS, ScoreOptions
from ..policy.policy import Policy
from .bodies import mark_checked, npy_body
from .formats import JSON, accepted, is_safe, oip_document, single_array
from .json_provider import Writer
from .masking import mask_scores
from .response_schema import dump_declared
from .scores import with_floats


class ResponseRules:
    """Applies the response schema of a policy, and the score options of policy and plan.

    :param default: the plan for a request that was rejected before its caller was known.
    """

    def __init__(self, default: Plan) -> None:
        self._default = default
        self._options: dict[tuple[ScoreOptions, ScoreOptions], ScoreOptions] = {}

    def options(self, exchange: Exchange, policy: Policy) -> ScoreOptions:
        """Return the score options of policy and plan together."""
        if policy.scores is None:
            return NO_SCORE_OPTIONS
        plan = self._default if exchange.plan is None else exchange.plan
        if plan.scores is NO_SCORE_OPTIONS:
            return policy.scores
        key = (policy.scores, plan.scores)
        found = self._options.get(key)
        if found is None:
            # There are no more than policies times plans.
            found = self._options[key] = policy.scores.stricter(plan.scores)
        return found

    def respond(self, value: Any, write: Writer, request: Request, exchange: Exchange) -> AnyResponse:
        """Return the response for a view's value: masked before it is written, in the format that the client accepts.

        A value that cannot be masked, or whose form as JSON only the writer knows, is written as it is and gets no
        mark. It is too early for an error: the status is not known yet, and the view may use this as a part of
        another response. If it leaves, the filter masks it as JSON, or replaces it by an error response.

        :raises InternalError: NaN or Infinity, or scores that are keys.
        """
        policy = exchange.policy
        if policy is None:
            return write(value)
        options = self.options(exchange, policy)
        try:
            masked = self.mask(value, policy, options)
        except Exception:  # noqa: BLE001 - the filter meets the same fault, and reports it
            # The filter must still find the scores: a decimal is written as a string, and strings are labels.
            return write(with_floats(value) if options.masks else value, allow_nan=options.allows_nan)
        array = single_array(masked)
        chosen = accepted(request, (JSON,) if array is None else (JSON, NPY))
        if array is not None and chosen == NPY:
            response: AnyResponse = Response(npy_body(array, allow_nan=options.allows_nan), mimetype=NPY)
        else:
            response = write(_protocol_value(masked, request, exchange), allow_nan=options.allows_nan)
        # Only the filter knows whether this leaves with a status of success, and needs a format that is accepted.
        mark_checked(response, policy, options, acceptable=chosen is not None)
        return response

    @staticmethod
    def mask(value: Any, policy: Policy, options: ScoreOptions) -> Any:
        """Return the value with its declared fields only, and with masked scores.

        :raises MaskingError: the value is not as declared, or cannot be masked.
        :raises NotPlainError: only a writer of JSON knows the form of something in it.
        """
        if policy.response is not None:
            value = dump_declared(policy.response, value)
        return mask_scores(value, options) if options.masks else value


def _protocol_value(value: Any, request: Request, exchange: Exchange) -> Any:
    """Return the value as the protocol of the request writes it."""
    if exchange.format != "oip":
        return value
    name = (request.view_args or {}).get("model_name")
    return oip_document(value, exchange.format_options, name if is_safe(name) else "model")
