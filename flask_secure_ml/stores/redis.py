"""A store for many machines: Redis or Valkey (extra ``redis``)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence

from ..principal import Clock
from ..secrets import SecretRing
from .base import KEPT_CHANGES, PAGE, Changes, Cursor, Record, all_items
from .redis_client import RedisClient
from .redis_protocol import Command, Script, command, packed

# A space has four keys: a hash of its records, a sorted set of their keys in reading order, a sorted set of the
# expiries, and a stream of the changes. A record is its expiry in milliseconds since the epoch (0 for never), a
# newline, and its value. The id of a change in the stream consists of its number and a random tag: if a server lost a
# change and reuses its number, that id is unknown.
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
# The change is recorded first, so that readers see it even if the server interrupts the script.
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
# Returns whether this is the first page of all records, the current version, the version that the reader reaches, and
# the keys and records of this page.
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


_FACTS = (Command(b"", packed(b"TIME")), Command(b"", packed(b"INFO", b"memory")))


class Server:
    """One server of a store.

    :param time: its reply to ``TIME``.
    :param memory: its reply to ``INFO memory``.
    """

    def __init__(self, time: Sequence[bytes], memory: bytes) -> None:
        fields = dict(line.partition(":")[::2] for line in memory.decode("utf-8", "replace").splitlines())
        self.now: float = int(time[0]) + int(time[1]) / 1_000_000
        self.evicts: str = "" if fields.get("maxmemory", "0") == "0" else fields.get("maxmemory_policy", "")


class RedisStore:
    """Stores everything on a server that many machines share.

    The keys of a space have its name as a hash tag, so that they are on the same node of a cluster.

    :param uri: as for :class:`~flask_secure_ml.stores.redis_address.Address`.
    :param password: the password, read again for each connection; None to use the one in the URI, if any.
    :param clock: decides when a record expires; keys of ``add`` expire by the server's clock.
    :raises Exception: the URI cannot be used; the message may contain it.
    """

    shared = True

    def __init__(self, uri: str, password: SecretRing | None, clock: Clock) -> None:
        self._client = RedisClient(uri, password, clock)
        self._clock = clock
        self._put = Script(_PUT)
        self._delete = Script(_DELETE)
        self._changes = Script(_CHANGES)

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Store a key for some seconds; return False if it is already stored by any machine."""
        name, milliseconds = f"{_prefix(space)}:seen:{key}", max(1, math.ceil(seconds * 1000))
        return bool(self._client.call(command("SET", name, b"", "NX", "PX", milliseconds)))

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; with ``new``, return False without storing it if the key is taken."""
        now = self._now()
        ends = 0 if seconds is None else now + math.ceil(seconds * 1000)
        record = b"%d\n%b" % (ends, value)
        put = self._put.on(_keys(space), key, record, ends, now, int(new), _tag(), KEPT_CHANGES)
        return bool(self._client.call(put))

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""
        record = _record(self._client.call(command("HGET", _keys(space)[0], key)), self._now())
        return None if record is None else record.value

    def delete(self, space: str, key: str) -> bool:
        """Delete a record; return False if there is none."""
        deleted = self._client.call(self._delete.on(_keys(space), key, _tag(), KEPT_CHANGES))
        return _record(deleted, self._now()) is not None

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, sorted by key."""
        return all_items(self, space)

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        """Return the records that changed since a cursor, or the first page of all records."""
        past, after = cursor or Cursor("")
        reading = "all" if cursor is None else "changes" if after is None else "records"
        found = self._client.call(self._changes.on(_keys(space), past, reading, after or "", PAGE), timeout)
        whole, version, reached = bool(found[0]), found[1].decode(), found[2].decode()
        keys, now = [key.decode() for key in found[3]], self._now()
        records = {key: _record(raw, now) for key, raw in zip(keys, found[4], strict=True)}
        full = (whole or reading == "records") and len(keys) == PAGE
        reached_all = Cursor(reached, keys[-1] if full else None)
        return Changes(records, reached_all, more=full or reached != version, whole=whole)

    def servers(self) -> list[Server]:
        """Return the clock and the eviction policy of each server.

        :raises DependencyUnavailable: one of them does not respond, or rejects the command of this user.
        """
        return [Server(*self._client.exchange(_FACTS, node=node)) for node in self._client.nodes()]

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
