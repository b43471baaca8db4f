"""A store for many machines: Redis or Valkey (extra ``redis``)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from ..principal import Clock
from ..refresh import Breaker, Outage, PerProcess
from ..secrets import SecretRing
from .base import KEPT_CHANGES, PAGE, Changes, Cursor, Record, all_items, unavailable
from .redis_connection import BOUNDED, Deadline

# A space has four keys: a hash of its records, a sorted set of their keys in the order in which they are read, one of
# the ends of those that expire, and a stream of the changes. A record is its end in milliseconds since the epoch (0 for
# never), a line end, and its value. A change is named by its number and a random tag, which make the id of its entry:
# a server that lost a change, and gives its number to another one, does not have that id.
_CHANGE = """
local function change(key, tag, kept)
  local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
  local number = last and tonumber(string.match(last[1], '^%d+')) or 0
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', kept, string.format('%.0f', number + 1) .. '-' .. tag, 'key', key)
end
local function drop(key)
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
  redis.call('ZREM', KEYS[3], key)
end
"""
# The change is recorded first: a script that the server interrupts must not leave one that no reader sees.
_PUT = (
    _CHANGE
    + """
local key, record, ends, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if ARGV[5] == '1' then
  local old = redis.call('HGET', KEYS[1], key)
  local taken_until = old and tonumber(string.match(old, '^%d+'))
  if old and (taken_until == 0 or taken_until > now) then return 0 end
end
change(key, ARGV[6], ARGV[7])
redis.call('HSET', KEYS[1], key, record)
redis.call('ZADD', KEYS[2], 0, key)
if ends == 0 then redis.call('ZREM', KEYS[3], key) else redis.call('ZADD', KEYS[3], ends, key) end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100)) do drop(old) end
return 1
"""
)
_DELETE = (
    _CHANGE
    + """
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old then
  change(ARGV[1], ARGV[2], ARGV[3])
  drop(ARGV[1])
