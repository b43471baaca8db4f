"""What a route asks of its callers, and how it is declared: by decorator, blueprint or configuration.

The decorators only mark and wrap. The hook of :class:`~flask_secure_ml.SecureML` enforces, for every
route, so a route nobody thought of gets the default policy: authenticated, no scopes, all caps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import wraps
from inspect import isclass, iscoroutinefunction
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import numpy as np
from flask import Blueprint, current_app
from limits import RateLimitItem, parse_many
from marshmallow import Schema
from werkzeug.utils import import_string

from ..errors import InternalError
from ..exchange import current_exchange
from .options import (
    NO_TERMS,
    SCOPE_TOKEN,
    AccessArguments,
    AccessTerms,
    CapArguments,
    CapTerms,
    ScoreArguments,
    ScoreOptions,
    checked_caps,
    strings,
)

__all__ = ["MARK", "SCOPE_TOKEN", "Policy", "PolicyArguments", "policies_from_config", "protect", "public"]

MARK = "__secure_ml_policy__"

T = TypeVar("T")


class PublicArguments(TypedDict, total=False):
    """What users write of a :class:`Policy`, whether it is public or not."""

    body: type[Schema] | Schema | str | None
    limits: Collection[str]
    max_bytes: int | None
    caps: CapArguments | None
    response: type[Schema] | Schema | str | None
    scores: ScoreArguments | Literal[False] | None


class PolicyArguments(AccessArguments, PublicArguments, total=False):
    """What users write of a :class:`Policy` that is not public."""

    cost: str | None


@dataclass(frozen=True)
class Policy:
    """The terms of one route.

    :param public: no credential is asked for; transport, limits and input caps still hold.
    :param access: who may call.
    :param body: the marshmallow schema of the request body; the view gets the loaded value as ``payload``.
    :param limits: rate limits of this route for one caller, such as ``600/minute``.
    :param cost: the field of ``body`` whose rows are the price that is charged against the plan's quota.
    :param max_bytes: a cap on the body for this route; None means ``SECURE_ML_MAX_BODY_BYTES``.
    :param caps: other caps on the body for this route, by name, each instead of that of the settings.
    :param response: the marshmallow schema of the answer; only its fields leave.
    :param scores: what happens to the scores of the answer, beside what the caller's plan says; None for answers that
        are not the model's, to which no terms apply, also not those of a plan.
    """

    public: bool = False
    access: AccessTerms = field(default_factory=AccessTerms)
    body: Schema | None = None
    limits: tuple[RateLimitItem, ...] = ()
    cost: str | None = None
    max_bytes: int | None = None
    caps: CapTerms = ()
    response: Schema | None = None
    scores: ScoreOptions | None = NO_TERMS

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope that the policy names, needed or one of several that would do."""
        return self.access.scopes | self.access.any_scopes

    @classmethod
    def build(
        cls,
        *,
        public: bool = False,
        body: type[Schema] | Schema | str | None = None,
        limits: Collection[str] = (),
        cost: str | None = None,
        max_bytes: int | None = None,
        caps: CapArguments | None = None,
        response: type[Schema] | Schema | str | None = None,
        scores: ScoreArguments | Literal[False] | None = None,
        **access: Unpack[AccessArguments],
    ) -> Policy:
        """Make a policy from what users write; ``access`` are the terms of :class:`AccessTerms`.

        :raises TypeError: a single string where a list is meant, or a term that does not exist.
        :raises ValueError: terms that contradict each other or cannot be read.
        :raises ImportError: ``body``, ``response`` or ``owner`` names nothing that can be imported.
        """
        schema = _schema("body", body)
        terms = AccessTerms.build(**access)
        _check_openness(public, terms, cost)
        _check_price(schema, cost)
        if max_bytes is not None and (isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0):
            raise ValueError("max_bytes must be a number of bytes, 0 or more")
        items = tuple(item for text in strings("limits", limits) for item in parse_many(text))
        answer = _schema("response", response)
        return cls(public, terms, schema, items, cost, max_bytes, _caps(caps), answer, _scores(scores))


def _schema(term: str, given: type[Schema] | Schema | str | None) -> Schema | None:
    found = import_string(given) if isinstance(given, str) else given
    schema = found() if isclass(found) else found
    if schema is not None and not isinstance(schema, Schema):
        raise TypeError(f"{term} must be a marshmallow Schema")
    return schema


def _caps(terms: CapArguments | None) -> CapTerms:
    try:
        return () if terms is None else checked_caps(terms)
    except ValueError as error:
        raise ValueError(f"caps {error}") from None


def _scores(terms: ScoreArguments | Literal[False] | None) -> ScoreOptions | None:
    if terms is False:
        return None
    try:
        return NO_TERMS if terms is None else ScoreOptions.build(terms)
    except ValueError as error:
        raise ValueError(f"scores {error}") from None


