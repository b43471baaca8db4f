"""Counters in a file, and other processes that share the file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from flask_secure_ml.limits.counters import Charge, Verdict
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.limits.sqlite import SqliteCounters

KEY = key_of("caller", "alice")
HOURLY = RuleSet([Rule("hourly", Kind.FIXED, 10, 3600.0)])
IN_FLIGHT = RuleSet([Rule("in-flight", Kind.LEASES, 2, 0, unit="concurrent-requests")])
PRELUDE = """
import os, random, signal, sys, threading, time
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.limits.counters import Charge, Settlement
from flask_secure_ml.limits.rules import Kind, Rule, RuleSet, key_of
from flask_secure_ml.limits.sqlite import SqliteCounters
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.testing import FakeClock
PATIENT = 30
KEY = key_of("caller", "alice")
HOURLY = RuleSet([Rule("hourly", Kind.FIXED, 10, 3600.0)])
IN_FLIGHT = RuleSet([Rule("in-flight", Kind.LEASES, 2, 0, unit="concurrent-requests")])
"""
WORKER = """
counters = SqliteCounters(sys.argv[1], FakeClock())
say = lambda: print(flush=True)
hear = sys.stdin.readline
def charge(price=1, rules=HOURLY, lease=b""):
    return counters.charge([Charge(KEY, rules, (price,), lease)])[0]
"""


class Worker:
    """Another process with counters, which runs in alternation with the test."""

    def __init__(self, code: str, path: Path) -> None:
        command = [sys.executable, "-c", PRELUDE + WORKER + code, str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "\n"


@contextmanager
def worker(code: str, path: Path, ends: int = 0) -> Iterator[Worker]:
    started = Worker(code, path)
    try:
        yield started
        assert started.process.wait(60) == ends
    finally:
        started.process.kill()
        started.process.communicate()


def run(code: str, path: Path, *arguments: object) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PRELUDE + code, str(path), *map(str, arguments)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


def charge(counters: SqliteCounters, price: int = 1, rules: RuleSet = HOURLY, key: bytes = KEY, **more: Any) -> Verdict:
    (verdict,) = counters.charge([Charge(key, rules, (price,) * len(rules.rules), **more)])
    return verdict


def used(counters: SqliteCounters, rules: RuleSet = HOURLY, key: bytes = KEY) -> list[float]:
    return [count.used for count in counters.peek(key, rules).counts]


def lease(number: int) -> bytes:
    return number.to_bytes(8, "big")


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows(path: Path) -> int:
    with opened(path) as connection:
        (found,) = connection.execute("SELECT count(*) FROM counters").fetchone()
        assert connection.execute("SELECT keys FROM size").fetchone() == (found,)
    return int(found)
