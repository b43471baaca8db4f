"""The demo's API keys: new ones at every start, which replace the previous ones."""

from __future__ import annotations

import time
from collections.abc import Iterable
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


def fresh_key(
    state: Path, pepper: Path, client: str = CLIENT, scopes: Iterable[str] = SCOPES, plan: str = "default"
) -> tuple[str, Path]:
    """Return a new key of a client and the file with its hash; keys of other clients stay.

    :param pepper: the file with the secret that keys the hash.
    :raises KeysError: the file is damaged.
    """
    path = state / "api_keys.json"
    store = FileKeyStore(path)
    _forget(store, client)
    ring = SecretRing(Secret(f"file:{pepper}"))
    text, _ = issue_key(store, ring, client=client, scopes=scopes, now=time.time(), plan=plan)
    return text, path


def _forget(store: FileKeyStore, client: str) -> None:
    # A revoked record would stay for ever; a demo that is started every day must not grow its file.
    try:
        records = store.list()
    except DependencyUnavailable as error:
        raise KeysError(f"{store.path}: {error.reason}; delete it and start again") from None
    if any(record.client == client for record in records):
        write(store.path, dump_records({each.id: each for each in records if each.client != client}), PRIVATE)