def _check_openness(public: bool, access: AccessTerms, cost: str | None) -> None:
    if not isinstance(public, bool):
        raise TypeError("public must be true or false")
    if public and (access != AccessTerms() or cost):
        raise ValueError("a public route has no caller, so it cannot ask who calls or charge a quota")


def _check_price(schema: Schema | None, cost: str | None) -> None:
    if cost is not None and (schema is None or cost not in schema.fields):
        raise ValueError(f"cost names the field {cost!r}, which the body schema does not have")
    if cost is not None and schema is not None and schema.many:
        raise ValueError("cost needs a schema of one object; put the rows into a field of it")


@overload
def protect(target: T, /) -> T: ...
@overload
def protect(**terms: Unpack[PolicyArguments]) -> Callable[[T], T]: ...
def protect(target: Any = None, /, **terms: Any) -> Any:
    """Mark a view, a class-based view or a whole blueprint with its policy.

    The wrapped view refuses to run unless exactly this policy was cleared for the request, so the order
    of decorators cannot open a hole. With ``body``, the view gets the loaded value as ``payload``.

    The view may return an array; it is written as whatever the client accepts.

    :param terms: those of :class:`~flask_secure_ml.policy.options.AccessTerms`, and ``body``, ``limits``,
        ``cost``, ``max_bytes``, ``caps``, ``response`` and ``scores`` of :class:`Policy`.
    :raises TypeError, ValueError: terms that contradict each other, see :meth:`Policy.build`.
    """
    policy = Policy.build(**terms)
    if target is not None:
        return _mark(target, policy)
    return lambda view: _mark(view, policy)


@overload
def public(target: T, /) -> T: ...
@overload
def public(**terms: Unpack[PublicArguments]) -> Callable[[T], T]: ...
def public(target: Any = None, /, **terms: Any) -> Any:
    """Mark a view, a class-based view or a blueprint as open to callers without a credential.

    :param terms: ``body``, ``limits``, ``max_bytes``, ``caps``, ``response`` and ``scores``, as for :func:`protect`;
        limits are counted for each address.
    :raises TypeError, ValueError: terms that contradict each other, see :meth:`Policy.build`.
    """
    policy = Policy.build(public=True, **terms)
    if target is not None:
        return _mark(target, policy)
    return lambda view: _mark(view, policy)


def _mark(target: Any, policy: Policy) -> Any:
    if isinstance(target, Blueprint) or isclass(target):
        if policy.body is not None:
            raise TypeError("put body on the view function or method that takes the payload")
        _check_unmarked(target, vars(target))
        setattr(target, MARK, policy)
        return target
    _check_unmarked(target, getattr(target, "__dict__", {}))
    return _wrap(target, policy)


def _check_unmarked(target: Any, own: Mapping[str, Any]) -> None:
    if MARK in own:
        raise TypeError(f"{target!r} has a policy already; merge the two into one decorator")


def _wrap(view: Callable[..., Any], policy: Policy) -> Callable[..., Any]:
    if iscoroutinefunction(view):

        @wraps(view)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            return _answer(await view(*args, **kwargs, **_cleared_arguments(policy)))

        guarded: Callable[..., Any] = guarded_async
    else:

        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return _answer(view(*args, **kwargs, **_cleared_arguments(policy)))

    setattr(guarded, MARK, policy)
    return guarded


def _cleared_arguments(policy: Policy) -> dict[str, Any]:
    if current_exchange.cleared is not policy:
        raise InternalError("the view ran without its own policy being cleared; is its mark hidden by a decorator?")
    return {} if policy.body is None else {"payload": current_exchange.payload}


def _answer(value: Any) -> Any:
    """Write an array, alone or before a status and headers: Flask would not know what to do with it."""
    if isinstance(value, np.ndarray):
        return current_app.json.response(value)
    if type(value) is tuple and value and isinstance(value[0], np.ndarray):
        return current_app.json.response(value[0]), *value[1:]
    return value


def policies_from_config(value: Any) -> Mapping[str, Policy]:
    """Read ``SECURE_ML_POLICIES``: an object of policies by endpoint or URL rule.

    :raises ValueError: the faults of every entry, in one sentence each.
    """
    if not isinstance(value, Mapping):
        raise ValueError('must be an object such as {"/invocations": {"scopes": ["predict"]}}')
    policies: dict[str, Policy] = {}
    faults: list[str] = []
    for name, terms in value.items():
        try:
            policies[name] = Policy.build(**terms)
        except (TypeError, ValueError, ImportError) as error:
            faults.append(f"{name!r}: {_readable(error)}")
    if faults:
        raise ValueError("; ".join(faults))
    return policies


def _readable(error: Exception) -> str:
    return re.sub(r"^\w+\.build\(\) ", "", str(error))