end
return old
"""
)
# Returns whether this is the first page of all records, the current version, the one that the reader reaches, and the
# keys and records of this page.
_CHANGES = """
local past, reading, after, size = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
local version = last and last[1] or ''
local known = past == version or (past ~= '' and #redis.call('XRANGE', KEYS[4], past, past) == 1)
local reached, keys = past, {}
if reading == 'changes' and known then
  for _, entry in ipairs(past == version and {} or redis.call('XRANGE', KEYS[4], '(' .. past, '+', 'COUNT', size)) do
    reached = entry[1]
    table.insert(keys, entry[2][2])
  end
elseif reading == 'records' and known then
  keys = redis.call('ZRANGEBYLEX', KEYS[2], '(' .. after, '+', 'LIMIT', 0, size)
else
  known, reached = false, version
  keys = redis.call('ZRANGEBYLEX', KEYS[2], '-', '+', 'LIMIT', 0, size)
end
return {known and 0 or 1, version, reached, keys, #keys > 0 and redis.call('HMGET', KEYS[1], unpack(keys)) or {}}
"""


class RedisStore:
    """Stores everything on a server that many machines reach.

    The keys of a space contain its name as a hash tag, so that they stay together in a cluster.

    :param uri: ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://``.
    :param password: the password, read again for each connection; None for the one in the URI, or none.
    :param clock: decides when a record expires; what ``add`` stores expires by the server's clock.
    :raises Exception: the URI cannot be used; the message may contain it.
    """

    shared = True

    def __init__(self, uri: str, password: SecretRing | None, clock: Clock) -> None:
        self._client = RedisClient(uri, password, clock)
        self._clock = clock
        self._put = self._client.script(_PUT)
        self._delete = self._client.script(_DELETE)
        self._changes = self._client.script(_CHANGES)

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Store a key for some seconds; return False if any machine stored it already."""
        name, milliseconds = f"{_prefix(space)}:seen:{key}", max(1, math.ceil(seconds * 1000))
        return bool(self._client.run(lambda client: client.set(name, b"", nx=True, px=milliseconds)))

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; with ``new``, return False and store nothing if the key is taken."""
        now = self._now()
        ends = 0 if seconds is None else now + math.ceil(seconds * 1000)
        record = b"%d\n%b" % (ends, value)
        return bool(self._put(_keys(space), [key, record, ends, now, int(new), _tag(), KEPT_CHANGES]))

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""
        record = _record(self._client.run(lambda client: client.hget(_keys(space)[0], key)), self._now())
        return None if record is None else record.value

    def delete(self, space: str, key: str) -> bool:
        """Delete a record; return False if there is none."""
        return _record(self._delete(_keys(space), [key, _tag(), KEPT_CHANGES]), self._now()) is not None

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, sorted by key."""
        return all_items(self, space)

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        """Return the records that changed since a cursor, or the first page of all records."""
        past, after = cursor or Cursor("")
        reading = "all" if cursor is None else "changes" if after is None else "records"
        found = self._changes(_keys(space), [past, reading, after or "", PAGE], timeout)
        whole, version, reached = bool(found[0]), found[1].decode(), found[2].decode()
        keys, now = [key.decode() for key in found[3]], self._now()
        records = {key: _record(raw, now) for key, raw in zip(keys, found[4], strict=True)}
        full = (whole or reading == "records") and len(keys) == PAGE
        reached_all = Cursor(reached, keys[-1] if full else None)
        return Changes(records, reached_all, more=full or reached != version, whole=whole)

    def _now(self) -> int:
        return int(self._clock.now() * 1000)


def _record(stored: bytes | None, now: int) -> Record | None:
    if stored is None:
        return None
    ends, _, value = stored.partition(b"\n")
    left = int(ends) - now
    if ends == b"0":
        return Record(value)
    return Record(value, left / 1000) if left > 0 else None


def _tag() -> int:
    return secrets.randbits(53)


def _prefix(space: str) -> str:
    return f"flask-secure-ml:{{{space}}}"


def _keys(space: str) -> list[str]:
    prefix = _prefix(space)
    return [f"{prefix}:records", f"{prefix}:keys", f"{prefix}:ends", f"{prefix}:changes"]


SOCKET_TIMEOUT = 0.25
"""Seconds for a whole command; the client library's own default is seconds for each packet, or for ever."""

PAUSE = 1.0
"""Seconds for which a server that failed is not called, so that requests in between do not wait for it."""

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}

# Options of the URI that weaken the verification of the server's certificate.
_WEAKENING = frozenset({"ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"})


class RedisClient:
    """Runs commands, one attempt each.

    :param uri: ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://``.
    :param password: read for each connection, the newest first; None for the one in the URI, or none.
    :param clock: measures the pause after a failure.
    :raises Exception: the URI cannot be used; the message may contain it.
    """

    def __init__(self, uri: str, password: SecretRing | None, clock: Clock) -> None:
        parts = urlsplit(uri)
        self._passwords = None if password is None else Passwords(unquote(parts.username or ""), password)
        self._deadline = Deadline(SOCKET_TIMEOUT)
        # The URI is in the closure only: as an attribute, its password could be printed.
        self._client: PerProcess[Any] = PerProcess(lambda: _client(parts, self._passwords, self._deadline))
        # Creating a connection checks the options, and does not connect it.
        self._client.get().connection_pool.make_connection()
        log = Outage("the shared store is down", "the shared store is up again", clock.monotonic)
        self._breaker = Breaker(clock, pause=PAUSE, outage=log)

    def script(self, code: str) -> Callable[..., Any]:
        """Return a function that runs a Lua script with ``keys``, ``args`` and the ``timeout`` of :meth:`run`."""
        script = self._client.get().register_script(code)
        return lambda keys, args, timeout=None: self.run(
            lambda client: script(keys=keys, args=args, client=client), timeout
        )

    def run(self, command: Callable[[Any], Any], timeout: float | None = None) -> Any:
        """Call a function with the client and return what it returns.

        :param timeout: seconds for all of it, even if the server failed a moment ago: for a caller that pauses itself.
        :raises DependencyUnavailable: the server does not respond, rejects the command, or failed a moment ago.
        """
        if timeout is None and self._breaker.wait():
            raise unavailable("the shared store failed a moment ago")
        try:
            with self._deadline.within(self._deadline.usual if timeout is None else timeout):
                result = self._with_some_password(command)
        except (redis.RedisError, OSError) as error:
            # Other messages than ours may contain the URI with its password.
            reason = str(error) if isinstance(error, NoPassword) else type(error).__name__
            self._breaker.failed(reason)
            raise unavailable(f"the shared store failed: {reason}") from None
        self._breaker.succeeded()
        return result

    def _with_some_password(self, command: Callable[[Any], Any]) -> Any:
        tried = 0
        while True:
            turn = self._passwords.turn if self._passwords else 0
            try:
                return command(self._client.get())
            except redis.AuthenticationError:
                tried += 1
                if self._passwords is None or tried >= self._passwords.count():
                    raise
                self._passwords.next_after(turn)


class NoPassword(redis.RedisError):
    """The password cannot be read."""


class Passwords(CredentialProvider):
    """Gives each new connection a password: the last one that was accepted, at first the newest.

    :param username: of the server's access control list; empty for its default user.
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
        """Switch to the next password, unless another thread did so already."""
        if self.turn == turn:
            self.turn += 1

    def count(self) -> int:
        """Return the number of passwords.

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


def _client(parts: SplitResult, passwords: Passwords | None, deadline: Deadline) -> Any:
    if weak := sorted(_WEAKENING & parse_qs(parts.query, keep_blank_values=True).keys()):
        raise ValueError(f"{', '.join(weak)} would let another server impersonate it; give it a certificate instead")
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    options: dict[str, Any] = {"ssl_check_hostname": True} if scheme == "rediss" else {}
    host = parts.netloc
    if passwords is not None:
        host = host.rpartition("@")[2]
        options["credential_provider"] = passwords
    client = redis.Redis.from_url(
        f"{scheme}://{host}{parts.path}?{parts.query}",
        socket_timeout=SOCKET_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        # With the older protocol the client notices that a connection of its pool was closed meanwhile.
        protocol=2,
        **options,
    )
    # Each connection closes itself. The pool would need its lock for that, which may be held for ever after a fork.
    client.auto_close_connection_pool = False
    pool = client.connection_pool
    # The URI may have another timeout.
    deadline.usual = pool.connection_kwargs["socket_timeout"] or SOCKET_TIMEOUT
    pool.connection_class = BOUNDED[pool.connection_class]
    pool.connection_kwargs["deadline"] = deadline
    return client
