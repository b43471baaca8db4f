"""Finds the server of a key: the only one, the primary that Sentinels report, or a node of a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, MovedError

from ..principal import Clock
from ..refresh import Breaker, PerProcess
from .base import unavailable
from .redis_address import Address, Endpoint
from .redis_protocol import packed

PAUSE = 1.0
"""Seconds for which a failed server is not called, so that requests do not wait for it."""

_SLOTS = packed(b"CLUSTER", b"SLOTS")


class Node:
    """One server: its idle connections, and the pause after a failure.

    Callers that take a connection give it back after reading all replies, and close it otherwise.
    """

    def __init__(self, address: Address, endpoint: Endpoint, breaker: Breaker) -> None:
        self.endpoint = endpoint
        self.breaker = breaker
        self._address = address
        # Appending and popping need no lock.
        self._idle: PerProcess[deque[Any]] = PerProcess(deque)

    def take(self) -> Any:
        """Return a connection for the caller's exclusive use.

        :raises RedisError: the server cannot be reached.
        """
        idle = self._idle.get()
        with suppress(IndexError):
            while True:
                connection = idle.pop()
                if _is_quiet(connection):
                    return connection
                connection.disconnect()
        return self._address.connect(self.endpoint)

    def give(self, connection: Any) -> None:
        """Return a connection to the pool."""
        self._idle.get().append(connection)

    def close(self) -> None:
        """Close idle connections, because the name may now resolve to another server."""
        idle = self._idle.get()
        with suppress(IndexError):
            while True:
                idle.pop().disconnect()


def _is_quiet(connection: Any) -> bool:
    """Return False if the server closed the connection, or sent unexpected data."""
    try:
        return not connection.can_read(timeout=0)
    except (redis.RedisError, OSError):
        return False


class Redirection(NamedTuple):
    """The node to which a command is redirected.

    :param asking: whether the slot is still being moved to that node.
    """

    node: Node
    asking: bool


class Nodes(Protocol):
    """Finds the server of a key."""

    def of(self, key: bytes, *, always: bool = False) -> Node:
        """Return the server of a key.

        :param always: return it even if it failed a moment ago.
        :raises DependencyUnavailable: it failed a moment ago.
        :raises RedisError: the server cannot be discovered.
        """

    def all(self) -> Sequence[Node]:
        """Return every server that has its own keys; the errors are those of :meth:`of`."""

    def failed(self, node: Node | None, reason: str) -> None:
        """Begin a pause of a server, or of all if none was found."""

    def redirected(self, node: Node, error: Exception) -> Redirection | None:
        """Return the redirection in an error reply, or None."""


class OneServer:
    """A single server."""

    def __init__(self, address: Address, breaker: Callable[[], Breaker]) -> None:
        self._node = Node(address, address.endpoints[0], breaker())

    def of(self, key: bytes, *, always: bool = False) -> Node:
        """Return the server."""
        return _willing(self._node, always=always)

    def all(self) -> Sequence[Node]:
        """Return the server."""
        return [self.of(b"")]

    def failed(self, _node: Node | None, reason: str) -> None:
        """Begin a pause."""
        self._node.close()
        self._node.breaker.failed(reason)

    def redirected(self, _node: Node, _error: Exception) -> None:
        """Return None, because there is no other server."""


class Watched:
    """The primary of a service that Sentinels watch; they are queried again after it fails."""

    def __init__(self, address: Address, breaker: Callable[[], Breaker]) -> None:
        self._address = address
        self._breaker = breaker()
        self._sentinels = _Rotation(address.endpoints)
        self._question = packed(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", address.service.encode())
        self._primary: Node | None = None

    def of(self, key: bytes, *, always: bool = False) -> Node:
        """Return the primary."""
        if not always and self._breaker.wait():
            raise unavailable("the primary failed a moment ago")
        found = self._primary
        if found is None:
            host, port = self._sentinels.first(self._ask)
            found = self._primary = Node(self._address, Endpoint(host.decode(), int(port)), self._breaker)
        return found

    def all(self) -> Sequence[Node]:
        """Return the primary."""
        return [self.of(b"")]

    def failed(self, node: Node | None, reason: str) -> None:
        """Begin a pause; query the Sentinels after it."""
        self._primary = None
        if node is not None:
            node.close()
        self._breaker.failed(reason)

    def redirected(self, _node: Node, _error: Exception) -> None:
        """Return None, because only Sentinels know the primary."""

    def _ask(self, sentinel: Endpoint) -> tuple[bytes, bytes]:
        found = self._address.ask_sentinel(sentinel, self._question)
        if not found:
            raise redis.ConnectionError("a Sentinel does not know the service")
        return found[0], found[1]


class Cluster:
    """The nodes of a cluster.

    Each has its own pause, so that the others stay in use.
    """

    def __init__(self, address: Address, breaker: Callable[[], Breaker], clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._new_breaker = breaker
        self._breaker = breaker()
        self._seeds = _Rotation(address.endpoints)
        self._nodes: dict[Endpoint, Node] = {}
        self._owners: list[Endpoint | None] = []
        # When the slot owners may be read again; None while they seem correct.
        self._due: float | None = None

    def of(self, key: bytes, *, always: bool = False) -> Node:
        """Return the node that has the slot of a key."""
        self._discover(always=always)
        endpoint = self._owners[key_slot(key)]
        if endpoint is None:
            self._suspect(0.0)
            raise redis.ConnectionError("no node has the slot")
        return _willing(self._at(endpoint), always=always)

    def all(self) -> Sequence[Node]:
        """Return the nodes that have slots."""
        self._discover()
        return [self._at(each) for each in sorted({each for each in self._owners if each is not None})]

    def failed(self, node: Node | None, reason: str) -> None:
        """Begin a pause of a node; read the owners of the slots after it."""
        self._suspect(PAUSE / 2)
        if node is None:
            self._breaker.failed(reason)
            return
        self._seeds.last(node.endpoint)
        node.close()
        node.breaker.failed(reason)

    def redirected(self, node: Node, error: Exception) -> Redirection | None:
        """Return the node that now has a slot, or the one to which it is being moved."""
        words = str(error).split(" ")
        # Old releases of the client library have the kind of error in the message.
        moved = isinstance(error, MovedError) or words[0] == "MOVED"
        if not moved and not isinstance(error, AskError) and words[0] != "ASK":
            return None
        host, _, port = words[-1].rpartition(":")
        endpoint = Endpoint(host or node.endpoint.host, int(port))
        if moved:
            self._owners[int(words[-2])] = endpoint
            self._suspect(0.0)
        return Redirection(self._at(endpoint), asking=not moved)

    def _at(self, endpoint: Endpoint) -> Node:
        found = self._nodes.get(endpoint)
        if found is None:
            found = self._nodes.setdefault(endpoint, Node(self._address, endpoint, self._new_breaker()))
        return found

    def _suspect(self, seconds: float) -> None:
        if self._due is None:
            self._due = self._clock.monotonic() + seconds

    def _discover(self, *, always: bool = False) -> None:
        """Read the owners of the slots if they are unknown or doubtful, at most about once a second."""
        due, now = self._due, self._clock.monotonic()
        if self._owners and (due is None or now < due):
            return
        if not self._owners and not always and self._breaker.wait():
            raise unavailable("no node of the cluster responded a moment ago")
        # Other threads continue meanwhile with the known owners.
        self._due = now + PAUSE
        try:
            owners = self._seeds.first(self._read)
        except (redis.RedisError, OSError) as error:
            if not self._owners or isinstance(error, redis.TimeoutError):
                raise
            return
        self._owners = owners
        self._due = None
        self._seeds.add(sorted({each for each in owners if each is not None}))
        self._breaker.succeeded()

    def _read(self, endpoint: Endpoint) -> list[Endpoint | None]:
        node = self._at(endpoint)
        connection = node.take()
        try:
            connection.send_packed_command([_SLOTS], check_health=False)
            ranges = connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        node.give(connection)
        owners: list[Endpoint | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, primary, *_replicas in ranges:
            host = (primary[0] or b"").decode()
            # A node that does not know its own name omits it.
            owner = Endpoint(endpoint.host if host in {"", "?"} else host, int(primary[1]))
            owners[first : last + 1] = [owner] * (last + 1 - first)
        return owners


class _Rotation:
    """Equivalent servers, ordered so that failed ones are last."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = list(endpoints)

    def first(self, ask: Callable[[Endpoint], Any]) -> Any:
        """Return the reply of the first server that responds.

        :raises RedisError: none responds, or the deadline has passed.
        """
        reason: Exception = redis.ConnectionError("no server is known")
        for endpoint in tuple(self._endpoints):
            try:
                return ask(endpoint)
            except (redis.RedisError, OSError) as error:
                self.last(endpoint)
                reason = error
                if isinstance(error, redis.TimeoutError):
                    break
        raise reason

    def last(self, endpoint: Endpoint) -> None:
        """Move a server to the end."""
        self._endpoints = [each for each in self._endpoints if each != endpoint] + [endpoint]

    def add(self, endpoints: Sequence[Endpoint]) -> None:
        """Add servers at the end."""
        self._endpoints += [each for each in endpoints if each not in self._endpoints]


def _willing(node: Node, *, always: bool) -> Node:
    if not always and node.breaker.wait():
        raise unavailable(f"the server at {node.endpoint} failed a moment ago")
    return node
