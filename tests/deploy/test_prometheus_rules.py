"""The alerts of Prometheus: each fires when it should, and not for honest traffic."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from deployed_app import create_app, own_facts
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets import targets
from flask_secure_ml.deploy.targets.prometheus import TARGET
from flask_secure_ml.deploy.templates import DIRECTORY as TEMPLATES
from monitoring import ALERTS, ALERTS_PAGE, metric_names, names_in
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
USE = "secure_ml_limit_use_ratio"
FETCHED, UNFETCHED = (
    series("secure_ml_jwks_refreshes_total", issuer="https://i", result=result) for result in ("fetched", "failed")
)
SERVER = series("secure_ml_certificate_expiry_timestamp_seconds", certificate="server")
EXPIRING, LATER = (series("secure_ml_api_keys_expiring", days=days) for days in ("7", "30"))
SIGNED, WITNESS = (series("secure_ml_audit_checkpoint_timestamp_seconds", sink=sink) for sink in ("index", "https"))
ARRIVED, REFUSED = (
    series("secure_ml_audit_checkpoints_total", sink="https", result=result) for result in ("sent", "failed")
)
AUDIT_LOST, LOG_LOST = series("secure_ml_audit_failed_records_total"), series("secure_ml_log_dropped_lines_total")
UNUSUAL = series("secure_ml_anomalies_total", signal="scanning")
DAY = 86400


def use(below: str, charges: str) -> dict[str, str]:
    """Return the series of a limit's usage, in which some charges found at most nine tenths used."""
    buckets = {"0.9": below, "1.0": charges, "+Inf": charges}
    found = {series(f"{USE}_bucket", limit="rows-1d", le=le): value for le, value in buckets.items()}
    return found | {series(f"{USE}_count", limit="rows-1d"): charges}


