"""Metrics of processes that share a directory: sums, maxima, and values of dead processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
from prometheus_client.multiprocess import mark_process_dead
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed
from flask_secure_ml import Exchange
from flask_secure_ml.observe.metrics import Exposition, Facts, Metrics
from flask_secure_ml.observe.metrics.facts import PART_READY

metrics, facts = Metrics(), Facts()
facts.add(lambda: [(PART_READY, "store", 1.0)])
exposition = Exposition(metrics, facts)

def work(fetched, usable, signed, uncovered, up):
    metrics.begin()
    metrics.key_set_refreshed("i", fetched, fetched=True)
    if not usable:
        metrics.key_set_refreshed("i", fetched + 1, fetched=False)
    metrics.audit_checkpoint("index", "sent", signed)
    metrics.audit_uncovered(uncovered)
    metrics.audit_record_failed()
    metrics.limit_store_changed(None, up=up)
    exchange = Exchange("id", 0.0, 0.0, "", "", secure=True, trace_id="ab" * 16, trace_sampled=True, status=200)
    metrics.record(exchange)
    for _ in range(3):
        metrics.request_began(exchange)
    metrics.request_ended(exchange)

def forked(*values):
    pid = os.fork()
    if not pid:
        work(*values)
        os._exit(0)
    os.waitpid(pid, 0)
    return pid

def named(sample):
    return " ".join([sample.name.removeprefix("secure_ml_"), *(value for _, value in sorted(sample.labels.items()))])

def read():
    text = exposition.text("application/openmetrics-text").body.decode()
    found = {named(each): each.value for family in parsed(text) for each in family.samples}
    return found | {"exemplars": text.count("trace_id")}

first = forked(100.0, True, 1000.0, 3, True)
second = forked(50.0, False, 900.0, 4, False)
both = read()
mark_process_dead(second)
print(json.dumps([both, read()]))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """Return a scrape of two processes, and one after the second has died."""
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path_factory.mktemp("shared"))}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("name", "both", "after"),
    [
        ("workers", 2, 1),
        ("worker_starts_total", 2, 2),
        ("limit_store_up", 0, 1),
        ("requests_in_flight", 4, 2),
        # The newest one, and whether each of them has the last one.
        ("jwks_fetched_timestamp_seconds i", 100, 100),
        ("jwks_refresh_ok i", 0, 1),
        ("jwks_refreshes_total i failed", 1, 1),
        ("audit_checkpoint_timestamp_seconds index", 900, 1000),
        ("audit_uncovered_records", 7, 3),
        ("audit_failed_records_total", 2, 2),
        ("audit_checkpoints_total sent index", 2, 2),
        ("requests_total unknown other 200", 2, 2),
        # Of the process that responds.
        ("part_ready store", 1, 1),
        ("exemplars", 0, 0),
    ],
)
def test_values(read: list[dict[str, float]], name: str, both: float, after: float) -> None:
    """Counts of a dead process are kept; its gauges are not. The parent, which serves no requests, adds nothing."""
    assert [each.get(name) for each in read] == [both, after]
