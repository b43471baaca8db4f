"""AUTHENTICATE: the throttle for invalid credentials, and for networks that keep presenting them.

A network that presents too many is blocked, longer each time (ASVS 5.0 6.3.1). A block does not affect legitimate
clients: valid credentials are accepted, and expired ones get the 401 that makes a client renew them. Only credentials
that need a network request, or whose secrets people choose, are rejected before they are verified.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import NotAuthenticated, RateLimited
from ..exchange import Exchange
from ..policy.limits import Limits
from ..principal import Clock, network_of
from ..refresh import SingleFlight
from ..stores import SharedStore
from .blocks import Block, Blocks, Pairs
from .engine import Limiter, key_for

if TYPE_CHECKING:
    from ..policy.limits import Limit

log: logging.Logger = logging.getLogger(__name__)

SHORTEST = 60
"""The length of a network's first block in seconds; each further one within a day is twice as long."""

LONGEST = 3600
"""The maximum length of a block in seconds."""

DAY = 86_400

MAX_WRONG = 20
"""The maximum number of wrong secrets for an identity within a day from a network from which it is used."""

_BUCKET = 4
"""Hexadecimal digits in a counter's name: 65,536 counters."""

_CLAIM = 5
"""Seconds for which one worker's claim to begin a block prevents others from counting it again."""

_PATIENCE = 2.0
"""Seconds to wait for the thread that begins a block; enough for a few calls of the storage."""


class FailureThrottle:
    """Counts invalid credentials by network, and by the identity that they claim; blocks networks and identities.

    A block limits the cost of credentials, but does not reject valid ones: it is checked after a credential has failed,
    and before one causes a network request. Its end is cached, so that a flood causes no load on the storage.

    An API key is never blocked, because then anyone could lock out its owner: beyond the limit, wrong secrets get
    another error, and the right one is still accepted. An identity whose secret people choose is blocked, except from
    networks from which it was used within the last day.

    The storage measures how long a block lasts, so that setting the clock of a machine does not affect it.

    :param limits: how many invalid credentials a network may present before it is blocked.
    :param key_limits: how many secrets may be wrong for one API key or identity, from all networks together.
    :param clock: measures the age of what this process caches.
    :param store: stores the networks from which each guessable identity was used.
    """

    def __init__(self, limiter: Limiter, limits: Limits, key_limits: Limits, clock: Clock, store: SharedStore) -> None:
        self._limiter = limiter
        self._limits = limits
        self._key_limits = key_limits
        self._clock = clock
        self._blocking = SingleFlight()
        self._networks = Blocks(clock)
        self._identities = Blocks(clock)
        self._pairs = Pairs(store, clock)

    def calls(self, exchange: Exchange) -> NetworkCalls:
        """Return the object that decides which network requests the credential of a request may cause."""
        return NetworkCalls(self, exchange)

    def admit(self, exchange: Exchange, identity: str) -> None:
        """Allow the verification of a guessable credential, unless its network or its identity is blocked.

        :raises RateLimited: one of them is, and the identity did not authenticate from the network within the last day.
        """
        network = network_of(exchange.client)
        block = self.block_of(network) or self._identity_block(identity)
        if block is None or self._pairs.has(network, identity, block):
            return
        raise _rate_limited(f"the network {network} or the claimed identity is blocked", block.left)

    def succeeded(self, exchange: Exchange, identity: str) -> None:
        """Record from which network an identity was used."""
        self._pairs.put(network_of(exchange.client), identity)

    def failed(self, exchange: Exchange, error: NotAuthenticated, identity: str = "") -> None:
        """Count one invalid credential, unless its network is blocked.

        :raises RateLimited: the network is blocked, by this credential or an earlier one, or this was one too many for
            the API key or the identity.
        """
        network = network_of(exchange.client)
        if identity:
            self._pair_failed(network, identity)
        if block := self.block_of(network):
            raise _rate_limited(f"{network} is blocked: {error.reason}", block.left)
        began = self._network_failed(network)
        waiting = self._secret_failed(error.claimed, identity)
        if began:
            raise _rate_limited(f"{network} presented too many invalid credentials: {error.reason}", began.left)
        if waiting:
            whose = f"the API key {error.claimed}" if error.claimed else "one identity"
            raise _rate_limited(f"too many wrong secrets for {whose}: {error.reason}", waiting)

    def block_of(self, network: str) -> Block | None:
        """Return the block of a network, from the cache if possible, or None."""
        block = self._networks.get(network)
        if block is None and self._limits:
            block = self._networks.put(network, self._left(network, self._strikes(network)))
        return block

    def _network_failed(self, network: str) -> Block | None:
        key = key_for("failed-authentication", network)
        # Every limit is charged, even if another one is used up.
        within = [self._limiter.hit(item, key) for item in self._limits]
        return None if all(within) else self._networks.put(network, self._block(network))

    def _block(self, network: str) -> int:
        """Block a network, unless it is blocked meanwhile, and return the seconds that are left."""
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
            # Another worker blocked it a moment ago.
            return seconds
        strike, seconds = strikes + 1, _duration(strikes)
        # If several workers reach this line at the same time, only the first blocks.
        if self._limiter.count(key_for("blocking", network, str(strike)), _CLAIM) == 1:
            self._limiter.count(_block_key(network, strike), seconds)
            self._limiter.count(_strikes_key(network), DAY)
            self._log(network, seconds, strike)
        return seconds

    def _log(self, network: str, seconds: int, strike: int) -> None:
        limits = ", ".join(map(str, self._limits))
        message = "network %s blocked for %d seconds (block %d within a day): more invalid credentials than %s"
        log.warning(message, network, seconds, strike, limits)

    def _strikes(self, network: str) -> int:
        return self._limiter.counted(_strikes_key(network), DAY)

    def _left(self, network: str, strikes: int) -> int:
        """Return the seconds that are left of a network's block, at most the length of that block."""
        return self._limiter.remaining(_block_key(network, strikes), _duration(strikes - 1)) if strikes else 0

    def _secret_failed(self, claimed: str, identity: str) -> int:
        """Count a wrong secret by key or identity, and return for how many seconds others are rejected."""
        if claimed:
            # Anyone can make up ids, so they share a fixed number of counters: wrong secrets of two keys may be counted
            # together, but right ones are never counted.
            key = key_for("failed-key", key_for(claimed)[:_BUCKET])
            return self._waiting([each for each in self._key_limits if not self._limiter.hit(each, key)], key, claimed)
        if identity:
            # Its own counter: in a shared one, wrong secrets of others would lock it out.
            key = _identity_key(identity)
            return self._waiting([each for each in self._key_limits if not self._limiter.hit(each, key)], key)
        return 0

    def _identity_block(self, identity: str) -> Block | None:
        if not identity:
            return None
        key = _identity_key(identity)
        return self._identities.get(key) or self._identities.put(key, self._identity_left(key))

    def _identity_left(self, key: str) -> int:
        return self._waiting([each for each in self._key_limits if not self._limiter.test(each, key)], key)

    def _waiting(self, used_up: Sequence[Limit], key: str, claimed: str = "") -> int:
        """Return for how many seconds limits stay used up, and log each of them once.

        :param claimed: the id of an API key. An identity is logged as a digest instead, because a person may have typed
            a secret in its place.
        """
        for item in used_up:
            if self._limiter.count(key_for("failed-key-logged", claimed or key, str(item)), item.seconds) == 1:
                name = f"API key {claimed}" if claimed else f"identity with the digest {key}"
                log.warning("%s: more wrong secrets than %s", name, item)
        return max((self._limiter.retry_after(item, key) for item in used_up), default=0)

    def _pair_failed(self, network: str, identity: str) -> None:
        # An attacker on the owner's network is not blocked with the identity, so its guesses are limited here.
        if not self._pairs.knows(network, identity):
            return
        if self._limiter.count(key_for("failed-pair", network, identity), DAY) >= MAX_WRONG:
            self._pairs.drop(network, identity)


