"""API keys in a file; running workers pick up its changes.

Changes are atomic: a lock file beside the key file (``flock``), a temporary file, ``fsync`` and a rename. A reader sees
either the old content or the new one. The times of last use are in a second file, ``<file>.used``, so that requests
never write the key file. All three files belong to the owner of the key file, even if another user changes them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import DependencyUnavailable
from ...principal import Clock
from ...refresh import Outage, WatchedFile, replace_file
from ...strictjson import loads
from .key import REVOKED, VERSION, Change, KeyRecord, Records, from_members, is_version, to_members
from .lifecycle import LastUse, Uses, merged, parse_uses

log: logging.Logger = logging.getLogger(__name__)

WAIT = 2.0
"""Seconds to wait for another process that is changing the file."""

_PAUSE = 0.01
_RETRY_AFTER = (("Retry-After", "60"),)


class FileKeyStore:
    """API keys in a JSON file, cached in memory.

    A new key is accepted from the next request on. A change of a key that was accepted before takes effect within
    100 ms, or with the next request if this process made it.

    While the file is missing or damaged, every key is rejected, because a revocation may have been lost.

    :param path: the file, or a symbolic link to it; created with mode 0600 by the first :meth:`add`.
    :param clock: measures these 100 ms; without a clock, every change takes effect with the next request.
    """

    def __init__(self, path: str | Path, clock: Clock | None = None) -> None:
        self.path: Path = Path(path)
        self._file = WatchedFile(self.path, self._parse, clock)
        self._outage = Outage(f"the API key file {path} cannot be used", f"the API key file {path} can be used again")
        self._last_use = LastUse(self._write_uses)
        self._warned = False

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None.

        :raises DependencyUnavailable: the file is missing or damaged.
        """
        return self._read(self._file.read).get(key_id)

    def recent(self, key_id: str) -> KeyRecord | None:
        """Return the record as it was at most 100 ms ago, or None.

        :raises DependencyUnavailable: the file is missing or damaged.
        """
        return self._read(self._file.recent).get(key_id)

    def list(self) -> tuple[KeyRecord, ...]:
        """Return every record, oldest first; none if the file does not exist yet.

        :raises DependencyUnavailable: the file is damaged.
        """
        return tuple(self._read(self._file.read).values()) if self.path.exists() else ()

    def cached(self) -> Collection[KeyRecord]:
        """Return every record as it was at most 100 ms ago.

        :raises DependencyUnavailable: the file is missing or damaged.
        """
        return self._read(self._file.recent).values()

    def add(self, record: KeyRecord) -> None:
        """Store a new record.

        :raises ValueError: the id is taken, or :func:`parse_records` would reject the record.
        :raises OSError: the file cannot be written.
        """
        with self._changing() as records:
            if record.id in records:
                raise ValueError("a key with this id exists already")
            records[record.id] = record

    def update(self, key_id: str, change: Change) -> KeyRecord:
        """Replace a record with the return value of ``change``, and return the new record.

        :raises KeyError: there is no such key.
        :raises OSError: the file cannot be written.
        """
        with self._changing() as records:
            records[key_id] = change(records[key_id])
        return records[key_id]

    def revoke(self, key_id: str) -> None:
        """Revoke a key; its record stays.

        :raises KeyError: there is no such key.
        :raises OSError: the file cannot be written.
        """
        self.update(key_id, lambda record: replace(record, status=REVOKED))

    def used(self, key_id: str, when: float) -> None:
        """Record that a key was used, in seconds since the epoch, to the minute."""
        self._last_use.used(key_id, when)

    def last_used(self) -> Uses:
        """Return when each key was last used.

        It is empty if the file with these times is missing or damaged.
        """
        path = _beside(self._target(), ".used")
        try:
            return _parse_uses(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("ignoring %s: %s", path, error)
            return {}

    def _write_uses(self, uses: Uses) -> None:
        target = self._target()
        with _locked(target, wait=False):
            known = self._read(self._file.read)
            kept = {key_id: when for key_id, when in merged(self.last_used(), uses).items() if key_id in known}
            document = {"version": VERSION, "used": kept}
            content = json.dumps(document, indent=1).encode() + b"\n"
            _write(_beside(target, ".used"), content, owner_of=target, durable=False)

    def _read(self, read: Callable[[], Records]) -> Records:
        try:
            records = read()
        except FileNotFoundError:
            reason = "the API key file does not exist: create the first key, or restore the file"
        except OSError as error:
            reason = f"the API key file cannot be read: {error.strerror}"
        except ValueError as error:
            reason = f"the API key file is damaged: {error}"
        else:
            self._outage.ended()
            return records
        self._outage.failed(reason)
        raise DependencyUnavailable(reason, headers=_RETRY_AFTER)

    def _parse(self, raw: bytes) -> Records:
        if not self._warned and self.path.stat().st_mode & 0o077:
            self._warned = True
            log.warning("%s can be read or written by users other than its owner; run chmod 600", self.path)
        return parse_records(raw)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, KeyRecord]]:
        target = self._target()
        with _locked(target):
            records = dict(self._read(self._file.read)) if target.exists() else {}
            yield records
            _write(target, dump_records(records), owner_of=target)
            self._file.forget()

    def _target(self) -> Path:
        """Return the path without symbolic links, so that links are preserved and share the lock of their target."""
        return Path(os.path.realpath(self.path))


