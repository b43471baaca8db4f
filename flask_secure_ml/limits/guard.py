"""LIMIT and COST: charges a request by the rules of its caller and its route together."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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
from ..exchange import MAX_PRICE, Exchange
from ..pipeline import Stage
from .counters import Charge, Settlement
from .engine import Limiter, Outcome
from .plans import Tariff
from .rules import Kind, Rule
from .usage import UNKNOWN_ROUTE, Usage, day_of

if TYPE_CHECKING:
    from ..config.plans import Plan

SERVER_ERROR = 500
CLIENT_ERROR = 400


class Report(NamedTuple):
    """The state of the limits that the response headers report."""

    tariff: Tariff
    outcome: Outcome


@dataclass(slots=True)
class Charged:
    """A charge of a request that is not settled yet.

    :param rows: the part of the price that this charge reserved.
    :param priced: whether this charge is corrected if the final price of the request is different.
    """

    limiter: Limiter
    outcome: Outcome
    rows: int
    priced: bool


class RateGuard:
    """Charges a request whose price is known before its body is parsed.

    Any other request is charged at COST, and rejected here only if its caller is known to be over a limit, so that
    callers cannot make this process parse many more bodies than the limit allows requests.

    :param exempt: the endpoints without limits.
    """

    name = "rate"
    stage = Stage.LIMIT

    def __init__(self, limiter: Limiter, exempt: frozenset[str] = frozenset()) -> None:
        self._limiter = limiter
        self._exempt = exempt

    def check(self, request: Request, exchange: Exchange) -> None:
        """Charge one request, or raise an error with status 429 and ``Retry-After``."""
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

    def rejected(self, exchange: Exchange, error: Exception) -> Exception:
        """Charge a request that is rejected before its price is known, and return the error to raise."""
        tariff: Tariff | None = exchange.deferred
        exchange.deferred = None
        if tariff is not None:
            try:
                charge(self._limiter, exchange, tariff, lease=False)
            except SecureMLError as over:
                return over
        return error


class CostGuard:
    """Charges the price of the inputs before the view runs.

    Everything else that the request is charged is charged with it.
    """

    name = "cost"
    stage = Stage.COST

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def check(self, request: Request, exchange: Exchange) -> None:
        """Charge the request, or raise an error with status 429 and ``Retry-After``.

        :raises PayloadTooLarge: the price is more than the plan can ever allow.
        """
        tariff: Tariff | None = exchange.deferred
        if tariff is None:
            return
        rows = price_of(exchange)
        most = MAX_PRICE if tariff.most_rows is None else min(tariff.most_rows, MAX_PRICE)
        if rows > most:
            # No number in the reason: it may have thousands of digits.
            raise PayloadTooLarge(f"the price is more than {most}, the maximum of the plan for one request")
        exchange.deferred = None
        charge(self._limiter, exchange, tariff, rows)
        exchange.rows = rows


def charge(limiter: Limiter, exchange: Exchange, tariff: Tariff, rows: int = 0, *, lease: bool = True) -> None:
    """Charge a request, less what it was charged already.

    If the guards run again, the request pays the higher of the two prices, and nothing twice.

    :param lease: whether the request is processed further, so that it counts as in flight.
    :raises SecureMLError: the caller or the route is over a limit.
    """
    charges = _charges(limiter, exchange, tariff, rows, lease=lease)
    if exchange.outer_charges:
        charges = [_unheld(limiter, exchange, each) for each in charges]
    paid = []
    if exchange.charges:
        paid = [each for each in exchange.charges[exchange.owed_from :] if each.limiter.place == limiter.place]
        rows = max(0, rows - sum(each.rows for each in paid))
        charges = [_owed(paid, each) for each in charges]
    # A list, because a generator in any() takes longer than the work.
    if not [each for each in charges if each.usage or any(each.prices)]:
        return
    outcome = limiter.charge(charges)
    exchange.limits = Report(tariff, outcome)
    if not outcome.allowed:
        limiter.remember(outcome)
        limiter.note_blocks(exchange.caller, outcome)
        raise rejection(exchange, outcome)
    if limiter.knows_any:
        limiter.remember(outcome)
    priced = tariff.deferred and (rows > 0 or not any(each.priced for each in paid))
    exchange.charges.append(Charged(limiter, outcome, rows, priced))
    if lease and tariff.in_flight:
        for each in outcome.charges:
            if each.lease:
                limiter.leases.take(each)


def check_known(limiter: Limiter, exchange: Exchange, tariff: Tariff) -> None:
    """Reject a caller that is known to be over a limit, without querying the store.

    :raises SecureMLError: the caller is over a limit.
    """
    key = limiter.caller_key(exchange.caller)
    found = limiter.recent(key, tariff.caller)
    if found is not None:
        outcome, wait = found
        exchange.limits = Report(tariff, outcome)
        raise rejection(exchange, outcome, wait)
    for rule in tariff.caller.rules:
        known = not exchange.charges and not exchange.outer_charges
        if rule.kind is Kind.LEASES and known and limiter.leases.count(key) >= rule.amount:
            raise TooManyInFlight(f"{exchange.caller} has {rule.amount} requests in flight", headers=_retry_after(1))


def rejection(exchange: Exchange, outcome: Outcome, wait: float | None = None) -> SecureMLError:
    """Return the error for charges that were rejected.

    :param wait: the seconds that are left of an earlier rejection.
    """
    broken = [
        (rule, count.wait)
        for charge_, verdict in zip(outcome.charges, outcome.verdicts, strict=True)
        for rule, count in zip(charge_.rules.rules, verdict.counts, strict=True)
        if count.wait
    ]
    penalty = max(verdict.penalty for verdict in outcome.verdicts)
    if any(each == math.inf for _, each in broken):
        # Only while the store is down: one worker's share can be less than the plan allows.
        broken = [(rule, rule.seconds if each == math.inf else each) for rule, each in broken]
    seconds = wait or max((penalty, *(each for _, each in broken)))
    who = exchange.caller
    names = ", ".join(f"{rule.amount} {rule.unit} in {rule.seconds:g} s" for rule, _ in broken)
    reason = f"{who} is over {names}" if broken else f"{who} keeps exceeding a limit"
    if penalty:
        strikes = max(verdict.strikes for verdict in outcome.verdicts)
        reason += f"; penalty {strikes} for requests before Retry-After"
    members = {} if exchange.principal is None else {"violated-policies": [rule.label for rule, _ in broken]}
    return _error_class(broken, penalty)(reason, headers=_retry_after(seconds), members=members)


def settle(exchange: Exchange) -> list[Callable[[], None]]:
    """Correct the charge of a request to what it used, and release its leases.

    It runs when the response is complete.

    :returns: functions to be called after the response was sent.
    """
    charges, exchange.charges = exchange.charges, []
    # Leases of this process first: if a store raises an error, they must not be renewed forever.
    for each in charges:
        for charge_ in each.outcome.charges:
            if charge_.lease:
                each.limiter.leases.release(charge_.key, charge_.lease)
    waiting = [_settle(each, delta) for each, delta in _deltas(charges, _actual(exchange))]
    return [later for later in waiting if later is not None]


def plan_of(exchange: Exchange) -> Plan:
    """Return the plan of the caller.

    :raises InternalError: authentication did not run.
    """
    if exchange.plan is None:
        raise InternalError("the request has no plan: it was not authenticated")
    return exchange.plan


def price_of(exchange: Exchange) -> int:
    """Return the price in rows, or in elements; 0 if the field was not sent or is null.

    :raises InternalError: the loaded payload has no fields, or the function does not return a price.
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
            raise InternalError("the function in cost= must return a whole number, 0 or more")
        return price
    if not isinstance(exchange.payload, Mapping) or policy.body is None:
        raise InternalError(f"cost={cost!r} needs a payload with fields; does a post_load hook replace it?")
    # As in marshmallow, an attribute with dots is a path.
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


