"""The file of API keys: seen at once by every process, never half written, and closed when damaged."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.authentication.api_keys import file_store as module
from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.api_keys.key import KeyRecord
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.refresh.files import POLLED
from flask_secure_ml.testing import FakeClock

HASH = "hmac-sha256:" + "a" * 64


def record(key_id: str = "k1", **changes: Any) -> KeyRecord:
    usual: dict[str, Any] = {"client": "ada", "scopes": frozenset({"b", "a"}), "plan": "default", "created": 1}
    return KeyRecord(key_id, HASH, **{**usual, **changes})


def entry(**changes: Any) -> dict[str, Any]:
    usual = {"id": "k1", "hash": HASH, "client": "ada", "scopes": ["a"], "plan": "default", "created": 1}
    return {**usual, "expires": None, "status": "active", "endpoints": None, "replaced_by": None, **changes}


def document(**changes: Any) -> str:
    return json.dumps({"version": 1, "keys": [entry()], **changes})


def reject_to_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


def test_records_survive(store: FileKeyStore) -> None:
    """An added record is read back, also by another store object."""
    store.add(record())
    store.add(record("k2", expires=5, endpoints=frozenset({"/x"})))
    assert FileKeyStore(store.path).list() == (record(), record("k2", expires=5, endpoints=frozenset({"/x"})))
    assert store.get("k2") == record("k2", expires=5, endpoints=frozenset({"/x"}))
    assert store.get("k3") is None


def test_a_document_as_it_is_written(store: FileKeyStore) -> None:
    """The parts of the damaged documents below are right by themselves."""
    store.path.write_text(document())
    assert store.get("k1") == record(scopes=frozenset({"a"}))


def test_changes_with_a_clock(store: FileKeyStore) -> None:
    """recent() checks the file every 100 ms; changes by this process apply at once."""
    clock = FakeClock()
    watching = FileKeyStore(store.path, clock)
    store.add(record())
    store.add(record("k2"))
    assert watching.recent("k1") == record()
    store.revoke("k1")
    clock.advance(POLLED * 0.99)
    assert watching.recent("k1") == record()
    clock.advance(POLLED * 0.01)
    assert status(watching, "k1") == "revoked"
    watching.revoke("k2")
    assert status(watching, "k2") == "revoked"


def status(store: FileKeyStore, key_id: str) -> str | None:
    found = store.recent(key_id)
    return None if found is None else found.status


def test_other_process_is_seen(store: FileKeyStore) -> None:
    """A revocation by another process counts at the next look-up."""
    store.add(record())
    assert store.get("k1") == record()
    program = (
        "import sys, flask_secure_ml.authentication.api_keys.file_store as m; m.FileKeyStore(sys.argv[1]).revoke('k1')"
    )
    root = Path(module.__file__).parents[3]
    subprocess.run([sys.executable, "-c", program, store.path], check=True, cwd=root)
    assert store.get("k1") == record(status="revoked")


def test_parallel_writers_lose_nothing(store: FileKeyStore) -> None:
    """Writers take turns."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: FileKeyStore(store.path).add(record(f"k{number}")), range(40)))
    assert len(store.list()) == 40


def test_parallel_changes_of_one_record_lose_nothing(store: FileKeyStore) -> None:
    """A change is applied to the stored record, not to an earlier copy."""
    store.add(record())

    def grow(_: int) -> None:
        FileKeyStore(store.path).update("k1", lambda old: replace(old, created=old.created + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(grow, range(40)))
    assert store.get("k1") == record(created=41)


def test_update_returns_what_is_stored(store: FileKeyStore) -> None:
    """The caller can show it without another look."""
    store.add(record())
    assert store.update("k1", lambda old: replace(old, status="disabled")) == store.get("k1")


def test_change_that_raises_changes_nothing(store: FileKeyStore) -> None:
    """A change that finds it must not be made is passed on."""
    store.add(record())

    def reject(_: KeyRecord) -> KeyRecord:
        raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        store.update("k1", reject)
    assert store.list() == (record(),)


def test_files_are_for_their_owner_only(store: FileKeyStore) -> None:
    """The file, its lock and the file of uses have mode 0600 whatever the umask."""
    old = os.umask(0)
    try:
        store.add(record())
        store.used("k1", 5.0)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in store.path.parent.iterdir()}
    assert modes == {"keys.json": 0o600, "keys.json.lock": 0o600, "keys.json.used": 0o600}


def test_wide_permissions_are_named_once(store: FileKeyStore, caplog: pytest.LogCaptureFixture) -> None:
    """A file that others can read gives one warning."""
    store.add(record())
    store.path.chmod(0o644)
    for _ in range(3):
        os.utime(store.path)
        store.get("k1")
    assert [each.message for each in caplog.records] == [
        f"{store.path} can be read or written by users other than its owner; run chmod 600"
    ]


