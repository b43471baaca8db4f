"""Counters in a real cluster, and on a service that a real Sentinel watches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from clusters import SERVICE, ClusterOf, client, cluster, kill, watched
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.limits.counters import Charge, Settlement
from flask_secure_ml.limits.redis import RedisCounters
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.limits.usage import Usage
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores import open_store
from flask_secure_ml.stores.redis_nodes import PAUSE
from flask_secure_ml.testing import FakeClock
from servers import free_port, wait_until
from waits import HANG

pytestmark = pytest.mark.usefixtures("no_jitter")
ONE = RuleSet([Rule("limit", Kind.FIXED, 2, 3600.0)])
FLIGHT = RuleSet([Rule("limit", Kind.FIXED, 9, 3600.0), Rule("flight", Kind.LEASES, 9, 0.0)])


def name_of(key: bytes) -> str:
    return f"flask-secure-ml:limits:{{{key.hex()}}}"


def used(counters: RedisCounters, key: bytes, rules: RuleSet = ONE) -> float:
    (verdict,) = counters.charge([Charge(key, rules, (1,) * len(rules.rules), os.urandom(8))])
    return verdict.counts[0].used


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(DependencyUnavailable) as caught:
        action()
    return caught.value.reason


def works(action: Callable[[], object], clock: FakeClock) -> bool:
    """Return whether a call succeeds, a pause after the one before."""
    clock.advance(PAUSE)
    with suppress(DependencyUnavailable):
        action()
        return True
    return False


# --- a cluster -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOf]:
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def servers(nodes: ClusterOf) -> ClusterOf:
    """The cluster, without any key."""
    for server in nodes.primaries:
        with client(server) as admin, suppress(redis.ReadOnlyError):
            admin.flushall()
    return nodes


@pytest.fixture
def uri(servers: ClusterOf) -> str:
    """The first seed does not respond."""
    seeds = ",".join(f"127.0.0.1:{port}" for port in (free_port(), servers.primaries[2].port))
    return f"valkey+cluster://{seeds}?socket_timeout={HANG}"


@pytest.fixture
def counters(uri: str, clock: FakeClock) -> RedisCounters:
    return RedisCounters(uri, None, clock, connect_timeout=HANG)


def keys_of(server: Any, count: int) -> list[bytes]:
    """Return keys whose slots a node has."""
    with client(server) as admin:
        ranges = [each[:2] for each in admin.execute_command("CLUSTER", "SLOTS") if each[2][1] == server.port]
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        key = key_of("caller", str(number))
        if any(int(first) <= key_slot(name_of(key).encode()) <= int(last) for first, last in ranges):
            found.append(key)
        number += 1
    return found


def test_keys_of_all_nodes(servers: ClusterOf, counters: RedisCounters) -> None:
    """Several in one call; what one node rejects is given back on the others."""
    first, second, third = (keys_of(server, 1)[0] for server in servers.primaries)

    def call() -> list[bool]:
        charges = [Charge(first, FLIGHT, (1, 1), os.urandom(8), "a"), Charge(second, ONE, (1,), b"", "b")]
        return [each.allowed for each in counters.charge([*charges, Charge(third, FLIGHT, (1, 1), os.urandom(8), "c")])]

    assert [call() for _ in range(3)] == [[True] * 3, [True] * 3, [True, False, True]]
    for key in (first, third):
        assert [count.used for count in counters.peek(key, FLIGHT).counts] == [2, 2]
    assert counters.callers() == {first: "a", second: "b", third: "c"}
    assert [counters.clear(key) for key in (first, second, third, first)] == [True, True, True, False]
    assert counters.callers() == {}


def test_usage_of_all_nodes(servers: ClusterOf, uri: str, clock: FakeClock) -> None:
    """It lies in the slot of the caller's counts, also after a settlement, and is read from every node."""
    counters = RedisCounters(uri, None, clock, connect_timeout=HANG, usage_days=9)
    keys = [keys_of(server, 1)[0] for server in servers.primaries]
    usage = Usage(20_000, "gold", "predict", 1, 5, 5)
    for number, key in enumerate(keys):
        counters.charge([Charge(key, ONE, (1,), b"", f"caller {number}", usage)])
        counters.settle([Settlement(key, ONE, (0,), (0.0,), b"", usage.corrected(-number))])
    expected = [(f"caller {number}", "gold", "predict", 20_000, 1, 5, 5 - number) for number in range(3)]
    assert sorted(counters.used(20_000, 20_000)) == expected


def noted(events: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*arguments: Any, **options: Any) -> Any:
        events.append(name)
        return call(*arguments, **options)

    return noting


