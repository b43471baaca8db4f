"""The demo's API key: a new one at every start, which replaces the previous one."""

from __future__ import annotations

import time
from pathlib import Path

from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore, dump_records
from flask_secure_ml.authentication.api_keys.lifecycle import issue_key
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.secrets import Secret, SecretRing

from .files import PRIVATE, write

CLIENT = "demo"
SCOPES = ("predict", "metrics")


class KeysError(Exception):
    """The key file cannot be used; the message says what to do."""


def fresh_key(state: Path, pepper: Path) -> tuple[str, Path]:
    """Return a new key and the file with its hash; keys of other clients stay.

    :param pepper: the file with the secret that keys the hash.
    :raises KeysError: the file is damaged.
    """
    path = state / "api_keys.json"
    store = FileKeyStore(path)
    _forget_own(store)
    ring = SecretRing(Secret(f"file:{pepper}"))
    text, _ = issue_key(store, ring, client=CLIENT, scopes=SCOPES, now=time.time())
    return text, path


def _forget_own(store: FileKeyStore) -> None:
    # A revoked record would stay for ever; a demo that is started every day must not grow its file.
    try:
        records = store.list()
    except DependencyUnavailable as error:
        raise KeysError(f"{store.path}: {error.reason}; delete it and start again") from None
    if any(record.client == CLIENT for record in records):
        write(store.path, dump_records({each.id: each for each in records if each.client != CLIENT}), PRIVATE)
