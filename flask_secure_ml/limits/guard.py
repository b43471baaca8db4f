"""LIMIT and COST: charges a request by the rules of its caller and its route, all at once."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Request
from marshmallow.utils import get_value

from ..errors import (
    InternalError,
    PayloadTooLarge,
    QuotaExceeded,
    RateLimited,
    SecureMLError,
    TooManyInFlight,
)
from ..exchange import Exchange
from ..pipeline import Stage
from .counters import Charge, Settlement
from .engine import Limiter, Outcome
from .plans import Tariff
from .rules import Kind, Rule, key_of

if TYPE_CHECKING:
    from ..config.plans import Plan

SERVER_ERROR = 500
CLIENT_ERROR = 400


@dataclass(frozen=True, slots=True)
class Report:
    """What the headers of the response say about limits."""

    tariff: Tariff
    outcome: Outcome


@dataclass(slots=True)
class Charged:
    """What a request was charged, until it is settled."""

    limiter: Limiter
    outcome: Outcome


class RateGuard:
    """Charges a request whose price is known.

    Another one is charged at COST, and rejected here only if it is known to be over a limit, so that nobody makes this
    process parse many more bodies than a limit allows requests.

    :param exempt: the endpoints that no limit holds for.
    """

    name = "rate"
    stage = Stage.LIMIT

    def __init__(self, limiter: Limiter, exempt: frozenset[str] = frozenset()) -> None:
        self._limiter = limiter
        self._exempt = exempt

    def check(self, request: Request, exchange: Exchange) -> None:
        """Charge one request, or raise a 429 with ``Retry-After``."""
        exchange.deferred = None
        policy = exchange.policy
        if policy is None or (self._exempt and exchange.endpoint in self._exempt):
            return
        tariff = self._limiter.tariffs.get(plan_of(exchange), policy, exchange.endpoint)
        if not tariff.deferred:
            charge(self._limiter, exchange, tariff)
        else:
            check_known(self._limiter, exchange, tariff)
            exchange.deferred = tariff

    def rejected(self, exchange: Exchange, error: SecureMLError) -> SecureMLError:
        """Charge a request whose body was rejected, which counts too; return the error that the client gets."""
        tariff: Tariff | None = exchange.deferred
        exchange.deferred = None
        if tariff is not None:
            try:
                charge(self._limiter, exchange, tariff, lease=False)
            except SecureMLError as over:
                return over
        return error


class CostGuard:
    """Charges the price of the inputs before the view runs, with everything else that the request is charged."""

    name = "cost"
    stage = Stage.COST

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def check(self, request: Request, exchange: Exchange) -> None:
        """Charge the request, or raise a 429 with ``Retry-After``.

        :raises PayloadTooLarge: the price is more than the plan can ever allow.
        """
        tariff: Tariff | None = exchange.deferred
        if tariff is None:
            return
        rows = price_of(exchange)
        if tariff.most_rows is not None and rows > tariff.most_rows:
            raise PayloadTooLarge(f"a price of {rows} is more than {tariff.most_rows}, which the plan allows at once")
        exchange.deferred = None
        charge(self._limiter, exchange, tariff, rows)


def charge(limiter: Limiter, exchange: Exchange, tariff: Tariff, rows: int = 0, *, lease: bool = True) -> None:
    """Charge what a request still owes: one that is guarded again pays the higher of two prices, and none twice.

    :param lease: whether it goes on and is in flight.
    :raises SecureMLError: it is over a limit.
    """
    charges = _charges(exchange, tariff, rows, lease=lease)
    if exchange.charges:
        charges = [_owed(limiter, exchange, each) for each in charges]
    if not any(any(each.prices) for each in charges):
        return
    outcome = limiter.charge(charges)
    exchange.limits = Report(tariff, outcome)
    if not outcome.allowed:
        limiter.remember(outcome)
        raise rejection(exchange, outcome)
    if limiter.knows_any:
        limiter.remember(outcome)
    for each in outcome.charges:
        if each.lease and lease:
            limiter.leases.take(each)
    exchange.charges.append(Charged(limiter, outcome))


def check_known(limiter: Limiter, exchange: Exchange, tariff: Tariff) -> None:
    """Reject a caller who is known to be over a limit, without asking the store.

    :raises SecureMLError: it is.
    """
    key = key_of("caller", exchange.caller)
    found = limiter.recent(key, tariff.caller)
    if found is not None:
        outcome, wait = found
        exchange.limits = Report(tariff, outcome)
        raise rejection(exchange, outcome, wait)
    for rule in tariff.caller.rules:
        if rule.kind is Kind.LEASES and not exchange.charges and limiter.leases.count(key) >= rule.amount:
            raise TooManyInFlight(f"{exchange.caller} has {rule.amount} requests in flight", headers=_retry_after(1))


def rejection(exchange: Exchange, outcome: Outcome, wait: float | None = None) -> SecureMLError:
    """Return the error for charges that were rejected.

    :param wait: seconds that are left of an earlier rejection.
    """
    broken = [
        (rule, count.wait)
        for charge_, verdict in zip(outcome.charges, outcome.verdicts, strict=True)
        for rule, count in zip(charge_.rules.rules, verdict.counts, strict=True)
        if count.wait
    ]
    penalty = max(verdict.penalty for verdict in outcome.verdicts)
    if any(each == math.inf for _, each in broken):
        # Only while the store is down: the share of one worker can be less than what the plan allows.
        broken = [(rule, rule.seconds if each == math.inf else each) for rule, each in broken]
    seconds = wait or max((penalty, *(each for _, each in broken)))
    who = exchange.caller
    names = ", ".join(f"{rule.amount} {rule.unit} in {rule.seconds:g} s" for rule, _ in broken)
    reason = f"{who} is over {names}" if broken else f"{who} went on beyond a limit"
    if penalty:
        strikes = max(verdict.strikes for verdict in outcome.verdicts)
        reason += f"; penalty {strikes} for requests before Retry-After"
    members = {} if exchange.principal is None else {"violated-policies": [rule.label for rule, _ in broken]}
    return _error_class(broken, penalty)(reason, headers=_retry_after(seconds), members=members)


def settle(exchange: Exchange) -> list[Callable[[], None]]:
    """Correct the price of a request to what it used, and release its leases. It runs when the response is complete.

    :returns: functions to be called when the response was sent.
    """
    charges, exchange.charges = exchange.charges, []
    actual = _actual(exchange)
    reserved = sum(_rows(each) for each in charges)
    waiting = []
    for index, each in enumerate(charges):
        delta = 0 if actual is None or index < len(charges) - 1 else actual - reserved
        later = _settle(each, delta)
        if later is not None:
            waiting.append(later)
    return waiting


def plan_of(exchange: Exchange) -> Plan:
    """Return the plan of the caller.

    :raises InternalError: authentication did not run.
    """
    if exchange.plan is None:
        raise InternalError("the request has no plan: it was not authenticated")
    return exchange.plan


def price_of(exchange: Exchange) -> int:
    """Return the price in rows, or in elements; a field that was not sent, or is null, costs nothing.

    :raises InternalError: the schema loads a payload without fields, or the function returns no price.
    """
    policy = exchange.policy
    if policy is None or policy.cost is None:
        return 0
    cost = policy.cost
    if isinstance(cost, int):
        return cost
    if callable(cost):
        price = cost(exchange.payload)
        if isinstance(price, bool) or not isinstance(price, int) or price < 0:
            raise InternalError("the function of cost= must return a whole number, 0 or more")
        return price
    if not isinstance(exchange.payload, Mapping) or policy.body is None:
        raise InternalError(f"cost={cost!r} needs a payload with fields; does a post_load hook replace it?")
    # As marshmallow stores it: an attribute with dots is a path.
    value: Any = get_value(exchange.payload, policy.body.fields[cost].attribute or cost, None)
    if value is None:
        return 0
    if policy.cost_unit == "elements":
        return _elements(value)
    return len(value) if hasattr(value, "__len__") else 1


def _elements(value: Any) -> int:
    if hasattr(value, "size") and isinstance(value.size, int):
        return int(value.size)
    return sum(_elements(each) for each in value) if isinstance(value, (list, tuple)) else 1


def _charges(exchange: Exchange, tariff: Tariff, rows: int, *, lease: bool) -> list[Charge]:
    held = tariff.in_flight and lease
    name = (exchange.lease or random.getrandbits(64).to_bytes(8, "big")) if held else b""
    exchange.lease = name or exchange.lease
    caller, key = exchange.caller, key_of("caller", exchange.caller)
    charges = [Charge(key, tariff.caller, tariff.caller.prices(rows, lease=lease), name, caller)]
    if tariff.route is not None and lease:
        charges.append(Charge(tariff.route_key, tariff.route, tariff.route.prices(), name))
    return charges


def _owed(limiter: Limiter, exchange: Exchange, new: Charge) -> Charge:
    paid: dict[str, int] = {}
    for each in exchange.charges[exchange.owed_from :]:
        for charge_ in each.outcome.charges if each.limiter is limiter else ():
            if charge_.key == new.key:
                for rule, price in zip(charge_.rules.rules, charge_.prices, strict=True):
                    paid[rule.name] = paid.get(rule.name, 0) + price
    prices = [max(0, price - paid.get(rule.name, 0)) for rule, price in zip(new.rules.rules, new.prices, strict=True)]
    return new._replace(prices=tuple(prices))


def _retry_after(seconds: float) -> list[tuple[str, str]]:
    return [("Retry-After", str(max(1, math.ceil(round(seconds, 3)))))]


def _error_class(broken: Sequence[tuple[Rule, float]], penalty: float) -> type[SecureMLError]:
    units = {rule.unit for rule, _ in broken}
    if penalty or "requests" in units:
        return RateLimited
    return QuotaExceeded if "rows" in units else TooManyInFlight


def _actual(exchange: Exchange) -> int | None:
    """Return what a request used, in rows; None for what was reserved."""
    refund = exchange.policy.refund if exchange.policy else "never"
    lowest = {"errors": SERVER_ERROR, "failures": CLIENT_ERROR}.get(refund)
    if lowest is not None and exchange.status >= lowest:
        return 0
    return exchange.used_rows


def _rows(charged: Charged) -> int:
    return sum(
        price
        for charge_ in charged.outcome.charges
        for rule, price in zip(charge_.rules.rules, charge_.prices, strict=True)
        # Every rule in rows has the same price.
        if rule.unit == "rows"
    ) // max(1, sum(rule.unit == "rows" for charge_ in charged.outcome.charges for rule in charge_.rules.rules))


def _settle(charged: Charged, delta: int) -> Callable[[], None] | None:
    settlements = []
    for charge_, verdict in zip(charged.outcome.charges, charged.outcome.verdicts, strict=True):
        deltas = tuple([delta if rule.unit == "rows" else 0 for rule in charge_.rules.rules])
        if charge_.lease:
            charged.limiter.leases.release(charge_.key, charge_.lease)
        if charge_.lease or any(deltas):
            starts = tuple([count.start for count in verdict.counts])
            settlements.append(Settlement(charge_.key, charge_.rules, deltas, starts, charge_.lease))
    return charged.limiter.settle(settlements, local=charged.outcome.local) if settlements else None