def test_taken_id(store: FileKeyStore) -> None:
    """An id is given once."""
    store.add(record())
    with pytest.raises(ValueError, match="exists already"):
        store.add(record())


@pytest.mark.parametrize(
    "change",
    [lambda store: store.revoke("k9"), lambda store: store.update("k9", lambda old: old)],
    ids=["revoke", "update"],
)
@pytest.mark.parametrize("made", [True, False], ids=["other keys", "no file"])
def test_unknown_id(store: FileKeyStore, change: Callable[[FileKeyStore], None], made: bool) -> None:
    """A record that is not there cannot be changed."""
    if made:
        store.add(record())
    with pytest.raises(KeyError, match="k9"):
        change(store)
    assert store.list() == ((record(),) if made else ())


def test_missing_file(store: FileKeyStore) -> None:
    """Before the first key a look-up is rejected, and the list is empty."""
    assert store.list() == ()
    with pytest.raises(DependencyUnavailable, match="depends on"):
        store.get("k1")


def test_deleted_file_is_not_served_from_memory(store: FileKeyStore) -> None:
    """A file that was there and is gone rejects every key: it could have lost a revocation."""
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
        pytest.param(document(keys=[entry(), entry(id="k2", status="off")]), id="one record of two"),
        pytest.param(document(keys=[{"id": "k1"}]), id="members missing"),
        pytest.param('{"version": 1, "version": 1, "keys": []}', id="duplicate member"),
    ],
)
def test_damaged_file(store: FileKeyStore, content: str) -> None:
    """A file that is not exactly right rejects every key, and is not overwritten by a change."""
    store.path.write_text(content)
    for action in (
        lambda: store.get("k1"),
        store.list,
        lambda: store.add(record("k2")),
        lambda: store.revoke("k1"),
    ):
        with pytest.raises(DependencyUnavailable) as caught:
            action()
        assert caught.value.reason.startswith("the API key file is damaged")
    assert store.path.read_text() == content


def test_what_could_not_be_read_is_not_written(store: FileKeyStore) -> None:
    """A record that a reader would reject would lock every key out."""
    store.add(record())
    with pytest.raises(ValueError, match="members"):
        store.add(record("k2", plan="a\nb"))
    assert store.list() == (record(),)


