"""API keys in a shared store: found in memory, seen by every worker within a second, over every kind of store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import redis
from flask import Flask

from flask_secure_ml import SecureML
from flask_secure_ml.authentication.api_keys import shared_store as shared_key_store
from flask_secure_ml.authentication.api_keys.key import KeyRecord, dump_record, parse_record
from flask_secure_ml.authentication.api_keys.lifecycle import disable_key, enable_key, rotate_key
from flask_secure_ml.authentication.api_keys.shared_store import HELD, KEYS, LOCKS, USES, SharedKeyStore
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.secrets import SecretRing
from flask_secure_ml.stores import SharedStore, open_store, sqlite_connection
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.testing import FakeClock, MemorySink, make_api_key
from servers import PATIENCE, valkey

HASH = "hmac-sha256:" + "a" * 64


def record(key_id: str = "k1", **changes: Any) -> KeyRecord:
    usual: dict[str, Any] = {"client": "ada", "scopes": frozenset({"b", "a"}), "plan": "default", "created": 1}
    return KeyRecord(key_id, HASH, **{**usual, **changes})


class Spied:
    """A store that counts its calls and can be down."""

    shared = True

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self.calls: list[str] = []
        self.down = False

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            if self.down:
                raise DependencyUnavailable("the store is down")
            return getattr(self._store, name)(*arguments, **options)

        return call


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield f"redis://127.0.0.1:{running.port}"


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the state is; empty at the start of each test."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'state.db'}"
    address: str = request.getfixturevalue("server")
    with redis.Redis.from_url(address) as client:
        client.flushall()
    # A server on a busy machine may execute a change after its client gave up on it; nobody gives up here.
    return f"{address}?socket_timeout={PATIENCE}"


@pytest.fixture
def shared(uri: str, clock: FakeClock) -> SharedStore:
    return open_store(uri, None, clock)


@pytest.fixture
def keys(shared: SharedStore, clock: FakeClock) -> SharedKeyStore:
    return SharedKeyStore(shared, clock)


@pytest.fixture
def spied(clock: FakeClock) -> Spied:
    return Spied(MemoryStore(clock))


def test_records_survive(keys: SharedKeyStore, shared: SharedStore, clock: FakeClock) -> None:
    """An added record is found at once, and by another process at its next poll."""
    first, second = record("k2"), record("k1", created=5, expires=7, endpoints=frozenset({"/x"}))
    keys.add(second)
    keys.add(first)
    for each in (keys, SharedKeyStore(shared, clock)):
        assert each.list() == (first, second)
        assert (each.get("k1"), each.get("k2"), each.get("k3")) == (second, first, None)


def test_change_is_seen_within_a_second(keys: SharedKeyStore, shared: SharedStore, clock: FakeClock) -> None:
    """A running worker sees a new key, a revoked one and a disabled one."""
    worker = SharedKeyStore(shared, clock)
    assert worker.get("k1") is None
    for change, expected in (
        (lambda: keys.add(record()), "active"),
        (lambda: disable_key(keys, "k1"), "disabled"),
        (lambda: enable_key(keys, "k1"), "active"),
        (lambda: keys.revoke("k1"), "revoked"),
    ):
        change()
        clock.advance(1)
        found = worker.get("k1")
        assert found is not None
        assert found.status == expected


def test_taken_id(keys: SharedKeyStore) -> None:
    """An id is given once."""
    keys.add(record())
    with pytest.raises(ValueError, match="exists already"):
        keys.add(record(client="eve"))
    assert keys.get("k1") == record()


@pytest.mark.parametrize(
    "change",
    [lambda keys: keys.revoke("k9"), lambda keys: keys.update("k9", lambda old: old)],
    ids=["revoke", "update"],
)
def test_unknown_id(keys: SharedKeyStore, change: Callable[[SharedKeyStore], None]) -> None:
    """A record that is not there cannot be changed, now or by a second try."""
    for _ in range(2):
        with pytest.raises(KeyError, match="k9"):
            change(keys)
    assert keys.list() == ()


def test_update_returns_what_is_stored(keys: SharedKeyStore) -> None:
    """The caller can show it without another look."""
    keys.add(record())
    assert keys.update("k1", lambda old: replace(old, expires=9)) == record(expires=9) == keys.get("k1")


def test_rotation(keys: SharedKeyStore, pepper: SecretRing) -> None:
    """The lifecycle of a key does not depend on the store."""
    keys.add(record())
    _, successor = rotate_key(keys, pepper, "k1", now=100, overlap=10)
    assert keys.list() == (record(expires=110, replaced_by=successor.id), successor)


def test_uses(keys: SharedKeyStore, shared: SharedStore, clock: FakeClock) -> None:
    """A use recorded by one process is read by another."""
    keys.used("k1", 100.7)
    keys.used("k2", 170.0)
    assert SharedKeyStore(shared, clock).last_used() == {"k1": 100, "k2": 170}


def test_parallel_changes_lose_nothing(
    keys: SharedKeyStore, shared: SharedStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of concurrent changes, each is applied to the stored record or rejected as busy."""
    monkeypatch.setattr(sqlite_connection, "BUSY", PATIENCE)
    keys.add(record())
    reasons: set[str] = set()

    def grow(_: int) -> int:
        try:
            SharedKeyStore(shared, clock).update("k1", lambda old: replace(old, created=old.created + 1))
        except DependencyUnavailable as error:
            reasons.add(error.reason)
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        made = sum(pool.map(grow, range(40)))
    assert reasons <= {"the API key k1 is being changed by another process; try again"}
    assert keys.list() == (record(created=1 + made),)
    assert keys.get("k1") == record(created=1 + made)
    assert made > 0


