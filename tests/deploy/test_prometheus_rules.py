"""The alerts of Prometheus: each fires when it should, and not for honest traffic."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from monitoring import ALERTS, ALERTS_PAGE, DEPLOY, metric_names, names_in
from programs import needs

RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
AT = {"job": "secure-ml", "instance": "a:8443"}
JOB = {"job": "secure-ml"}


class Case(NamedTuple):
    """Series, as ``promtool`` reads them, one value a minute.

    :param minutes: when the alert is looked at.
    :param fires: the labels and the summary; None if it does not.
    """

    alert: str
    series: Mapping[str, str]
    minutes: int
    fires: tuple[Mapping[str, str], str] | None


def series(name: str, **labels: str) -> str:
    return f"{name}{{{','.join(f'{key}={value!r}' for key, value in (AT | labels).items())}}}".replace("'", '"')


def requests(status: str, endpoint: str = "predict") -> str:
    return series("secure_ml_requests_total", endpoint=endpoint, method="POST", status=status)


def bucket(le: str) -> str:
    return series("secure_ml_request_duration_seconds_bucket", endpoint="predict", le=le)


REJECTED = series("secure_ml_authentications_total", method="api_key", result="rejected")
ACCEPTED = series("secure_ml_authentications_total", method="api_key", result="accepted")
LIMITED = series("secure_ml_limit_rejections_total", limit="requests-60s")
STORE = series("secure_ml_limit_store_up")
CHANGES = series("secure_ml_limit_store_changes_total", to="down")
READY = series("secure_ml_part_ready", part="limit store")
STARTS, WORKERS = series("secure_ml_worker_starts_total"), series("secure_ml_workers")
LOST, SENT = series("secure_ml_alerts_total", result="failed"), series("secure_ml_alerts_total", result="sent")

CASES = [
    Case("SecureMLDown", {series("up"): "1 1 0x10"}, 5, (AT, "a:8443 does not respond to Prometheus")),
    Case("SecureMLDown", {series("up"): "1 0 1x10"}, 5, None),
    Case("SecureMLDown", {'up{job="other",instance="b"}': "0x10"}, 5, None),
    Case("SecureMLCredentialStuffing", {REJECTED: "0+120x30"}, 15, (JOB, "2 invalid credentials a second")),
    # A client with a typing error in its key, and one whose token expires once an hour, among many that are right.
    Case("SecureMLCredentialStuffing", {REJECTED: "0+12x30", ACCEPTED: "0+6000x30"}, 15, None),
    Case("SecureMLCredentialStuffing", {REJECTED: "0 500 500x20"}, 15, None),
    Case(
        "SecureMLScraping",
        {requests("401", "unknown"): "0+90x30", requests("200"): "0+600x30"},
        15,
        (JOB, "1.5 requests a second for URLs that do not exist"),
    ),
    Case("SecureMLScraping", {requests("404", "unknown"): "0+6x30", requests("401"): "0+900x30"}, 15, None),
    Case(
        "SecureMLErrors",
        {requests("500"): "0+60x30", requests("503"): "0+60x30", requests("200"): "0+480x30"},
        15,
        (JOB, "20% of the responses are errors of the server"),
    ),
    Case("SecureMLErrors", {requests("500"): "0+6x30", requests("200"): "0+600x30"}, 15, None),
    # One failed request of two an hour is a half, and no burst.
    Case("SecureMLErrors", {requests("500"): "0 1 1x30", requests("200"): "0 1 1x30"}, 15, None),
    Case("SecureMLErrors", {requests("429"): "0+600x30", requests("401"): "0+600x30"}, 15, None),
    Case(
        "SecureMLSlow",
        {bucket("2.5"): "0+10x30", bucket("5"): "0+100x30", bucket("+Inf"): "0+100x30"},
        20,
        (JOB | {"endpoint": "predict"}, "predict takes more than 4.861s for one request in twenty"),
    ),
    Case("SecureMLSlow", {bucket("2.5"): "0+98x30", bucket("5"): "0+100x30", bucket("+Inf"): "0+100x30"}, 20, None),
    Case("SecureMLStoreDown", {STORE: "1 1 0x10"}, 5, (AT, "The store of the limits is down for a:8443")),
    Case("SecureMLStoreDown", {STORE: "1 0 1x10"}, 5, None),
    Case(
        "SecureMLStoreUnstable",
        {CHANGES: "0+2x30", WORKERS: "6x30"},
        20,
        (AT, "The store of the limits went down 5 times in 15 minutes"),
    ),
    # One outage that 16 workers noticed.
    Case("SecureMLStoreUnstable", {CHANGES: "0 0 16 16x30", WORKERS: "16x30"}, 10, None),
    Case(
        "SecureMLManyLimited",
        {LIMITED: "0+300x60", requests("429"): "0+300x60", requests("200"): "0+300x60"},
        30,
        (JOB | {"limit": "requests-60s"}, "50% of the requests are over the limit requests-60s"),
    ),
    Case(
        "SecureMLManyLimited", {LIMITED: "0+30x60", requests("200"): "0+570x60", requests("429"): "0+30x60"}, 30, None
    ),
    Case("SecureMLManyLimited", {LIMITED: "0 1 1x60", requests("429"): "0 1 1x60"}, 8, None),
    Case(
        "SecureMLPartNotReady",
        {READY: "1 0x10"},
        5,
        (AT | {"part": "limit store"}, "limit store is not ready on a:8443"),
    ),
    Case("SecureMLPartNotReady", {READY: "1 0 1x10"}, 5, None),
    Case(
        "SecureMLWorkersRestart",
        {STARTS: "4+2x30", WORKERS: "4x30"},
        20,
        (AT, "30 workers started on a:8443 in 15 minutes"),
    ),
    # A deployment of 16 workers, whose counter begins again.
    Case("SecureMLWorkersRestart", {STARTS: "16x10 0 16x20", WORKERS: "16x31"}, 15, None),
    Case("SecureMLAlertsLost", {LOST: "0 0 1 1x20"}, 10, (AT, "Alerts that did not reach the webhook: 1")),
    Case("SecureMLAlertsLost", {LOST: "0x30", SENT: "0+9x30"}, 10, None),
]


def rules_test(cases: Sequence[Case]) -> dict[str, Any]:
    """Return the file that ``promtool test rules`` reads."""
    tests = []
    for case in cases:
        rule = next(each for each in RULES if each["alert"] == case.alert)
        expected = []
        if case.fires is not None:
            labels, summary = case.fires
            annotations = rule["annotations"] | {"summary": summary}
            expected = [{"exp_labels": dict(labels) | rule["labels"], "exp_annotations": annotations}]
        at = {"eval_time": f"{case.minutes}m", "alertname": case.alert, "exp_alerts": expected}
        given = [{"series": name, "values": values} for name, values in case.series.items()]
        tests.append({"interval": "1m", "input_series": given, "alert_rule_test": [at]})
    return {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}


@needs("promtool")
@pytest.mark.parametrize("name", [rule["alert"] for rule in RULES])
def test_each_alert(tmp_path: Path, name: str) -> None:
    """It fires with its summary and labels, and stays quiet for the honest case."""
    cases = [case for case in CASES if case.alert == name]
    assert {case.fires is None for case in cases} == {True, False}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(rules_test(cases)), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs("promtool")
def test_the_rules_are_valid() -> None:
    """As the linter of Prometheus checks them."""
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs("promtool")
def test_the_configuration_is_valid() -> None:
    """Also without the files that it names."""
    path = DEPLOY / "prometheus" / "prometheus.yml"
    command = ["promtool", "check", "config", "--syntax-only", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("amtool")
def test_the_routing_is_valid() -> None:
    """The file of Alertmanager is, and what is critical goes to whoever is on call."""
    path = str(DEPLOY / "alertmanager" / "alertmanager.yml")
    subprocess.run(["amtool", "check-config", path], check=True, capture_output=True)
    for severity, receiver in (("critical", "on-call"), ("warning", "channel")):
        command = ["amtool", "config", "routes", "test", f"--config.file={path}", f"severity={severity}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == receiver


def test_the_metrics_exist() -> None:
    """Each that a rule names."""
    for rule in RULES:
        used = names_in(rule["expr"])
        assert used, rule["alert"]
        assert used <= metric_names() | {"up"}, rule["alert"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_annotations(rule: dict[str, Any]) -> None:
    """A severity, plain sentences, and a section of the runbook that exists."""
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["description"].endswith(".")
    base, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert base.endswith("/docs/howto/alerts.rst")
    assert anchor == rule["alert"].lower()
    page = ALERTS_PAGE.read_text(encoding="utf-8")
    assert re.search(rf"^{rule['alert']}\n~+$", page, re.MULTILINE)


def test_the_runbook_has_no_other_alert() -> None:
    """Each section of an alert is that of a rule."""
    page = ALERTS_PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^(SecureML\w+)\n~+$", page, re.MULTILINE) == [rule["alert"] for rule in RULES]
