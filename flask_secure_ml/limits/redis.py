"""Counts on a Redis or Valkey server, with Sentinel, or in a cluster (extra ``redis``)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import starmap
from struct import Struct, pack

from ..principal import Clock
from ..secrets import SecretRing
from ..stores.base import StoreUnavailable
from ..stores.redis_client import RedisClient
from ..stores.redis_nodes import Node
from ..stores.redis_protocol import Command, Script, packed
from .counters import LEASE_SECONDS, Backoff, Charge, Count, Settlement, Verdict
from .memory import undone
from .redis_scripts import CHARGE, RENEW, SETTLE
from .redis_usage import PREFIX, arguments, day_in, hash_of, used_in
from .rules import RuleSet
from .usage import Usage, Used

TIMEOUT = 0.05
"""Seconds for all commands of a call; every request waits for its counts."""

CONNECT_TIMEOUT = 0.25
"""Seconds to connect, including TLS and authentication."""

_PREFIX = b"flask-secure-ml:limits:{"
_PAGE = b"1000"
# Keys with leases per command; this many take the server a few milliseconds.
_BATCH = 200
# Hashes per read; this many fit into the timeout of a call, even on a busy machine.
_HASHES = 20
_HEAD = Struct("<3d")
_COUNT = Struct("<4d")


class RedisCounters:
    """Counts that all machines share.

    The rules of a key are one hash, which a script evaluates in one round trip. The clock is the server's. All data of
    a key expire with it. A charge that is not confirmed in time may have been made.

    :param uri: as for :class:`~flask_secure_ml.stores.redis_address.Address`.
    :param password: read for each connection, newest first; None to use the one in the URI, if any.
    :param clock: measures the pause after a failure.
    :param timeout: seconds for all commands of a call; ``?socket_timeout=`` overrides it.
    :param connect_timeout: seconds to connect, including TLS and authentication.
    :param backoff: the penalties for callers that keep sending requests beyond a limit; None for no penalties.
    :param lease_seconds: how long a lease lasts.
    :param usage_days: how many days the usage of callers is kept; 0 to count none.
    :param uniform: returns a random number from 0 to 1.
    :raises Exception: the URI cannot be used; the message may contain it.
    """

    shared = True

    def __init__(
        self,
        uri: str,
        password: SecretRing | None,
        clock: Clock,
        *,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        backoff: Backoff | None = None,
        lease_seconds: float = LEASE_SECONDS,
        usage_days: int = 0,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._client = RedisClient(
            uri, password, clock, timeout=timeout, connect_timeout=connect_timeout, name="the limit store"
        )
        self._backoff = b"" if backoff is None else pack("<8d", *backoff)
        self._lease_seconds = lease_seconds
        self._usage_days = usage_days
        self._uniform = uniform
        self._charge, self._settle, self._renew = Script(CHARGE), Script(SETTLE), Script(RENEW)

    def charge(self, charges: Sequence[Charge]) -> list[Verdict]:
        """Make all charges, or none if one price does not fit.

        Charges of several keys are sent together. If one is rejected, the others are refunded in a second write.

        :raises DependencyUnavailable: a server failed.
        """
        replies = self._client.exchange([self._charged(charge) for charge in charges])
        verdicts = [_verdict(reply) for reply in replies]
        if len(verdicts) > 1 and not all(verdict.allowed for verdict in verdicts):
            made = [undone(*pair) for pair in zip(charges, verdicts, strict=True) if pair[1].allowed]
            # The request is rejected even if this fails.
            with suppress(StoreUnavailable):
                self.settle(made)
        return verdicts

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Correct charges and release leases.

        :raises DependencyUnavailable: a server failed.
        """
        self._client.exchange([self._settled(each) for each in settlements])

    def settle_later(self, settlements: Sequence[Settlement]) -> Callable[[], None] | None:
        """Send corrections of charges and releases of leases without waiting for the replies.

        :returns: a function that reads the replies, to be called after the response was sent; None if nothing was sent.
            Neither this method nor the function raises an error.
        """
        return self._client.send([self._settled(each) for each in settlements])

    def renew(self, leases: Sequence[tuple[bytes, RuleSet, bytes]]) -> None:
        """Extend leases; those that were released are not taken again.

        :raises DependencyUnavailable: a server failed.
        """
        longest = pack("<d", self._lease_seconds)
        held: dict[tuple[bytes, bytes], list[bytes]] = {}
        for key, rules, lease in leases:
            held.setdefault((_name(key), rules.packed), []).append(lease)
        renewals = [
            self._renew.prepared(name, b"1", name, packed_rules, longest, b"".join(names))
            for (name, packed_rules), names in held.items()
        ]
        for first in range(0, len(renewals), _BATCH):
            self._client.exchange(renewals[first : first + _BATCH])

    def peek(self, key: bytes, rules: RuleSet, prices: Sequence[int] = ()) -> Verdict:
        """Return the counts of a key without charging it; ``prices`` as in :class:`Counters`.

        :raises DependencyUnavailable: a server failed.
        """
        asked = Charge(key, rules, tuple(prices) or (0,) * len(rules.rules))
        verdict = _verdict(self._client.call(self._charged(asked, really=False)))
        return verdict._replace(allowed=not any(count.wait for count in verdict.counts))

    def clear(self, key: bytes) -> bool:
        """Remove the counts, leases and penalties of a key; return False if there were none.

        :raises DependencyUnavailable: a server failed.
        """
        name = _name(key)
        return bool(self._client.call(Command(name, packed(b"DEL", name))))

    def callers(self) -> dict[bytes, str]:
        """Return the names of callers by key.

        :raises DependencyUnavailable: a server failed.
        """
        found: dict[bytes, str] = {}
        for node in self._client.nodes():
            for names in self._scanned(node, _PREFIX):
                asked = [Command(name, packed(b"HGET", name, b"caller")) for name in names]
                for name, caller in zip(names, self._client.exchange(asked, node=node), strict=True):
                    if caller is not None:
                        found[bytes.fromhex(name[len(_PREFIX) : -1].decode())] = caller.decode("utf-8", "surrogatepass")
        return found

    def used(self, since: int, until: int) -> Iterator[Used]:
        """Yield the usage of callers between two days, both inclusive.

        :raises DependencyUnavailable: a server failed.
        """
        seen: set[bytes] = set()
        for node in self._client.nodes():
            for names in self._scanned(node, PREFIX):
                # SCAN may return a key twice while the server resizes its table.
                days = {name: day for name in names if (day := day_in(name)) is not None and name not in seen}
                wanted = [name for name, day in days.items() if since <= day <= until]
                seen.update(wanted)
                for first in range(0, len(wanted), _HASHES):
                    asked = wanted[first : first + _HASHES]
                    commands = [Command(name, packed(b"HGETALL", name)) for name in asked]
                    for name, fields in zip(asked, self._client.exchange(commands, node=node), strict=True):
                        yield from used_in(days[name], fields)

    def _scanned(self, node: Node, prefix: bytes) -> Iterator[list[bytes]]:
        cursor = b"0"
        while True:
            scan = packed(b"SCAN", cursor, b"MATCH", prefix + b"*", b"COUNT", _PAGE)
            cursor, names = self._client.exchange([Command(b"", scan)], node=node)[0]
            yield names
            if cursor == b"0":
                return

    def _charged(self, charge: Charge, *, really: bool = True) -> Command:
        key, rules, prices, lease, name, usage = charge
        numbers = pack(f"<{len(prices) + 3}d", *prices, self._uniform(), self._lease_seconds, really)
        backoff = self._backoff if rules.backs_off else b""
        caller = name.encode("utf-8", "surrogatepass")
        used = arguments(usage, self._usage_days)
        keys = self._keys(key, usage)
        return self._charge.prepared(keys[1], *keys, rules.packed, numbers, lease, caller, backoff, *used)

    def _settled(self, settlement: Settlement) -> Command:
        key, rules, deltas, starts, lease, usage = settlement
        numbers = pack(f"<{2 * len(deltas) + 1}d", *deltas, *starts, self._lease_seconds)
        keys = self._keys(key, usage)
        used = arguments(usage, self._usage_days)
        return self._settle.prepared(keys[1], *keys, rules.packed, numbers, lease, *used)

    def _keys(self, key: bytes, usage: Usage | None) -> tuple[bytes, ...]:
        if usage is None or not self._usage_days:
            return b"1", _name(key)
        return b"2", _name(key), hash_of(key, usage.day)


def _name(key: bytes) -> bytes:
    return b"%b%b}" % (_PREFIX, key.hex().encode())


def _verdict(reply: bytes) -> Verdict:
    allowed, penalty, strikes = _HEAD.unpack_from(reply)
    return Verdict(bool(allowed), tuple(starmap(Count, _COUNT.iter_unpack(reply[24:]))), penalty, int(strikes))
