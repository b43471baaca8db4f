"""The audit log in one process: its stream, and the thread that publishes checkpoints."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...principal import Clock
from ...refresh import Changed, Outage, failure_reason
from .counts import FAILED, INDEX, SENT, Counts, Uncounted
from .index import OpenIndex, open_index
from .keys import AppKeys
from .records import Members, timestamp
from .retention import adopt, retire
from .sinks import Delivery
from .stream import Stream, StreamOptions

if TYPE_CHECKING:
    from ...config.audit import SinkAddress

log: logging.Logger = logging.getLogger(__name__)

ADOPT_SECONDS, RETIRE_SECONDS = 60.0, 3600.0
"""Seconds between two searches for dead processes and old files."""


@dataclass(frozen=True)
class LogOptions:
    """The options of one log.

    :param every: the number of seconds between two checkpoints of a process.
    :param records: the number of records that cause an early checkpoint.
    :param retention: the number of seconds after which covered files are deleted; 0 keeps them.
    :param sinks: the destinations of checkpoints.
    :param facts: members about the app for the first record of a stream.
    :param configuration: the digest of each setting.
    """

    stream: StreamOptions
    every: int
    records: int
    retention: int
    sinks: tuple[SinkAddress, ...]
    facts: Mapping[str, Any]
    configuration: Mapping[str, str]


class Writer:
    """Writes the records of this process.

    :param counts: counts checkpoints and uncovered records.
    :param changed: called when checkpoints cannot be created or sent, and when they can be again.
    """

    def __init__(
        self,
        folder: Path,
        keys: AppKeys,
        clock: Clock,
        options: LogOptions,
        counts: Counts | None = None,
        changed: Changed = lambda _up, _line: None,
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._clock = clock
        self._options = options
        # Created in the process that uses them, because gevent may have patched threading.
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self._wake = threading.Event()
        self._stream: Stream | None = None
        self._counts = counts or Uncounted()
        self._delivery = Delivery(options.sinks, clock, self._counts, changed)
        began, ended = "the audit log has no new checkpoints", "the audit log has checkpoints again"
        self._outage = Outage(began, ended, clock.monotonic, changed)
        self._since = 0
        # The stream and the number of its covered records.
        self._covered = ("", 0)
        self._closed = False
        self._runs = False
        self._adopted = self._retired = -math.inf
        self.used: bool = False
        """Whether a record was requested."""
        self.lost: int = 0
        """Number of records that could not be written since the last success."""

    def append(self, members: Members | None) -> None:
        """Write one record; None writes only the number of lost records, if any.

        :raises OSError: it cannot be written.
        """
        with self._lock:
            try:
                stream = self._stream
                if stream is None or stream.closed:
                    stream = self._begin()
                if self.lost:
                    stream.append({"action": "gap", "lost": self.lost})
                    self.lost = 0
                if members is not None:
                    stream.append(members)
            except Exception:
                self.lost += members is not None
                raise
            self._since += 1
            is_due = self._since >= self._options.records
            if is_due:
                self._since = 0
        if is_due:
            self._wake.set()

    def checkpoint(self, *, final: bool = False) -> None:
        """Add the head of the stream to the index, publish the index, and send the checkpoint.

        :param final: the stream ends.
        :raises OSError: the index cannot be written.
        """
        with self._publishing:
            try:
                note = self._publish(final=final)
            except Exception:
                self._counts.audit_checkpoint(INDEX, FAILED, self._clock.now())
                raise
            finally:
                self._counts.audit_uncovered(self._uncovered())
            if note is not None:
                self._counts.audit_checkpoint(INDEX, SENT, self._clock.now())
                self._delivery.send(note)

    def _publish(self, *, final: bool) -> str | None:
        """Add the head of the stream to the index and return its signed checkpoint; None without a stream."""
        head = self._head()
        if head is None:
            return None
        sync = self._options.stream.sync != "off"
        done: list[Callable[[], None]] = []
        with open_index(self._folder, self._keys, sync=sync) as index:
            index.add({**head, "final": True} if final else head)
            self._keep_up(index, done)
            note = index.publish()
            self._covered = head["stream"], head["seq"] + 1
            for each in done:
                each()
        return note

    def _uncovered(self) -> int:
        stream, (of, covered) = self._stream, self._covered
        if stream is None or stream.closed:
            return 0
        return stream.seq - covered if stream.id == of else stream.seq

    def close(self) -> None:
        """End the stream: write a stop record and the last checkpoint, and overwrite the key."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        if self._stream is None:
            return
        try:
            self.append({"action": "stop"})
            self.checkpoint(final=True)
        except OSError as error:
            log.error("the end of the audit log of process %d could not be written: %s", os.getpid(), error.strerror)
        self.discard()

    def discard(self) -> None:
        """Overwrite the key; also called in a child that inherited it."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.discard()

    def _begin(self) -> Stream:
        self._stream = Stream(self._folder, self._keys, self._clock, self._options.stream, self._options.facts)
        if not self._runs:
            self._runs = True
            threading.Thread(target=self._run, name="audit-checkpoints", daemon=True).start()
        self._note_configuration(self._stream)
        return self._stream

    def _run(self) -> None:
        # The first checkpoint is immediate: until then, no checkpoint proves that this stream exists.
        while not self._closed:
            try:
                self.checkpoint()
            except Exception as error:  # noqa: BLE001  the next one may work
                self._outage.failed(failure_reason(error))
            else:
                self._outage.ended()
            self._wake.wait(self._options.every)
            self._wake.clear()

    def _head(self) -> Members | None:
        """Return the leaf for the records so far, after syncing them to disk."""
        with self._lock:
            stream = self._stream
            if stream is None or stream.closed:
                return None
            head = {
                "every": self._options.every,
                "kind": "head",
                "mac": stream.mac,
                "seq": stream.seq - 1,
                "stream": stream.id,
                "time": timestamp(self._clock.now()),
            }
            descriptor = -1 if self._options.stream.sync == "off" else stream.duplicate()
        if descriptor >= 0:
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        return head

    def _keep_up(self, index: OpenIndex, done: list[Callable[[], None]]) -> None:
        now, at = self._clock.monotonic(), self._clock.now()
        if now - self._adopted >= ADOPT_SECONDS:
            self._adopted = now
            done += adopt(self._folder, index, self._options.every, at)
        if self._options.retention and now - self._retired >= RETIRE_SECONDS:
            self._retired = now
            done += retire(self._folder, index, self._options.retention, at)

    def _note_configuration(self, stream: Stream) -> None:
        """Record which settings differ from those of the process that last started a stream."""
        path = self._folder / "configuration"
        given = dict(self._options.configuration)
        before: dict[str, str] = {}
        with suppress(OSError, ValueError):
            before = dict(line.split(" ", 1) for line in path.read_text("ascii").splitlines())
        if before == given:
            return
        names = sorted(name for name in before.keys() | given.keys() if before.get(name) != given.get(name))
        stream.append({"action": "configuration", "changed": names})
        with suppress(OSError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(f"{name} {digest}\n" for name, digest in sorted(given.items()))
