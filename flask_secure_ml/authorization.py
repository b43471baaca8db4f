"""AUTHORIZE: checks the caller by the claims of its credential and the owner of the object."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from flask import Request
from werkzeug.routing import Rule

from .errors import Forbidden, InsufficientScope, SecureMLError, StepUpRequired
from .exchange import Exchange
from .pipeline import Stage
from .policy.options import AccessOptions, OwnerHook, Scalar
from .principal import Clock, Principal

__all__ = ["AuthorizationGuard", "OwnerHook"]

log: logging.Logger = logging.getLogger(__name__)

LEEWAY = 30.0
"""Seconds by which an issuer's clock may be ahead of this one."""

_INSUFFICIENT = 'error="insufficient_scope"'


class AuthorizationGuard:
    """Checks the principal against the access options of the policy, the cheapest first.

    :param owner: decides for policies with ``owner=True``; without it, those routes reject all callers.
    :param leeway: seconds by which ``auth_time`` may be in the future.
    """

    name = "authorize"
    stage = Stage.AUTHORIZE

    def __init__(self, owner: OwnerHook | None, clock: Clock, leeway: float = LEEWAY) -> None:
        self._owner = owner
        self._clock = clock
        self._leeway = leeway

    def check(self, request: Request, exchange: Exchange) -> None:
        """Check that the principal meets every option, unless the route is public.

        :raises InsufficientScope: a scope is missing; the challenge has the required ones (RFC 6750 section 3.1).
        :raises Forbidden: another option is not met.
        :raises StepUpRequired: the user must authenticate again, or with another method (RFC 9470 section 3).
        """
        policy = exchange.policy
        if policy is not None and policy.public:
            return
        principal = exchange.principal
        if principal is None:
            raise _forbidden(exchange, "no principal on a route that is not public")
        access = AccessOptions() if policy is None else policy.access
        _check_caller(request.url_rule, exchange, principal, access)
        _check_scopes(exchange, principal, access)
        _check_identity(exchange, principal, access)
        self._check_authentication(exchange, principal, access)
        if access.owner:
            self._check_owner(request, exchange, principal, access.owner)

    def _check_authentication(self, exchange: Exchange, principal: Principal, access: AccessOptions) -> None:
        claims = principal.claims
        if access.acr_values and claims.get("acr") not in access.acr_values:
            raise _step_up(exchange, access, "the authentication context is not sufficient for the route")
        if access.max_auth_age is not None and not self._recent(claims.get("auth_time"), access.max_auth_age):
            raise _step_up(exchange, access, "the user authenticated too long ago, or at an unknown time")

    def _recent(self, time: object, seconds: int) -> bool:
        if isinstance(time, bool) or not isinstance(time, (int, float)):
            return False
        now = self._clock.now()
        return now - seconds <= time <= now + self._leeway

    def _check_owner(
        self, request: Request, exchange: Exchange, principal: Principal, option: OwnerHook | bool
    ) -> None:
        hook = self._owner if isinstance(option, bool) else option
        if hook is None:
            raise _forbidden(exchange, "the route requires an owner hook, and SecureML has none")
        if not _allows(hook, exchange, principal, MappingProxyType(dict(request.view_args or {}))):
            raise _forbidden(exchange, "the owner hook did not return True for this object")


def _check_caller(rule: Rule | None, exchange: Exchange, principal: Principal, access: AccessOptions) -> None:
    if principal.endpoints is not None and not _names(principal.endpoints, rule):
        raise _forbidden(exchange, "the credential is for other endpoints")
    if access.principals and principal.id not in access.principals:
        raise _forbidden(exchange, "the route is for other principals")


def _check_scopes(exchange: Exchange, principal: Principal, access: AccessOptions) -> None:
    missing = access.scopes - principal.scopes
    alternatives = access.any_scopes if access.any_scopes.isdisjoint(principal.scopes) else frozenset[str]()
    if not missing and not alternatives:
        return
    reason = f"missing scope: {' '.join(sorted(missing))}" if missing else f"none of: {' '.join(sorted(alternatives))}"
    sufficient = " ".join(sorted(access.scopes | alternatives))
    challenge = _challenge(exchange, f'{_INSUFFICIENT}, scope="{sufficient}"')
    raise InsufficientScope(reason, headers=[("WWW-Authenticate", challenge)])


def _check_identity(exchange: Exchange, principal: Principal, access: AccessOptions) -> None:
    if access.roles and access.roles.isdisjoint(principal.roles):
        raise _forbidden(exchange, f"none of the roles: {', '.join(sorted(access.roles))}")
    for name, allowed in access.claims:
        if not _has(principal.claims, name, allowed):
            raise _forbidden(exchange, f"the claim {name!r} is missing or has another value")
    if access.when is not None and not _allows(access.when, exchange, principal):
        raise _forbidden(exchange, "the predicate of the route did not return True")


def _names(endpoints: frozenset[str], rule: Rule | None) -> bool:
    return rule is not None and (rule.endpoint in endpoints or rule.rule in endpoints)


def _has(claims: Mapping[str, Any], name: str, allowed: tuple[Scalar, ...]) -> bool:
    found = claims.get(name)
    values = found if isinstance(found, (list, tuple)) else (found,)
    # Types are compared too, because True equals 1 and 1 equals 1.0 in Python.
    return any(type(value) is type(each) and value == each for value in values for each in allowed)


def _allows(hook: Callable[..., object], exchange: Exchange, *arguments: object) -> bool:
    """Return True if a user-defined function returns True, and False if it fails.

    :raises SecureMLError: the function raised it, such as ``DependencyUnavailable`` while a database is down.
    """
    try:
        return hook(*arguments) is True
    except SecureMLError:
        raise
    except Exception:
        log.exception("an authorization function failed for request %s", exchange.request_id)
        return False


def _forbidden(exchange: Exchange, reason: str) -> Forbidden:
    return Forbidden(reason, headers=[("WWW-Authenticate", _challenge(exchange, _INSUFFICIENT))])


def _step_up(exchange: Exchange, access: AccessOptions, reason: str) -> StepUpRequired:
    parameters = [f'error="{StepUpRequired.oauth_error}"']
    if access.acr_values:
        parameters.append(f'acr_values="{" ".join(access.acr_values)}"')
    if access.max_auth_age is not None:
        parameters.append(f'max_age="{access.max_auth_age}"')
    challenges = (_challenge(exchange, ", ".join(parameters)), *exchange.challenges[1:])
    return StepUpRequired(reason, headers=[("WWW-Authenticate", each) for each in challenges])


def _challenge(exchange: Exchange, parameters: str) -> str:
    """Return the challenge of the used scheme with error parameters."""
    return f"{exchange.challenges[0]}, {parameters}" if exchange.challenges else f"Bearer {parameters}"
