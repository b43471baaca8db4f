"""Destinations of checkpoints that an attacker who compromises the app cannot change."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from ...fetch import FetchError, send
from ...principal import Clock
from ...refresh import Changed, Outage
from ..request_log.streams import StreamSink, Target, file_of, standard_stream
from .counts import DROPPED, FAILED, SENT, Counts, Uncounted

if TYPE_CHECKING:
    from ...config.audit import SinkAddress

log: logging.Logger = logging.getLogger(__name__)

WAITING = 100
"""Maximum queue of a sink that is down; older checkpoints are dropped, because newer ones cover them."""

TIMEOUT = 2.0
LONGEST_DELIVERY = 10.0
"""Seconds after which the rest of a sink's queue waits for the next call: checkpoints are made in the same thread."""

_OK = range(200, 300)
# Facility 13 (log audit), severity 5 (notice): RFC 5424 section 6.2.1.
_PRIORITY = 13 * 8 + 5
_VERSION = 1


class Sink(Protocol):
    """Accepts checkpoints."""

    def send(self, note: str) -> None:
        """Send a checkpoint.

        :raises OSError: it was not accepted.
        """


class WrittenSink:
    """Appends to a file, for example on an append-only mount, or to a standard stream that a container collects.

    It does not wait for the reader of a stream: under gevent, all requests of the process would wait too.
    """

    def __init__(self, target: Target, clock: Clock) -> None:
        self._stream = StreamSink(target, clock)

    def send(self, note: str) -> None:
        """Write a checkpoint and an empty line."""
        self._stream.write(note)


class SyslogSink:
    """Sends RFC 5424 messages over UDP, TCP (framed by RFC 6587 section 3.4.1) or a Unix socket.

    Line breaks of the checkpoint are replaced by ``|``, because collectors end messages at line breaks; the verifier
    accepts both.
    """

    def __init__(self, address: SinkAddress) -> None:
        self._address = address

    def send(self, note: str) -> None:
        """Send a checkpoint in one message."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = f"<{_PRIORITY}>{_VERSION} {now} {socket.gethostname()} flask-secure-ml {os.getpid()} checkpoint - "
        message = head.encode() + b"\xef\xbb\xbf" + one_line(note).encode()
        if self._address.kind == "syslog+tcp":
            with socket.create_connection((self._address.host, self._address.port), TIMEOUT) as channel:
                channel.sendall(b"%d %b" % (len(message), message))
        elif self._address.kind == "syslog+udp":
            found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, target = found[0]
            with socket.socket(family, kind, protocol) as channel:
                channel.sendto(message, target)
        else:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(TIMEOUT)
                channel.connect(self._address.target)
                channel.send(message)


class HttpsSink:
    """Posts to a URL, with the rules for outgoing requests of this package."""

    def __init__(self, address: SinkAddress) -> None:
        self._address = address

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def send(self, note: str) -> None:
        """Post a checkpoint."""
        try:
            response = send(
                self._address.target,
                body=note.encode(),
                headers={"Content-Type": "text/plain; charset=utf-8"},
                private_network=self._address.private_network,
                timeout=TIMEOUT,
                context=self._context,
            )
        except FetchError as error:
            raise OSError(str(error)) from None
        if response.status not in _OK:
            raise OSError(f"its server responded with status {response.status}")


def one_line(note: str) -> str:
    """Return a checkpoint as one line."""
    return note.replace("\n", "|")


def open_sink(address: SinkAddress, clock: Clock) -> Sink:
    """Return the sink for a validated entry of ``SECURE_ML_AUDIT_CHECKPOINT_SINKS``."""
    if address.kind in {"stdout", "stderr"}:
        return WrittenSink(standard_stream(address.kind), clock)
    if address.kind == "file":
        return WrittenSink(file_of(address.target), clock)
    return HttpsSink(address) if address.kind == "https" else SyslogSink(address)


def sink_names(addresses: Iterable[SinkAddress]) -> list[str]:
    """Return a name for each sink: its kind, numbered if there are several."""
    found: list[str] = []
    for each in addresses:
        number = sum(name.partition("#")[0] == each.kind for name in found) + 1
        found.append(each.kind if number == 1 else f"{each.kind}#{number}")
    return found


class Delivery:
    """Sends checkpoints to all sinks, each with its own queue; called by one thread, never by a request.

    :param clock: for the time of delivery and the duration of outages.
    :param counts: counts the result of each checkpoint.
    :param changed: called when a sink goes down, and when it works again.
    """

    def __init__(
        self,
        addresses: Sequence[SinkAddress],
        clock: Clock,
        counts: Counts | None = None,
        changed: Changed = lambda _up, _line: None,
    ) -> None:
        self._clock = clock
        self._counts = counts or Uncounted()
        self._queues: list[tuple[str, Sink, Outage, deque[str]]] = []
        for name, each in zip(sink_names(addresses), addresses, strict=True):
            said = f"the sink {name} of audit checkpoints"
            outage = Outage(f"{said} is down", f"{said} works again", clock.monotonic, changed)
            self._queues.append((name, open_sink(each, clock), outage, deque(maxlen=WAITING)))

    def send(self, note: str) -> None:
        """Send a checkpoint and earlier queued ones; failed ones stay queued until the next call."""
        for name, sink, outage, waiting in self._queues:
            if len(waiting) == WAITING:
                self._counts.audit_checkpoint(name, DROPPED, self._clock.now())
            waiting.append(note)
            ends = self._clock.monotonic() + LONGEST_DELIVERY
            try:
                while waiting and self._clock.monotonic() < ends:
                    sink.send(waiting[0])
                    waiting.popleft()
                    self._counts.audit_checkpoint(name, SENT, self._clock.now())
            except OSError as error:
                self._counts.audit_checkpoint(name, FAILED, self._clock.now())
                outage.failed(error.strerror or str(error))
            else:
                outage.ended()