CASES = [
    Case("SecureMLDown", {series("up"): "1 1 0x10"}, 5, (AT, "a:8443 does not respond to Prometheus")),
    Case("SecureMLDown", {series("up"): "1 0 1x10"}, 5, None),
    Case("SecureMLDown", {'up{job="other",instance="b"}': "0x10"}, 5, None),
    Case("SecureMLCredentialStuffing", {REJECTED: "0+120x30"}, 15, (JOB, "2 invalid credentials per second")),
    # A client with a typing error in its key, and one whose token expires once an hour, among many that are right.
    Case("SecureMLCredentialStuffing", {REJECTED: "0+12x30", ACCEPTED: "0+6000x30"}, 15, None),
    Case("SecureMLCredentialStuffing", {REJECTED: "0 500 500x20"}, 15, None),
    Case(
        "SecureMLScraping",
        {requests("401", "unknown"): "0+90x30", requests("200"): "0+600x30"},
        15,
        (JOB, "1.5 requests per second for URLs that do not exist"),
    ),
    Case("SecureMLScraping", {requests("404", "unknown"): "0+6x30", requests("401"): "0+900x30"}, 15, None),
    Case(
        "SecureMLErrors",
        {requests("500"): "0+60x30", requests("503"): "0+60x30", requests("200"): "0+480x30"},
        15,
        (JOB, "20% of responses are server errors"),
    ),
    Case("SecureMLErrors", {requests("500"): "0+6x30", requests("200"): "0+600x30"}, 15, None),
    # One failed request of two an hour is a half, and no burst.
    Case("SecureMLErrors", {requests("500"): "0 1 1x30", requests("200"): "0 1 1x30"}, 15, None),
    Case("SecureMLErrors", {requests("429"): "0+600x30", requests("401"): "0+600x30"}, 15, None),
    Case(
        "SecureMLSlow",
        {bucket("2.5"): "0+10x30", bucket("5"): "0+100x30", bucket("+Inf"): "0+100x30"},
        20,
        (JOB | {"endpoint": "predict"}, "predict takes more than 4.861s for 5% of requests"),
    ),
    Case("SecureMLSlow", {bucket("2.5"): "0+98x30", bucket("5"): "0+100x30", bucket("+Inf"): "0+100x30"}, 20, None),
    Case("SecureMLStoreDown", {STORE: "1 1 0x10"}, 5, (AT, "The limit store is down for a:8443")),
    Case("SecureMLStoreDown", {STORE: "1 0 1x10"}, 5, None),
    Case(
        "SecureMLStoreUnstable",
        {CHANGES: "0+2x30", WORKERS: "6x30"},
        20,
        (AT, "The limit store went down 5 times in 15 minutes"),
    ),
    # One outage that 16 workers noticed.
    Case("SecureMLStoreUnstable", {CHANGES: "0 0 16 16x30", WORKERS: "16x30"}, 10, None),
    Case(
        "SecureMLManyLimited",
        {LIMITED: "0+300x60", requests("429"): "0+300x60", requests("200"): "0+300x60"},
        30,
        (JOB | {"limit": "requests-60s"}, "50% of requests exceed the limit requests-60s"),
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
    Case(
        "SecureMLLimitNearlyUsed",
        use("0+12x90", "0+60x90"),
        75,
        (JOB | {"limit": "rows-1d"}, "Half of the charges leave the limit rows-1d more than 90% used"),
    ),
    Case("SecureMLLimitNearlyUsed", use("0+48x90", "0+60x90"), 75, None),
    # A caller that ends its day's quota with one request in ten minutes.
    Case("SecureMLLimitNearlyUsed", use("0x90", "0+0.1x90"), 75, None),
    Case(
        "SecureMLKeySetStale",
        {UNFETCHED: "0+1x40", FETCHED: "1x41"},
        30,
        (AT | {"issuer": "https://i"}, "The keys of https://i cannot be fetched by a:8443"),
    ),
    # One fetch in three fails, and an outage that is over.
    Case("SecureMLKeySetStale", {UNFETCHED: "0+1x40", FETCHED: "0+2x40"}, 30, None),
    Case("SecureMLKeySetStale", {UNFETCHED: "0+1x5 5x40", FETCHED: "1x41"}, 40, None),
    Case(
        "SecureMLCertificateExpires",
        {SERVER: f"{7 * DAY + 1200}x40"},
        20,
        (AT | {"certificate": "server"}, "The certificate server of a:8443 expires in 7d 0h 0m 0s"),
    ),
    Case("SecureMLCertificateExpires", {SERVER: f"{30 * DAY}x40"}, 20, None),
    # It was renewed in time.
    Case("SecureMLCertificateExpires", {SERVER: f"{7 * DAY}x5 {90 * DAY}x40"}, 20, None),
    Case(
        "SecureMLCertificateExpires",
        {SERVER: "0x40"},
        20,
        (AT | {"certificate": "server"}, "The certificate server of a:8443 expires in -20m 0s"),
    ),
    Case("SecureMLApiKeysExpire", {EXPIRING: "2x90"}, 70, (JOB, "API keys that expire within a week: 2")),
    Case("SecureMLApiKeysExpire", {EXPIRING: "0x90", LATER: "5x90"}, 70, None),
    Case("SecureMLApiKeysExpire", {EXPIRING: "1x30 0x60"}, 70, None),
    Case(
        "SecureMLAuditBehind",
        {SIGNED: "0+60x5 300x40"},
        20,
        (AT, "A worker of a:8443 has not signed an audit checkpoint for 15m 0s"),
    ),
    # A checkpoint a minute; a sink that is down is another alert.
    Case("SecureMLAuditBehind", {SIGNED: "0+60x40", WITNESS: "0x40"}, 30, None),
    Case(
        "SecureMLAuditSinkDown",
        {REFUSED: "0+1x40", ARRIVED: "3x41"},
        25,
        (AT | {"sink": "https"}, "No audit checkpoint of a:8443 reaches https"),
    ),
    Case("SecureMLAuditSinkDown", {REFUSED: "0+1x40", ARRIVED: "0+1x40"}, 25, None),
    Case(
        "SecureMLAuditRecordsLost",
        {AUDIT_LOST: "0 0 1 1x20"},
        10,
        (AT, "Audit records that could not be written on a:8443: 1"),
    ),
    Case("SecureMLAuditRecordsLost", {AUDIT_LOST: "4x30"}, 20, None),
    Case(
        "SecureMLLogDropped",
        {LOG_LOST: "0 0 9 9x20"},
        15,
        (AT, "Request log lines that were dropped on a:8443: 9"),
    ),
    Case("SecureMLLogDropped", {LOG_LOST: "4x30"}, 20, None),
    Case(
        "SecureMLUnusualTraffic",
        {UNUSUAL: "0+1x90"},
        60,
        (JOB | {"signal": "scanning"}, "Unusual traffic within an hour, scanning: 60"),
    ),
    Case("SecureMLUnusualTraffic", {UNUSUAL: "0+1x8 8x80"}, 60, None),
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


def listening(address: str = "127.0.0.1:9100", **more: Any) -> Facts:
    return facts_of(create_app(SECURE_ML_METRICS=None, SECURE_ML_METRICS_LISTEN=address, **more))


def job(facts: Facts) -> Any:
    (found,) = yaml.safe_load(TARGET.make(facts)["prometheus.yml"])["scrape_configs"]
    return found


def test_what_is_scraped() -> None:
    """Each server by itself: over TLS with a key, or at the port of the metrics, with its token if it has one."""
    found = job(own_facts(upstream_ca="/etc/ca.pem"))
    assert found["static_configs"] == [{"targets": ["127.0.0.1:8001", "127.0.0.1:8002"]}]
    assert (found["scheme"], found["authorization"]["type"]) == ("https", "ApiKey")
    assert found["tls_config"] == {"ca_file": "/etc/ca.pem", "server_name": "own.example.com", "min_version": "TLS12"}
    found = job(listening())
    assert (found["scheme"], found["static_configs"]) == ("http", [{"targets": ["127.0.0.1:9100"]}])
    assert "authorization" not in found
    found = job(listening("0.0.0.0:9100", SECURE_ML_METRICS_TOKEN="env:NOT_SET"))
    assert found["authorization"]["type"] == "Bearer"
    assert found["static_configs"] == [{"targets": ["127.0.0.1:9100"]}]


def test_warnings() -> None:
    """An app without metrics, and servers that cannot be scraped."""
    assert "no metrics" in " ".join(TARGET.warn(facts_of(create_app(SECURE_ML_METRICS=None))))
    assert "do not use TLS" in " ".join(TARGET.warn(own_facts()))
    assert "is local" in " ".join(TARGET.warn(listening()))
    assert list(TARGET.warn(own_facts(upstream_ca="/etc/ca.pem"))) == []


@needs("promtool")
@pytest.mark.parametrize("facts", [own_facts(), own_facts(upstream_ca="/etc/ca.pem"), listening()], ids=str)
def test_the_configuration_is_valid(facts: Facts, tmp_path: Path) -> None:
    """Also without the files that it names."""
    path = tmp_path / "prometheus.yml"
    path.write_text(targets()["prometheus"].make(facts)["prometheus.yml"])
    command = ["promtool", "check", "config", "--syntax-only", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("amtool")
def test_the_routing_is_valid() -> None:
    """The Alertmanager file is valid, and critical alerts are routed to the person on call."""
    path = str(TEMPLATES / "prometheus" / "alertmanager.yml")
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
