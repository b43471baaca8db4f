"""Where checkpoints are sent: places that whoever takes over the app cannot change."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import sys
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...fetch import FetchError, send
from ...refresh import Outage

if TYPE_CHECKING:
    from ...config.audit import SinkAddress

log: logging.Logger = logging.getLogger(__name__)

WAITING = 100
"""How many checkpoints wait for a sink that is down; older ones are dropped, because newer ones cover them."""

TIMEOUT = 2.0
_OK = range(200, 300)
# Facility 13 (log audit), severity 5 (notice): RFC 5424 section 6.2.1.
_PRIORITY = 13 * 8 + 5
_VERSION = 1


class Sink(Protocol):
    """Takes checkpoints."""

    def send(self, note: str) -> None:
        """Send one.

        :raises OSError: it was not accepted.
        """


class FileSink:
    """Appends to a file, for example on a mount that the app can only append to."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def send(self, note: str) -> None:
        """Append a checkpoint and an empty line."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(f"{note}\n".encode())


class StdoutSink:
    """Writes to the standard output, which a container runtime collects."""

    def send(self, note: str) -> None:
        """Write a checkpoint and an empty line."""
        sys.stdout.write(f"{note}\n")
        sys.stdout.flush()


class SyslogSink:
    """Sends RFC 5424 messages over UDP, TCP (framed as RFC 6587 section 3.4.1 says) or a Unix socket.

    The message is the checkpoint with its line breaks as ``|``, because collectors end messages at line breaks; the
    verifier reads both.
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
    """Posts to a URL, by the rules of every outgoing request of this package."""

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
    """Return a checkpoint in one line."""
    return note.replace("\n", "|")


def open_sink(address: SinkAddress) -> Sink:
    """Return the sink for a checked entry of ``SECURE_ML_AUDIT_CHECKPOINT_SINKS``."""
    if address.kind == "stdout":
        return StdoutSink()
    if address.kind == "file":
        return FileSink(address.target)
    return HttpsSink(address) if address.kind == "https" else SyslogSink(address)


class Delivery:
    """Sends checkpoints to every sink, each with a queue of its own; called by one thread, never by a request.

    :param failed: called with the name of a sink and the reason when it goes down.
    """

    def __init__(self, addresses: Sequence[SinkAddress], monotonic: Callable[[], float]) -> None:
        self._queues: list[tuple[Sink, Outage, deque[str]]] = []
        for each in addresses:
            name = f"the sink {each.kind} of audit checkpoints"
            outage = Outage(f"{name} is down", f"{name} works again", monotonic)
            self._queues.append((open_sink(each), outage, deque(maxlen=WAITING)))

    def send(self, note: str) -> None:
        """Send a checkpoint, and what waited for a sink before it; what fails waits for the next call."""
        for sink, outage, waiting in self._queues:
            waiting.append(note)
            try:
                while waiting:
                    sink.send(waiting[0])
                    waiting.popleft()
            except OSError as error:
                outage.failed(error.strerror or str(error))
            else:
                outage.ended()
