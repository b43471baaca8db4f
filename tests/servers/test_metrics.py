"""Metrics of several workers: any of them responds with the sum of all."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from certificates import Certificate
from servers import Served, gunicorn, wait_until
from stored_keys import key_in_file

Read = Callable[[], dict[tuple[str, ...], float]]


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_workers_are_added_up(
    tmp_path: Path,
    certificate: Certificate,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
) -> None:
    """By the configuration in the package, which removes its directory at the end."""
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    keys = environ["FLASK_SECURE_ML_API_KEYS"]
    caller, scraper = key_in_file(keys), key_in_file(keys, scopes=["metrics"])
    environ = environ | {"FLASK_SECURE_ML_METRICS": "/metrics", "TMPDIR": str(tmp_path)}
    environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    configuration = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--workers", "3", *options)
    with gunicorn(tmp_path, certificate, environ, *configuration) as served:
        for _ in range(40):
            assert served.call("GET", "/whoami", headers={"X-API-Key": caller})[0] == 200

        def read() -> dict[tuple[str, ...], float]:
            return _samples(served.call("GET", "/metrics", headers={"X-API-Key": scraper})[2])

        wait_until(lambda: read()["secure_ml_workers",] == 3, "three workers")
        status, headers, body = served.call("GET", "/metrics", headers={"X-API-Key": scraper})
        (directory,) = tmp_path.glob("secure-ml-metrics-*")
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    found = _samples(body)
    assert found["secure_ml_requests_total", "whoami", "GET", "200"] == 40
    assert found["secure_ml_worker_starts_total",] == 3
    assert not directory.exists()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_directory_that_persists(
    tmp_path: Path,
    certificate: Certificate,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    ending: signal.Signals,
) -> None:
    """The counters of an earlier server go on; its gauges, such as the number of workers, are gone."""
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    scraper = key_in_file(environ["FLASK_SECURE_ML_API_KEYS"], scopes=["metrics"])
    directory = tmp_path / "metrics"
    directory.mkdir()
    environ = environ | {"FLASK_SECURE_ML_METRICS": "/metrics", "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    configuration = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--workers", "2")
    for expected in (2.0, 4.0):
        with gunicorn(tmp_path, certificate, environ, *configuration) as served:

            def read(served: Served = served) -> dict[tuple[str, ...], float]:
                return _samples(served.call("GET", "/metrics", headers={"X-API-Key": scraper})[2])

            def is_ready(read: Read = read, expected: float = expected) -> bool:
                return read().get(("secure_ml_worker_starts_total",)) == expected

            wait_until(is_ready, "two more workers")
            assert read()["secure_ml_workers",] == 2
            if ending == signal.SIGKILL:
                _kill(next(directory.glob("gauge_livesum_*w1.db")).name.split("_")[2])


def _kill(files: str) -> None:
    """Kill a server and its workers, given the name of the files of its first worker."""
    server = int(files.partition("w")[0])
    os.kill(server, signal.SIGSTOP)
    for child in Path(f"/proc/{server}/task/{server}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    os.kill(server, signal.SIGKILL)


def _samples(body: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
