"""The Grafana dashboard: the file is the output of the script, and each query works on a real scrape."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from certificates import Certificate, make_certificate
from flask_secure_ml.observe.audit.keys import make_keys
from flask_secure_ml.testing import make_key_set, make_signing_key
from monitoring import ALERTS, ALERTS_PAGE, ROOT, Prometheus, metric_names, names_in, prometheus
from monitoring import DASHBOARD as DASHBOARD_FILE
from programs import needs
from published_keys import Published, published
from servers import Served, free_port, gunicorn, wait_until
from stored_keys import key_in_file
from support import OLDER_SECRET, RANDOM_SECRET

DASHBOARD: dict[str, Any] = json.loads(DASHBOARD_FILE.read_text(encoding="utf-8"))
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PANELS += [panel for row in ROWS for panel in row["panels"] or ()]
LEGENDS = {target["expr"]: target["legendFormat"] for panel in PANELS for target in panel["targets"]}
QUERIES = sorted(LEGENDS)
ANNOTATIONS = {each["name"]: each for each in DASHBOARD["annotations"]["list"]}
TITLES = [
    "At a glance",
    "Traffic",
    "Failures",
    "Latency",
    "Rejections",
    "Limits",
    "Unusual traffic",
    "Stores, instances and workers",
    "Keys and certificates",
    "Audit log and request log",
]
# The app that is served has no streams.
EMPTY = {"secure_ml_broken_streams_total"}
ISSUER = {"issuer": "https://issuer.example", "audience": "x", "algorithms": ["ES256"], "insecure_http": True}
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
INVALID = {"X-API-Key": "sml_AAAAAAAAAAAA_" + "A" * 43}
ROW = json.dumps({"instances": [[1, 2, 3, 4]]})
JSON = {"Content-Type": "application/json"}


def test_the_file_is_what_the_script_makes() -> None:
    """Run ``python -m deploy.grafana.dashboard`` after a change, into the file that the test reads."""
    command = [sys.executable, "-m", "deploy.grafana.dashboard"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == DASHBOARD


def test_rows() -> None:
    """Each has a panel, those of a collapsed row inside; panels have ids of their own and do not overlap."""
    assert [row["title"] for row in ROWS] == TITLES
    assert (
        [row["title"] for row in ROWS if row["panels"]]
        == TITLES[-2:]
        == [row["title"] for row in ROWS if row["collapsed"]]
    )
    every = [*ROWS, *PANELS]
    assert len({panel["id"] for panel in every}) == len(every)
    for together in (DASHBOARD["panels"], *(row["panels"] for row in ROWS if row["panels"])):
        fields = [panel["gridPos"] for panel in together]
        assert not [pair for pair in combinations(fields, 2) if _overlap(*pair)]
        assert all(field["x"] + field["w"] <= 24 for field in fields)


def test_what_comes_first() -> None:
    """The numbers and the alerts, after them graphs."""
    types = [panel["type"] for panel in sorted(PANELS, key=lambda panel: int(panel["id"]))]
    assert types[:14] == ["stat"] * 12 + ["state-timeline", "timeseries"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['type']} {panel['title']}")
def test_each_panel(panel: dict[str, Any]) -> None:
    """It says what it shows, and what it means that there is nothing to show."""
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["description"].endswith(".")
    assert defaults["noValue"]
    assert defaults.get("unit") or panel["type"] == "state-timeline"
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))
    assert all(target["legendFormat"] for target in panel["targets"])


def test_dashed_lines() -> None:
    """They are the thresholds of the alerts whose runbooks the panel links to; a score has one of its own."""
    lines = {}
    for panel in PANELS:
        if panel["fieldConfig"]["defaults"].get("custom", {}).get("thresholdsStyle"):
            values = {step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]} - {None}
            linked = {link["url"] for link in panel["links"]}
            rules = [rule["expr"] for rule in RULES if rule["annotations"]["runbook_url"] in linked]
            lines[panel["title"]] = values - {float(number) for number in re.findall(r"> ([\d.]+)", " ".join(rules))}
    assert lines.pop("Anomaly scores") == {1}
    assert len(lines) == 4
    assert not any(lines.values())


def test_runbooks() -> None:
    """Each alert has a panel that links to its runbook, and so does its line in the panel of all alerts."""
    runbooks = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in RULES}
    linked = {link["title"]: link["url"] for panel in PANELS for link in panel["links"]}
    expected = {f"Runbook of {alert}": url for alert, url in runbooks.items()}
    assert linked == expected
    (alerts,) = [panel for panel in PANELS if panel["title"] == "Alerts"]
    overrides = alerts["fieldConfig"]["overrides"]
    lines = {each["matcher"]["options"]: each["properties"][0]["value"][0]["url"] for each in overrides}
    assert lines == runbooks


def test_the_page_of_the_alerts() -> None:
    """A graph that it names is in the dashboard."""
    named = set(re.findall(r"graphs? \*([^*]+)\*", " ".join(ALERTS_PAGE.read_text(encoding="utf-8").split())))
    assert named
    assert named <= {panel["title"] for panel in PANELS}


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
def key_set() -> Iterator[Published]:
    with published(make_key_set(make_signing_key("ES256", "one"))) as found:
        yield found


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, key_set: Published
) -> Iterator[tuple[Served, Certificate, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("served")
    certificate = make_certificate(folder)
    make_keys(folder / "audit", folder / "audit.key", "tests/dashboard")
    environ = {
        "PATH": "/usr/bin:/bin",
        "PEPPER": RANDOM_SECRET,
        "ALERT_SECRET": OLDER_SECRET,
        "TMPDIR": str(folder),
        "FLASK_SECURE_ML_API_KEYS": str(folder / "keys.json"),
        "FLASK_SECURE_ML_API_KEY_PEPPER": "env:PEPPER",
        "FLASK_SECURE_ML_METRICS": "/metrics",
        "FLASK_SECURE_ML_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "FLASK_SECURE_ML_FAILED_AUTH_LIMITS": '["10/minute"]',
        "FLASK_SECURE_ML_PLANS": '{"default": {"requests": ["5/minute"]}, "scraper": {"requests": ["1000/minute"]}}',
        "FLASK_SECURE_ML_STORE_URI": f"sqlite:{folder}/state.db",
        "FLASK_SECURE_ML_ANOMALIES": "{}",
        "FLASK_SECURE_ML_MODEL": '{"name": "digits", "version": "3"}',
        "FLASK_SECURE_ML_AUDIT_LOG": str(folder / "audit"),
        "FLASK_SECURE_ML_AUDIT_CHECKPOINT_SECONDS": "1",
        "FLASK_SECURE_ML_AUDIT_CHECKPOINT_SINKS": json.dumps([f"file:{folder}/witness"]),
        "FLASK_SECURE_ML_TOKEN_ISSUERS": json.dumps([ISSUER | {"jwks_uri": key_set.uri}]),
        # Nobody listens there.
        "FLASK_SECURE_ML_ALERT_WEBHOOK": "http://127.0.0.1:9/",
        "FLASK_SECURE_ML_ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        keys = {
            "caller": key_in_file(environ["FLASK_SECURE_ML_API_KEYS"], lifetime=86_400),
            "scraper": key_in_file(environ["FLASK_SECURE_ML_API_KEYS"], scopes=["metrics"], plan="scraper"),
        }
    with gunicorn(
        folder, certificate, environ, "-c", "python:flask_secure_ml.deploy.gunicorn", "--workers", "2", "--threads", "2"
    ) as running:
        yield running, certificate, keys | {"port": environ["FLASK_SECURE_ML_METRICS_LISTEN"]}


@pytest.fixture(scope="module")
def scraped(
    served: tuple[Served, Certificate, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    running, certificate, keys = served
    traffic(running, keys["caller"])
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(
        folder, [f"localhost:{running.port}"], keys["scraper"], certificate.certificate, [keys["port"]]
    ) as found:
        try:
            # A rate needs two scrapes.
            wait_until(lambda: not next(missing(found), ""), "samples of every metric")
        except TimeoutError:
            raise TimeoutError(f"missing: {list(missing(found))}, {found.get('targets')}") from None
        yield found


def traffic(served: Served, key: str) -> None:
    """Send honest requests, some beyond a limit, invalid credentials until they block, and URLs that lead nowhere."""
    # Within the limit, so that it is a 500.
    served.call("GET", "/crash", headers={"X-API-Key": key})
    for _ in range(8):
        served.call("POST", "/predict", ROW, {"X-API-Key": key} | JSON)
    served.call("GET", "/nowhere")
    for _ in range(12):
        served.call("GET", "/whoami", headers=INVALID)


def missing(found: Prometheus) -> Iterator[str]:
    return (name for name in sorted(metric_names() - EMPTY) if not found.query(f"rate({name}[30s])"))


@needs("prometheus")
@pytest.mark.parametrize("query", QUERIES)
def test_each_query(scraped: Prometheus, query: str) -> None:
    """It is no error; each of its parts finds something before it is compared with 0, with the labels of the legend."""
    scraped.query(with_variables(query))
    labels = set(re.findall(r"{{(\w+)}}", LEGENDS[query]))
    for part in re.split(r" and on \([\w, ]+\) ", re.sub(r" (>|==) 0", "", with_variables(query))):
        if "ALERTS" in part or not names_in(part) <= EMPTY:
            finds(scraped, part)
            assert all(labels <= each["metric"].keys() for each in scraped.query(part))


@needs("prometheus")
@pytest.mark.parametrize("name", ["Critical alerts", "Warnings"])
def test_the_alerts_that_are_marked(scraped: Prometheus, name: str) -> None:
    """The labels are those of alerts: with another severity and state, the API key that expires is found."""
    expression = with_variables(ANNOTATIONS[name]["expr"])
    severity = re.search(r'severity="(\w+)", alertstate="firing"', expression)
    assert severity
    assert severity[1] in {rule["labels"]["severity"] for rule in RULES}
    finds(scraped, expression.replace(severity[0], 'severity="warning", alertstate="pending"'))
    assert ANNOTATIONS[name]["titleFormat"] == "{{alertname}}"


@needs("prometheus")
def test_the_models_that_are_marked(scraped: Prometheus) -> None:
    """A model is new for two minutes, with the labels of its title."""
    annotation = ANNOTATIONS["New models"]
    (found,) = scraped.query(with_variables(annotation["expr"]))
    assert found["metric"] == {"name": "digits", "version": "3"}
    assert annotation["titleFormat"] == "{{name}} {{version}}"
    assert not scraped.query(with_variables(annotation["expr"]).removesuffix(" offset 2m"))


def finds(scraped: Prometheus, query: str) -> None:
    wait_until(lambda: bool(scraped.query(query)), query)


def with_variables(query: str) -> str:
    """Return a query with the values of variables."""
    values = {
        "$job": "secure-ml",
        "$instance": ".*",
        "$__rate_interval": "30s",
        "$__interval": "30s",
        "$__range": "60s",
    }
    for variable, value in values.items():
        query = query.replace(variable, value)
    assert "$" not in query
    return query


@needs("prometheus")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert(scraped: Prometheus, rule: dict[str, Any]) -> None:
    """The compared expression has series: with a wrong name or label it would never fire."""
    for part in re.split(r" (?:and|unless) ", rule["expr"]):
        compared = re.split(r" [<>=]=? ", part)[0]
        assert compared != part
        assert scraped.query(compared), compared


@needs("prometheus")
def test_the_variables(scraped: Prometheus) -> None:
    """The job and its instances are found by the metric that the variables name."""
    (_,) = scraped.query('secure_ml_workers{job="secure-ml"}')
    queries = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert len(queries) == 2
    assert set().union(*map(names_in, queries)) == {"secure_ml_workers"}


@needs("prometheus")
def test_the_port_of_the_metrics(scraped: Prometheus) -> None:
    """Prometheus reads the same there, without a credential."""
    wait_until(lambda: len(scraped.query('secure_ml_workers{job="port"} == 2')) == 1, "a scrape of the port")
    assert scraped.query('secure_ml_requests_total{job="port", endpoint="predict"}')


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
