"""Sinks that write to a file, a pipe, a socket or a terminal, in the thread of the request, and wait for no reader.

``O_NONBLOCK`` is a property of the open file that this process shares with its parent and siblings, so it is never
set on one. A pipe or terminal is opened again, through ``/proc``, for a descriptor of this sink alone. Where that is
not allowed, as after a change of user, a pipe has a flag for each write (``RWF_NOWAIT``). On kernels that do not know
it for pipes (before 6.4), and for terminals, ``poll`` says before each write whether it would wait: it may be wrong if
others write at the same moment, or for a terminal with little space. A socket has a flag for each call.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...principal import Clock
from ...refresh import process_lock
from .drops import is_writable

_POLL_SECONDS = 1.0
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
_AT_END = -1
_FULL = "nobody reads the stream"

Identity = tuple[int, int]
Send = Callable[[bytes], int]


class Sink(Protocol):
    """Where the lines of the log go."""

    def write(self, line: str) -> None:
        """Write one line, which has no line break at its end.

        Whatever is raised means that the line was dropped.
        """


@dataclass(frozen=True)
class Opened:
    """A target that is open.

    :param send: writes bytes and returns how many; it never waits for a reader.
    :param identity: of what is open; None for a stream in memory.
    """

    send: Send
    identity: Identity | None
    close: Callable[[], object]


class Target(Protocol):
    """What can be opened, and opened again."""

    def open(self) -> Opened:
        """Open it.

        :raises OSError: it cannot be opened.
        """

    def identity(self) -> Identity | None:
        """Return what would be opened now; None if there is nothing, or a stream in memory."""


class StreamSink:
    """Writes lines to a target, which is opened again within a second after it was replaced.

    :param at_once: open it now rather than for the first line.
    :raises OSError: it cannot be opened.
    """

    def __init__(self, target: Target, clock: Clock, *, at_once: bool = False) -> None:
        self._target = target
        self._monotonic = clock.monotonic
        self._polled = -math.inf
        self._lock = process_lock()
        self._rest = b""
        # A list, so that the finalizer closes what is open then.
        self._open: list[Opened] = []
        weakref.finalize(self, _close, self._open)
        if at_once:
            self._open.append(target.open())

    def write(self, line: str) -> None:
        """Write one line.

        :raises OSError: the line is dropped: nobody reads the stream, the disk is full, or the other end is closed.
        """
        data = f"{line}\n".encode()
        with self._lock.get():
            # Polling for every line would cost more than the line; a second costs a few lines in the older file.
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
                self._rest = _finish(send, data[written:])

    def _reopen_if_replaced(self) -> None:
        if self._open:
            if self._open[0].identity == self._target.identity():
                return
            _close(self._open)
        self._rest = b""
        self._open.append(self._target.open())


def _finish(send: Send, rest: bytes) -> bytes:
    """Write the rest of a line, and return what there was no space for: it goes before the next line."""
    try:
        while rest:
            rest = rest[send(rest) :]
    except OSError:
        pass
    return rest


def _close(opened: list[Opened]) -> None:
    while opened:
        opened.pop().close()


@dataclass(frozen=True)
class _File:
    path: str

    def open(self) -> Opened:
        # Without O_NONBLOCK, opening a named pipe waits for its reader.
        return _opened(os.open(self.path, _FLAGS, 0o640))

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


def file_of(path: str) -> Target:
    """Return a log file that only its owner and group can read."""
    return _File(path)


def standard_stream(name: str) -> Target:
    """Return the stream that is ``sys.stderr`` or ``sys.stdout`` now."""
    return _Standard(name, getattr(sys, name))


def _open_again(descriptor: int) -> Opened:
    """Open what another descriptor has open, without a change of the file that both may share."""
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
    """Write without waiting, although the descriptor may be one that waits."""
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
