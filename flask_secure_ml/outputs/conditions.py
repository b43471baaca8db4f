"""Keeps a view from comparing exact answers with what a client guesses of them."""

from __future__ import annotations

from flask import Request

from ..exchange import Exchange
from ..pipeline import Stage
from .answers import Answers

_METHODS = frozenset({"GET", "HEAD"})
# Preconditions (RFC 9110 section 13.1) and ranges (section 14.2).
_CONDITIONS = (
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_MATCH",
    "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_IF_RANGE",
    "HTTP_RANGE",
)


class ConditionGuard:
    """Takes the conditions from a request to read from a route with terms, before the view compares its answer.

    A view compares what was not shaped, so whatever the outcome becomes, that it differs tells whether a guess was
    right. Without conditions the client gets the whole answer, shaped. Other methods keep theirs: they protect what is
    stored against lost updates.

    :param answers: what knows the terms.
    """

    name = "conditions"
    stage = Stage.INPUT

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def check(self, request: Request, exchange: Exchange) -> None:
        """Remove the headers; nothing is refused."""
        policy, environ = exchange.policy, request.environ
        if policy is None or request.method not in _METHODS or not any(name in environ for name in _CONDITIONS):
            return
        if policy.returns is not None or self._answers.terms(exchange, policy).shapes:
            for name in _CONDITIONS:
                environ.pop(name, None)
