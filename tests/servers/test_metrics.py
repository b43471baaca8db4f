"""Metrics of several workers: any of them responds with the sum of all."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from certificates import Certificate
from servers import gunicorn, wait_until
from stored_keys import key_in_file


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


def _samples(body: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
