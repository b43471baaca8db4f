"""A connection to Redis or Valkey that fails fast and changes its password without a restart."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from ..exchange import Clock
from ..secrets import SecretRing
from .base import unavailable
from .redis_connection import BOUNDED, Deadline

log = logging.getLogger(__name__)

SOCKET_TIMEOUT = 0.25
"""Seconds for a command with all that it takes; the client library's own default is seconds a packet, or for ever."""

PAUSE = 1.0
"""Seconds for which a server that failed is left alone, so that requests in between pay nothing for it."""

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}

# Options of the address that turn the check of the server's certificate off or down.
_WEAKENING = frozenset({"ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"})


class RedisClient:
    """Runs commands, one attempt each.

    :param uri: ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://``.
    :param password: read for each connection, the newest first; None for the one in the address, or none.
    :param clock: tells when a server that failed is asked again.
    :raises Exception: the address cannot be used; the text may hold it.
    """

    def __init__(self, uri: str, password: SecretRing | None, clock: Clock) -> None:
        address = urlsplit(uri)
        self._passwords = None if password is None else Passwords(unquote(address.username or ""), password)
        self._deadline = Deadline(SOCKET_TIMEOUT)
        # The address is in the closure only: as an attribute, its password could be printed.
        self._make: Callable[[], Any] = lambda: _client(address, self._passwords, self._deadline)
        self._made = (os.getpid(), self._make())
        # Wrong options show when a connection is made; making one does not connect it.
        self._made[1].connection_pool.make_connection()
        self._clock = clock
        self._retry_at = -math.inf

    def script(self, text: str) -> Callable[..., Any]:
        """Return a function that runs a Lua script with ``keys``, ``args`` and the ``timeout`` of :meth:`run`."""
        script = self._made[1].register_script(text)
        return lambda keys, args, timeout=None: self.run(
            lambda client: script(keys=keys, args=args, client=client), timeout
        )

    def run(self, command: Callable[[Any], Any], timeout: float | None = None) -> Any:
        """Call a function with the client and return what it returns.

        :param timeout: seconds for the whole of it, also when the server failed a moment ago: for a caller that pauses
            and reports failures itself.
        :raises DependencyUnavailable: the server does not answer, refuses, or failed a moment ago.
        """
        if timeout is None and self._clock.monotonic() < self._retry_at:
            raise unavailable("the shared store failed a moment ago")
        try:
            with self._deadline.within(self._deadline.usual if timeout is None else timeout):
                return self._with_some_password(command)
        except (redis.RedisError, OSError) as error:
            self._retry_at = self._clock.monotonic() + PAUSE
            # Other texts than ours may name the address with its password.
            told = str(error) if isinstance(error, NoPassword) else type(error).__name__
            if timeout is None:
                log.error("the shared store failed: %s", told)
            raise unavailable(f"the shared store failed: {told}") from None

    def _current(self) -> Any:
        """Return the client of this process.

        One that was made before a fork has locks that may be held for ever, and that block every greenlet when gevent
        came after it.
        """
        pid, client = self._made
        if pid != os.getpid():
            client = self._make()
            self._made = (os.getpid(), client)
        return client

    def _with_some_password(self, command: Callable[[Any], Any]) -> Any:
        tried = 0
        while True:
            turn = self._passwords.turn if self._passwords else 0
            try:
                return command(self._current())
            except redis.AuthenticationError:
                tried += 1
                if self._passwords is None or tried >= self._passwords.count():
                    raise
                self._passwords.next_after(turn)


class NoPassword(redis.RedisError):
    """The password cannot be read."""


class Passwords(CredentialProvider):
    """Gives each new connection a password: the one that was taken last, at first the newest.

    :param username: of the server's access control list; empty for its default user.
    """

    def __init__(self, username: str, ring: SecretRing) -> None:
        self.turn = 0
        self._username = username
        self._ring = ring

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the password, after the username if there is one.

        :raises NoPassword: it cannot be read.
        """
        passwords = self._read()
        password = passwords[self.turn % len(passwords)]
        return (self._username, password) if self._username else (password,)

    def next_after(self, turn: int) -> None:
        """Go on to the next password, unless another thread did so already."""
        if self.turn == turn:
            self.turn += 1

    def count(self) -> int:
        """Return how many passwords there are.

        :raises NoPassword: one cannot be read.
        """
        return len(self._read())

    def _read(self) -> list[str]:
        try:
            return [each.decode() for each in self._ring.read()]
        except UnicodeDecodeError:
            raise NoPassword("SECURE_ML_STORE_PASSWORD is not UTF-8") from None
        except ValueError as error:
            raise NoPassword(f"SECURE_ML_STORE_PASSWORD: {error}") from None


def _client(address: SplitResult, passwords: Passwords | None, deadline: Deadline) -> Any:
    if weak := sorted(_WEAKENING & parse_qs(address.query, keep_blank_values=True).keys()):
        raise ValueError(f"{', '.join(weak)} would let another server take its place; give it a certificate instead")
    scheme = _SCHEMES.get(address.scheme, address.scheme)
    options: dict[str, Any] = {"ssl_check_hostname": True} if scheme == "rediss" else {}
    place = address.netloc
    if passwords is not None:
        place = place.rpartition("@")[2]
        options["credential_provider"] = passwords
    client = redis.Redis.from_url(
        f"{scheme}://{place}{address.path}?{address.query}",
        socket_timeout=SOCKET_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        # With the older protocol the client finds out that a connection of its pool was closed meanwhile.
        protocol=2,
        **options,
    )
    # Each connection closes itself. The pool would take its lock for that, which may be held for ever after a fork.
    client.auto_close_connection_pool = False
    pool = client.connection_pool
    # The address may ask for another time-out.
    deadline.usual = pool.connection_kwargs["socket_timeout"] or SOCKET_TIMEOUT
    pool.connection_class = BOUNDED[pool.connection_class]
    pool.connection_kwargs["deadline"] = deadline
    return client