def test_all_nodes_are_asked_before_one_is_awaited(servers: ClusterOf, counters: RedisCounters) -> None:
    """A call takes as long as its slowest node, and not as long as all of them."""
    keys = [keys_of(server, 1)[0] for server in servers.primaries]
    charges = [Charge(key, ONE, (1,)) for key in keys]
    counters.charge(charges)
    events: list[str] = []
    for node in counters._client.nodes():
        connection = node.take()
        for name in ("send_packed_command", "read_response"):
            setattr(connection, name, noted(events, name, getattr(connection, name)))
        node.give(connection)
    assert all(verdict.counts[0].used == 2 for verdict in counters.charge(charges))
    assert events == ["send_packed_command"] * 3 + ["read_response"] * 3


def test_slot_that_moves(servers: ClusterOf, counters: RedisCounters) -> None:
    """While it moves and after it, each charge is made once, and none is rejected."""
    source, target = servers.primaries[1], servers.primaries[2]
    (key,) = keys_of(source, 1)
    slot = key_slot(name_of(key).encode())
    assert used(counters, key) == 1
    with client(source) as old, client(target) as new:
        ids = [each.execute_command("CLUSTER", "MYID") for each in (old, new)]
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        start = counters.peek(key, ONE).counts[0].start
        old.execute_command("MIGRATE", "127.0.0.1", target.port, name_of(key), 0, 5000)
        new.script_flush()
        counters.settle([Settlement(key, ONE, (-1,), (start,))])
        assert used(counters, key) == 1
        later = counters.settle_later([Settlement(key, ONE, (1,), (start,))])
        assert later is not None
        later()
        assert counters.peek(key, ONE).counts[0].used == 2
        for each in (new, old):
            each.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    assert counters.peek(key, ONE).counts[0].used == 2
    assert counters.callers() == {}


def test_store_of_shared_state(uri: str, clock: FakeClock) -> None:
    """Revocations and keys can be in a cluster too."""
    store = open_store(uri, None, clock)
    store.put("a", "k", b"1")
    assert (dict(store.items("a")), store.add("a", "l", 60), store.delete("a", "k")) == ({"k": b"1"}, True, True)


def test_node_that_dies(servers: ClusterOf, counters: RedisCounters, clock: FakeClock) -> None:
    """Its keys fail, without waiting after the first; others still work; then its replica has the counts."""
    lost, (kept,) = keys_of(servers.primaries[0], 2), keys_of(servers.primaries[1], 1)
    assert [used(counters, key) for key in (*lost, kept)] == [1, 1, 1]
    with client(servers.primaries[0]) as admin:
        assert admin.wait(1, 10_000) == 1
    kill(servers.primaries[0])
    assert "ConnectionError" in fails(lambda: used(counters, lost[0]))
    assert "a moment ago" in fails(lambda: used(counters, lost[1]))
    assert used(counters, kept) == 2
    wait_until(lambda: works(lambda: counters.peek(lost[0], ONE), clock), "the replica does not take over")
    assert [used(counters, key) for key in lost] == [2, 2]


# --- Sentinels -------------------------------------------------------------------------------------------


def test_failover_by_a_sentinel(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The successor is found by itself, with the counts of its predecessor; a Sentinel may ask for a password."""
    monkeypatch.setenv("PASSWORD", "a-long-password")
    password = SecretRing(Secret("env:PASSWORD", 8))
    key = key_of("caller", "bob")
    with watched(tmp_path, "a-long-password") as service:
        sentinels = f"127.0.0.1:{free_port()},127.0.0.1:{service.sentinel}"
        uri = f"redis+sentinel://{sentinels}/{SERVICE}?socket_timeout={HANG}"
        counters = RedisCounters(uri, password, clock, connect_timeout=HANG)
        assert used(counters, key) == 1
        with redis.Redis(port=service.primary.port, password="a-long-password") as admin:
            assert admin.wait(1, 10_000) == 1
        with redis.Redis(port=service.sentinel) as admin:
            admin.acl_setuser("default", enabled=True, reset_passwords=True, passwords="+a-long-password")
        kill(service.primary)
        assert "ConnectionError" in fails(lambda: used(counters, key))
        assert "a moment ago" in fails(lambda: used(counters, key))
        wait_until(lambda: works(lambda: counters.peek(key, ONE), clock), "the replica does not take over")
        wait_until(lambda: works(lambda: used(counters, key), clock), "the replica is not writable")
        assert counters.peek(key, ONE).counts[0].used == 2
        assert open_store(uri, password, clock).add("a", "k", 60)
        unknown = RedisCounters(uri.replace(SERVICE, "unknown"), password, clock)
        assert "ConnectionError" in fails(lambda: used(unknown, key))


@pytest.mark.parametrize(
    "uri", ["redis+sentinel://localhost:26379", "redis+other://localhost", "memcached://localhost"]
)
def test_uris_that_cannot_be_used(uri: str, clock: FakeClock) -> None:
    """They are errors when the app starts."""
    with pytest.raises(ValueError, match=r"service|scheme"):
        RedisCounters(uri, None, clock)
