"""The recorder that scores requests and handles anomalies."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from ...errors import ConfigError, DependencyUnavailable
from ...exchange import Exchange
from ...policy.schema import closest
from ...principal import Clock
from ...refresh import PerProcess
from ...stores import SharedStore
from .detector import EPISODE, Anomaly, Detector
from .distinct import digest
from .episodes import Episodes
from .observation import Observation, observation_of
from .penalties import SECONDS, Penalties
from .sharing import CLAIMS, Sharing
from .signals import SIGNALS

log: logging.Logger = logging.getLogger(__name__)

OFF, OBSERVE = "off", "observe"
RANKS = {OBSERVE: 0, "event": 1, "throttle": 2, "block": 3}

SYNC = 5.0
"""Seconds between two exchanges of summaries with other processes."""

_MOST_WAITING = 1_000


class Anomalies:
    """The recorder that scores requests.

    :param actions: the action of each signal: ``off``, ``observe`` (the default), ``event``, ``throttle`` or
        ``block``.
    :param count: counts each anomaly by its signal.
    :param report: called once for each episode of signals with an action beyond ``observe``.
    :param penalties: gets the anomalies of signals with ``throttle`` or ``block``.
    :param store: the store that processes share, or None.
    :raises ConfigError: a signal is unknown.
    """

    def __init__(
        self,
        actions: Mapping[str, str],
        count: Callable[[str], object],
        report: Callable[[Anomaly], object],
        penalties: Penalties,
        clock: Clock,
        store: SharedStore | None = None,
    ) -> None:
        names = [each.name for each in SIGNALS]
        if problems := [_unknown(name, names) for name in actions if name not in names]:
            raise ConfigError(problems)
        self._used = [each for each in SIGNALS if actions.get(each.name, OBSERVE) != OFF]
        self._actions = {each.name: actions.get(each.name, OBSERVE) for each in self._used}
        self.penalties = penalties
        self.store = store
        self._count = count
        self._report = report
        self._clock = clock
        self._workers = PerProcess(lambda: _Worker(self, clock))

    @property
    def signals(self) -> tuple[str, ...]:
        """The names of the signals that are not off."""
        return tuple(self._actions)

    @property
    def actions(self) -> Mapping[str, str]:
        """The action of each signal."""
        return self._actions

    def detector(self) -> Detector:
        """Return an empty detector with these signals."""
        return Detector(self._used)

    def record(self, exchange: Exchange) -> None:
        """Score a request when its response starts."""
        self._workers.get().record(observation_of(exchange))

    def sync(self) -> None:
        """Exchange summaries with other processes now; a thread of each process does so every five seconds.

        :raises DependencyUnavailable: the store cannot be reached.
        """
        self._workers.get().sync()

    def scores(self) -> dict[str, float]:
        """Return the highest score of each signal among recently active subjects; 1 and above is unusual.

        These had a request within ten minutes, at most a hundred of each kind: a scrape takes milliseconds.
        """
        return self._workers.get().scores()

    def penalize(self, anomaly: Anomaly) -> None:
        """Reject the subject of an anomaly if the action of its signal does."""
        action = self._actions[anomaly.signal]
        if action in SECONDS:
            self.penalties.add(anomaly, action)

    def decide(self, anomaly: Anomaly, episodes: Episodes) -> tuple[bool, bool]:
        """Return whether an anomaly is counted, and whether it is reported."""
        rank = RANKS[self._actions[anomaly.signal]]
        begins = episodes.begins(anomaly, rank)
        return not anomaly.again, begins and rank > 0

    def publish(self, anomaly: Anomaly, *, counted: bool, reported: bool) -> None:
        """Count and report an anomaly according to :meth:`decide`, unless another process did."""
        if not self._is_first(anomaly):
            return
        if counted:
            self._count(anomaly.signal)
        if reported:
            penalty = self.penalties.current(anomaly.kind, anomaly.subject)
            self._report(replace(anomaly, penalty="" if penalty is None else penalty.action))

    def make_sharing(self, lock: threading.Lock, found: Callable[[list[Anomaly]], None]) -> Sharing | None:
        """Return the sharing with other processes; None without a shared store."""
        return None if self.store is None else Sharing(self.store, self._clock, self.detector, lock, found)

    def _is_first(self, anomaly: Anomaly) -> bool:
        """Return True for one of the processes that share a store; for each of them while it is down."""
        if self.store is None:
            return True
        name = digest(f"{anomaly.kind}:{anomaly.subject}")
        try:
            return self.store.add(CLAIMS, f"{anomaly.signal}-{name:x}", EPISODE)
        except DependencyUnavailable:
            return True


class _Worker:
    """The detector of one process, and the thread that exchanges summaries with others."""

    def __init__(self, anomalies: Anomalies, clock: Clock) -> None:
        # Created in the process that uses them, because gevent may have patched threading.
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._wake = threading.Event()
        self._anomalies = anomalies
        self._clock = clock
        self._episodes = Episodes()
        self._sharing = anomalies.make_sharing(self._lock, self._found)
        self._scored = self._sharing or anomalies.detector()
        self._waiting: deque[tuple[Anomaly, bool, bool]] = deque(maxlen=_MOST_WAITING)
        self._running = False

    def record(self, seen: Observation) -> None:
        with self._lock:
            found = self._scored.observe(seen)
        if found:
            self._found(found)
        if self._sharing is None:
            self._publish()
        elif not self._running:
            self._start()
        elif self._waiting:
            self._wake.set()

    def scores(self) -> dict[str, float]:
        if self._sharing is not None and not self._running:
            # This process has not served a request yet, but other processes have scores.
            self._start()
        highest = dict.fromkeys(self._anomalies.signals, 0.0)
        now = self._clock.now()
        with self._lock:
            subjects = self._scored.recent(now)
        for subject in subjects:
            # One subject at a time, because requests wait for the lock.
            with self._lock:
                scores = dict(subject.scores(now))
            for name, score in scores.items():
                highest[name] = max(highest[name], score)
        return highest

    def sync(self) -> None:
        if self._sharing is None:
            return
        with self._syncing:
            try:
                self._sharing.sync()
            finally:
                self._save()

    def _found(self, found: list[Anomaly]) -> None:
        """Reject callers immediately; the thread writes to stores, logs and the network."""
        for anomaly in found:
            with self._lock:
                counted, reported = self._anomalies.decide(anomaly, self._episodes)
            self._anomalies.penalize(anomaly)
            if counted or reported:
                self._waiting.append((anomaly, counted, reported))

    def _save(self) -> None:
        self._publish()
        self._anomalies.penalties.save()

    def _publish(self) -> None:
        while self._waiting:
            anomaly, counted, reported = self._waiting.popleft()
            self._anomalies.publish(anomaly, counted=counted, reported=reported)

    def _start(self) -> None:
        self._running = True
        thread = threading.Thread(target=self._run, name="secure-ml-anomalies", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The thread limit of the system. The next request tries again.
            self._running = False

    def _run(self) -> None:
        due = -math.inf
        while True:
            try:
                if (now := self._clock.monotonic()) >= due:
                    due = now + SYNC
                    self.sync()
                else:
                    # Anomalies do not wait for the next exchange.
                    self._save()
            except DependencyUnavailable:
                # The store logs its own outage.
                pass
            except Exception:
                log.exception("the scores of other processes could not be read")
            self._wake.wait(SYNC)
            self._wake.clear()


def _unknown(name: str, names: list[str]) -> str:
    guess = closest(name, names)
    known = f"did you mean {guess!r}?" if guess else f"choose from {', '.join(names)}"
    return f"SECURE_ML_ANOMALIES: unknown signal {name!r}; {known}"
