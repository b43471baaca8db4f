"""Backoff for callers that keep sending requests beyond a limit: increasing penalties, and finally a block.

Some requests before ``Retry-After`` are tolerated, because other clients of the same principal may not have received
it. More of them are a strike. Each strike starts a penalty, during which every request of the caller is rejected, and
each penalty is longer than the previous one.

Requests beyond the limit in flight are not counted, because the server cannot tell a client when to retry.
"""

from __future__ import annotations

from typing import NamedTuple

from .counters import Backoff

GRACE = 1.0
"""Seconds after a rejection during which others are not counted, because their requests were already on their way."""


class Penalty(NamedTuple):
    """The state of a caller whose requests were rejected.

    :param rejections: the number of requests that came before ``Retry-After``.
    :param told: the end of ``Retry-After``.
    :param counted: when a rejection was last counted.
    :param strikes: how often more requests than tolerated came.
    :param until: the end of the penalty.
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
    """Return a penalty as of now.

    Strikes are forgiven one by one, and a clock that was set back ends the penalty.
    """
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
    """Return the length of a penalty in seconds; jitter only makes it longer."""
    if strikes >= backoff.block_after:
        return backoff.block
    seconds = min(backoff.maximum, backoff.base * backoff.factor ** (strikes - 1))
    return seconds * (1 + backoff.jitter * chance)


def penalty_ends(penalty: Penalty, backoff: Backoff) -> float:
    """Return when the state of a penalty can be deleted."""
    return max(penalty.told, penalty.until, penalty.counted) + backoff.decay * (penalty.strikes + 1)
