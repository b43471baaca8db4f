"""The requests of this process that are in flight, whose leases a store shares with other processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..errors import DependencyUnavailable
from ..principal import Clock
from ..refresh import PerProcess, process_lock
from .counters import LEASE_SECONDS, Charge
from .rules import RuleSet

RENEWED_EVERY = LEASE_SECONDS / 3
"""Seconds between two renewals, so that one that fails can be repeated before a lease ends."""

IDLE = 30.0
"""Seconds without any lease after which the thread ends."""

Lease = tuple[bytes, RuleSet, bytes]
Renew = Callable[[Sequence[Lease]], None]


class Leases:
    """Counts what is in flight here, and renews leases while their requests run.

    The thread that renews starts with the first lease of a process and ends when there is none for a while. A process
    that dies renews nothing, so that its leases end by themselves.

    :param renew: renews leases in the store; None for a store that needs no renewal.
    """

    def __init__(self, clock: Clock, renew: Renew | None) -> None:
        self._clock = clock
        self._renew = renew
        self._local: PerProcess[_Held] = PerProcess(_Held)
        self._lock = process_lock()

    def take(self, charge: Charge) -> None:
        """Note that a lease was taken."""
        held = self._local.get()
        with self._lock.get():
            held.leases[charge.lease, charge.key] = (charge.rules, self._clock.monotonic())
            held.counts[charge.key] = held.counts.get(charge.key, 0) + 1
            starts = self._renew is not None and held.thread is None
            if starts:
                held.thread = threading.Thread(target=self._run, args=(held,), name="secure-ml-leases", daemon=True)
        if starts and held.thread is not None:
            held.thread.start()

    def release(self, key: bytes, lease: bytes) -> None:
        """Note that a lease was released."""
        held = self._local.get()
        with self._lock.get():
            if held.leases.pop((lease, key), None) is None:
                return
            held.counts[key] -= 1
            if not held.counts[key]:
                del held.counts[key]

    def count(self, key: bytes) -> int:
        """Return how many requests of a key are in flight in this process."""
        return self._local.get().counts.get(key, 0)

    def due(self) -> list[Lease]:
        """Return the leases that are old enough to be renewed."""
        held, now = self._local.get(), self._clock.monotonic()
        with self._lock.get():
            due = [name for name, (_, since) in held.leases.items() if now - since >= RENEWED_EVERY]
            for name in due:
                held.leases[name] = (held.leases[name][0], now)
            return [(key, held.leases[lease, key][0], lease) for lease, key in due]

    def renew(self) -> None:
        """Renew what is due.

        :raises DependencyUnavailable: the store is down.
        """
        due = self.due()
        if due and self._renew is not None:
            self._renew(due)

    def _run(self, held: _Held) -> None:
        idle = 0.0
        while True:
            held.stopped.wait(RENEWED_EVERY / 2)
            with suppress(DependencyUnavailable):
                # A store that is down keeps what it has; leases that end meanwhile are not taken again.
                self.renew()
            idle = 0.0 if held.leases else idle + RENEWED_EVERY / 2
            with self._lock.get():
                if idle >= IDLE and not held.leases:
                    held.thread = None
                    return


class _Held:
    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.leases: dict[tuple[bytes, bytes], tuple[RuleSet, float]] = {}
        self.counts: dict[bytes, int] = {}
        self.thread: threading.Thread | None = None
