"""A client of Redis and Valkey: commands that are sent in one write, within a deadline, one attempt each."""

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
"""Seconds for a whole command; the client library's own default is seconds for each packet, or for ever."""

# A slot that moves, and then a script that its new node does not have.
_ROUNDS = 4
_ASKING = packed(b"ASKING")


class _Post(NamedTuple):
    """What is sent to a server, and how many replies come before the one that counts."""

    position: int
    node: Node
    sent: bytes
    skipped: int = 0


_Flight = list[tuple[Node, Any, list[_Post]]]
"""The connections whose replies are not read, and what was sent on each."""


class RedisClient:
    """Sends commands to one server, to the primary that Sentinels name, or to the nodes of a cluster.

    :param uri: as for :class:`Address`; ``?socket_timeout=`` takes the place of ``timeout``.
    :param password: read for each connection, the newest first; None for the one in the URI, or none.
    :param clock: measures the pause after a failure.
    :param timeout: seconds for all commands of a call.
    :param connect_timeout: seconds to connect, TLS and authentication included; None if ``timeout`` is for that too.
    :param name: of the store, for the log.
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

        :param timeout: seconds for all of it, even if a server failed a moment ago: for a caller that pauses itself.
        :param node: which gets all of them, instead of the server of each key.
        :raises DependencyUnavailable: a server does not respond, rejects a command, or failed a moment ago.
        """
        whole = self._deadline.usual if timeout is None and self._connect_timeout is None else timeout
        with nullcontext() if whole is None else self._deadline.within(whole):
            return self._replies(commands, self._launched(self._posts(commands, node, always=timeout is not None)))

    def send(self, commands: Sequence[Command]) -> Callable[[], None] | None:
        """Send commands and do not wait for the replies. Whatever fails only begins a pause.

        :returns: a function that reads the replies, so that the connections can be used again; if it is never called,
            they are closed. None if nothing was sent.
        """
        try:
            unread = [self._launched(self._posts(commands))]
        except StoreUnavailable:
            return None

        def finish() -> None:
            # A second call must not read what is for others.
            with suppress(StoreUnavailable, IndexError):
                self._replies(commands, unread.pop())

        return finish

    def nodes(self) -> Sequence[Node]:
        """Return every server that has keys of its own.

        :raises DependencyUnavailable: nobody reports which ones there are.
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
                        # Without a check of its health, which would be a round trip.
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
        raise self._failed(flight[0][0], redis.ConnectionError("a slot moves in a circle"))

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
            # What was not read must never be the reply to another command.
            _close(flight)
            raise
        for node, connection, _ in flight:
            node.give(connection)

    def _again(self, command: Command, post: _Post, reply: redis.ResponseError) -> _Post:
        if isinstance(reply, NoScriptError) and command.script is not None:
            # ``ASKING``, if it is there, stays before it.
            return post._replace(sent=command.script.whole(post.sent))
        other = self._nodes.redirected(post.node, reply)
        if other is None:
            raise self._failed(post.node, reply)
        if other.asking:
            return _Post(post.position, other.node, _ASKING + command.packed, 1)
        return _Post(post.position, other.node, command.packed)

    # The deadlines of a client that connects within a time of its own; otherwise one deadline is set for all of a call.

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
        # Other messages than ours may contain the URI with its password.
        reason = str(error) if isinstance(error, NoPassword) else type(error).__name__
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
