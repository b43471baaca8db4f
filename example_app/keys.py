"""The API keys of the demo, which are replaced at every start."""

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
    """The key file cannot be used. The message has a remedy."""


def fresh_key(
    state: Path, pepper: Path, client: str = CLIENT, scopes: Iterable[str] = SCOPES, plan: str = "default"
) -> tuple[str, Path]:
    """Return a new key for a client and the file with its hash; keys of other clients are kept.

    :param pepper: the file with the secret for the keyed hash.
    :raises KeysError: the file is invalid.
    """
    path = state / "api_keys.json"
    store = FileKeyStore(path)
    _delete_keys(store, client)
    ring = SecretRing(Secret(f"file:{pepper}"))
    text, _ = issue_key(store, ring, client=client, scopes=scopes, now=time.time(), plan=plan)
    return text, path


def _delete_keys(store: FileKeyStore, client: str) -> None:
    # Delete instead of revoke: revoked records would accumulate over many starts.
    try:
        records = store.list()
    except DependencyUnavailable as error:
        raise KeysError(f"{store.path}: {error.reason}; delete it and start again") from None
    if any(record.client == client for record in records):
        write(store.path, dump_records({each.id: each for each in records if each.client != client}), PRIVATE)
