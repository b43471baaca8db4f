"""LIMIT and COST: charges a request by the rules of its caller and its route, all at once."""

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
    """What the headers of the response say about limits."""

    tariff: Tariff
    outcome: Outcome


@dataclass(slots=True)
class Charged:
    """What a request was charged, until it is settled.

    :param rows: the part of the price that this charge reserved.
    :param priced: whether the price of the request is corrected here, if it is less or more in the end.
    """

    limiter: Limiter
    outcome: Outcome
    rows: int
    priced: bool


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

    def rejected(self, exchange: Exchange, error: Exception) -> Exception:
        """Charge a request that ends before its price is known, which counts too; return the error to raise."""
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
        most = MAX_PRICE if tariff.most_rows is None else min(tariff.most_rows, MAX_PRICE)
        if rows > most:
            # No number in the reason: it may have thousands of digits.
            raise PayloadTooLarge(f"the price is more than {most}, which the plan allows at once")
        exchange.deferred = None
        charge(self._limiter, exchange, tariff, rows)
        exchange.rows = rows


def charge(limiter: Limiter, exchange: Exchange, tariff: Tariff, rows: int = 0, *, lease: bool = True) -> None:
    """Charge what a request still owes: one that is guarded again pays the higher of two prices, and none twice.

    :param lease: whether it goes on and is in flight.
    :raises SecureMLError: it is over a limit.
    """
    charges = _charges(limiter, exchange, tariff, rows, lease=lease)
    if exchange.outer_charges:
        charges = [_unheld(limiter, exchange, each) for each in charges]
    paid = []
    if exchange.charges:
        paid = [each for each in exchange.charges[exchange.owed_from :] if each.limiter.place == limiter.place]
        rows = max(0, rows - sum(each.rows for each in paid))
        charges = [_owed(paid, each) for each in charges]
    # Not a generator within any(): it takes longer than the work.
    if not [each for each in charges if each.usage or any(each.prices)]:
        return
    outcome = limiter.charge(charges)
    exchange.limits = Report(tariff, outcome)
    if not outcome.allowed:
        limiter.remember(outcome)
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
    """Reject a caller who is known to be over a limit, without asking the store.

    :raises SecureMLError: it is.
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
    # Those of this process first: whatever a store raises, none of them may be renewed for ever.
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


def _charges(limiter: Limiter, exchange: Exchange, tariff: Tariff, rows: int, *, lease: bool) -> list[Charge]:
    name = b""
    if tariff.in_flight and lease:
        name = exchange.lease = exchange.lease or random.getrandbits(64).to_bytes(8, "big")
    caller, rules, usage = exchange.caller, tariff.caller, None
    # An anonymous caller gets no bill, and whoever has many IP addresses must not fill the store.
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
    # Another amount is another limit, although it may have the same counter.
    prices = [max(0, price - paid.get(rule, 0)) for rule, price in zip(new.rules.rules, new.prices, strict=True)]
    usage = new.usage and new.usage.owed(charge_.usage for charge_ in earlier if charge_.usage is not None)
    return new._replace(prices=tuple(prices), usage=usage)


def _unheld(limiter: Limiter, exchange: Exchange, new: Charge) -> Charge:
    """Return a charge without the leases that the request holds of which this one is a part."""
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
    """Return what a request used, in rows; None for what was reserved."""
    refund = exchange.policy.refund if exchange.policy else "never"
    if refund != "never" and exchange.status >= (SERVER_ERROR if refund == "errors" else CLIENT_ERROR):
        return 0
    return exchange.used_rows


def _deltas(charges: Sequence[Charged], actual: int | None) -> Iterator[tuple[Charged, int]]:
    """Yield each charge with what its price is corrected by, the last first: where it was counted, and no further."""
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
