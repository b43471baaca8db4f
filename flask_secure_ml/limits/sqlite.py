"""Counts of all workers of one machine, in a separate SQLite file next to that of the shared state.

All data of a key are in one row. A charge therefore reads and writes one row for each key, regardless of the number of
its rules: two statements instead of nine, in half the time. Between two statements another thread of the worker may get
the interpreter lock, while all other workers wait.

A memory-mapped file with a lock would be even faster. But it would need its own index, eviction, and recovery from
workers that are killed while they write; SQLite has well-tested implementations of these.
"""

from __future__ import annotations

import math
import random
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from ..principal import Clock
from .backoff import NO_PENALTY, forgiven, rejected
from .counters import Backoff, Charge, Count, Settlement, Verdict
from .rules import DIGEST, Kind, Rule, RuleSet
from .sqlite_file import CounterConnection, CounterFile, boot_id, only_row
from .sqlite_row import Row
from .sqlite_usage import TABLE, Position, add, correct, expiry, page, sweep
from .usage import Used
from .windows import NOTHING, State, charged, counted, settled

MAX_KEYS = 500_000
"""The maximum number of callers and routes that are counted at the same time; each takes about 250 bytes."""

TIMEOUT = 0.25
"""Seconds to wait for other workers."""

_TABLES = """
CREATE TABLE IF NOT EXISTS counters (
    key BLOB PRIMARY KEY, name TEXT NOT NULL, windows BLOB NOT NULL, leases BLOB NOT NULL, penalty BLOB NOT NULL,
    expires REAL NOT NULL, share REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS size (id INTEGER PRIMARY KEY CHECK (id = 0), keys INTEGER NOT NULL);
INSERT OR IGNORE INTO size VALUES (0, 0);
"""
_READ = "SELECT name, windows, leases, penalty FROM counters WHERE key = ?"
_WRITE = """
INSERT INTO counters VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET name = excluded.name,
windows = excluded.windows, leases = excluded.leases, penalty = excluded.penalty, expires = excluded.expires,
share = excluded.share
"""
_DELETE = "DELETE FROM counters WHERE key = ?"
_GROW = "UPDATE size SET keys = max(0, keys + ?)"
_SIZE = "SELECT keys FROM size"
_NEXT = "SELECT key, expires, share FROM counters WHERE key > ? ORDER BY key LIMIT ?"
_CALLERS = "SELECT key, name, expires FROM counters WHERE key > ? ORDER BY key LIMIT ?"

# How many rows are examined to find one to evict for a new row, and how many at each tick.
_SAMPLE, _SWEEP = 16, 64
_PAGE = 1000
# A penalty whose end changes by less than this is not written.
_TOLERANCE = 0.001


class _Evaluation:
    """The evaluation of one charge against its row."""

    __slots__ = ("charge", "counts", "fits", "penalty", "row", "states")

    def __init__(self, charge: Charge, row: Row, now: float, backoff: Backoff | None) -> None:
        self.charge = charge
        self.row = row
        self.penalty = NO_PENALTY
        if backoff is not None and charge.rules.backs_off:
            self.penalty = forgiven(row.penalty, now, backoff)
        self.counts: list[Count] = []
        self.states: list[State] = []
        fits = now >= self.penalty.until
        for rule, price in zip(charge.rules.rules, charge.prices, strict=True):
            if rule.kind is Kind.LEASES:
                state, count = NOTHING, _lease_count(rule, row.leases_of(rule, now), charge.lease, price)
            else:
                state = row.state(rule, now)
                count = counted(rule, state, now, price)
            self.counts.append(count)
            self.states.append(state)
            fits = fits and not count.wait
        self.fits = fits

    def make(self, now: float) -> list[Count]:
        """Apply the charge to the row, and return the new counts."""
        charge, row = self.charge, self.row
        counts = self.counts.copy()
        for number, (rule, price) in enumerate(zip(charge.rules.rules, charge.prices, strict=True)):
            if not price:
                continue
            if rule.kind is Kind.LEASES:
                row.put_lease(rule, charge.lease, now)
                counts[number] = _lease_count(rule, row.leases_of(rule, now), charge.lease, 0)
            else:
                state = charged(rule, self.states[number], price)
                counts[number] = row.put(rule, state, now)
        if charge.name and charge.name != row.name:
            row.name = charge.name
            row.is_changed = row.is_changed or row.is_stored
        return counts

    def reject(self, now: float, backoff: Backoff, chance: float) -> None:
        """Count a rejection of this caller by its own limits."""
        windows = zip(self.charge.rules.rules, self.counts, strict=True)
        wait = max((count.wait for rule, count in windows if rule.kind is not Kind.LEASES), default=0.0)
        if math.isinf(wait) or not (wait or self.penalty.until > now):
            # Waiting does not help, or it is unknown how long.
            return
        row = self.row
        self.penalty = rejected(row.penalty, now, wait, backoff, chance)
        if any(abs(new - old) > _TOLERANCE for new, old in zip(self.penalty, row.penalty, strict=True)):
            row.penalty = self.penalty
            row.name = self.charge.name or row.name
            row.is_changed = True

    def verdict(self, now: float, counts: Sequence[Count], *, allowed: bool) -> Verdict:
        return Verdict(allowed, tuple(counts), max(0.0, self.penalty.until - now), int(self.penalty.strikes))


