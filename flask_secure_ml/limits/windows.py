"""The arithmetic of windows, for the stores that count in Python. The script of a server does the same in Lua.

A state has three numbers: when the window began, the count in it, and the count in the window before. For ``GCRA`` the
first is the theoretical arrival time, and the others are zero.
"""

from __future__ import annotations

import math

from .counters import Count
from .rules import Kind, Rule

State = tuple[float, float, float]

NOTHING: State = (0.0, 0.0, 0.0)

_GCRA = Kind.GCRA
# Half as long as a call of the named tuple, whose constructor is a function in Python.
_new = tuple.__new__
EPSILON = 1e-6
"""Seconds and units below this are errors of rounding."""


def rolled(rule: Rule, state: State, now: float) -> State:
    """Return a state as it is at an instant.

    A clock that was set back leaves the counts as they are, in a window that begins now, so that it neither lifts a
    limit nor extends one by more than a window.
    """
    start, current, previous = state
    seconds = rule.seconds
    if rule.kind is Kind.GCRA:
        # Never further ahead than a whole burst, and what a settlement may have added to it in one window.
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
    """Return the count of a state that was rolled, and how long a price has to wait until it fits."""
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
        # Whole units: with fractions, a limit of 1 would let one request pass in two windows.
        used += max(0, math.floor(previous * left / rule.seconds - EPSILON))
    if not price or used + price <= rule.amount:
        return Count(used, 0.0, left, start)
    if price > rule.amount:
        return Count(used, math.inf, left, start)
    wait = left if rule.kind is Kind.FIXED else _sliding_wait(rule, state, left, price)
    return Count(used, max(wait, EPSILON), left, start)


def taken(rule: Rule, state: State, now: float, price: int) -> tuple[State, Count] | None:
    """Return a state with a price added, and its count; None if the price does not fit.

    This is :func:`rolled`, :func:`counted` and :func:`charged` in one, for every request.
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
    """Return a state that was rolled, with a price added."""
    start, current, previous = state
    if rule.kind is Kind.GCRA:
        return (start + rule.seconds / rule.amount * price, 0.0, 0.0)
    return (start, current + price, previous)


def settled(rule: Rule, state: State, delta: int, start: float) -> State:
    """Return a state that was rolled, corrected by what was charged too much or too little when a window began."""
    began, current, previous = state
    if rule.kind is Kind.GCRA:
        return (began + rule.seconds / rule.amount * delta, 0.0, 0.0)
    if abs(began - start) < EPSILON:
        return (began, max(0.0, current + delta), previous)
    if rule.kind is Kind.SLIDING and abs(began - start - rule.seconds) < EPSILON:
        return (began, current, max(0.0, previous + delta))
    return state


def expires(rule: Rule, state: State) -> float:
    """Return when nothing of a state is left."""
    return state[0] + rule.lifetime


def _sliding_wait(rule: Rule, state: State, left: float, price: int) -> float:
    _, current, previous = state
    room = rule.amount - price - current
    if room >= 0:
        return left - rule.seconds * (room + 1) / previous
    # In the next window, what is the current one now loses its weight evenly.
    return left + max(0.0, rule.seconds * (1 - (rule.amount - price + 1) / current))
