"""Who goes on beyond a limit waits longer each time, and is blocked in the end.

A client that is told when to come back, and comes before, is not at fault at once: others of the same principal may
not have been told. When more requests than are tolerated come within that time, that is a strike. Each strike is
followed by a penalty, in which every request of the caller is rejected, and each penalty is longer than the one
before.

Too many requests in flight are no fault: nobody can tell a client when they will end.
"""

from __future__ import annotations

from typing import NamedTuple

from .counters import Backoff

GRACE = 1.0
"""Seconds after a rejection in which further ones are not counted: they were on their way."""


class Penalty(NamedTuple):
    """What is known of a caller that was rejected.

    :param rejections: how many requests came within the time that the caller was told to wait.
    :param told: when that time ends.
    :param counted: when a rejection was counted last.
    :param strikes: how often more than are tolerated came.
    :param until: when the penalty ends.
    """

    rejections: float = 0.0
    told: float = 0.0
    counted: float = 0.0
    strikes: float = 0.0
    until: float = 0.0


NO_PENALTY = Penalty()


def rejected(penalty: Penalty, now: float, wait: float, backoff: Backoff, chance: float) -> Penalty:
    """Return the penalty of a caller after a rejection.

    :param wait: seconds for which the limits reject the request; 0 if only the penalty does.
    :param chance: a random number from 0 to 1, for the jitter.
    """
    rejections, told, counted, strikes, until = forgiven(penalty, now, backoff)
    told = max(told, until, now + wait) if now < told else now + wait
    if now >= penalty.told or counted > now:
        return Penalty(0.0, told, now, strikes, until)
    if now - counted < GRACE:
        return Penalty(rejections, told, counted, strikes, until)
    rejections += 1
    if rejections <= backoff.tolerance:
        return Penalty(rejections, told, now, strikes, until)
    strikes += 1
    until = now + penalty_seconds(int(strikes), backoff, chance)
    return Penalty(0.0, max(told, until), now, strikes, until)


def forgiven(penalty: Penalty, now: float, backoff: Backoff) -> Penalty:
    """Return a penalty as it is at an instant: strikes are forgiven one by one, and a clock set back ends it."""
    if not penalty.strikes:
        return penalty
    longest = max(backoff.maximum, backoff.block) * (1 + backoff.jitter)
    if penalty.until > now + longest:
        return NO_PENALTY
    calm = now - max(penalty.counted, penalty.until)
    return (
        penalty if calm < backoff.decay else penalty._replace(strikes=max(0.0, penalty.strikes - calm // backoff.decay))
    )


def penalty_seconds(strikes: int, backoff: Backoff, chance: float) -> float:
    """Return how long a penalty is: the jitter only makes it longer, so that nobody is told too little."""
    if strikes >= backoff.block_after:
        return backoff.block
    seconds = min(backoff.maximum, backoff.base * backoff.factor ** (strikes - 1))
    return seconds * (1 + backoff.jitter * chance)


def is_blocked(penalty: Penalty, now: float, backoff: Backoff) -> bool:
    """Return True while a caller is blocked."""
    return now < penalty.until and penalty.strikes >= backoff.block_after


def penalty_ends(penalty: Penalty, backoff: Backoff) -> float:
    """Return when nothing of a penalty is left."""
    return max(penalty.told, penalty.until, penalty.counted) + backoff.decay * (penalty.strikes + 1)