class NetworkCalls:
    """Decides which network requests the credential of one request may cause.

    While the network of the client is blocked, it may cause few.
    """

    __slots__ = ("_exchange", "_throttle")

    def __init__(self, throttle: FailureThrottle, exchange: Exchange) -> None:
        self._throttle = throttle
        self._exchange = exchange

    def may_fetch(self) -> bool:
        """Return True unless the network of the client is blocked."""
        return self._throttle.block_of(network_of(self._exchange.client)) is None

    def introspect(self) -> None:
        """Allow one introspection of a token; at most one per second from a blocked network.

        :raises RateLimited: the network has used its one call of this second.
        """
        network = network_of(self._exchange.client)
        block = self._throttle.block_of(network)
        if block is not None and not block.take_turn():
            raise _rate_limited(f"{network} is blocked, and its introspection of this second is used up", 1)


def _identity_key(identity: str) -> str:
    return key_for("failed-identity", identity)


def _strikes_key(network: str) -> str:
    return key_for("strikes", network)


def _block_key(network: str, strike: int) -> str:
    return key_for("block", network, str(strike))


def _duration(strikes: int) -> int:
    """Return the length of the next block in seconds; each is twice as long as the previous one."""
    return min(SHORTEST << min(strikes, 32), LONGEST)


def _rate_limited(reason: str, seconds: int) -> RateLimited:
    # The block may have ended meanwhile.
    return RateLimited(reason, headers=[("Retry-After", str(max(1, seconds)))])
