"""Where API keys are kept: records with hashes only, in a file that running workers watch.

The file's changes are atomic: a lock beside it (``flock``), a temporary file, ``fsync`` and a rename. A reader
sees the old content or the new one, never a half of each.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import DependencyUnavailable
from ..strictjson import loads
from ..watched import WatchedFile

log = logging.getLogger(__name__)

VERSION = 1
ACTIVE = "active"
REVOKED = "revoked"
_HASH = re.compile(r"hmac-sha256:[0-9a-f]{64}")
_RETRY_AFTER = (("Retry-After", "60"),)


@dataclass(frozen=True)
class KeyRecord:
    """What is stored of one API key.

    :param id: the public part of the key, which names it in logs.
    :param hash: ``hmac-sha256:`` and the hex digest of the whole key under the pepper.
    :param client: who the key was given to.
    :param scopes: what it allows.
    :param plan: the plan in ``SECURE_ML_PLANS`` that limits its caller.
    :param created: seconds since the epoch.
    :param expires: seconds since the epoch, or None for a key that does not expire.
    :param status: ``active`` or ``revoked``.
    """

    id: str
    hash: str
    client: str
    scopes: frozenset[str]
    plan: str
    created: int
    expires: int | None = None
    status: str = ACTIVE


Records = Mapping[str, KeyRecord]


class KeyStore(Protocol):
    """Where records of API keys are found."""

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None.

        :raises DependencyUnavailable: the store cannot be read.
        """

    def list(self) -> tuple[KeyRecord, ...]:
        """Return every record, oldest first.

        :raises DependencyUnavailable: the store cannot be read.
        """

    def add(self, record: KeyRecord) -> None:
        """Store a new record.

        :raises ValueError: the id is taken.
        """

    def replace(self, record: KeyRecord) -> None:
        """Store a record in the place of the one with its id.

        :raises KeyError: there is none.
        """

    def revoke(self, key_id: str) -> None:
        """Refuse a key from now on; its record stays.

        :raises KeyError: there is no such key.
        """


class FileKeyStore:
    """API keys in one JSON file.

    Every process sees a change at its next :meth:`get`. A file that is missing or damaged refuses every key
    (503): it could have lost a revocation.

    :param path: the file; :meth:`add` makes it, readable by its owner only.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = WatchedFile(path, self._parse)
        self._warned = False

    def get(self, key_id: str) -> KeyRecord | None:
        """Return the record with this id, or None.

        :raises DependencyUnavailable: the file is missing or damaged.
        """
        return self._read().get(key_id)

    def list(self) -> tuple[KeyRecord, ...]:
        """Return every record, oldest first; none while there is no file.

        :raises DependencyUnavailable: the file is damaged.
        """
        return tuple(self._read().values()) if self.path.exists() else ()

    def add(self, record: KeyRecord) -> None:
        """Store a new record.

        :raises ValueError: the id is taken.
        """
        with self._changing() as records:
            if record.id in records:
                raise ValueError("a key with this id exists already")
            records[record.id] = record

    def replace(self, record: KeyRecord) -> None:
        """Store a record in the place of the one with its id.

        :raises KeyError: there is none.
        """
        self._update(record.id, lambda _: record)

    def revoke(self, key_id: str) -> None:
        """Refuse a key from now on; its record stays.

        :raises KeyError: there is no such key.
        """
        self._update(key_id, lambda record: replace(record, status=REVOKED))

    def _update(self, key_id: str, change: Callable[[KeyRecord], KeyRecord]) -> None:
        with self._changing() as records:
            records[key_id] = change(records[key_id])

    def _read(self) -> Records:
        try:
            return self._file.read()
        except OSError as error:
            reason = f"the API key file cannot be read: {error.strerror}"
        except ValueError as error:
            reason = f"the API key file is damaged: {error}"
        raise DependencyUnavailable(reason, headers=_RETRY_AFTER)

    def _parse(self, raw: bytes) -> Records:
        if not self._warned and self.path.stat().st_mode & 0o077:
            self._warned = True
            log.warning("%s can be read or written by others than its owner; chmod 600 it", self.path)
        return parse_records(raw)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, KeyRecord]]:
        with _locked(self.path.with_name(self.path.name + ".lock")):
            records = dict(self._read()) if self.path.exists() else {}
            yield records
            _write(self.path, dump_records(records))


def parse_records(raw: bytes) -> Records:
    """Read the content of a key file.

    :raises ValueError: it is not version 1, has an id twice, or a record that is not complete.
    """
    document = loads(raw)
    entries = document.get("keys") if isinstance(document, dict) and document.get("version") == VERSION else None
    if not isinstance(entries, list) or type(document["version"]) is not int:
        raise ValueError(f"it is not an object with version {VERSION} and keys")
    records = {record.id: record for record in map(_record, entries)}
    if len(records) < len(entries):
        raise ValueError("an id is there twice")
    return records


def dump_records(records: Records) -> bytes:
    """Write the content of a key file."""
    entries = [{**asdict(record), "scopes": sorted(record.scopes)} for record in records.values()]
    return json.dumps({"version": VERSION, "keys": entries}, indent=1).encode() + b"\n"


def _record(entry: Any) -> KeyRecord:
    names = {each.name for each in fields(KeyRecord)}
    if not isinstance(entry, dict) or entry.keys() != names or not _typed(entry):
        raise ValueError("a record has missing, unknown or wrongly typed members")
    return KeyRecord(**{**entry, "scopes": frozenset(entry["scopes"])})


def _typed(entry: Mapping[str, Any]) -> bool:
    texts = [entry["id"], entry["hash"], entry["client"], entry["plan"]]
    return (
        all(isinstance(text, str) for text in texts)
        and _HASH.fullmatch(entry["hash"]) is not None
        and isinstance(entry["scopes"], list)
        and all(isinstance(scope, str) for scope in entry["scopes"])
        and type(entry["created"]) is int
        and type(entry["expires"]) in {int, type(None)}
        and entry["status"] in (ACTIVE, REVOKED)
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    """Put new content in the place of a file; ``mkstemp`` gives it mode 0600."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
