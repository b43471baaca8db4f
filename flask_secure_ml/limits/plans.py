"""The limits of a caller: the plan over all routes, the route's own limits, and the quota in rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flask import Request
from marshmallow.utils import get_value

from ..errors import InternalError, QuotaExceeded, RateLimited
from ..exchange import Exchange
from ..pipeline import Stage
from .engine import Limiter, key_for

if TYPE_CHECKING:
    from limits import RateLimitItem

    from ..config.plans import Plan


class RateGuard:
    """Limits the requests in a window: by the plan, then by the route.

    :param exempt: the endpoints that no limit holds for.
    """

    name = "rate"
    stage = Stage.LIMIT

    def __init__(self, limiter: Limiter, exempt: frozenset[str] = frozenset()) -> None:
        self._limiter = limiter
        self._exempt = exempt

    def check(self, request: Request, exchange: Exchange) -> None:
        """Charge one request, or raise :class:`~flask_secure_ml.errors.RateLimited` with ``Retry-After``."""
        if self._exempt and exchange.endpoint in self._exempt:
            return
        for item, key in self._limits(exchange):
            if exchange.owes((self._limiter, item, key)) and not self._limiter.hit(item, key):
                wait = str(self._limiter.retry_after(item, key))
                raise RateLimited(f"over {item} of {exchange.caller}", headers=[("Retry-After", wait)])

    def _limits(self, exchange: Exchange) -> Iterator[tuple[RateLimitItem, str]]:
        plan = key_for("plan", exchange.caller)
        for item in _plan(exchange).requests:
            yield item, plan
        if exchange.policy and exchange.policy.limits:
            route = key_for("route", exchange.endpoint or "", exchange.caller)
            for item in exchange.policy.limits:
                yield item, route


class CostGuard:
    """Charges the price of the inputs, in rows, to the plan's quota before the view runs."""

    name = "cost"
    stage = Stage.COST

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def check(self, request: Request, exchange: Exchange) -> None:
        """Charge the rows, or raise :class:`~flask_secure_ml.errors.QuotaExceeded` with ``Retry-After``."""
        price = _rows(exchange)
        if not price:
            return
        key = key_for("cost", exchange.caller)
        for item in _plan(exchange).quotas:
            owed = exchange.owes((self._limiter, item, key), price)
            # The test comes first because a fixed window charges even what it rejects.
            if owed and not (self._limiter.test(item, key, owed) and self._limiter.hit(item, key, owed)):
                wait = str(self._limiter.retry_after(item, key))
                reason = f"{price} rows are over {item} of {exchange.caller}"
                raise QuotaExceeded(reason, headers=[("Retry-After", wait)])


def _plan(exchange: Exchange) -> Plan:
    if exchange.plan is None:
        raise InternalError("the request has no plan: it was not authenticated")
    return exchange.plan


def _rows(exchange: Exchange) -> int:
    """Return the price; a field that was not sent, or is null, costs nothing.

    :raises InternalError: the schema loads a payload without fields, so there is no price.
    """
    policy = exchange.policy
    if policy is None or policy.cost is None or policy.body is None:
        return 0
    if not isinstance(exchange.payload, Mapping):
        raise InternalError(f"cost={policy.cost!r} needs a payload with fields; does a post_load hook replace it?")
    # As marshmallow stores it: an attribute with dots is a path.
    value: Any = get_value(exchange.payload, policy.body.fields[policy.cost].attribute or policy.cost, None)
    if value is None:
        return 0
    return len(value) if hasattr(value, "__len__") else 1