def _charges(limiter: Limiter, exchange: Exchange, tariff: Tariff, rows: int, *, lease: bool) -> list[Charge]:
    name = b""
    if tariff.in_flight and lease:
        name = exchange.lease = exchange.lease or random.getrandbits(64).to_bytes(8, "big")
    caller, rules, usage = exchange.caller, tariff.caller, None
    # Anonymous callers are not billed, and a client with many IP addresses must not fill the store.
    if limiter.usage and exchange.principal is not None:
        route = exchange.endpoint or UNKNOWN_ROUTE
        usage = Usage(day_of(exchange.time), exchange.principal.plan, route, 1, rows, rows)
    charges = [Charge(limiter.caller_key(caller), rules, rules.prices(rows, lease=lease), name, caller, usage)]
    if tariff.route is not None and lease:
        charges.append(Charge(tariff.route_key, tariff.route, tariff.route.prices(), name))
    return charges


def _owed(charged: Sequence[Charged], new: Charge) -> Charge:
    paid: dict[Rule, int] = {}
    earlier = [charge_ for each in charged for charge_ in each.outcome.charges if charge_.key == new.key]
    for charge_ in earlier:
        for rule, price in zip(charge_.rules.rules, charge_.prices, strict=True):
            paid[rule] = paid.get(rule, 0) + price
    # A different amount is a different limit, even with the same counter.
    prices = [max(0, price - paid.get(rule, 0)) for rule, price in zip(new.rules.rules, new.prices, strict=True)]
    usage = new.usage and new.usage.owed(charge_.usage for charge_ in earlier if charge_.usage is not None)
    return new._replace(prices=tuple(prices), usage=usage)


