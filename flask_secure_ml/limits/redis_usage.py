"""The usage of callers on a server: a hash for each caller and day, in the slot of the caller's counts.

The script that charges also writes the usage, so that no charge is lost if the worker dies. A field is a pair of a plan
and a route, and has three doubles: the requests, the rows and the cost, exact up to 2**53. The hash expires by itself.
"""

from __future__ import annotations

from struct import Struct

import orjson

from .usage import DAY, MAX_FIELDS, OTHERS, Usage, Used

PREFIX = b"flask-secure-ml:usage:{"
CALLER = b"caller"

_NUMBERS = Struct("<3d")
_SENT = Struct("<4d")

USAGE = f"""
-- Adds to the usage of the caller in a day. A correction of usage that no longer exists is dropped.
local function use(field, sent, caller)
  if not field or field == '' then return end
  local hash = KEYS[2]
  local requests, rows, cost, lasts = struct.unpack('<dddd', sent)
  local raw = redis.call('HGET', hash, field)
  if not raw then
    local fields = redis.call('HLEN', hash)
    if not caller and fields == 0 then return end
    if fields == 0 then
      redis.call('HSET', hash, 'caller', caller)
      redis.call('EXPIRE', hash, lasts)
    end
    if not caller or fields > {MAX_FIELDS} then
      field = 'others'
      raw = redis.call('HGET', hash, field)
      if not caller and not raw then return end
    end
  end
  if raw and #raw == 24 then
    local had_requests, had_rows, had_cost = struct.unpack('<ddd', raw)
    requests, rows, cost = requests + had_requests, rows + had_rows, cost + had_cost
  end
  redis.call('HSET', hash, field, struct.pack('<ddd', requests, rows, cost))
end
"""


def hash_of(key: bytes, day: int) -> bytes:
    """Return the name of the hash of a caller and day."""
    return b"%b%b}:%d" % (PREFIX, key.hex().encode(), day)


def arguments(usage: Usage | None, days: int) -> tuple[bytes, ...]:
    """Return the arguments of the script for the usage of a request; empty if there is none.

    :param days: how many days it is kept, after its own day.
    """
    if usage is None or not days:
        return ()
    # JSON, so that different pairs cannot have the same name; "others" and "caller" are not JSON arrays.
    return orjson.dumps([usage.plan, usage.route]), _SENT.pack(usage.requests, usage.rows, usage.cost, (days + 1) * DAY)


def day_in(name: bytes) -> int | None:
    """Return the day in the name of a hash; None if it has none."""
    number = name.rpartition(b"}:")[2]
    return int(number) if number.removeprefix(b"-").isdigit() else None


def used_in(day: int, fields: list[bytes]) -> list[Used]:
    """Return the usage in the hash of a caller and day."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    caller = found.pop(CALLER, b"").decode("utf-8", "surrogatepass")
    used = []
    for field, numbers in found.items():
        if len(numbers) == _NUMBERS.size:
            plan, route = (OTHERS, OTHERS) if field == b"others" else orjson.loads(field)
            used.append(Used(caller, plan, route, day, *map(round, _NUMBERS.unpack(numbers))))
    return used
