"""The requests in flight in this process, and the renewal of their leases in the store."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import DependencyUnavailable
from ..principal import Clock
from ..refresh import PerProcess, process_lock
from .counters import LEASE_SECONDS, Charge
from .rules import RuleSet

log: logging.Logger = logging.getLogger(__name__)

RENEWED_EVERY = LEASE_SECONDS / 3
"""Seconds between two renewals, so that a failed one can be repeated before a lease expires."""

IDLE = 30.0
"""Seconds without leases after which the thread ends."""

MAX_UNCONFIRMED = 10_000
"""The maximum number of leases that one process releases after an outage; others expire by themselves."""

Lease = tuple[bytes, RuleSet, bytes]
Renew = Callable[[Sequence[Lease]], None]


class Leases:
    """Counts the requests in flight in this process, and renews their leases.

    The thread that renews starts with the first lease of a process, and ends when there has been none for a while. If a
    process dies, its leases expire by themselves.

    :param renew: renews leases in the store; None for a store that needs no renewal.
    :param free: releases leases in the store.
    """

    def __init__(self, clock: Clock, renew: Renew | None, free: Renew | None = None) -> None:
        self._clock = clock
        self._renew = renew
        self._free = free
        self._local: PerProcess[_Held] = PerProcess(_Held)

    def take(self, charge: Charge) -> None:
        """Record that a lease was taken."""
        held = self._local.get()
        with held.lock:
            name = (charge.lease, charge.key)
            # If the guards run again for a request, it takes its lease again.
            if name not in held.leases:
                held.counts[charge.key] = held.counts.get(charge.key, 0) + 1
            held.leases[name] = (charge.rules, self._clock.monotonic())
            starts = self._renew is not None and held.thread is None
            if starts:
                held.thread = threading.Thread(target=self._run, args=(held,), name="secure-ml-leases", daemon=True)
        if starts and held.thread is not None:
            try:
                held.thread.start()
            except RuntimeError as error:
                # The machine has no thread left. Without renewal the lease expires early; the next lease tries again.
                held.thread = None
                log.warning("the leases of requests in flight could not be renewed: %s", error)

    def release(self, key: bytes, lease: bytes) -> None:
        """Record that a lease was released."""
        held = self._local.get()
        with held.lock:
            if held.leases.pop((lease, key), None) is None:
                return
            held.counts[key] -= 1
            if not held.counts[key]:
                del held.counts[key]

    def release_later(self, leases: Sequence[Lease]) -> None:
        """Release leases when the store is up again.

        The store may have taken some that it did not confirm in time.
        """
        held, now = self._local.get(), self._clock.monotonic()
        with held.lock:
            held.unconfirmed.extend([(lease, now) for lease in leases])

    def release_unconfirmed(self) -> None:
        """Release the leases of :meth:`release_later`, unless they have expired or the store is still down."""
        held, now = self._local.get(), self._clock.monotonic()
        with held.lock:
            due = [each for each in held.unconfirmed if now - each[1] < LEASE_SECONDS]
            held.unconfirmed.clear()
        if due and self._free is not None:
            try:
                self._free([lease for lease, _ in due])
            except DependencyUnavailable:
                with held.lock:
                    held.unconfirmed.extend(due)

    def count(self, key: bytes) -> int:
        """Return how many requests of a key are in flight in this process."""
        return self._local.get().counts.get(key, 0)

    def due(self) -> list[Lease]:
        """Return the leases that are due for renewal."""
        held, now = self._local.get(), self._clock.monotonic()
        with held.lock:
            due = [name for name, (_, since) in held.leases.items() if now - since >= RENEWED_EVERY]
            for name in due:
                held.leases[name] = (held.leases[name][0], now)
            return [(key, held.leases[lease, key][0], lease) for lease, key in due]

    def renew(self) -> None:
        """Renew the leases that are due.

        :raises DependencyUnavailable: the store is down.
        """
        due = self.due()
        if due and self._renew is not None:
            self._renew(due)

    def _run(self, held: _Held) -> None:
        idle = 0.0
        while True:
            held.stopped.wait(RENEWED_EVERY / 2)
            try:
                self.renew()
                self.release_unconfirmed()
            except DependencyUnavailable:
                # The store is down: leases that expire meanwhile are not taken again.
                pass
            except Exception:
                log.exception("leases could not be renewed or released")
            idle = 0.0 if held.leases else idle + RENEWED_EVERY / 2
            with held.lock:
                if idle >= IDLE and not held.leases:
                    held.thread = None
                    return


class _Held:
    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.lock = process_lock().get()
        self.leases: dict[tuple[bytes, bytes], tuple[RuleSet, float]] = {}
        self.counts: dict[bytes, int] = {}
        self.unconfirmed: deque[tuple[Lease, float]] = deque(maxlen=MAX_UNCONFIRMED)
        self.thread: threading.Thread | None = None
