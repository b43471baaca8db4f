"""A store for many machines: Redis or Valkey (extra ``redis``)."""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Mapping
from contextlib import suppress

from ..errors import DependencyUnavailable
from ..exchange import Clock
from ..secrets import SecretRing
from .redis_client import RedisClient

# A record is its end in milliseconds since the epoch (0 for never), a line end, and its value.
_PUT = """
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old and ARGV[4] == '1' then
  local ends = tonumber(string.match(old, '^%d+'))
  if ends == 0 or ends > tonumber(ARGV[3]) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[5], 'NX')
redis.call('INCR', KEYS[2])
return 1
"""
_DELETE = """
local old = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'NX')
redis.call('INCR', KEYS[2])
return old
"""
# Only what is still what it was: a record may have been renewed since it was read.
_DROP = """
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
"""
_MOST_DROPPED = 1000


class RedisStore:
    """Keeps everything on a server that many machines reach.

    The records of a space and their version carry its name as a hash tag, so they stay together in a cluster.

    :param uri: ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://``.
    :param password: the password, read anew for each connection; None for the one in the address, or none.
    :param clock: tells when a record is over; what ``add`` remembers ends by the server's clock.
    :raises Exception: the address cannot be used; the text may hold it.
    """

    shared = True

    def __init__(self, uri: str, password: SecretRing | None, clock: Clock) -> None:
        self._client = RedisClient(uri, password, clock)
        self._clock = clock
        self._put = self._client.script(_PUT)
        self._delete = self._client.script(_DELETE)
        self._drop = self._client.script(_DROP)

    def add(self, space: str, key: str, seconds: float) -> bool:
        """Remember a key for a time; False when it is remembered already, by whatever machine."""
        name, milliseconds = f"{_prefix(space)}:seen:{key}", max(1, math.ceil(seconds * 1000))
        return bool(self._client.run(lambda client: client.set(name, b"", nx=True, px=milliseconds)))

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        """Store a record; False, and nothing stored, when ``new`` is wanted and the key is taken."""
        now = self._now()
        ends = 0 if seconds is None else now + math.ceil(seconds * 1000)
        record = b"%d\n%b" % (ends, value)
        return bool(self._put(_keys(space), [key, record, now, int(new), _first_version()]))

    def get(self, space: str, key: str) -> bytes | None:
        """Return a record, or None."""
        return _value(self._client.run(lambda client: client.hget(_keys(space)[0], key)), self._now())

    def delete(self, space: str, key: str) -> bool:
        """Forget a record; False when there is none."""
        return _value(self._delete(_keys(space), [key, _first_version()]), self._now()) is not None

    def items(self, space: str) -> Mapping[str, bytes]:
        """Return every record of a space, in the order of their keys."""
        stored: dict[bytes, bytes] = self._client.run(lambda client: client.hgetall(_keys(space)[0]))
        now = self._now()
        values = {key: _value(record, now) for key, record in sorted(stored.items())}
        self._forget(space, {key: stored[key] for key, value in values.items() if value is None})
        return {key.decode(): value for key, value in values.items() if value is not None}

    def version(self, space: str) -> int:
        """Return a number that is another one after every ``put`` and ``delete`` in the space."""
        return int(self._client.run(lambda client: client.get(_keys(space)[1])) or 0)

    def _forget(self, space: str, ended: Mapping[bytes, bytes]) -> None:
        # What was read is right without this, and the next one to read tries again.
        some = list(itertools.chain.from_iterable(itertools.islice(ended.items(), _MOST_DROPPED)))
        with suppress(DependencyUnavailable):
            if some:
                self._drop(_keys(space)[:1], some)

    def _now(self) -> int:
        return int(self._clock.now() * 1000)


def _value(record: bytes | None, now: int) -> bytes | None:
    if record is None:
        return None
    ends, _, value = record.partition(b"\n")
    return value if ends == b"0" or int(ends) > now else None


def _first_version() -> int:
    """Return where a space begins to count: at random, so that a server that lost everything is noticed."""
    return secrets.randbits(40)


def _prefix(space: str) -> str:
    return f"flask-secure-ml:{{{space}}}"


def _keys(space: str) -> list[str]:
    return [f"{_prefix(space)}:records", f"{_prefix(space)}:version"]