def test_failed_write_leaves_the_old_file(store: FileKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses the change, not the file, and leaves no temporary file."""
    store.add(record())
    reject_to_sync(monkeypatch)
    with pytest.raises(OSError, match="No space"):
        store.revoke("k1")
    assert store.list() == (record(),)
    assert sorted(path.name for path in store.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


# --- the file of uses ----------------------------------------------------------------------------------


def uses_file(store: FileKeyStore) -> Path:
    return store.path.with_name("keys.json.used")


def test_uses_survive(store: FileKeyStore) -> None:
    """A use recorded by one process is read by another; the key file is not changed."""
    store.add(record())
    before = store.path.read_bytes(), store.path.stat().st_mtime_ns
    store.used("k1", 5.9)
    assert FileKeyStore(store.path).last_used() == {"k1": 5}
    assert (store.path.read_bytes(), store.path.stat().st_mtime_ns) == before


def test_later_use_wins(store: FileKeyStore) -> None:
    """A process with an older use does not take back a newer one."""
    for key_id in ("k1", "k2"):
        store.add(record(key_id))
    store.used("k1", 100.0)
    FileKeyStore(store.path).used("k1", 50.0)
    FileKeyStore(store.path).used("k2", 60.0)
    assert store.last_used() == {"k1": 100, "k2": 60}


def test_uses_of_keys_that_are_gone_are_dropped(store: FileKeyStore) -> None:
    """The file does not grow with keys that were taken out of the key file."""
    store.add(record())
    store.used("k1", 1.0)
    store.path.write_text(document(keys=[entry(id="k2")]))
    store.used("k2", 2.0)
    assert store.last_used() == {"k2": 2}


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"version": 1}', '{"version": 2, "used": {}}', '{"version": 1, "used": {"k1": "5"}}'],
    ids=["empty", "array", "no uses", "other version", "text"],
)
def test_damaged_uses(store: FileKeyStore, content: str, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged file of uses is named and begun again; no key is rejected for it."""
    store.add(record())
    uses_file(store).write_text(content)
    assert store.last_used() == {}
    assert "keys.json.used: " in caplog.text
    store.used("k1", 5.0)
    assert store.last_used() == {"k1": 5}


def test_locked_file_does_not_hold_a_request(store: FileKeyStore) -> None:
    """While a command changes the keys, a use waits for the next second; the request does not wait."""
    store.add(record())
    with store.path.with_name("keys.json.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store.used("k1", 5.0)
        assert store.last_used() == {}
    store.used("k1", 6.5)
    assert store.last_used() == {"k1": 5}


def test_uses_do_not_wait_for_the_disk(store: FileKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A use may be lost in a crash of the machine, so requests do not wait for the disk."""
    store.add(record())
    reject_to_sync(monkeypatch)
    store.used("k1", 5.0)
    assert store.last_used() == {"k1": 5}


def test_use_that_cannot_be_written_is_logged(
    store: FileKeyStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error is raised, whatever is wrong with the directory."""
    store.add(record())
    uses_file(store).mkdir()
    store.used("k1", 5.0)
    assert "the last use of API keys cannot be recorded" in caplog.text


NOBODY = 65534


def give_away(path: Path) -> None:
    try:
        os.chown(path, NOBODY, NOBODY)
    except OSError as error:  # root may not everywhere either
        pytest.skip(f"files cannot be given away here: {error.strerror}")


def owners(store: FileKeyStore) -> dict[str, tuple[int, int, int]]:
    found = {path.name: path.stat() for path in store.path.parent.iterdir()}
    return {name: (each.st_uid, each.st_gid, each.st_mode & 0o777) for name, each in found.items()}


def test_owner_stays(store: FileKeyStore) -> None:
    """A change by root leaves all files to the user of the server: the key file, its lock and the uses."""
    store.add(record("k1"))
    give_away(store.path)
    store.add(record("k2"))
    store.used("k1", 5.0)
    theirs = (NOBODY, NOBODY, 0o600)
    assert owners(store) == {"keys.json": theirs, "keys.json.lock": theirs, "keys.json.used": theirs}


def test_first_key_by_root(store: FileKeyStore) -> None:
    """Without a key file, its directory determines the owner."""
    give_away(store.path.parent)
    store.add(record("k1"))
    assert set(owners(store).values()) == {(NOBODY, NOBODY, 0o600)}


def test_lock_that_is_a_link(store: FileKeyStore, tmp_path: Path) -> None:
    """A user who can write to the directory cannot make root create, change or give away another file."""
    other = tmp_path / "other"
    other.write_text("other")
    store.path.with_name("keys.json.lock").symlink_to(other)
    before = other.stat()
    with pytest.raises(OSError, match="symbolic links"):
        store.add(record())
    store.path.with_name("keys.json.lock").unlink()
    os.link(other, store.path.with_name("keys.json.lock"))
    give_away(store.path.parent)
    store.add(record())
    assert (other.stat().st_uid, other.read_text()) == (before.st_uid, "other")


def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    """A change goes to the file that it leads to, and processes that use either name take turns."""
    (tmp_path / "data").mkdir()
    (tmp_path / "keys.json").symlink_to(tmp_path / "data" / "keys.json")
    linked, direct = FileKeyStore(tmp_path / "keys.json"), FileKeyStore(tmp_path / "data" / "keys.json")
    linked.add(record("k1"))
    direct.add(record("k2"))
    linked.update("k2", lambda old: replace(old, client="eve"))
    linked.used("k1", 5.0)
    assert linked.path.is_symlink()
    assert linked.list() == direct.list() == (record("k1"), record("k2", client="eve"))
    assert direct.last_used() == {"k1": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "keys.json"]
    assert sorted(path.name for path in direct.path.parent.iterdir()) == [
        "keys.json",
        "keys.json.lock",
        "keys.json.used",
    ]


def test_rewrite_of_the_same_size_and_time(store: FileKeyStore) -> None:
    """A key that a tool disables in place, with the modification time of before, is disabled."""
    store.path.write_text(document(keys=[entry(status="active", client="adam")]))
    before = store.path.stat()
    assert store.get("k1") == record(client="adam", scopes=frozenset({"a"}))
    store.path.write_text(document(keys=[entry(status="revoked", client="ada")]))
    os.utime(store.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.path.stat().st_size == before.st_size
    assert store.get("k1") == record(status="revoked", scopes=frozenset({"a"}))


def test_damage_is_logged_once(store: FileKeyStore, caplog: pytest.LogCaptureFixture) -> None:
    """When it begins and when it ends, whether there is a request log or not."""
    for content in ("{", document(), "{"):
        store.path.write_text(content)
        for _ in range(5):
            if content == "{":
                with pytest.raises(DependencyUnavailable):
                    store.get("k1")
            else:
                store.get("k1")
    damaged, mended = [each.getMessage() for each in caplog.records if "used" in each.getMessage()]
    assert damaged.startswith(f"the API key file {store.path} cannot be used: the API key file is damaged: ")
    assert mended == f"the API key file {store.path} can be used again"


def test_lock_that_is_held_stops_nobody_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a stopped process holds the lock, a change fails instead of hanging."""
    monkeypatch.setattr(module, "WAIT", 0.05)
    store = FileKeyStore(tmp_path / "keys.json")
    store.add(record("k1"))
    with module._locked(tmp_path / "keys.json"), pytest.raises(BlockingIOError, match="try again"):
        store.add(record("k2"))
