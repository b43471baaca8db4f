"""The file of API keys: seen at once by every process, never half written, and closed when damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.authentication import key_store as module
from flask_secure_ml.authentication.key_store import FileKeyStore, KeyRecord
from flask_secure_ml.errors import DependencyUnavailable

HASH = "hmac-sha256:" + "a" * 64


def record(key_id: str = "k1", **changes: Any) -> KeyRecord:
    usual: dict[str, Any] = {"client": "ada", "scopes": frozenset({"b", "a"}), "plan": "default", "created": 1}
    return KeyRecord(key_id, HASH, **{**usual, **changes})


def entry(**changes: Any) -> dict[str, Any]:
    usual = {"id": "k1", "hash": HASH, "client": "ada", "scopes": ["a"], "plan": "default", "created": 1}
    return {**usual, "expires": None, "status": "active", **changes}


def document(**changes: Any) -> str:
    return json.dumps({"version": 1, "keys": [entry()], **changes})


def test_records_survive(store: FileKeyStore) -> None:
    """What is added is read back, also by another store object."""
    store.add(record())
    store.add(record("k2", expires=5))
    assert FileKeyStore(store.path).list() == (record(), record("k2", expires=5))
    assert store.get("k2") == record("k2", expires=5)
    assert store.get("k3") is None


def test_other_process_is_seen(store: FileKeyStore) -> None:
    """A revocation by another process counts at the next look-up."""
    store.add(record())
    assert store.get("k1") == record()
    program = "import sys, flask_secure_ml.authentication.key_store as m; m.FileKeyStore(sys.argv[1]).revoke('k1')"
    root = Path(module.__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, store.path], check=True, cwd=root)
    assert store.get("k1") == record(status="revoked")


def test_parallel_writers_lose_nothing(store: FileKeyStore) -> None:
    """Writers take turns."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: FileKeyStore(store.path).add(record(f"k{number}")), range(40)))
    assert len(store.list()) == 40


def test_file_is_for_its_owner_only(store: FileKeyStore) -> None:
    """The file and its lock have mode 0600 whatever the umask."""
    old = os.umask(0)
    try:
        store.add(record())
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in store.path.parent.iterdir()}
    assert modes == {"keys.json": 0o600, "keys.json.lock": 0o600}


def test_wide_permissions_are_named_once(store: FileKeyStore, caplog: pytest.LogCaptureFixture) -> None:
    """A file that others can read gives one warning."""
    store.add(record())
    store.path.chmod(0o644)
    for _ in range(3):
        os.utime(store.path)
        store.get("k1")
    assert [each.message for each in caplog.records] == [
        f"{store.path} can be read or written by others than its owner; chmod 600 it"
    ]


def test_taken_id(store: FileKeyStore) -> None:
    """An id is given once."""
    store.add(record())
    with pytest.raises(ValueError, match="exists already"):
        store.add(record())


@pytest.mark.parametrize("change", [lambda store: store.revoke("k9"), lambda store: store.replace(record("k9"))])
def test_unknown_id(store: FileKeyStore, change: Callable[[FileKeyStore], None]) -> None:
    """A record that is not there cannot be changed."""
    store.add(record())
    with pytest.raises(KeyError):
        change(store)
    assert store.list() == (record(),)


def test_missing_file(store: FileKeyStore) -> None:
    """Before the first key a look-up is refused, and the list is empty."""
    assert store.list() == ()
    with pytest.raises(DependencyUnavailable, match="depends on"):
        store.get("k1")


def test_deleted_file_is_not_served_from_memory(store: FileKeyStore) -> None:
    """A file that was there and is gone refuses every key: it could have lost a revocation."""
    store.add(record())
    assert store.get("k1")
    store.path.unlink()
    with pytest.raises(DependencyUnavailable):
        store.get("k1")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param(document()[:-5], id="cut"),
        pytest.param("[]", id="array"),
        pytest.param("{}", id="no version"),
        pytest.param(document(version=2), id="other version"),
        pytest.param(document(version=True), id="version true"),
        pytest.param('{"version": 1}', id="no keys"),
        pytest.param(document(keys={}), id="keys object"),
        pytest.param(document(keys=[1]), id="record int"),
        pytest.param(document(keys=[entry(), entry()]), id="id twice"),
        pytest.param(document(keys=[entry(hash="plain")]), id="hash without scheme"),
        pytest.param(document(keys=[entry(hash=None)]), id="hash null"),
        pytest.param(document(keys=[entry(scopes="predict")]), id="scopes text"),
        pytest.param(document(keys=[entry(scopes=[1])]), id="scope int"),
        pytest.param(document(keys=[entry(expires="1")]), id="expires text"),
        pytest.param(document(keys=[entry(created=True)]), id="created true"),
        pytest.param(document(keys=[entry(status="off")]), id="status unknown"),
        pytest.param(document(keys=[entry(extra=1)]), id="unknown member"),
        pytest.param('{"version": 1, "version": 1, "keys": []}', id="duplicate member"),
    ],
)
def test_damaged_file(store: FileKeyStore, content: str) -> None:
    """A file that is not exactly right refuses every key, and is not overwritten by a change."""
    store.path.write_text(content)
    for action in (lambda: store.get("k1"), store.list, lambda: store.add(record("k2"))):
        with pytest.raises(DependencyUnavailable) as caught:
            action()
        assert caught.value.reason.startswith("the API key file is damaged")
    assert store.path.read_text() == content


def test_failed_write_leaves_the_old_file(store: FileKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses the change, not the file, and leaves no temporary file."""
    store.add(record())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.revoke("k1")
    assert store.list() == (record(),)
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]
