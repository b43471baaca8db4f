"""A client for Redis and Valkey: commands are sent in one write, within a deadline, without retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError

from ..principal import Clock
from ..refresh import Breaker, Outage
from ..secrets import SecretRing
from .base import StoreUnavailable, unavailable
from .redis_address import Address, NoPassword
from .redis_connection import Deadline
from .redis_nodes import PAUSE, Cluster, Node, Nodes, OneServer, Watched
from .redis_protocol import Command, packed

SOCKET_TIMEOUT = 0.25
"""Seconds for a whole command; the client library's default timeout applies to each packet, or is infinite."""

# Rounds for a slot that moves, and then a script that its new node does not have.
_ROUNDS = 4
_ASKING = packed(b"ASKING")


class _Post(NamedTuple):
    """A command to send to a server, and the number of replies that precede its own."""

    position: int
    node: Node
    sent: bytes
    skipped: int = 0


_Flight = list[tuple[Node, Any, list[_Post]]]
"""The connections whose replies are not read yet, and the commands that were sent on each."""


class RedisClient:
    """Sends commands to one server, to the primary that Sentinels report, or to the nodes of a cluster.

    :param uri: as for :class:`Address`; ``?socket_timeout=`` overrides ``timeout``.
    :param password: read for each connection, newest first; None to use the one in the URI, if any.
    :param clock: measures the pause after a failure.
    :param timeout: seconds for all commands of a call.
    :param connect_timeout: seconds to connect, including TLS and authentication; None if ``timeout`` includes these.
    :param name: the name of the store, for the log.
    :raises Exception: the URI cannot be used; the message may contain it.
    """

    def __init__(
        self,
        uri: str,
        password: SecretRing | None,
        clock: Clock,
        *,
        timeout: float = SOCKET_TIMEOUT,
        connect_timeout: float | None = None,
        name: str = "the shared store",
    ) -> None:
        self._deadline = Deadline(timeout)
        self._connect_timeout = connect_timeout
        self._name = name
        address = Address(uri, password, self._deadline)
        log = Outage(f"{name} is down", f"{name} is up again", clock.monotonic)

        def breaker() -> Breaker:
            return Breaker(clock, pause=PAUSE, outage=log)

        self._nodes: Nodes
        if address.kind == "cluster":
            self._nodes = Cluster(address, breaker, clock)
        else:
            self._nodes = (Watched if address.kind else OneServer)(address, breaker)

    def call(self, command: Command, timeout: float | None = None) -> Any:
        """Return the reply to one command; the arguments and errors are those of :meth:`exchange`."""
        return self.exchange([command], timeout)[0]

    def exchange(
        self, commands: Sequence[Command], timeout: float | None = None, node: Node | None = None
    ) -> list[Any]:
        """Send commands in one write to each server, and return the replies.

        :param timeout: seconds for the whole call. If it is given, a server is called even if it failed a moment ago,
            for callers that have their own pause.
        :param node: the server for all commands, instead of the server of each key.
        :raises DependencyUnavailable: a server does not respond, rejects a command, or failed a moment ago.
        """
        whole = self._deadline.usual if timeout is None and self._connect_timeout is None else timeout
        with nullcontext() if whole is None else self._deadline.within(whole):
            return self._replies(commands, self._launched(self._posts(commands, node, always=timeout is not None)))

    def send(self, commands: Sequence[Command]) -> Callable[[], None] | None:
        """Send commands without waiting for the replies. A failure raises no error, but begins a pause.

        :returns: a function that reads the replies, so that the connections can be used again; if it is never called,
            they are closed. None if nothing was sent.
        """
        try:
            unread = [self._launched(self._posts(commands))]
        except StoreUnavailable:
            return None

        def finish() -> None:
            # A second call must not read the replies to other commands.
            with suppress(StoreUnavailable, IndexError):
                self._replies(commands, unread.pop())

        return finish

    def nodes(self) -> Sequence[Node]:
        """Return every server that has its own keys.

        :raises DependencyUnavailable: the servers cannot be discovered.
        """
        with self._connecting(), self._blaming(None):
            return self._nodes.all()

    def _posts(self, commands: Sequence[Command], node: Node | None = None, *, always: bool = False) -> list[_Post]:
        with self._connecting(), self._blaming(node):
            return [
                _Post(position, node or self._nodes.of(command.key, always=always), command.packed)
                for position, command in enumerate(commands)
            ]

    def _launched(self, posts: Sequence[_Post]) -> _Flight:
        groups: dict[Node, list[_Post]] = {}
        for post in posts:
            groups.setdefault(post.node, []).append(post)
        flight: _Flight = []
        try:
            with self._connecting():
                for node, group in groups.items():
                    with self._blaming(node):
                        flight.append((node, node.take(), group))
            with self._talking():
                for node, connection, group in flight:
                    with self._blaming(node):
                        # Without a health check, which would be another round trip.
                        connection.send_packed_command([b"".join([post.sent for post in group])], check_health=False)
        except BaseException:
            _close(flight)
            raise
        return flight

    def _replies(self, commands: Sequence[Command], flight: _Flight) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        for _ in range(_ROUNDS):
            self._read(flight, replies)
            again = [
                self._again(commands[post.position], post, reply)
                for _, _, group in flight
                for post in group
                if isinstance(reply := replies[post.position], redis.ResponseError)
            ]
            for node, _, _ in flight:
                node.breaker.succeeded()
            if not again:
                return replies
            flight = self._launched(again)
        _close(flight)
        raise self._failed(flight[0][0], redis.ConnectionError("the cluster redirects a slot in a loop"))

    def _read(self, flight: _Flight, replies: list[Any]) -> None:
        try:
            with self._talking():
                for node, connection, group in flight:
                    with self._blaming(node):
                        for post in group:
                            for _ in range(post.skipped):
                                connection.read_response()
                            replies[post.position] = _reply(connection)
        except BaseException:
            # Unread replies must never be taken for replies to other commands.
            _close(flight)
            raise
        for node, connection, _ in flight:
            node.give(connection)

    def _again(self, command: Command, post: _Post, reply: redis.ResponseError) -> _Post:
        if isinstance(reply, NoScriptError) and command.script is not None:
            # ``ASKING``, if present, stays in front of it.
            return post._replace(sent=command.script.whole(post.sent))
        other = self._nodes.redirected(post.node, reply)
        if other is None:
            raise self._failed(post.node, reply)
        if other.asking:
            return _Post(post.position, other.node, _ASKING + command.packed, 1)
        return _Post(post.position, other.node, command.packed)

    # The deadlines of a client with its own connect timeout; otherwise one deadline applies to a whole call.

    def _connecting(self) -> AbstractContextManager[None]:
        return nullcontext() if self._connect_timeout is None else self._deadline.within(self._connect_timeout)

    def _talking(self) -> AbstractContextManager[None]:
        return nullcontext() if self._connect_timeout is None else self._deadline.within(self._deadline.usual)

    @contextmanager
    def _blaming(self, node: Node | None) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise self._failed(node, error) from None

    def _failed(self, node: Node | None, error: Exception) -> StoreUnavailable:
        # Messages of other errors may contain the URI with its password.
        if isinstance(error, NoPassword):
            reason = str(error)
        else:
            reason = type(error).__name__ + (f" at {node.endpoint}" if node is not None else "")
        self._nodes.failed(node, reason)
        return unavailable(f"{self._name} failed: {reason}")


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _close(flight: _Flight) -> None:
    for _, connection, _ in flight:
        connection.disconnect()
