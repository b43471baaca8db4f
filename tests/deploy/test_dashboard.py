"""The dashboard of Grafana: the file is what the script makes, and each query works on a real scrape."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from certificates import Certificate, make_certificate
from monitoring import ALERTS, DEPLOY, Prometheus, metric_names, names_in, prometheus
from programs import needs
from servers import Served, gunicorn, wait_until
from stored_keys import key_in_file
from support import OLDER_SECRET, RANDOM_SECRET

SCRIPT = DEPLOY / "grafana" / "dashboard.py"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
ROWS = {"Traffic", "Latency", "Rejections", "Authentication", "Limits", "Stores", "Workers"}
# The app that is served has no streams.
EMPTY = {"secure_ml_broken_streams_total"}
INVALID = {"X-API-Key": "sml_AAAAAAAAAAAA_" + "A" * 43}
ROW = json.dumps({"instances": [[1, 2, 3, 4]]})
JSON = {"Content-Type": "application/json"}


def test_the_file_is_what_the_script_makes() -> None:
    """Run ``python deploy/grafana/dashboard.py > deploy/grafana/dashboard.json`` after a change."""
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == DASHBOARD


def test_rows() -> None:
    """Each has a panel; panels have ids of their own and do not overlap."""
    titles = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert set(titles) == ROWS
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    fields = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert not [pair for pair in combinations(fields, 2) if _overlap(*pair)]
    assert all(field["x"] + field["w"] <= 24 for field in fields)


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def test_every_metric_has_a_panel() -> None:
    """And no panel has a metric that does not exist."""
    used = set().union(*map(names_in, QUERIES))
    unused = {name for name in metric_names() - used if not name.endswith(("_count", "_sum"))}
    assert (used - metric_names() - {"up"}, unused) == (set(), set())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Certificate, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("served")
    certificate = make_certificate(folder)
    environ = {
        "PATH": "/usr/bin:/bin",
        "PEPPER": RANDOM_SECRET,
        "ALERT_SECRET": OLDER_SECRET,
        "TMPDIR": str(folder),
        "FLASK_SECURE_ML_API_KEYS": str(folder / "keys.json"),
        "FLASK_SECURE_ML_API_KEY_PEPPER": "env:PEPPER",
        "FLASK_SECURE_ML_METRICS": "/metrics",
        "FLASK_SECURE_ML_FAILED_AUTH_LIMITS": '["10/minute"]',
        "FLASK_SECURE_ML_PLANS": '{"default": {"requests": ["5/minute"]}, "scraper": {"requests": ["1000/minute"]}}',
        "FLASK_SECURE_ML_STORE_URI": f"sqlite:{folder}/state.db",
        "FLASK_SECURE_ML_ANOMALIES": "{}",
        # Nobody listens there.
        "FLASK_SECURE_ML_ALERT_WEBHOOK": "http://127.0.0.1:9/",
        "FLASK_SECURE_ML_ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        keys = {
            "caller": key_in_file(environ["FLASK_SECURE_ML_API_KEYS"]),
            "scraper": key_in_file(environ["FLASK_SECURE_ML_API_KEYS"], scopes=["metrics"], plan="scraper"),
        }
    with gunicorn(
        folder, certificate, environ, "-c", "python:flask_secure_ml.deploy.gunicorn", "--workers", "2", "--threads", "2"
    ) as running:
        yield running, certificate, keys


@pytest.fixture(scope="module")
def scraped(
    served: tuple[Served, Certificate, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    running, certificate, keys = served
    traffic(running, keys["caller"])
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, [f"localhost:{running.port}"], keys["scraper"], certificate.certificate) as found:
        try:
            # A rate needs two scrapes.
            wait_until(lambda: not next(missing(found), ""), "samples of every metric")
        except TimeoutError:
            raise TimeoutError(f"missing: {list(missing(found))}, {found.get('targets')}") from None
        yield found


def traffic(served: Served, key: str) -> None:
    """Send honest requests, some beyond a limit, invalid credentials until they block, and URLs that lead nowhere."""
    for _ in range(8):
        served.call("POST", "/predict", ROW, {"X-API-Key": key} | JSON)
    served.call("GET", "/crash", headers={"X-API-Key": key})
    served.call("GET", "/nowhere")
    for _ in range(12):
        served.call("GET", "/whoami", headers=INVALID)


def missing(found: Prometheus) -> Iterator[str]:
    return (name for name in sorted(metric_names() - EMPTY) if not found.query(f"rate({name}[30s])"))


@needs("prometheus")
@pytest.mark.parametrize("query", QUERIES)
def test_each_query(scraped: Prometheus, query: str) -> None:
    """It is no error, and it finds something."""
    for variable, value in (("$job", "secure-ml"), ("$instance", ".*"), ("$__rate_interval", "30s")):
        query = query.replace(variable, value)
    assert "$" not in query
    found = scraped.query(query)
    assert found or names_in(query) <= EMPTY


@needs("prometheus")
def test_the_variables(scraped: Prometheus) -> None:
    """The job and its instances are found by the metric that the variables name."""
    (sample,) = scraped.query("secure_ml_workers")
    assert sample["metric"]["job"] == "secure-ml"
    queries = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert len(queries) == 2
    assert set().union(*map(names_in, queries)) == {"secure_ml_workers"}


@needs("prometheus")
def test_the_alerts_are_evaluated(scraped: Prometheus) -> None:
    """Each without an error, by the Prometheus that scrapes."""

    def health() -> set[str]:
        groups = scraped.get("rules")["groups"]
        return {rule["health"] for group in groups if group["file"] == str(ALERTS) for rule in group["rules"]}

    wait_until(lambda: health() == {"ok"}, "the rules to be evaluated")


@needs("promtool")
def test_the_scrape_is_well_formed(served: tuple[Served, Certificate, dict[str, str]], tmp_path: Path) -> None:
    """Names and help, as the linter of Prometheus checks them, of two workers."""
    running, _, keys = served
    status, headers, body = running.call("GET", "/metrics", headers={"Authorization": f"ApiKey {keys['scraper']}"})
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
