"""Marks an app as loaded by a command, or only to be described.

To describe an app, the secrets and files of the machine that serves it are not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_described: ContextVar[bool] = ContextVar("flask_secure_ml_described", default=False)
_command: ContextVar[bool] = ContextVar("flask_secure_ml_command", default=False)


@contextmanager
def described_only() -> Iterator[None]:
    """Create apps in this block without checking secrets, key files and authorities, and without writing files.

    Commands that only describe an app use it, so that a CI runner needs no secrets. An app that is created here rejects
    every request with 503, because it has no audit log and its secrets are not checked.
    """
    token = _described.set(True)
    try:
        yield
    finally:
        _described.reset(token)


def is_described_only() -> bool:
    """Return True within :func:`described_only`."""
    return _described.get()


@contextmanager
def in_command() -> Iterator[None]:
    """Run a command in this block; only its result may be written to standard output."""
    token = _command.set(True)
    try:
        yield
    finally:
        _command.reset(token)


def is_command() -> bool:
    """Return True within :func:`in_command`."""
    return _command.get()
