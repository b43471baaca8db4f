"""The functions that run for a request of a view: the view function, or the dispatch and the method of a class."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import Parameter, signature
from typing import Any

from flask.views import MethodView

from .policy import MARK, Policy


def called(view: Any, method: str) -> Iterator[tuple[str, Any]]:
    """Yield the functions that run for a request, outermost first: the view, or the dispatch and method of a class."""
    cls = getattr(view, "view_class", None)
    if view is not None:
        yield f"{cls.__qualname__}.decorators" if cls else _name(view), view
    if cls is not None:
        dispatch = cls.dispatch_request
        yield _name(dispatch), dispatch
        if issubclass(cls, MethodView) and (found := method_of(cls, method)) is not None:
            yield _name(found), found


def takers(view: Any, method: str) -> Iterator[tuple[str, Any]]:
    """Yield the functions that get the payload: those that a policy with body wraps, and those that they call."""
    passed_on = False
    for name, function in called(view, method):
        policy = policy_of(function)
        if passed_on or (policy and policy.body):
            yield name, function.__wrapped__ if policy else function
            # An overridden dispatch_request may use the payload itself.
            passed_on = function is view or function is MethodView.dispatch_request


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def policy_of(function: Any) -> Policy | None:
    """Return the policy with which a function is marked, or None."""
    mark = getattr(function, MARK, None)
    return mark if isinstance(mark, Policy) else None


def takes_payload(function: Any) -> bool:
    """Return True if a function accepts the keyword argument ``payload``, or its signature is unknown."""
    while True:
        try:
            parameters = signature(function, follow_wrapped=False).parameters
        except (TypeError, ValueError):
            return True
        if "payload" in parameters:
            return parameters["payload"].kind not in {Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL}
        if all(each.kind is not Parameter.VAR_KEYWORD for each in parameters.values()):
            return False
        if not hasattr(function, "__wrapped__"):
            return True
        # A decorator passes its arguments on, unless it names payload and consumes it.
        function = function.__wrapped__


def method_of(cls: type | None, method: str) -> Any:
    """Return the method of a class-based view that runs; HEAD falls back to ``get`` as in Flask."""
    if cls is None:
        return None
    found = getattr(cls, method.lower(), None)
    return getattr(cls, "get", None) if found is None and method == "HEAD" else found
