"""Shares scores between workers and machines: processes exchange summaries, and the state is stored.

Each process scores its own requests immediately. Every five seconds, a thread writes a summary of them to the store,
and reads and scores the summaries of the others, so that every process scores all requests. Once a minute, one process
for each part of the subjects writes the state of their signals, which processes read when they start. Requests do not
wait for any of this.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...principal import Clock
from ...stores import SharedStore
from ...stores.base import Cursor
from .codec import VERSION, dumped, packed, restore, unpacked
from .detector import KINDS, Anomaly, Detector, Subject, subjects_of
from .distinct import digest
from .observation import Observation
from .outbox import Outbox, members_of, observation_from

log: logging.Logger = logging.getLogger(__name__)

STATE, SUMMARIES, CLAIMS = "anomaly-state", "anomaly-summaries", "anomaly-claims"

PARTS = 256
"""Number of records that contain the state of all subjects."""

EVERY = 60
"""Seconds between two writes of a part's state."""

KEPT_SUMMARIES = 300
"""Seconds for which a summary is kept, so that every process can read it and the state contains it."""

KEPT_STATE = 35 * 86_400
"""Seconds for which the unchanged state of a part is kept."""

_BETWEEN_LOCKS = 100
_MOST_PROCESSES = 1_000


@dataclass
class Shared:
    """The contents of the store.

    :param detector: has scored all requests up to the cursor.
    :param applied: the last summary of each process that the detector has scored.
    :param found: the anomalies that the summaries caused.
    """

    detector: Detector
    applied: dict[str, int]
    cursor: Cursor | None = None
    found: list[Anomaly] = field(default_factory=list)


