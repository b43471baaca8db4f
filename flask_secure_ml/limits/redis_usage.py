"""What callers used, on a server: a hash for each caller and day, in the slot of the caller's counts.

The script that charges writes it, so that what is charged is counted, whatever becomes of the worker. A field is a pair
of a plan and a route, and has three doubles: the requests, the rows and the cost, exact up to 2**53. The hash expires
by itself.
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
-- Adds to what the caller used in a day. A correction of what is not there any more is dropped.
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
    """Return the arguments of the script for what a request used; none for nothing.

    :param days: for how long it is kept, beyond the day itself.
    """
    if usage is None or not days:
        return ()
    # Lengths, so that no name can look like another pair; "others" and "caller" are no such arrays.
    return orjson.dumps([usage.plan, usage.route]), _SENT.pack(usage.requests, usage.rows, usage.cost, (days + 1) * DAY)


def day_in(name: bytes) -> int | None:
    """Return the day of a hash; None for another name."""
    number = name.rpartition(b"}:")[2]
    return int(number) if number.removeprefix(b"-").isdigit() else None


def used_in(day: int, fields: list[bytes]) -> list[Used]:
    """Return what is in the hash of a caller and day."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    caller = found.pop(CALLER, b"").decode("utf-8", "surrogatepass")
    used = []
    for field, numbers in found.items():
        if len(numbers) == _NUMBERS.size:
            plan, route = (OTHERS, OTHERS) if field == b"others" else orjson.loads(field)
            used.append(Used(caller, plan, route, day, *map(round, _NUMBERS.unpack(numbers))))
    return used