def _unheld(limiter: Limiter, exchange: Exchange, new: Charge) -> Charge:
    """Return a charge without leases if the enclosing request already holds them."""
    held = {
        rule
        for each in exchange.outer_charges
        for charge_ in each.outcome.charges
        for rule, price in zip(charge_.rules.rules, charge_.prices, strict=True)
        if price and rule.kind is Kind.LEASES and charge_.key == new.key and each.limiter.place == limiter.place
    }
    if not held:
        return new
    prices = tuple([0 if rule in held else price for rule, price in zip(new.rules.rules, new.prices, strict=True)])
    return new._replace(prices=prices, lease=b"")


def _retry_after(seconds: float) -> list[tuple[str, str]]:
    return [("Retry-After", str(max(1, math.ceil(round(seconds, 3)))))]


def _error_class(broken: Sequence[tuple[Rule, float]], penalty: float) -> type[SecureMLError]:
    units = {rule.unit for rule, _ in broken}
    if penalty or "requests" in units:
        return RateLimited
    return QuotaExceeded if "rows" in units else TooManyInFlight


def _actual(exchange: Exchange) -> int | None:
    """Return the rows that a request used; None if it used what was reserved."""
    refund = exchange.policy.refund if exchange.policy else "never"
    if refund != "never" and exchange.status >= (SERVER_ERROR if refund == "errors" else CLIENT_ERROR):
        return 0
    return exchange.used_rows


def _deltas(charges: Sequence[Charged], actual: int | None) -> Iterator[tuple[Charged, int]]:
    """Yield each charge with the correction of its price, the last charge first; none refunds more than it reserved."""
    left: dict[object, int] = {}
    for each in reversed(charges):
        place, delta = each.limiter.place, 0
        if actual is not None and each.priced:
            if place not in left:
                left[place] = actual - sum(other.rows for other in charges if other.limiter.place == place)
            delta = max(left[place], -each.rows)
            left[place] -= delta
        yield each, delta


def _settle(charged: Charged, delta: int) -> Callable[[], None] | None:
    settlements = []
    for charge_, verdict in zip(charged.outcome.charges, charged.outcome.verdicts, strict=True):
        usage = charge_.usage and charge_.usage.corrected(delta)
        if charge_.lease or usage or (delta and charge_.rules.in_rows):
            deltas = tuple([delta if rule.unit == "rows" else 0 for rule in charge_.rules.rules])
            starts = tuple([count.start for count in verdict.counts])
            settlements.append(Settlement(charge_.key, charge_.rules, deltas, starts, charge_.lease, usage))
    return charged.limiter.settle(settlements, local=charged.outcome.local) if settlements else None