class Sharing:
    """One process's exchange with the others.

    :param make: returns an empty detector.
    :param lock: held while the detector is used.
    :param report: called with the anomalies that requests of other processes cause.
    """

    def __init__(
        self,
        store: SharedStore,
        clock: Clock,
        make: Callable[[], Detector],
        lock: Any,
        report: Callable[[list[Anomaly]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._make = make
        self._lock = lock
        self._report = report
        self._name = secrets.token_hex(8)
        self._number = 0
        self._outbox = Outbox()
        # The minute of the last change of each part, until its state is written.
        self._dirty: dict[int, int] = {}
        self._shared: Shared | None = None
        self._received = 0.0
        self.detector: Detector = make()

    def observe(self, seen: Observation) -> list[Anomaly]:
        """Score a request that this process served, under the lock."""
        self._outbox.add(seen)
        return self.detector.observe(seen)

    def recent(self, now: float) -> list[Subject]:
        """Return recently active subjects, under the lock."""
        return self.detector.recent(now)

    def sync(self) -> None:
        """Write the summary of this process, and read those of the others.

        :raises DependencyUnavailable: the store cannot be reached; no data is lost, and the next call continues.
        """
        now = self._clock.now()
        if self._shared is None or not 0 <= now - self._received < KEPT_SUMMARIES:
            # The state that other processes wrote contains the summaries that were missed.
            self._load()
        self._publish()
        self._receive()
        self._received = now
        self._keep(now)

    def _load(self) -> None:
        shared = load(self._store, self._make)
        with self._lock:
            waiting = self._outbox.take()
            known = [(seen, kind, name) for seen in waiting for kind, name in subjects_of(seen)]
            # Requests that are not in a summary yet are added to the state of the same subject.
            for seen, kind, name in known:
                if shared.detector.knows(kind, name):
                    shared.found += shared.detector.subject(kind, name).observe(seen, name, kind)
            for kind, name, subject in self.detector.subjects():
                if not shared.detector.knows(kind, name):
                    shared.detector.put(kind, name, subject)
            for seen in waiting:
                self._outbox.add(seen)
            self._shared, self.detector = shared, shared.detector
        self._report(shared.found)
        shared.found = []

    def _publish(self) -> None:
        with self._lock:
            entries = self._outbox.take()
        self._send(entries)

    def _send(self, entries: list[Observation]) -> None:
        if not entries:
            return
        try:
            key = f"{self._name}-{self._number + 1:012}"
            self._store.put(SUMMARIES, key, packed([members_of(each) for each in entries]), seconds=KEPT_SUMMARIES)
        except Exception:
            with self._lock:
                # Requests that arrived in the meantime are added to them.
                for seen in [*entries, *self._outbox.take()]:
                    self._outbox.add(seen)
            raise
        self._number += 1
        self._note_changes(entries)

    def _note_changes(self, entries: list[Observation]) -> None:
        minute = int(self._clock.now() // EVERY)
        self._dirty.update((part_of(kind, name), minute) for each in entries for kind, name in subjects_of(each))

    def _receive(self) -> None:
        shared = self._shared
        if shared is None:
            return
        for process, number, entries in _summaries(self._store, shared):
            if process == self._name or number <= shared.applied.get(process, 0):
                continue
            for begin in range(0, len(entries), _BETWEEN_LOCKS):
                some = entries[begin : begin + _BETWEEN_LOCKS]
                with self._lock:
                    found = [anomaly for each in some for anomaly in self.detector.observe(each)]
                self._report(found)
            _note(shared.applied, process, number)
            self._note_changes(entries)

    def _keep(self, now: float) -> None:
        """Write the state of the parts that changed, unless another process wrote it in this minute."""
        minute = int(now // EVERY)
        mine = set()
        for part, changed in sorted(self._dirty.items()):
            if self._store.add(CLAIMS, f"{part}-{minute}", 2.0 * EVERY):
                mine.add(part)
            elif changed < minute:
                # The process that writes it in this minute includes earlier changes.
                del self._dirty[part]
        if not mine:
            return
        with self._lock:
            subjects = list(self.detector.subjects())
        chosen: dict[int, dict[tuple[str, str], Subject]] = {part: {} for part in mine}
        for kind, name, subject in subjects:
            if (part := part_of(kind, name)) in mine:
                chosen[part][kind, name] = subject
        for part, known in chosen.items():
            self._keep_part(part, known)

    def _keep_part(self, part: int, known: dict[tuple[str, str], Subject]) -> None:
        with self._lock:
            states = [[*subject, state_of(each)] for subject, each in known.items()]
            # Requests in the state that are in no summary yet are summarized before it is written, so they count once.
            entries = self._outbox.take() if any(each in known for each in self._outbox.subjects()) else []
        self._send(entries)
        applied = {} if self._shared is None else self._shared.applied
        record = {"version": VERSION, "applied": {**applied, self._name: self._number}, "subjects": states}
        self._store.put(STATE, str(part), packed(record), seconds=KEPT_STATE)
        self._dirty.pop(part, None)


def load(store: SharedStore, make: Callable[[], Detector]) -> Shared:
    """Return the shared state of all processes.

    :raises DependencyUnavailable: the store cannot be reached.
    """
    shared = Shared(make(), {})
    in_state = [_read_part(store, part, shared) for part in range(PARTS)]
    for process, number, entries in _summaries(store, shared):
        for seen in entries:
            kind, name = subjects_of(seen)[0]
            if number > in_state[part_of(kind, name)].get(process, 0):
                shared.found += shared.detector.observe(seen)
        _note(shared.applied, process, number)
    return shared


def part_of(kind: str, name: str) -> int:
    """Return the number of the record that contains a subject."""
    return digest(f"{kind}:{name}") % PARTS


def state_of(subject: Subject) -> dict[str, Any]:
    """Return the state of a subject as JSON values."""
    return {
        "last": subject.last,
        "failed_until": subject.failed_until,
        "fired": list(subject.fired),
        "signals": {each.name: dumped(each) for each in subject.signals},
    }


def _read_part(store: SharedStore, part: int, shared: Shared) -> dict[str, int]:
    """Read the state of a part into the detector; return the last summary of each process in it."""
    raw = store.get(STATE, str(part))
    if raw is None:
        return {}
    try:
        record = unpacked(raw)
        if record["version"] != VERSION:
            return {}
        applied = {str(process): int(number) for process, number in record["applied"].items()}
        for kind, name, state in record["subjects"]:
            if kind in KINDS and isinstance(name, str):
                shared.detector.put(kind, name, _restored(shared.detector.new(kind), state))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        log.warning("a part of the anomaly baselines cannot be read and is reset: %s", type(error).__name__)
        return {}
    for process, number in applied.items():
        _note(shared.applied, process, number)
    return applied


def _restored(subject: Subject, state: Any) -> Subject:
    signals = state["signals"]
    for place, signal in enumerate(subject.signals):
        # A signal that was off when the state was written starts empty.
        if signal.name in signals:
            restore(signal, signals[signal.name])
            if len(state["fired"]) == len(subject.fired):
                subject.fired[place] = float(state["fired"][place])
    subject.last, subject.failed_until = float(state["last"]), float(state["failed_until"])
    return subject


def _summaries(store: SharedStore, shared: Shared) -> Iterator[tuple[str, int, list[Observation]]]:
    """Yield the summaries after the cursor, in order for each process, and advance the cursor."""
    more = True
    while more:
        changes = store.changes(SUMMARIES, shared.cursor)
        for key, record in sorted(changes.records.items()):
            process, _, number = key.rpartition("-")
            if record is None or not number.isdecimal():
                continue
            try:
                yield process, int(number), [observation_from(each) for each in unpacked(record.value)]
            except (ValueError, TypeError) as error:
                log.warning("a summary of another process cannot be read: %s", type(error).__name__)
        shared.cursor, more = changes.cursor, changes.more


def _note(applied: dict[str, int], process: str, number: int) -> None:
    applied[process] = max(applied.pop(process, 0), number)
    if len(applied) > _MOST_PROCESSES:
        del applied[next(iter(applied))]