class SqliteCounters:
    """Counts in a file, exact across all workers of one machine.

    When there are too many keys, a new one replaces one of 16 sampled keys: one that has expired, or whose limits are
    used least. Keys that are used up, have a penalty or a request in flight are replaced last. A charge takes about a
    microsecond longer for each request of its key that is in flight.

    :param path: the file; created if it is missing, readable by its owner only. It must be on a local disk.
    :param clock: measures the windows with its monotonic clock; the file makes time continuous across restarts of the
        machine.
    :param backoff: the penalties for callers that keep sending requests beyond a limit; None for no penalties.
    :param max_keys: the maximum number of keys that are counted at the same time.
    :param timeout: seconds to wait for other workers.
    :param boot: identifies the current boot of the machine; by default the kernel's boot id.
    :param usage_days: how many days the usage of callers is kept; 0 to count none.
    :param uniform: returns a random number from 0 to 1.
    :raises ValueError: the file cannot be used: it is not a file of counts, or this user may not open it.
    """

    shared = True

    def __init__(
        self,
        path: str | Path,
        clock: Clock,
        backoff: Backoff | None = None,
        *,
        max_keys: int = MAX_KEYS,
        timeout: float = TIMEOUT,
        boot: str | None = None,
        usage_days: int = 0,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        file = CounterFile(Path(path), TABLE + _TABLES, clock)
        file.prepare_at_start()
        self._file = CounterConnection(file, clock, timeout, boot_id() if boot is None else boot)
        self._backoff = backoff
        self._max_keys = max_keys
        self._usage_days = usage_days
        self._uniform = uniform
        self._hand = secrets.token_bytes(DIGEST)

    def charge(self, charges: Sequence[Charge]) -> list[Verdict]:
        """Make all charges, or none if one price does not fit.

        Each verdict reports whether its own prices fit.
        """
        with self._file.transaction() as (connection, now, late):
            rows = _read(connection, (charge.key for charge in charges))
            found, counts = [], []
            for charge in charges:
                each = _Evaluation(charge, rows[charge.key], now, self._backoff)
                found.append(each)
                # Applied now, because the next charge may have the same key.
                counts.append(each.make(now) if each.fits else each.counts)
            allowed = all(each.fits for each in found)
            if not allowed:
                counts = [each.counts for each in found]
                rows = self._rejected(connection, rows, found, now)
            elif self._usage_days:
                self._use(connection, charges, now)
            self._write(connection, rows, now, late=late)
        return [each.verdict(now, counts[number], allowed=each.fits) for number, each in enumerate(found)]

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Correct charges and release leases."""
        with self._file.transaction() as (connection, now, late):
            rows = _read(connection, (settlement.key for settlement in settlements))
            for settlement in settlements:
                row = rows[settlement.key]
                for rule, delta, start in zip(
                    settlement.rules.rules, settlement.deltas, settlement.starts, strict=True
                ):
                    if not delta or rule.tag not in row.windows:
                        continue
                    state = row.state(rule, now)
                    corrected = settled(rule, state, delta, start)
                    if corrected != state:
                        row.put(rule, corrected, now)
                if settlement.lease:
                    row.drop_lease(settlement.lease)
                if settlement.usage is not None and self._usage_days:
                    correct(connection, settlement.key, settlement.usage)
            self._write(connection, rows, now, late=late)

    def settle_later(self, settlements: Sequence[Settlement]) -> None:
        """Correct charges and release leases; there is no server to wait for."""
        self.settle(settlements)

    def renew(self, leases: Sequence[tuple[bytes, RuleSet, bytes]]) -> None:
        """Extend leases; those that were released or have expired are not taken again."""
        with self._file.transaction() as (connection, now, late):
            rows = _read(connection, (key for key, _, _ in leases))
            for key, rules, lease in leases:
                for rule in rules.rules:
                    if rule.kind is Kind.LEASES and lease in rows[key].leases_of(rule, now):
                        rows[key].put_lease(rule, lease, now)
            self._write(connection, rows, now, late=late)

    def peek(self, key: bytes, rules: RuleSet, prices: Sequence[int] = ()) -> Verdict:
        """Return the counts of a key without charging it; ``prices`` as in :class:`Counters`."""
        with self._file.snapshot() as (connection, now):
            row = _read(connection, (key,))[key]
        charge = Charge(key, rules, tuple(prices) or (0,) * len(rules.rules))
        found = _Evaluation(charge, row, now, self._backoff)
        return found.verdict(now, found.counts, allowed=not any(count.wait for count in found.counts))

    def clear(self, key: bytes) -> bool:
        """Remove the counts, leases and penalties of a key; return False if there were none."""
        with self._file.transaction() as (connection, now, _):
            row = _read(connection, (key,))[key]
            if row.is_stored:
                connection.execute(_DELETE, (key,))
                connection.execute(_GROW, (-1,))
        return row.columns(now, self._backoff) is not None

    def callers(self) -> dict[bytes, str]:
        """Return the names of callers by key."""
        found: dict[bytes, str] = {}
        after = b""
        while True:
            # In pages, because a long snapshot would let the write-ahead log grow.
            with self._file.snapshot() as (connection, now):
                page = connection.execute(_CALLERS, (after, _PAGE)).fetchall()
            found |= {key: name for key, name, until in page if name and until > now}
            if len(page) < _PAGE:
                return found
            after = page[-1][0]

    def used(self, since: int, until: int) -> Iterator[Used]:
        """Yield the usage of callers between two days, both inclusive."""
        after: Position | None = (since, b"", "", "")
        while after is not None:
            with self._file.snapshot() as (connection, _):
                found, after = page(connection, after, until)
            yield from found

    def _use(self, connection: sqlite3.Connection, charges: Sequence[Charge], now: float) -> None:
        for charge in charges:
            if charge.usage is not None:
                add(connection, charge.key, charge.usage, charge.name, expiry(now, self._usage_days))

    def _rejected(
        self, connection: sqlite3.Connection, rows: dict[bytes, Row], found: list[_Evaluation], now: float
    ) -> dict[bytes, Row]:
        """Count the rejections, and return the rows without the charges."""
        if any(each.fits for each in found):
            rows = _read(connection, rows)
        for each in found:
            each.row = rows[each.charge.key]
            if self._backoff is not None and each.charge.rules.backs_off and not each.fits:
                each.reject(now, self._backoff, self._uniform())
        return rows

    def _write(self, connection: sqlite3.Connection, rows: dict[bytes, Row], now: float, *, late: bool) -> None:
        grown = 0
        for row in rows.values():
            columns = row.columns(now, self._backoff) if row.is_changed else None
            if columns is not None:
                connection.execute(_WRITE, columns)
                grown += not row.is_stored
            elif row.is_changed and row.is_stored:
                connection.execute(_DELETE, (row.key,))
                grown -= 1
        if late:
            sweep(connection, now)
        if grown or late:
            self._tidy(connection, rows, now, grown, _SWEEP if late else _SAMPLE)

    def _tidy(self, connection: sqlite3.Connection, rows: dict[bytes, Row], now: float, grown: int, limit: int) -> None:
        """Delete expired rows among the next few, and evict others if there are too many."""
        found = connection.execute(_NEXT, (self._hand, limit)).fetchall()
        self._hand = found[-1][0] if len(found) == limit else b""
        others = [each for each in found if each[0] not in rows]
        gone = [key for key, until, _ in others if until <= now]
        surplus = only_row(connection, _SIZE)[0] + grown - len(gone) - self._max_keys
        if surplus > 0:
            live = sorted((share, until, key) for key, until, share in others if until > now)
            gone += [key for *_, key in live[:surplus]]
        connection.executemany(_DELETE, [(key,) for key in gone])
        connection.execute(_GROW, (grown - len(gone),))


def _read(connection: sqlite3.Connection, keys: Iterable[bytes]) -> dict[bytes, Row]:
    return {key: Row(key, connection.execute(_READ, (key,)).fetchone()) for key in dict.fromkeys(keys)}


def _lease_count(rule: Rule, held: Collection[bytes], lease: bytes, price: int) -> Count:
    """Return the count of leases; a lease that this request already has is not counted twice."""
    over = price and lease not in held and len(held) >= rule.amount
    return Count(float(len(held)), 1.0 if over else 0.0, 0.0, 0.0)
