"""The issued tokens of the example authorization server, in one SQLite file for all workers."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.jws import extract_compact

from .auth_clients import Client
from .files import PRIVATE

LIFETIME = 300
"""The lifetime of a token in seconds."""

OPAQUE_BYTES = 32
_SCHEMA = """CREATE TABLE IF NOT EXISTS tokens (
    digest BLOB PRIMARY KEY, jti TEXT NOT NULL, client_id TEXT NOT NULL, scope TEXT NOT NULL, audience TEXT NOT NULL,
    issued INTEGER NOT NULL, expires INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID"""
_FIND = "SELECT *, expires <= ? FROM tokens WHERE digest = ?"


@dataclass(frozen=True)
class Token:
    """An issued token without its value, with the interface that Authlib requires.

    :param digest: its SHA-256 digest.
    :param expired: it had expired when it was looked up.
    """

    digest: bytes
    jti: str
    client_id: str
    scope: str
    audience: str
    issued: int
    expires: int
    revoked: int
    expired: int

    def check_client(self, client: Client) -> bool:
        """Return True if it was issued to this client."""
        return self.client_id == client.client_id

    def is_expired(self) -> bool:
        """Return True if it has expired."""
        return bool(self.expired)

    def is_revoked(self) -> bool:
        """Return True if its client has revoked it."""
        return bool(self.revoked)


class TokenStore:
    """Issued tokens, stored by digest, so that they cannot be read from the file.

    :param path: the SQLite file; its directory must exist.
    :param clock: returns seconds since the epoch.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE))
        with self._database() as database:
            database.execute(_SCHEMA)

    def save(self, text: str, client_id: str, scope: str, audience: str) -> None:
        """Store a new token, and remove expired ones."""
        now = int(self._clock())
        row = (_digest(text), _token_id(text), client_id, scope, audience, now, now + LIFETIME)
        with self._database() as database:
            database.execute("DELETE FROM tokens WHERE expires <= ?", (now,))
            database.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, 0)", row)

    def find(self, text: str) -> Token | None:
        """Return the record of a token; None if it is unknown."""
        with self._database() as database:
            row = database.execute(_FIND, (int(self._clock()), _digest(text))).fetchone()
        return None if row is None else Token(*row)

    def revoke(self, token: Token) -> None:
        """Mark a token as revoked."""
        with self._database() as database:
            database.execute("UPDATE tokens SET revoked = 1 WHERE digest = ?", (token.digest,))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        # A new connection for each use: opening the file takes microseconds, and threads cannot share a connection.
        with closing(sqlite3.connect(self._path, timeout=5)) as database, database:
            yield database


def opaque_token() -> str:
    """Return a random opaque token."""
    return secrets.token_urlsafe(OPAQUE_BYTES)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _token_id(text: str) -> str:
    """Return the ``jti`` of a JWT of this server, or a new id for an opaque token."""
    if "." not in text:
        return secrets.token_urlsafe(OPAQUE_BYTES // 2)
    claims: dict[str, Any] = json.loads(extract_compact(text.encode()).payload)
    return str(claims["jti"])
