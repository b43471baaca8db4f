"""The audit log in one process: its stream, and the thread that makes checkpoints."""

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
from ...refresh import Outage
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
"""Seconds between two looks for processes that died, and for files that are too old."""


@dataclass(frozen=True)
class LogOptions:
    """What the settings say about one log.

    :param every: seconds between two checkpoints of a process.
    :param records: how many records cause one before its time.
    :param retention: seconds after which covered files are deleted; 0 keeps them.
    :param sinks: where checkpoints are sent.
    :param facts: what the first record of a stream says about the app.
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
    """Writes the records of this process."""

    def __init__(self, folder: Path, keys: AppKeys, clock: Clock, options: LogOptions) -> None:
        self._folder = folder
        self._keys = keys
        self._clock = clock
        self._options = options
        # Made in the process that uses them: gevent may have replaced what threading has.
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self._wake = threading.Event()
        self._stream: Stream | None = None
        self._delivery = Delivery(options.sinks, clock.monotonic)
        self._outage = Outage("the audit log has no new checkpoints", "the audit log has checkpoints", clock.monotonic)
        self._since = 0
        self._closed = False
        self._runs = False
        self._adopted = self._retired = -math.inf
        self.lost: int = 0
        """How many records could not be written since the last one that was."""

    def append(self, members: Members | None) -> None:
        """Write one record; None writes only what is missing: the number of records that were lost.

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

        :param final: nothing more will be written to the stream.
        :raises OSError: the index cannot be written.
        """
        with self._publishing:
            head = self._head()
            if head is None:
                return
            sync = self._options.stream.sync != "off"
            done: list[Callable[[], None]] = []
            with open_index(self._folder, self._keys, sync=sync) as index:
                index.add({**head, "final": True} if final else head)
                self._keep_up(index, done)
                note = index.publish()
                for each in done:
                    each()
            self._delivery.send(note)

    def close(self) -> None:
        """End the stream: a record, the last checkpoint, and the key overwritten."""
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
        """Overwrite the key; also in a child that inherited it."""
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
        # The first one at once: until then, no checkpoint says that this stream exists.
        while not self._closed:
            try:
                self.checkpoint()
            except Exception as error:  # noqa: BLE001  the next one may work
                self._outage.failed((error.strerror if isinstance(error, OSError) else None) or type(error).__name__)
            else:
                self._outage.ended()
            self._wake.wait(self._options.every)
            self._wake.clear()

    def _head(self) -> Members | None:
        """Return the leaf for what was written until now, and wait until the disk has that."""
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
        """Record which settings differ from those of the process that began a stream last."""
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
