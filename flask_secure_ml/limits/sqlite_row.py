"""The row of one key in a file of counts: the states of its rules, its leases and its penalty."""

from __future__ import annotations

import math
import sqlite3
from struct import Struct, error

from .backoff import NO_PENALTY, Penalty, penalty_ends
from .counters import LEASE_SECONDS, Backoff, Count
from .rules import Rule
from .windows import State, counted, expires, rolled

_WINDOW = Struct("<4s5d")
_LEASE_NAME = 8
_LEASE = Struct(f"<4s{_LEASE_NAME}sd")
_PENALTY = Struct("<5d")


class Window:
    """The state of one rule, its expiry, and the used share of the rule."""

    __slots__ = ("expires", "share", "state")

    def __init__(self, state: State, expires: float, share: float) -> None:
        self.state: State = state
        self.expires: float = expires
        self.share: float = share


def storable(name: str) -> str:
    """Return a name that SQLite can store: lone surrogates are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


class Row:
    """The data of one key.

    :param columns: its name, windows, leases and penalty; None for a key that has no row.
    :raises sqlite3.DatabaseError: the columns are damaged.
    """

    __slots__ = ("is_changed", "is_stored", "key", "leases", "name", "penalty", "windows")

    def __init__(self, key: bytes, columns: tuple[str, bytes, bytes, bytes] | None) -> None:
        self.key: bytes = key
        self.is_stored: bool = columns is not None
        self.is_changed: bool = False
        name, windows, leases, penalty = columns or ("", b"", b"", b"")
        self.name: str = name
        try:
            self.windows: dict[bytes, Window] = {
                tag: Window((start, current, previous), until, share)
                for tag, start, current, previous, until, share in _WINDOW.iter_unpack(windows)
            }
            self.leases: dict[tuple[bytes, bytes], float] = {
                (tag, lease): until for tag, lease, until in _LEASE.iter_unpack(leases)
            }
            self.penalty: Penalty = Penalty(*_PENALTY.unpack(penalty)) if penalty else NO_PENALTY
        except (error, TypeError):
            raise sqlite3.DatabaseError("a row is damaged") from None

    def state(self, rule: Rule, now: float) -> State:
        """Return the state of a rule as of now."""
        found = self.windows.get(rule.tag)
        return (now, 0.0, 0.0) if found is None else rolled(rule, found.state, now)

    def put(self, rule: Rule, state: State, now: float) -> Count:
        """Store the state of a rule, and return its count."""
        count = counted(rule, state, now, 0)
        self.windows[rule.tag] = Window(state, expires(rule, state), count.used / max(1, rule.capacity))
        self.is_changed = True
        return count

    def leases_of(self, rule: Rule, now: float) -> set[bytes]:
        """Return the leases of a rule that have not expired."""
        return {lease for (tag, lease), until in self.leases.items() if tag == rule.tag and until > now}

    def put_lease(self, rule: Rule, lease: bytes, now: float) -> None:
        """Take or extend a lease."""
        if len(lease) != _LEASE_NAME:
            raise ValueError("the name of a lease must have 8 bytes")
        self.leases[rule.tag, lease] = now + LEASE_SECONDS
        self.is_changed = True

    def drop_lease(self, lease: bytes) -> None:
        """Release the leases of a request."""
        kept = {each: until for each, until in self.leases.items() if each[1] != lease}
        if len(kept) < len(self.leases):
            self.leases = kept
            self.is_changed = True

    def columns(self, now: float, backoff: Backoff | None) -> tuple[object, ...] | None:
        """Return the values of all columns, or None if the row can be deleted.

        The last two are the time when the row can be deleted, and the used share of the rules: up to 1, or infinite
        while there is a penalty or a lease.
        """
        windows = [(tag, each) for tag, each in self.windows.items() if each.expires > now]
        leases = [(*each, until) for each, until in self.leases.items() if until > now]
        ends = [each.expires for _, each in windows] + [until for *_, until in leases]
        # Keys with requests in flight are evicted last.
        share = max((each.share for _, each in windows), default=0.0) if not leases else math.inf
        penalty = b""
        if backoff is not None and (until := penalty_ends(self.penalty, backoff)) > now:
            ends.append(until)
            penalty = _PENALTY.pack(*self.penalty)
            share = math.inf if self.penalty.until > now else share
        if not ends:
            return None
        packed = b"".join(_WINDOW.pack(tag, *each.state, each.expires, each.share) for tag, each in windows)
        leased = b"".join(_LEASE.pack(*each) for each in leases)
        # SQLite cannot store lone surrogates.
        return self.key, storable(self.name), packed, leased, penalty, max(ends), share