@pytest.mark.parametrize("uri", ["sqlite", "valkey"], indirect=True)
def test_an_app_with_keys_in_the_store(uri: str, clock: FakeClock, pepper: SecretRing) -> None:
    """SECURE_ML_API_KEYS=store: two apps share their keys, and the commands work on them."""
    apps = [served(uri, clock) for _ in range(2)]
    key = apps[0].test_cli_runner().invoke(secure_ml, ["keys", "create", "--client", "ada"]).stdout.strip()
    assert [status(app, key, clock) for app in apps] == [200, 200]
    revoked = apps[1].test_cli_runner().invoke(secure_ml, ["keys", "revoke", key[4:16]])
    assert revoked.exit_code == 0
    clock.advance(1)
    assert [status(app, key, clock) for app in apps] == [401, 401]


@pytest.mark.parametrize("uri", ["sqlite", "valkey"], indirect=True)
def test_keys_for_tests_can_be_made_in_it(uri: str, clock: FakeClock, pepper: SecretRing) -> None:
    """As in a file: an app's own store has them."""
    app, other = (served(uri, clock) for _ in range(2))
    key = make_api_key(app)
    assert [status(each, key, clock) for each in (app, other)] == [200, 200]


def served(uri: str, clock: FakeClock) -> Flask:
    app = Flask("model_app")
    app.config["SECURE_ML_API_KEYS"] = "store"
    app.config["SECURE_ML_API_KEY_PEPPER"] = "env:TEST_PEPPER"
    app.config["SECURE_ML_STORE_URI"] = uri
    SecureML(clock=clock, sink=MemorySink()).init_app(app)
    app.add_url_rule("/whoami", view_func=lambda: "known")
    return app


def status(app: Flask, key: str, clock: FakeClock) -> int:
    """Return the status of a call; on a busy machine a read of the store may exceed its time, and is repeated later."""
    for _ in range(20):
        found = app.test_client().get("/whoami", base_url="https://localhost", headers={"X-API-Key": key}).status_code
        if found != 503:
            break
        clock.advance(2)
    return found


