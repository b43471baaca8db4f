"""ADMISSION: who keeps presenting invalid credentials has to wait, longer each time (ASVS 5.0 6.3.1)."""

from __future__ import annotations

import logging
import math
from threading import Lock

from flask import Request

from ..config.checks import Limits
from ..errors import RateLimited
from ..exchange import Exchange
from ..pipeline import Stage
from ..principal import Clock
from .engine import Limiter, key_for, network_of

log: logging.Logger = logging.getLogger(__name__)

SHORTEST = 60
"""Seconds of an address's first block; each further one within a day is twice as long."""

LONGEST = 3600
"""Seconds of the longest block."""

DAY = 86_400

_BUCKET = 4
"""Hexadecimal digits of a counter's name: 65,536 of them."""

_CLAIM = 5
"""Seconds for which one worker's claim to a block keeps the others from counting the same one again."""


class FailureThrottle:
    """Counts invalid credentials: by address, which is then blocked, and by the API key that was guessed at.

    A key is never blocked, because then anyone could lock its owner out: past its limit wrong secrets get another
    answer, and the right one still passes.

    :param limits: what one address may fail before it is blocked.
    :param key_limits: what may fail for one API key, from all addresses together.
    """

    name = "failure-throttle"
    stage = Stage.ADMISSION

    def __init__(self, limiter: Limiter, limits: Limits, key_limits: Limits, clock: Clock) -> None:
        self._limiter = limiter
        self._limits = limits
        self._key_limits = key_limits
        self._clock = clock
        self._blocking = Lock()

    def check(self, request: Request, exchange: Exchange) -> None:
        """Refuse an address that is blocked, whatever it sends; a blocked request is not counted.

        :raises RateLimited: it is, with the seconds that are left as ``Retry-After``.
        """
        if not self._limits or (exchange.policy and exchange.policy.public):
            return
        network = network_of(exchange.client)
        seconds = self._left(network, self._strikes(network))
        if seconds:
            raise _refusal(f"{network} is blocked after too many invalid credentials", seconds)

    def failed(self, exchange: Exchange, claimed: str = "") -> None:
        """Count one invalid credential.

        :param claimed: the id that an invalid API key names; empty for any other credential.
        :raises RateLimited: it is one too many for the address, which is blocked from now on, or for the key.
        """
        network = network_of(exchange.client)
        blocked = self._address_failed(network)
        waiting = self._key_failed(claimed) if claimed else 0
        if blocked:
            raise _refusal(f"{network} presented too many invalid credentials", blocked)
        if waiting:
            raise _refusal(f"too many wrong secrets for the API key {claimed}", waiting)

    def _address_failed(self, network: str) -> int:
        key = key_for("failed-authentication", network)
        # Every limit is charged, so none is spared by another that is used up.
        within = [self._limiter.hit(item, key) for item in self._limits]
        return 0 if all(within) else self._block(network)

    def _block(self, network: str) -> int:
        """Block an address, unless that was done meanwhile, and return for how many seconds."""
        with self._blocking:
            strikes = self._strikes(network)
            seconds = self._left(network, strikes)
            if seconds:
                return seconds
            strike, seconds = strikes + 1, _duration(strikes)
            # The lock is for the threads of this worker; of several workers, the first to count blocks.
            if self._limiter.count(key_for("blocking", network, str(strike)), _CLAIM) == 1:
                until = math.ceil(self._clock.now()) + seconds
                self._limiter.count(_until(network, strike), seconds, until)
                self._limiter.count(_strikes(network), DAY)
                self._tell(network, seconds, strike)
            return seconds

    def _tell(self, network: str, seconds: int, strike: int) -> None:
        limits = ", ".join(map(str, self._limits))
        message = "address %s blocked for %d seconds, time %d within a day: more invalid credentials than %s"
        log.warning(message, network, seconds, strike, limits)

    def _strikes(self, network: str) -> int:
        return self._limiter.counted(_strikes(network))

    def _left(self, network: str, strikes: int) -> int:
        """Return for how many seconds an address is still blocked, never more than its block was long."""
        if not strikes:
            return 0
        left = self._limiter.counted(_until(network, strikes)) - self._clock.now()
        return min(max(0, math.ceil(left)), _duration(strikes - 1))

    def _key_failed(self, claimed: str) -> int:
        # Ids are invented for nothing, so they share a fixed number of counters: wrong secrets of two keys may be
        # counted together, and right ones are not counted at all.
        key = key_for("failed-key", key_for(claimed)[:_BUCKET])
        used_up = [item for item in self._key_limits if not self._limiter.hit(item, key)]
        for item in used_up:
            if self._limiter.count(key_for("failed-key-told", claimed, str(item)), item.get_expiry()) == 1:
                log.warning("API key %s: more wrong secrets than %s", claimed, item)
        return max((self._limiter.retry_after(item, key) for item in used_up), default=0)


def _strikes(network: str) -> str:
    return key_for("strikes", network)


def _until(network: str, strike: int) -> str:
    return key_for("blocked-until", network, str(strike))


def _duration(strikes: int) -> int:
    """Return how long the next block is, after so many: each twice as long as the one before."""
    return min(SHORTEST << min(strikes, 32), LONGEST)


def _refusal(reason: str, seconds: int) -> RateLimited:
    return RateLimited(reason, headers=[("Retry-After", str(seconds))])
