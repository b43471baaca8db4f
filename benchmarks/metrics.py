"""Cost of metrics per request, in one process and with a shared directory, and cost of a scrape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flask import Flask

from flask_secure_ml.exchange import Exchange
from flask_secure_ml.signals import request_authenticated, request_rejected
from flask_secure_ml.state import state_of

from .apps import FOUR_LIMITS, api_key, secured, signing_key
from .bodies import SHORT, as_json, numbers
from .timing import medians

MOST = {"one process": 8.0, "a shared directory": 15.0}
"""The maximum time per request, in microseconds."""

CALLS = 5_000
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


def report(folder: Path) -> Iterator[str]:
    """Measure each mode in a separate process, because the library chooses the mode on import."""
    yield f"{'mode':<24}{'CPU us':>10}{'rejected':>12}{'traced':>10}{'scrape, ms':>14}  target (CPU us)"
    for name, most in MOST.items():
        found = _in_a_process(folder, shared=name != "one process")
        verdict = f"{most:.0f} {'met' if found['request'] <= most else 'MISSED'}"
        yield (
            f"{name:<24}{found['request']:>10.1f}{found['rejected']:>12.1f}{found['traced']:>10.1f}"
            f"{found['scrape'] / 1000:>14.2f}  {verdict}"
        )


def _in_a_process(folder: Path, *, shared: bool) -> dict[str, float]:
    environ = {name: value for name, value in os.environ.items() if name != _DIRECTORY}
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        if shared:
            environ[_DIRECTORY] = directory
        command = [sys.executable, "-m", "benchmarks.metrics", str(folder)]
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measured(folder: Path) -> dict[str, float]:
    """Return the time of recording a prediction, a rejected and a traced request, and of a scrape, in microseconds."""
    signing_key(folder)
    app = secured(4, folder, cost="instances", SECURE_ML_PLANS=FOUR_LIMITS, SECURE_ML_METRICS="/metrics")
    metrics = state_of(app).metrics
    if metrics is None:
        raise RuntimeError("the app has no metrics")
    accepted, rejected = _exchange(app, 200), _exchange(app, 422)
    counters = metrics.counters

    def record(exchange: Exchange) -> None:
        counters.request_began(exchange)
        counters.record(exchange)
        counters.request_ended(exchange)

    times = medians([lambda: record(accepted), lambda: record(rejected)], CALLS)
    times += medians([metrics.exposition.text], 100)
    accepted.trace_id, accepted.trace_sampled = "ab" * 16, True
    times += medians([lambda: record(accepted)], CALLS)
    return dict(zip(("request", "rejected", "scrape", "traced"), times, strict=True))


def _exchange(app: Flask, status: int) -> Exchange:
    """Return the exchange of a request after the app's response."""
    kept: list[Exchange] = []

    def keep(_app: object, exchange: Exchange, **_: object) -> None:
        kept.append(exchange)

    body = as_json(numbers(10, 4 if status == 200 else 3, SHORT))  # noqa: PLR2004
    with request_authenticated.connected_to(keep, app), request_rejected.connected_to(keep, app):
        response = app.test_client().post(
            "/predict",
            base_url="https://localhost",
            data=body,
            content_type="application/json",
            headers=api_key(app),
        )
    if response.status_code != status:
        raise RuntimeError(f"the app responded with {response.status_code}: {response.text}")
    return kept[0]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measured(Path(sys.argv[1]))))