# --- what does not depend on the kind of store -----------------------------------------------------------


def test_look_up_costs_no_round_trip(spied: Spied, clock: FakeClock) -> None:
    """A request finds its key in memory; the store is polled for changes at most twice a second."""
    keys = SharedKeyStore(spied, clock)
    keys.add(record())
    keys.get("k1")
    spied.calls.clear()
    for _ in range(100):
        assert keys.get("k1") == record()
        assert keys.get("nobody") is None
    assert spied.calls == []
    for _ in range(10):
        clock.advance(0.1)
        keys.get("k1")
    assert len(spied.calls) <= 2


def test_a_short_outage_is_bridged(spied: Spied, clock: FakeClock) -> None:
    """The keys of the last minute are accepted; after that, a revocation could be missed."""
    keys = SharedKeyStore(spied, clock)
    keys.add(record())
    assert keys.get("k1") == record()
    spied.down = True
    clock.advance(50)
    assert keys.get("k1") == record()
    clock.advance(20)
    with pytest.raises(DependencyUnavailable):
        keys.get("k1")
    spied.down = False
    clock.advance(1)
    assert keys.get("k1") == record()


def test_store_that_was_never_reached(spied: Spied, clock: FakeClock) -> None:
    """Without any content no key is accepted, listed or changed."""
    spied.down = True
    keys = SharedKeyStore(spied, clock)
    for action in (
        lambda: keys.get("k1"),
        keys.list,
        keys.last_used,
        lambda: keys.add(record()),
        lambda: keys.revoke("k1"),
    ):
        with pytest.raises(DependencyUnavailable):
            action()


def test_use_that_cannot_be_noted_is_logged(spied: Spied, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """No error is raised, and it is tried again."""
    keys = SharedKeyStore(spied, clock)
    spied.down = True
    keys.used("k1", 100.0)
    assert "cannot be recorded: the store is down" in caplog.text
    spied.down = False
    keys.used("k1", 160.0)
    assert keys.last_used() == {"k1": 160}


def test_uses_do_not_make_workers_load_the_keys_again(spied: Spied, clock: FakeClock) -> None:
    """They are in a space of their own."""
    keys = SharedKeyStore(spied, clock)
    keys.add(record())
    keys.get("k1")
    clock.advance(1)
    keys.used("k1", clock.now())
    spied.calls.clear()
    keys.get("k1")
    assert spied.calls == ["changes"]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="no record"),
        pytest.param(dump_record(record()).replace(b'"active"', b'"off"'), id="unknown status"),
        pytest.param(dump_record(record("k2")), id="record of another key"),
    ],
)
def test_damaged_record(clock: FakeClock, raw: bytes) -> None:
    """An invalid record is never accepted, and not overwritten by a change."""
    store = MemoryStore(clock)
    store.put(KEYS, "k1", raw)
    keys = SharedKeyStore(store, clock)
    for action in (lambda: keys.get("k1"), keys.list, lambda: keys.revoke("k1")):
        with pytest.raises(DependencyUnavailable) as caught:
            action()
        assert "damaged" in caught.value.reason
    assert store.get(KEYS, "k1") == raw


def test_damaged_use(clock: FakeClock) -> None:
    """An instant that is none is named."""
    store = MemoryStore(clock)
    store.put(USES, "k1", b"yesterday")
    with pytest.raises(DependencyUnavailable) as caught:
        SharedKeyStore(store, clock).last_used()
    assert "damaged" in caught.value.reason


def test_what_could_not_be_read_is_not_written(spied: Spied, clock: FakeClock) -> None:
    """A record that a reader would reject would lock every key out."""
    keys = SharedKeyStore(spied, clock)
    keys.add(record())
    with pytest.raises(ValueError, match="members"):
        keys.add(record("k2", plan="a\nb"))
    with pytest.raises(ValueError, match="members"):
        keys.update("k1", lambda old: replace(old, plan=""))
    assert keys.list() == (record(),)