def parse_records(raw: bytes) -> Records:
    """Parse the content of a key file.

    :raises ValueError: it is not version 1, has a duplicate id, or a record is incomplete.
    """
    entries = _versioned(raw).get("keys")
    if not isinstance(entries, list):
        raise ValueError("its keys are not a list")
    records = {record.id: record for record in map(from_members, entries)}
    if len(records) < len(entries):
        raise ValueError("it has a duplicate id")
    return records


def dump_records(records: Records) -> bytes:
    """Return the content of a key file.

    :raises ValueError: :func:`parse_records` would reject it.
    """
    document = {"version": VERSION, "keys": [to_members(record) for record in records.values()]}
    raw = json.dumps(document, indent=1).encode() + b"\n"
    parse_records(raw)
    return raw


def _parse_uses(raw: bytes) -> Uses:
    uses = _versioned(raw).get("used")
    if not isinstance(uses, dict):
        raise ValueError("its uses are not an object")
    return parse_uses(uses)


def _versioned(raw: bytes) -> dict[str, Any]:
    document = loads(raw)
    if not isinstance(document, dict) or not is_version(document.get("version")):
        raise ValueError(f"it is not an object with version {VERSION}")
    return document


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _lock(descriptor: int, seconds: float) -> None:
    """Acquire the lock, with a timeout.

    A suspended process that holds the lock must not block requests.

    :raises BlockingIOError: another process holds it.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise BlockingIOError("another process is changing the key file; try again") from None
            time.sleep(_PAUSE)


@contextmanager
def _locked(target: Path, *, wait: bool = True) -> Iterator[None]:
    # A user who can write to the directory could create a link here, and root would create or change its target.
    descriptor = os.open(_beside(target, ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        _give_to_owner_of(target, descriptor)
        _lock(descriptor, WAIT if wait else 0.0)
        yield
    finally:
        os.close(descriptor)


def _give_to_owner_of(target: Path, descriptor: int) -> None:
    """Give a file to the owner of the key file, or of its directory if the key file does not exist yet.

    A change by root must take no file from the server that reads and writes them.

    :raises PermissionError: another user than its owner changes it, who could not give it back.
    """
    owner = (target if target.exists() else target.parent).stat()
    current = os.fstat(descriptor)
    if (owner.st_uid, owner.st_gid) == (current.st_uid, current.st_gid):
        return
    # A file that already belongs to another user, or has a second name, is not ours to give away.
    if current.st_uid != os.geteuid() or current.st_nlink > 1 or not stat.S_ISREG(current.st_mode):
        return
    if target.exists() or os.geteuid() == 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _write(path: Path, content: bytes, *, owner_of: Path, durable: bool = True) -> None:
    """Replace the content of a file; the new file has mode 0600 and the owner of ``owner_of``."""
    replace_file(path, content, prepare=partial(_give_to_owner_of, owner_of), durable=durable)
