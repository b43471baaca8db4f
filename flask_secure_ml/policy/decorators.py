"""Decorators for policies in code: :func:`protect` and :func:`public`, on a view, a class-based view or a blueprint.

The decorators only mark and wrap. The hook of :class:`~flask_secure_ml.SecureML` enforces policies for every route, so
a route without a declaration gets the default policy: authenticated, no scopes, all limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import isclass, iscoroutinefunction
from types import CodeType, FunctionType
from typing import Any, TypeVar, Unpack, cast, overload

import numpy as np
from flask import Blueprint, current_app

from ..errors import InternalError
from ..exchange import require_exchange
from .policy import MARK, Policy, PolicyArguments, PublicArguments

T = TypeVar("T")


@overload
def protect(target: T, /) -> T: ...
@overload
def protect(**options: Unpack[PolicyArguments]) -> Callable[[T], T]: ...
def protect(target: Any = None, /, **options: Any) -> Any:
    """Set the policy of a view, a class-based view or a whole blueprint.

    The wrapped view runs only if exactly this policy was cleared for the request, so a wrong order of decorators cannot
    bypass it. With ``body``, the view gets the loaded value as ``payload``. It may return an array, which is sent in a
    format that the client accepts.

    :param options: those of :class:`~flask_secure_ml.policy.options.AccessOptions`, and ``body``, ``limits``, ``cost``,
        ``caps``, ``response``, ``scores``, ``cors`` and ``headers`` of :class:`Policy`.
    :raises ConfigError: options are wrong or contradict each other, see :meth:`Policy.build`.
    """
    return _decorator(target, Policy.build(**options))


@overload
def public(target: T, /) -> T: ...
@overload
def public(**options: Unpack[PublicArguments]) -> Callable[[T], T]: ...
def public(target: Any = None, /, **options: Any) -> Any:
    """Make a view, a class-based view or a blueprint public: callers need no credential.

    :param options: ``body``, ``limits``, ``caps``, ``response``, ``scores``, ``cors`` and ``headers``, as for
        :func:`protect`; limits are counted for each IP address. ``tls="optional"`` allows clear text too.
    :raises ConfigError: options are wrong or contradict each other, see :meth:`Policy.build`.
    """
    return _decorator(target, Policy.build(public=True, **options))


def _decorator(target: Any, policy: Policy) -> Any:
    return (lambda view: _mark(view, policy)) if target is None else _mark(target, policy)


def _mark(target: Any, policy: Policy) -> Any:
    if isinstance(target, Blueprint) or isclass(target):
        if policy.body is not None:
            raise TypeError("apply body to the view function or method that takes the payload")
        _check_unmarked(target, vars(target))
        setattr(target, MARK, policy)
        return target
    _check_unmarked(target, getattr(target, "__dict__", {}))
    return _wrap(target, policy)


def _check_unmarked(target: Any, own: Mapping[str, Any]) -> None:
    if MARK in own:
        raise TypeError(f"{target!r} already has a policy; merge the two into one decorator")


def _wrap(view: Callable[..., Any], policy: Policy) -> FunctionType:
    if iscoroutinefunction(view):

        @wraps(view)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            return _response(await view(*args, **kwargs, **_cleared_arguments(policy)))

        guarded: Any = guarded_async
    else:

        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return _response(view(*args, **kwargs, **_cleared_arguments(policy)))

    setattr(guarded, MARK, policy)
    return cast("FunctionType", guarded)


WRAPPER: CodeType = _wrap(lambda: None, Policy()).__code__
"""The code object of every wrapped view that is not a coroutine function."""


def _cleared_arguments(policy: Policy) -> dict[str, Any]:
    exchange = require_exchange()
    if exchange.cleared is not policy:
        raise InternalError("the view ran without its own policy being cleared; is its mark hidden by a decorator?")
    return {} if policy.body is None else {"payload": exchange.payload}


def _response(value: Any) -> Any:
    """Turn an array, alone or with a status and headers, into a response, which Flask cannot do."""
    if isinstance(value, np.ndarray):
        return current_app.json.response(value)
    if type(value) is tuple and value and isinstance(value[0], np.ndarray):
        return current_app.json.response(value[0]), *value[1:]
    return value
