"""The scripts that count on a server: the arithmetic of ``windows.py`` and ``backoff.py`` in Lua.

A key is a hash with a field for each rule, one for the penalty and one for the name of the caller. All numbers are
little-endian doubles, because Lua's conversion to strings would truncate them. The clock is the server's.
"""

from __future__ import annotations

from .redis_usage import USAGE

NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

_WINDOWS = """
local SLIDING, GCRA, LEASES, EPSILON = 1, 2, 3, 1e-6
local FOREVER = math.huge
local key, rules = KEYS[1], cjson.decode(ARGV[1])
local NAME, KIND, AMOUNT, SECONDS, BURST = 1, 2, 3, 4, 5
local max, min = math.max, math.min
local pack, unpacked, sub = struct.pack, struct.unpack, string.sub
local writes, ends = {}, 0

local function fields(...)
  local names = {...}
  for i, rule in ipairs(rules) do names[#names + 1] = 'rule:' .. rule[NAME] end
  return names
end

-- Returns the state as of now, and whether the clock was set back, so that the state must be written.
local function rolled(rule, raw)
  if not raw or #raw ~= 24 then return now, 0, 0, false end
  local start, current, previous = unpacked('<ddd', raw)
  local seconds = rule[SECONDS]
  if rule[KIND] == GCRA then
    local longest = now + seconds / rule[AMOUNT] * rule[BURST] + seconds
    return min(max(start, now), longest), 0, 0, start > longest
  end
  local age = now - start
  if age < 0 then return now, current, previous, true end
  if age < seconds - EPSILON then return start, current, previous, false end
  if rule[KIND] ~= SLIDING or age >= 2 * seconds - EPSILON then return now, 0, 0, false end
  return start + seconds, 0, current, false
end

local function waiting(wait)
  return wait > EPSILON and wait or 0
end

local function sliding_wait(rule, current, previous, left, price)
  local room = rule[AMOUNT] - price - current
  if room >= 0 then return left - rule[SECONDS] * (room + 1) / previous end
  return left + max(0, rule[SECONDS] * (1 - (rule[AMOUNT] - price + 1) / current))
end

-- Returns how much is used, how long the price waits, and when the window ends.
local function counted(rule, start, current, previous, price)
  local seconds, amount = rule[SECONDS], rule[AMOUNT]
  if rule[KIND] == GCRA then
    local step, ahead = seconds / amount, start - now
    if price == 0 then return ahead / step, 0, ahead end
    if price > rule[BURST] then return ahead / step, FOREVER, ahead end
    return ahead / step, waiting(ahead + step * (price - rule[BURST])), ahead
  end
  local left = seconds - max(0, now - start)
  local used = current
  if previous ~= 0 then used = used + max(0, math.floor(previous * left / seconds - EPSILON)) end
  if price == 0 or used + price <= amount then return used, 0, left end
  if price > amount then return used, FOREVER, left end
  if rule[KIND] ~= SLIDING then return used, waiting(left), left end
  return used, waiting(sliding_wait(rule, current, previous, left, price)), left
end

local function charged(rule, start, current, price)
  if rule[KIND] == GCRA then return start + rule[SECONDS] / rule[AMOUNT] * price, 0 end
  return start, current + price
end

local function write(field, value, until_)
  writes[#writes + 1] = field
  writes[#writes + 1] = value
  ends = max(ends, until_)
end

local function write_window(rule, start, current, previous)
  local until_ = start
  if rule[KIND] == SLIDING then until_ = start + 2 * rule[SECONDS]
  elseif rule[KIND] ~= GCRA then until_ = start + rule[SECONDS] end
  write('rule:' .. rule[NAME], pack('<ddd', start, current, previous), until_)
end

-- Leases are 8 bytes of a name and their expiry, sorted by expiry: taken and renewed leases are appended. Returns those
-- that have not expired, and whether the clock was set back. Only the expired ones and one more are read.
local function leases(raw, longest)
  if not raw or #raw % 16 ~= 0 then return '', false end
  local back = unpacked('<d', raw, #raw - 7) > now + longest
  if back then
    local parts = {}
    for i = 1, #raw, 16 do
      local expiry = min(unpacked('<d', raw, i + 8), now + longest)
      parts[#parts + 1] = sub(raw, i, i + 7) .. pack('<d', expiry)
    end
    raw = table.concat(parts)
  end
  local first = 1
  while first < #raw and unpacked('<d', raw, first + 8) <= now do first = first + 16 end
  return sub(raw, first), back
end

local function place_of(held, lease)
  if #lease ~= 8 then return end
  local at = string.find(held, lease, 1, true)
  while at and at % 16 ~= 1 do at = string.find(held, lease, at + 1, true) end
  return at
end

local function without(held, at)
  return at and sub(held, 1, at - 1) .. sub(held, at + 16) or held
end

local function write_leases(rule, held)
  if held == '' then return redis.call('HDEL', key, 'rule:' .. rule[NAME]) end
  write('rule:' .. rule[NAME], held, (unpacked('<d', held, #held - 7)))
end

-- A hash expires with its last field, including fields of rules that this call does not have.
local function save()
  if #writes == 0 then return end
  redis.call('HSET', key, unpack(writes))
  local lasts = max(1, math.ceil((ends - now) * 1000))
  if lasts > redis.call('PTTL', key) then redis.call('PEXPIRE', key, lasts) end
end
"""

