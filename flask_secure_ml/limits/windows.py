"""The arithmetic of windows, for the stores that count in Python; ``redis_scripts.py`` does the same in Lua.

A state has three numbers: the start of the window, the count in it, and the count in the previous window. For ``GCRA``
the first is the theoretical arrival time, and the others are zero.
"""

from __future__ import annotations

import math

from .counters import Count
from .rules import Kind, Rule

State = tuple[float, float, float]

NOTHING: State = (0.0, 0.0, 0.0)

_GCRA = Kind.GCRA
# Takes half the time of calling the named tuple, whose constructor is a Python function.
_new = tuple.__new__
EPSILON = 1e-6
"""Seconds and units below this are rounding errors."""


def rolled(rule: Rule, state: State, now: float) -> State:
    """Return a state as of now.

    If the clock was set back, the counts are kept in a window that begins now, so that the limit is neither lifted nor
    extended by more than a window.
    """
    start, current, previous = state
    seconds = rule.seconds
    if rule.kind is Kind.GCRA:
        # At most a whole burst ahead, plus what settlements may have added in one window.
        longest = now + seconds / rule.amount * rule.burst + seconds
        return (min(max(start, now), longest), 0.0, 0.0)
    age = now - start
    if age < 0:
        return (now, current, previous)
    if age < seconds - EPSILON:
        return state
    if rule.kind is Kind.FIXED or age >= 2 * seconds - EPSILON:
        return (now, 0.0, 0.0)
    return (start + seconds, 0.0, current)


def counted(rule: Rule, state: State, now: float, price: int) -> Count:
    """Return the count of a state from :func:`rolled`, with the wait until a price fits."""
    start, current, previous = state
    if rule.kind is Kind.GCRA:
        step = rule.seconds / rule.amount
        ahead = start - now
        wait = ahead + step * (price - rule.burst) if price else 0.0
        if price > rule.burst:
            wait = math.inf
        return Count(ahead / step, wait if wait > EPSILON else 0.0, ahead, start)
    left = rule.seconds - max(0.0, now - start)
    used = current
    if previous:
        # Whole units: with fractions, a limit of 1 would allow only one request in two windows.
        used += max(0, math.floor(previous * left / rule.seconds - EPSILON))
    if not price or used + price <= rule.amount:
        return Count(used, 0.0, left, start)
    if price > rule.amount:
        return Count(used, math.inf, left, start)
    wait = left if rule.kind is Kind.FIXED else _sliding_wait(rule, state, left, price)
    return Count(used, max(wait, EPSILON), left, start)


def taken(rule: Rule, state: State, now: float, price: int) -> tuple[State, Count] | None:
    """Return a state with a price added, and its count; None if the price does not fit.

    This combines :func:`rolled`, :func:`counted` and :func:`charged`, because it runs for every request.
    """
    start, current, previous = state
    left = rule.seconds - (now - start)
    if rule.kind is _GCRA or not EPSILON < left <= rule.seconds:
        state = start, current, previous = rolled(rule, state, now)
        if rule.kind is _GCRA:
            count = counted(rule, state, now, price)
            if count.wait:
                return None
            state = charged(rule, state, price)
            return state, Count(count.used + price, 0.0, state[0] - now, start)
        left = rule.seconds - (now - start)
    used = current + price
    weight = previous * left / rule.seconds - EPSILON if previous else 0.0
    total = used + int(weight) if weight > 0 else used
    if price and total > rule.amount:
        return None
    return (start, used, previous), _new(Count, (total, 0.0, left, start))


def charged(rule: Rule, state: State, price: int) -> State:
    """Return a state from :func:`rolled`, with a price added."""
    start, current, previous = state
    if rule.kind is Kind.GCRA:
        return (start + rule.seconds / rule.amount * price, 0.0, 0.0)
    return (start, current + price, previous)


def settled(rule: Rule, state: State, delta: int, start: float) -> State:
    """Return a state from :func:`rolled` with a correction of a charge in the window that began at ``start``."""
    began, current, previous = state
    if rule.kind is Kind.GCRA:
        return (began + rule.seconds / rule.amount * delta, 0.0, 0.0)
    if abs(began - start) < EPSILON:
        return (began, max(0.0, current + delta), previous)
    if rule.kind is Kind.SLIDING and abs(began - start - rule.seconds) < EPSILON:
        return (began, current, max(0.0, previous + delta))
    return state


def expires(rule: Rule, state: State) -> float:
    """Return when a state can be deleted."""
    return state[0] + rule.lifetime


def _sliding_wait(rule: Rule, state: State, left: float, price: int) -> float:
    _, current, previous = state
    room = rule.amount - price - current
    if room >= 0:
        return left - rule.seconds * (room + 1) / previous
    # In the next window, the weight of the current one decreases linearly.
    return left + max(0.0, rule.seconds * (1 - (rule.amount - price + 1) / current))
