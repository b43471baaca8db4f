"""AUTHORIZE: whether this caller's credential allows this route."""

from __future__ import annotations

from flask import Request

from .errors import InsufficientScope
from .exchange import Exchange, Principal
from .pipeline import Stage


class ScopeGuard:
    """Asks for every scope of the policy (RFC 6750 section 3.1)."""

    name = "scopes"
    stage = Stage.AUTHORIZE

    def check(self, request: Request, exchange: Exchange) -> None:
        """Raise :class:`~flask_secure_ml.errors.InsufficientScope` with the scopes that would do."""
        needed = exchange.policy.scopes if exchange.policy else frozenset()
        missing = needed - (exchange.principal.scopes if exchange.principal else frozenset())
        if missing:
            reason = f"missing scope: {' '.join(sorted(missing))}"
            raise InsufficientScope(reason, headers=[("WWW-Authenticate", _challenge(exchange, needed))])


def _challenge(exchange: Exchange, needed: frozenset[str]) -> str:
    base = next(iter(exchange.challenges), _scheme(exchange.principal))
    separator = ", " if "=" in base else " "
    return f'{base}{separator}error="insufficient_scope", scope="{" ".join(sorted(needed))}"'


def _scheme(principal: Principal | None) -> str:
    return "ApiKey" if principal is not None and principal.kind == "api_key" else "Bearer"