_BACKOFF = """
local GRACE = 1
local tolerance, base, factor, maximum, decay, jitter, block_after, block

-- A penalty is the number of requests before Retry-After, the end of Retry-After, the time when a rejection was last
-- counted, the strikes, and the end of the penalty.
local function forgiven(rejections, told, counted_at, strikes, until_)
  if strikes == 0 then return rejections, told, counted_at, strikes, until_ end
  if until_ > now + max(maximum, block) * (1 + jitter) then return 0, 0, 0, 0, 0 end
  local calm = now - max(counted_at, until_)
  if calm >= decay then
    strikes = max(0, strikes - math.floor((calm - math.fmod(calm, decay)) / decay + 0.5))
  end
  return rejections, told, counted_at, strikes, until_
end

local function penalty_seconds(strikes, chance)
  if strikes >= block_after then return block end
  return min(maximum, base * factor ^ (strikes - 1)) * (1 + jitter * chance)
end

local function rejected(wait, chance, rejections, told, counted_at, strikes, until_)
  local told_before = told
  local was_counted = counted_at
  rejections, told, counted_at, strikes, until_ = forgiven(rejections, told, counted_at, strikes, until_)
  if now < told then told = max(told, until_, now + wait) else told = now + wait end
  if now >= told_before or counted_at > now then return 0, told, now, strikes, until_ end
  if now - counted_at < GRACE then return rejections, told, counted_at, strikes, until_ end
  rejections = rejections + 1
  if rejections <= tolerance then return rejections, told, now, strikes, until_ end
  strikes = strikes + 1
  until_ = now + penalty_seconds(math.floor(strikes), chance)
  return 0, max(told, until_), now, strikes, until_
end

local function write_penalty(rejections, told, counted_at, strikes, until_)
  local over = max(told, until_, counted_at) + decay * (strikes + 1)
  write('penalty', pack('<ddddd', rejections, told, counted_at, strikes, until_), over)
end
"""

_CHARGE = """
local count = #rules
local numbers = {unpacked('<' .. string.rep('d', count + 3), ARGV[2])}
local chance, longest, really = numbers[count + 1], numbers[count + 2], numbers[count + 3] == 1
local lease, name, backs_off = ARGV[3], ARGV[4], ARGV[5] ~= ''
if backs_off then
  tolerance, base, factor, maximum, decay, jitter, block_after, block = unpacked('<dddddddd', ARGV[5])
end
local stored = redis.call('HMGET', key, unpack(fields('penalty', 'caller')))

local penalty = {0, 0, 0, 0, 0}
if backs_off and stored[1] and #stored[1] == 40 then penalty = {unpacked('<ddddd', stored[1])} end
local strikes, until_ = 0, 0
if backs_off then strikes, until_ = select(4, forgiven(unpack(penalty, 1, 5))) end

local result, states, wait, over = {1, 0, 0}, {}, 0, false
for i, rule in ipairs(rules) do
  local price, at, raw = numbers[i], 4 * i, stored[i + 2]
  if rule[KIND] == LEASES then
    local held, back = leases(raw, longest)
    local own = place_of(held, lease)
    local full = price > 0 and not own and #held / 16 >= rule[AMOUNT]
    over = over or full
    states[i] = {held, own, back}
    result[at], result[at + 1], result[at + 2], result[at + 3] = #held / 16, full and 1 or 0, 0, 0
  else
    local start, current, previous, back = rolled(rule, raw)
    states[i] = {start, current, previous, back}
    result[at], result[at + 1], result[at + 2] = counted(rule, start, current, previous, price)
    result[at + 3] = start
    wait = max(wait, result[at + 1])
  end
end
local allowed = wait == 0 and not over and until_ <= now

if really then
  for i, rule in ipairs(rules) do
    local price, at, state = numbers[i], 4 * i, states[i]
    if rule[KIND] == LEASES then
      local held, own, back = unpack(state, 1, 3)
      if allowed and price > 0 and #lease == 8 then
        held, back = without(held, own) .. lease .. pack('<d', now + longest), true
        result[at] = #held / 16
      end
      if back then write_leases(rule, held) end
    elseif allowed and price > 0 then
      local start, current = charged(rule, state[1], state[2], price)
      result[at], result[at + 1], result[at + 2] = counted(rule, start, current, state[3], 0)
      result[at + 3] = start
      write_window(rule, start, current, state[3])
    elseif state[4] then
      write_window(rule, state[1], state[2], state[3])
    end
  end
  if backs_off and wait < FOREVER and (wait > 0 or until_ > now) then
    penalty = {rejected(wait, chance, unpack(penalty, 1, 5))}
    strikes, until_ = penalty[4], penalty[5]
    write_penalty(unpack(penalty, 1, 5))
  end
  if #writes > 0 and name ~= '' and stored[2] ~= name then write('caller', name, 0) end
  save()
  if allowed then use(ARGV[6], ARGV[7], name) end
end
if not allowed then result[1] = 0 end
result[2], result[3] = max(0, until_ - now), math.floor(strikes)
return pack('<' .. string.rep('d', 3 + 4 * count), unpack(result, 1, 3 + 4 * count))
"""