def test_record_that_is_being_changed_waits(clock: FakeClock) -> None:
    """Two changes at once could undo each other; the lock of a process that died ends by itself."""
    store = MemoryStore(clock)
    keys = SharedKeyStore(store, clock)
    keys.add(record())
    keys.add(record("k2"))
    store.put(LOCKS, "k1", b"", seconds=HELD)
    with pytest.raises(DependencyUnavailable) as caught:
        keys.revoke("k1")
    assert "is being changed by another process" in caught.value.reason
    keys.revoke("k2")
    clock.advance(HELD + 1)
    keys.revoke("k1")
    assert {each.status for each in keys.list()} == {"revoked"}


def test_change_that_took_too_long_is_not_stored(clock: FakeClock) -> None:
    """Its lock may have expired, and another change may have been written."""
    keys = SharedKeyStore(MemoryStore(clock), clock)
    keys.add(record())

    def slow(old: KeyRecord) -> KeyRecord:
        clock.advance(HELD)
        return replace(old, client="eve")

    with pytest.raises(DependencyUnavailable) as caught:
        keys.update("k1", slow)
    assert "took too long" in caught.value.reason
    assert keys.list() == (record(),)


def test_lock_that_cannot_be_given_back(spied: Spied, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that was stored is reported as stored."""
    keys = SharedKeyStore(spied, clock)
    keys.add(record())

    def fail(*_: object) -> bool:
        raise DependencyUnavailable("the store is down")

    monkeypatch.setattr(spied, "delete", fail, raising=False)
    keys.revoke("k1")
    assert keys.list()[0].status == "revoked"


def test_change_reads_one_record(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that changes a key does not read all the others again."""
    parsed: list[bytes] = []

    def parse(raw: bytes) -> KeyRecord:
        parsed.append(raw)
        return parse_record(raw)

    monkeypatch.setattr(shared_key_store, "parse_record", parse)
    keys = SharedKeyStore(MemoryStore(clock), clock)
    for number in range(100):
        keys.add(record(f"k{number}"))
    keys.get("k1")
    parsed.clear()
    keys.add(record("new"))
    assert keys.get("new") == record("new")
    assert len(parsed) == 1


def test_outages_say_when_to_try_again(clock: FakeClock) -> None:
    """Also a record that is being changed, and a change that took too long."""
    store = MemoryStore(clock)
    keys = SharedKeyStore(store, clock)
    keys.add(record())

    def slow(old: KeyRecord) -> KeyRecord:
        clock.advance(HELD)
        return old

    with pytest.raises(DependencyUnavailable) as caught:
        keys.update("k1", slow)
    assert int(caught.value.get_response().headers["Retry-After"]) > 0
    store.put(LOCKS, "k1", b"", seconds=HELD)
    with pytest.raises(DependencyUnavailable) as caught:
        keys.revoke("k1")
    assert int(caught.value.get_response().headers["Retry-After"]) > 0


@pytest.mark.parametrize("quiet", [5, 40])
def test_revoked_key_after_a_quiet_time(uri: str, clock: FakeClock, quiet: float) -> None:
    """Of eight simultaneous threads in a worker that was idle meanwhile, none accepts it."""
    workers = [open_store(uri, None, clock)]
    workers.append(workers[0] if uri == "memory:" else open_store(uri, None, clock))
    keys, worker = (SharedKeyStore(store, clock) for store in workers)
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            key_id = f"k{number}"
            keys.add(record(key_id))
            clock.advance(1)
            assert worker.get(key_id) == record(key_id)
            keys.revoke(key_id)
            clock.advance(quiet)
            start = Barrier(8)

            def status(_: int, key_id: str = key_id, start: Barrier = start) -> str:
                start.wait()
                found = worker.get(key_id)
                return found.status if found else ""

            assert list(pool.map(status, range(8))) == ["revoked"] * 8
