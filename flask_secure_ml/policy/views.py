"""What runs for a request of a view: the function, or of a class its dispatch and its method."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import Parameter, signature
from typing import Any

from flask.views import MethodView

from .policy import MARK, Policy


def called(view: Any, method: str) -> Iterator[tuple[str, Any]]:
    """Yield what runs for a request, outermost first: the view, and of a class its dispatch and its method."""
    cls = getattr(view, "view_class", None)
    if view is not None:
        yield f"{cls.__qualname__}.decorators" if cls else _name(view), view
    if cls is not None:
        dispatch = cls.dispatch_request
        yield _name(dispatch), dispatch
        if issubclass(cls, MethodView) and (found := method_of(cls, method)) is not None:
            yield _name(found), found


def takers(view: Any, method: str) -> Iterator[tuple[str, Any]]:
    """Yield what gets the payload: what a policy with body wraps, and what that passes its arguments to."""
    passed_on = False
    for name, function in called(view, method):
        policy = policy_of(function)
        if passed_on or (policy and policy.body):
            yield name, function.__wrapped__ if policy else function
            # Another dispatch_request may do with the payload what it likes.
            passed_on = function is view or function is MethodView.dispatch_request


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def policy_of(function: Any) -> Policy | None:
    """Return the policy that a function is marked with."""
    mark = getattr(function, MARK, None)
    return mark if isinstance(mark, Policy) else None


def takes_payload(function: Any) -> bool:
    """Return True if a function takes the keyword argument ``payload``, or if its signature does not show it."""
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
        # A decorator passes on what it takes; one that consumes the payload names it.
        function = function.__wrapped__


def method_of(cls: type | None, method: str) -> Any:
    """Return the method of a class-based view that runs; HEAD falls back to ``get`` as in Flask."""
    if cls is None:
        return None
    found = getattr(cls, method.lower(), None)
    return getattr(cls, "get", None) if found is None and method == "HEAD" else found