_SETTLE = """
local count = #rules
local numbers = {unpacked('<' .. string.rep('d', 2 * count + 1), ARGV[2])}
local longest, lease = numbers[2 * count + 1], ARGV[3]
local stored = redis.call('HMGET', key, unpack(fields('penalty')))
for i, rule in ipairs(rules) do
  local raw, delta, charged_at = stored[i + 1], numbers[i], numbers[count + i]
  if raw and rule[KIND] == LEASES then
    local held, back = leases(raw, longest)
    local own = place_of(held, lease)
    if own or back then write_leases(rule, without(held, own)) end
  elseif raw and delta ~= 0 then
    local start, current, previous, back = rolled(rule, raw)
    local now_current, now_previous = current, previous
    if rule[KIND] == GCRA then
      start, back = start + rule[SECONDS] / rule[AMOUNT] * delta, true
    elseif math.abs(start - charged_at) < EPSILON then
      now_current = max(0, current + delta)
    elseif rule[KIND] == SLIDING and math.abs(start - charged_at - rule[SECONDS]) < EPSILON then
      now_previous = max(0, previous + delta)
    end
    if back or now_current ~= current or now_previous ~= previous then
      write_window(rule, start, now_current, now_previous)
    end
  end
end
save()
use(ARGV[4], ARGV[5])
"""

_RENEW = """
local longest, renewed = unpacked('<d', ARGV[2]), {}
for i = 1, #ARGV[3], 8 do renewed[sub(ARGV[3], i, i + 7)] = true end
local stored = redis.call('HMGET', key, unpack(fields('penalty')))
for i, rule in ipairs(rules) do
  if rule[KIND] == LEASES then
    local held, changed = leases(stored[i + 1], longest)
    local others, last = {}, {}
    for at = 1, #held, 16 do
      local id = sub(held, at, at + 7)
      if renewed[id] then
        last[#last + 1] = id .. pack('<d', now + longest)
      else
        others[#others + 1] = sub(held, at, at + 15)
      end
    end
    if changed or #last > 0 then write_leases(rule, table.concat(others) .. table.concat(last)) end
  end
end
save()
"""

CHARGE = NOW + _WINDOWS + _BACKOFF + USAGE + _CHARGE
"""Charges a key, or reports its counts.

Arguments: the rules; a price for each, a random number, the seconds of a lease and whether to charge; the lease; the
name of the caller; the numbers of the backoff, or nothing; the usage, if it is counted. Returns whether the charge is
allowed, the seconds of the penalty, the strikes, and four numbers for each rule.
"""

SETTLE = NOW + _WINDOWS + USAGE + _SETTLE
"""Corrects a charge.

Arguments: the rules; a difference and a start for each, the seconds of a lease; the lease; the usage.
"""

RENEW = NOW + _WINDOWS + _RENEW
"""Extends leases. Arguments: the rules; the seconds of a lease; the leases."""
