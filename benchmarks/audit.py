"""Cost of an audit record compared with a plain write, throughput of four processes, and cost of input digests."""

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
from .timing import medians

MOST = 12.0
"""The maximum time of a record, in microseconds."""

AIM = 100_000
"""The target rate of four processes on two cores, in records per second."""

CALLS, PROCESSES, EACH, RATES = 2_000, 4, 50_000, 3
SHAPES = ((1, 4), (100, 20), (1000, 100))


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the report."""
    audit, exchange = _log(folder / "one"), _exchange()
    audit.record(exchange)
    line = max((folder / "one" / "streams").iterdir()).read_bytes().splitlines(keepends=True)[-1]
    descriptor = os.open(folder / "written", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    record, write = medians([lambda: audit.record(exchange), lambda: os.write(descriptor, line)], CALLS)
    os.close(descriptor)
    verdict = "met" if record <= MOST else "MISSED"
    yield f"{'a record':<40}{record:>10.2f} us  at most {MOST:.0f}: {verdict}"
    yield f"{f'plain write of its {len(line)} bytes':<40}{write:>10.2f} us"
    digest = load_app_keys(folder / "one").digest_of
    for rows, columns in SHAPES:
        body = as_json(numbers(rows, columns))
        (found,) = medians([lambda body=body: digest(body)], 20)  # type: ignore[misc]
        yield f"{f'digest of {rows}x{columns} in JSON, {len(body):,} bytes':<40}{found:>10.1f} us"
    yield from _throughput(folder / "many", line)
    yield from _verification(folder)
    audit.close()


def _throughput(folder: Path, line: bytes) -> Iterator[str]:
    _log(folder)
    rounds = [[_rate(_record_many, folder), _rate(_write_many, folder, line)] for _ in range(RATES)]
    records, writes = (statistics.median(column) for column in zip(*rounds, strict=True))
    yield f"{f'records per second, {PROCESSES} processes':<40}{records:>10,.0f}     target: {AIM:,}"
    yield f"{'plain writes of their bytes':<40}{writes:>10,.0f}"


def _rate(target: Callable[..., None], *arguments: Any) -> float:
    """Return the number of writes per second of all processes together."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(PROCESSES + 1)
    workers = [context.Process(target=target, args=[ready, *arguments]) for _ in range(PROCESSES)]
    for each in workers:
        each.start()
    ready.wait()
    started = time.perf_counter()
    ready.wait()
    seconds = time.perf_counter() - started
    for each in workers:
        each.join()
    return PROCESSES * EACH / seconds


def _write_many(ready: Any, folder: Path, line: bytes) -> None:
    descriptor = os.open(folder / f"written-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    ready.wait()
    for _ in range(EACH):
        os.write(descriptor, line)
    ready.wait()
    os.close(descriptor)


def _record_many(ready: Any, folder: Path) -> None:
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
    yield f"{'records verified per second':<40}{rate:>10,.0f}     {'ok' if found.ok else 'NOT OK'}"


def _log(folder: Path) -> AuditLog:
    """Return the audit log of an app; its keys are created once."""
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
    """Return the exchange of a typical prediction."""
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
