"""What an audit record costs, and a write of as many bytes beside it; records of four processes; digests of inputs."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flask import Flask

from flask_secure_ml import SecureML
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.observe.audit.keys import load_app_keys, load_verification_key, make_keys
from flask_secure_ml.observe.audit.log import AuditLog
from flask_secure_ml.observe.audit.verify import verify_log
from flask_secure_ml.policy.policy import Policy
from flask_secure_ml.principal import Principal
from flask_secure_ml.state import state_of

from .bodies import as_json, numbers

MOST = 12.0
"""Microseconds that a record may take."""

AIM = 100_000
"""Records a second of four processes on two cores: an aim."""

ROUNDS, CALLS, PROCESSES, EACH = 15, 2_000, 4, 50_000
SHAPES = ((1, 4), (100, 20), (1000, 100))


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the report."""
    audit, exchange = _log(folder / "one"), _exchange()
    audit.record(exchange)
    line = max((folder / "one" / "streams").iterdir()).read_bytes().splitlines(keepends=True)[-1]
    descriptor = os.open(folder / "written", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    record, write = _medians([lambda: audit.record(exchange), lambda: os.write(descriptor, line)])
    os.close(descriptor)
    verdict = "met" if record <= MOST else "MISSED"
    yield f"{'a record':<40}{record:>10.2f} us  at most {MOST:.0f}: {verdict}"
    yield f"{f'write of its {len(line)} bytes alone':<40}{write:>10.2f} us"
    digest = load_app_keys(folder / "one").digest_of
    for rows, columns in SHAPES:
        body = as_json(numbers(rows, columns))
        (found,) = _medians([lambda body=body: digest(body)], 20)  # type: ignore[misc]
        yield f"{f'digest of {rows}x{columns} in JSON, {len(body):,} bytes':<40}{found:>10.1f} us"
    yield from _throughput(folder / "many")
    yield from _verification(folder)
    audit.close()


def _throughput(folder: Path) -> Iterator[str]:
    _log(folder)
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(PROCESSES + 1)
    workers = [context.Process(target=_write, args=[folder, ready]) for _ in range(PROCESSES)]
    for each in workers:
        each.start()
    ready.wait()
    started = time.perf_counter()
    ready.wait()
    seconds = time.perf_counter() - started
    for each in workers:
        each.join()
    rate = PROCESSES * EACH / seconds
    yield f"{f'records a second of {PROCESSES} processes':<40}{rate:>10,.0f}     aim: {AIM:,}"


def _write(folder: Path, ready: Any) -> None:
    audit, exchange = _log(folder), _exchange()
    audit.record(exchange)
    ready.wait()
    for _ in range(EACH):
        audit.record(exchange)
    ready.wait()
    audit.close()


def _verification(folder: Path) -> Iterator[str]:
    started = time.perf_counter()
    found = verify_log(folder / "many", load_verification_key(folder / "many.key"), now=time.time())
    rate = found.records / (time.perf_counter() - started)
    yield f"{'records a second that are verified':<40}{rate:>10,.0f}     {'ok' if found.ok else 'NOT OK'}"


def _log(folder: Path) -> AuditLog:
    """Return the log of an app; its keys are made once."""
    if not folder.exists():
        make_keys(folder, folder.with_suffix(".key"), "benchmarks/audit")
    app = Flask("audited")
    app.config.update(SECURE_ML_AUDIT_LOG=str(folder))
    SecureML(app)
    audit = state_of(app).audit
    if audit is None:
        raise RuntimeError("the app has no audit log")
    return audit


def _exchange() -> Exchange:
    """Return the exchange of a usual prediction."""
    now = time.time()
    exchange = Exchange(
        "5f0e0c3c1a5e4d7e9a4b9d3c2f1e0a9b", now, 0.0, "203.0.113.7", "203.0.113.7", secure=True, method="POST"
    )
    exchange.endpoint, exchange.path, exchange.status, exchange.finished = "predict", "/v1/predict", 200, 0.0012
    exchange.principal = Principal("api_key", "4fGh2kLm9QrS", client_id="demo")
    exchange.policy = Policy.build(scopes=["predict"])
    exchange.rows, exchange.received_bytes, exchange.input_digest = 100, 12_345, "ab" * 32
    exchange.used_model("digits", "3")
    return exchange


def _medians(calls: list[Callable[[], Any]], count: int = CALLS) -> list[float]:
    """Return the median microseconds of processor time of one call of each; they take turns."""
    rounds = [[_round(call, count) for call in calls] for _ in range(ROUNDS)]
    return [statistics.median(column) * 1e6 for column in zip(*rounds, strict=True)]


def _round(call: Callable[[], Any], count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - started) / count
