"""ADMISSION: a network that keeps presenting invalid credentials is blocked, longer each time (ASVS 5.0 6.3.1)."""

from __future__ import annotations

import logging

from flask import Request

from ..errors import RateLimited
from ..exchange import Exchange
from ..pipeline import Stage
from ..policy.fields import Limits
from ..principal import network_of
from ..refresh import SingleFlight
from .engine import Limiter, key_for

log: logging.Logger = logging.getLogger(__name__)

SHORTEST = 60
"""Seconds of a network's first block; each further one within a day is twice as long."""

LONGEST = 3600
"""Seconds of the longest block."""

DAY = 86_400

_BUCKET = 4
"""Hexadecimal digits of a counter's name: 65,536 of them."""

_CLAIM = 5
"""Seconds for which one worker's claim to a block keeps the others from counting the same one again."""

_PATIENCE = 2.0
"""Seconds to wait for the thread that begins a block; a few calls of the storage."""


class FailureThrottle:
    """Counts invalid credentials: by network, which is then blocked, and by the API key that was guessed at.

    A key is never blocked, because then anyone could lock its owner out: past its limit, wrong secrets get another
    error, and the right one is still accepted.

    How long a block lasts is measured by the storage, so that setting the clock of a machine changes nothing.

    :param limits: how many credentials of one network may be invalid before it is blocked.
    :param key_limits: how many secrets may be wrong for one API key, from all networks together.
    """

    name = "failure-throttle"
    stage = Stage.ADMISSION

    def __init__(self, limiter: Limiter, limits: Limits, key_limits: Limits) -> None:
        self._limiter = limiter
        self._limits = limits
        self._key_limits = key_limits
        self._blocking = SingleFlight()

    def check(self, request: Request, exchange: Exchange) -> None:
        """Reject a blocked network, whatever it sends; a blocked request is not counted.

        :raises RateLimited: it is blocked; ``Retry-After`` has the seconds that are left.
        """
        if not self._limits or (exchange.policy and exchange.policy.public):
            return
        network = network_of(exchange.client)
        seconds = self._left(network, self._strikes(network))
        if seconds:
            raise _rate_limited(f"{network} is blocked after too many invalid credentials", seconds)

    def failed(self, exchange: Exchange, claimed: str = "") -> None:
        """Count one invalid credential.

        :param claimed: the id that an invalid API key names; empty for any other credential.
        :raises RateLimited: it is one too many for the network, which is blocked from now on, or for the key.
        """
        network = network_of(exchange.client)
        blocked = self._network_failed(network)
        waiting = self._key_failed(claimed) if claimed else 0
        if blocked:
            raise _rate_limited(f"{network} presented too many invalid credentials", blocked)
        if waiting:
            raise _rate_limited(f"too many wrong secrets for the API key {claimed}", waiting)

    def _network_failed(self, network: str) -> int:
        key = key_for("failed-authentication", network)
        # Every limit is charged, so that none is spared by another that is used up.
        within = [self._limiter.hit(item, key) for item in self._limits]
        return 0 if all(within) else self._block(network)

    def _block(self, network: str) -> int:
        """Block a network, unless that was done meanwhile, and return for how many seconds."""
        try:
            return self._blocking.run(
                network,
                lambda: self._left(network, self._strikes(network)) or None,
                lambda: self._begin_block(network),
                _PATIENCE,
            )
        except TimeoutError:
            return SHORTEST

    def _begin_block(self, network: str) -> int:
        strikes = self._strikes(network)
        if seconds := self._left(network, strikes):
            # Of several workers, another one did so a moment ago.
            return seconds
        strike, seconds = strikes + 1, _duration(strikes)
        # Of workers that come here at the same time, the first to count blocks.
        if self._limiter.count(key_for("blocking", network, str(strike)), _CLAIM) == 1:
            self._limiter.count(_block_key(network, strike), seconds)
            self._limiter.count(_strikes_key(network), DAY)
            self._log(network, seconds, strike)
        return seconds

    def _log(self, network: str, seconds: int, strike: int) -> None:
        limits = ", ".join(map(str, self._limits))
        message = "network %s blocked for %d seconds, time %d within a day: more invalid credentials than %s"
        log.warning(message, network, seconds, strike, limits)

    def _strikes(self, network: str) -> int:
        return self._limiter.counted(_strikes_key(network))

    def _left(self, network: str, strikes: int) -> int:
        """Return for how many seconds a network is still blocked, never more than its block was long."""
        return min(self._limiter.remaining(_block_key(network, strikes)), _duration(strikes - 1)) if strikes else 0

    def _key_failed(self, claimed: str) -> int:
        # Anyone can invent ids, so they share a fixed number of counters: wrong secrets of two keys may be counted
        # together, and right ones are not counted at all.
        key = key_for("failed-key", key_for(claimed)[:_BUCKET])
        used_up = [item for item in self._key_limits if not self._limiter.hit(item, key)]
        for item in used_up:
            if self._limiter.count(key_for("failed-key-logged", claimed, str(item)), item.get_expiry()) == 1:
                log.warning("API key %s: more wrong secrets than %s", claimed, item)
        return max((self._limiter.retry_after(item, key) for item in used_up), default=0)


def _strikes_key(network: str) -> str:
    return key_for("strikes", network)


def _block_key(network: str, strike: int) -> str:
    return key_for("block", network, str(strike))


def _duration(strikes: int) -> int:
    """Return how long the next block is, after so many: each is twice as long as the one before."""
    return min(SHORTEST << min(strikes, 32), LONGEST)


def _rate_limited(reason: str, seconds: int) -> RateLimited:
    return RateLimited(reason, headers=[("Retry-After", str(seconds))])
