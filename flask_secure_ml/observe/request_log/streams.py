"""Sinks that write to a file, pipe, socket or terminal in the thread of the request without blocking.

``O_NONBLOCK`` is a property of the open file description, which this process shares with its parent and siblings, so it
is never set on an inherited one. Instead, a pipe or terminal is reopened through ``/proc``. If that is not allowed, as
after a change of user, writes to a pipe use the flag ``RWF_NOWAIT``. On kernels without it for pipes (before 6.4), and
for terminals, ``poll`` reports before each write whether it would block: this may be wrong if other processes write at
the same time, or if a terminal has little space. Sockets have a flag for each call.
"""

from __future__ import annotations

import errno
import io
import math
import os
import socket
import stat
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...principal import Clock
from ...refresh import process_lock
from .drops import is_writable

_POLL_SECONDS = 1.0
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
_AT_END = -1
_FULL = "the stream is not being read"

Identity = tuple[int, int]
Send = Callable[[bytes], int]


class Sink(Protocol):
    """The destination of log lines."""

    def write(self, line: str) -> None:
        """Write one line, given without its line break.

        Any exception means that the line was dropped.
        """


@dataclass(frozen=True)
class Opened:
    """An open target.

    :param send: writes bytes without blocking and returns their number.
    :param identity: the identity of the open file; None for a stream in memory.
    :param take_back: removes the last written bytes, and returns True on success.
    """

    send: Send
    identity: Identity | None
    close: Callable[[], object]
    take_back: Callable[[int], bool] = lambda _count: False


class Target(Protocol):
    """A file or stream that can be opened and reopened."""

    def open(self) -> Opened:
        """Open the target.

        :raises OSError: it cannot be opened.
        """

    def identity(self) -> Identity | None:
        """Return the identity of the file that would be opened now; None if there is none or for a stream in memory."""


class StreamSink:
    """Writes lines to a target, which is reopened within a second after it was replaced.

    :param at_once: open it now instead of for the first line.
    :raises OSError: it cannot be opened.
    """

    def __init__(self, target: Target, clock: Clock, *, at_once: bool = False) -> None:
        self._target = target
        self._monotonic = clock.monotonic
        self._polled = -math.inf
        self._lock = process_lock()
        self._rest = b""
        # A list, so that the finalizer closes the current target.
        self._open: list[Opened] = []
        weakref.finalize(self, _close, self._open)
        self._process = -1
        if at_once:
            self._open_target()

    def write(self, line: str) -> None:
        """Write one line.

        :raises OSError: the line is dropped: the stream is not being read, the disk is full, or the pipe is broken.
        """
        data = f"{line}\n".encode()
        with self._lock.get():
            # Checking for every line would cost more than the line; a delay of a second only puts some lines into the
            # old file.
            now = self._monotonic()
            if now - self._polled >= _POLL_SECONDS or not self._open:
                self._reopen_if_replaced()
                self._polled = now
            send = self._open[0].send
            if self._rest:
                self._rest = self._rest[send(self._rest) :]
                if self._rest:
                    raise BlockingIOError(errno.EAGAIN, _FULL)
            written = send(data)
            if written < len(data):
                self._rest, failure = _finish(send, data[written:])
                if failure is not None and self._open[0].take_back(len(data) - len(self._rest)):
                    # Other processes also write to the file, and could write within this line.
                    self._rest = b""
                    raise failure

    def _reopen_if_replaced(self) -> None:
        if self._open:
            if self._process == os.getpid() and self._open[0].identity == self._target.identity():
                return
            _close(self._open)
        self._rest = b""
        self._open_target()

    def _open_target(self) -> None:
        # An inherited descriptor shares its position with the parent; within a second the child reopens the file.
        self._process = os.getpid()
        self._open.append(self._target.open())


def _finish(send: Send, rest: bytes) -> tuple[bytes, OSError | None]:
    """Write the rest of a line; return the unwritten part and the error: it is written before the next line."""
    try:
        while rest:
            rest = rest[send(rest) :]
    except OSError as error:
        return rest, error
    return rest, None


def _close(opened: list[Opened]) -> None:
    while opened:
        opened.pop().close()


@dataclass(frozen=True)
class _File:
    path: str

    def open(self) -> Opened:
        # Without O_NONBLOCK, opening a named pipe blocks until it has a reader.
        descriptor = os.open(self.path, _FLAGS, 0o640)
        opened = _opened(descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return opened
        return replace(opened, take_back=partial(_take_back, descriptor, os.getpid()))

    def identity(self) -> Identity | None:
        try:
            return _identity(Path(self.path).stat())
        except OSError:
            return None


@dataclass(frozen=True)
class _Standard:
    name: str
    stream: Any

    def open(self) -> Opened:
        try:
            descriptor = self.stream.fileno()
        except io.UnsupportedOperation:
            return Opened(partial(_write_in_memory, self.stream), None, bool)
        except (AttributeError, ValueError):
            raise OSError(errno.EBADF, f"{self.name} is closed") from None
        return _open_again(descriptor)

    def identity(self) -> Identity | None:
        try:
            return _identity(os.fstat(self.stream.fileno()))
        except io.UnsupportedOperation:
            return None
        except (AttributeError, OSError, ValueError):
            return (-1, -1)


def _take_back(descriptor: int, process: int, count: int) -> bool:
    """Remove the last written bytes from the end of a file; return False if others have written since.

    :param process: the process that opened it; a position that processes share is not reliable.
    """
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    if process != os.getpid() or os.fstat(descriptor).st_size != end:
        return False
    os.ftruncate(descriptor, end - count)
    return True


def file_of(path: str) -> Target:
    """Return the target for a log file that only its owner and group can read."""
    return _File(path)


def standard_stream(name: str) -> Target:
    """Return the target for the current ``sys.stderr`` or ``sys.stdout``."""
    return _Standard(name, getattr(sys, name))


def _open_again(descriptor: int) -> Opened:
    """Reopen the file of a descriptor, without changing the shared open file description."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(descriptor):
        try:
            return _opened(os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
        except OSError:
            copy = os.dup(descriptor)
            return Opened(partial(_write_now, copy), _identity(os.fstat(copy)), partial(os.close, copy))
    return _opened(os.dup(descriptor))


def _opened(descriptor: int) -> Opened:
    status = os.fstat(descriptor)
    if stat.S_ISSOCK(status.st_mode):
        channel = socket.socket(fileno=descriptor)
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        return Opened(lambda data: channel.send(data, flags), _identity(status), channel.close)
    return Opened(partial(os.write, descriptor), _identity(status), partial(os.close, descriptor))


def _write_now(descriptor: int, data: bytes) -> int:
    """Write without blocking, even to a blocking descriptor."""
    flag = getattr(os, "RWF_NOWAIT", 0)
    if flag:
        try:
            return os.pwritev(descriptor, [data], _AT_END, flag)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
    if not is_writable(descriptor):
        raise BlockingIOError(errno.EAGAIN, _FULL)
    return os.write(descriptor, data)


def _write_in_memory(stream: Any, data: bytes) -> int:
    stream.write(data.decode())
    stream.flush()
    return len(data)


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino
