"""The URI of a Redis or Valkey server, and the connections that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from ..secrets import SecretRing
from .redis_connection import BOUNDED, Deadline

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
_PORTS = {"sentinel": 26379}
_PORT = 6379

# Options of the URI that weaken the verification of the server's certificate.
_WEAKENING = frozenset({"ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"})

# Options that do not apply to Sentinels.
_OF_SERVERS = frozenset({"db"})
_CREDENTIALS = frozenset({"credential_provider", "username", "password"})


class Endpoint(NamedTuple):
    """A host and a port; both empty for a Unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.host else "its Unix socket"


class Address:
    """Creates the connections that a URI describes.

    :param uri: ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://`` (``redis+unix://``); with
        ``+sentinel`` or ``+cluster`` in the scheme and several hosts, a service that Sentinels watch, or a cluster.
    :param password: read for each connection, newest first; None to use the one in the URI, if any.
    :param deadline: the deadline of connections; ``?socket_timeout=`` changes its default.
    :raises Exception: the URI cannot be used; the message may contain it.
    """

    def __init__(self, uri: str, password: SecretRing | None, deadline: Deadline) -> None:
        parts = urlsplit(uri)
        scheme, _, kind = parts.scheme.partition("+")
        if kind == "unix":
            scheme, kind = "unix", ""
        self.kind: str = kind
        if self.kind not in {"", "sentinel", "cluster"}:
            raise ValueError(f"the scheme {parts.scheme} is not supported")
        if weak := sorted(_WEAKENING & parse_qs(parts.query, keep_blank_values=True).keys()):
            raise ValueError(
                f"{', '.join(weak)} would let another server impersonate it; give it a valid certificate instead"
            )
        user, at, hosts = parts.netloc.rpartition("@")
        self._passwords: Passwords | None = None
        if password is not None:
            self._passwords = Passwords(unquote(parts.username or ""), password)
            user = at = ""
        self.service: str = parts.path.strip("/") if self.kind == "sentinel" else ""
        if self.kind == "sentinel" and not self.service:
            raise ValueError("the path of the URI does not name a service")
        path = "" if self.kind else parts.path
        scheme = _SCHEMES.get(scheme, scheme)
        pools = [
            redis.ConnectionPool.from_url(f"{scheme}://{user}{at}{host}{path}?{parts.query}", **self._fixed(scheme))
            for host in (hosts.split(",") if self.kind else [hosts])
        ]
        self._class: type = BOUNDED[pools[0].connection_class]
        self._options: Mapping[str, Any] = {**pools[0].connection_kwargs, "deadline": deadline}
        self.endpoints: tuple[Endpoint, ...] = tuple(self._endpoint(pool.connection_kwargs) for pool in pools)
        deadline.usual = self._options.get("socket_timeout") or deadline.usual
        # Only checks the options, without connecting.
        self._class(**self._options)

    def connect(self, endpoint: Endpoint) -> Any:
        """Return a new connection to a server, with the first password that it accepts.

        :raises RedisError: the server does not respond, or accepts no password.
        """
        tried = 0
        while True:
            turn = self._passwords.turn if self._passwords else 0
            connection = self._made(endpoint)
            try:
                connection.connect()
            except redis.AuthenticationError:
                tried += 1
                if self._passwords is None or tried >= self._passwords.count():
                    raise
                self._passwords.next_after(turn)
            else:
                return connection

    def ask_sentinel(self, endpoint: Endpoint, command: bytes) -> Any:
        """Return the reply of a Sentinel. The password is sent only if the Sentinel requires one.

        :raises RedisError: it does not respond, or responds with an error.
        """
        try:
            return self._asked(endpoint, command, _OF_SERVERS | _CREDENTIALS)
        except redis.AuthenticationError:
            return self._asked(endpoint, command, _OF_SERVERS)

    def _asked(self, endpoint: Endpoint, command: bytes, left_out: frozenset[str]) -> Any:
        connection = self._made(endpoint, left_out)
        try:
            connection.connect()
            connection.send_packed_command([command], check_health=False)
            return connection.read_response()
        finally:
            connection.disconnect()

    # The options, with the password, must not be local variables in frames of a traceback.
    def _made(self, endpoint: Endpoint, left_out: frozenset[str] = frozenset()) -> Any:
        options = {name: value for name, value in self._options.items() if name not in left_out}
        return self._class(**options if endpoint.port == 0 else {**options, **endpoint._asdict()})

    def _fixed(self, scheme: str) -> dict[str, Any]:
        # With the older protocol, the client notices if an idle connection was closed.
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "protocol": 2}
        if scheme == "rediss":
            options["ssl_check_hostname"] = True
        if self._passwords is not None:
            options["credential_provider"] = self._passwords
        return options

    def _endpoint(self, options: Mapping[str, Any]) -> Endpoint:
        if "path" in options:
            return Endpoint("", 0)
        return Endpoint(options.get("host", "localhost"), options.get("port", _PORTS.get(self.kind, _PORT)))


class NoPassword(redis.RedisError):
    """The password cannot be read."""


class Passwords(CredentialProvider):
    """Provides the password for new connections: the last one that was accepted, at first the newest.

    :param username: a user in the server's access control list; empty for its default user.
    """

    def __init__(self, username: str, ring: SecretRing) -> None:
        self.turn: int = 0
        self._username = username
        self._ring = ring

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the password, preceded by the username if there is one.

        :raises NoPassword: it cannot be read.
        """
        passwords = self._read()
        password = passwords[self.turn % len(passwords)]
        return (self._username, password) if self._username else (password,)

    def next_after(self, turn: int) -> None:
        """Switch to the next password, unless another thread already did so."""
        if self.turn == turn:
            self.turn += 1

    def count(self) -> int:
        """Return the number of passwords.

        :raises NoPassword: one of them cannot be read.
        """
        return len(self._read())

    def _read(self) -> list[str]:
        try:
            return [each.decode() for each in self._ring.read()]
        except UnicodeDecodeError:
            raise NoPassword("SECURE_ML_STORE_PASSWORD is not UTF-8") from None
        except ValueError as error:
            raise NoPassword(f"SECURE_ML_STORE_PASSWORD: {error}") from None
