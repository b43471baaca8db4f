"""Output of a real server has no secrets or inputs: canaries everywhere, all features on, every output searched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from alert_receiver import Receiver, receiving
from canary_app import APP_LOG, CANARIES, REQUEST_LOGGER, UNKNOWN_URL, create_app, planted_requests
from certificates import Certificate
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.observe.audit.keys import make_keys
from loggers import unchanged_loggers
from servers import gunicorn, wait_until
from stored_keys import key_in_file
from support import OLDER_SECRET

# A line of the request log through logging is there when the thread has written it.
WHERE = {"stderr": "stderr", "logging": f"logging:{REQUEST_LOGGER}", "file": ""}


def settings(folder: Path, where: str, webhook: str) -> dict[str, str]:
    chosen: dict[str, Any] = {
        "API_KEYS": str(folder / "keys.json"),
        "API_KEY_SCHEMES": ["x-api-key", "apikey", "basic"],
        "REQUEST_LOG": WHERE[where] or str(folder / "requests.log"),
        "AUDIT_LOG": str(folder / "audit"),
        "AUDIT_CHECKPOINT_SINKS": [f"file:{folder / 'checkpoints'}", "stdout"],
        "AUDIT_CHECKPOINT_SECONDS": 1,
        "METRICS": "/metrics",
        "ANOMALIES": {"rejections": "event", "scanning": "event", "credentials": "event"},
        "ALERT_WEBHOOK": webhook,
        "ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET",
        "STORE_URI": f"sqlite:{folder / 'state.db'}",
        "FAILED_AUTH_LIMITS": ["60/minute"],
        "MODEL": {"name": "digits", "version": "3"},
        "DPOP": "accept",
        "RESOURCE_URI": "https://models.example.com",
        "DPOP_NONCE_SECRET": "env:NONCE_SECRET",
        "PLANS": {"default": {"requests": ["100000/hour"]}},
    }
    return {
        f"FLASK_SECURE_ML_{name}": each if isinstance(each, str) else json.dumps(each) for name, each in chosen.items()
    }


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.mark.parametrize("where", WHERE)
def test_nothing_that_is_written_holds_a_canary(
    tmp_path: Path,
    certificate: Certificate,
    environ: dict[str, str],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """Both logs, exports, checkpoints, metrics, alerts, messages of the package, and "why" for each request."""
    make_keys(tmp_path / "audit", tmp_path / "verification.key", "tests/canaries")
    given = environ | settings(tmp_path, where, receiver.url)
    given |= {"ALERT_SECRET": OLDER_SECRET, "NONCE_SECRET": OLDER_SECRET[::-1], APP_LOG: str(tmp_path / "app.log")}
    given |= {"CANARY_REQUEST_LOG": str(tmp_path / "through-logging.log")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    key, wrong = key_in_file(str(tmp_path / "keys.json")), key_in_file(str(tmp_path / "keys.json"))
    scraper = {"X-API-Key": key_in_file(str(tmp_path / "keys.json"), scopes=("metrics",))}
    statuses, ids = set(), []
    with gunicorn(tmp_path, certificate, given, "--threads", "4", app="canary_app:create_app()") as served:
        for planted in planted_requests({"X-API-Key": key}, wrong):
            with suppress(IncompleteRead):
                # A stream that breaks has no id to ask for.
                status, headers, _ = served.call(planted.method, planted.target, planted.body, planted.headers)
                statuses.add(status)
                ids.append(headers["X-Request-ID"])
        # Until the network is blocked, whatever the reasons before were.
        statuses |= {served.call("GET", "/stream", headers={"X-API-Key": wrong[:-1]})[0] for _ in range(61)}
        _, _, metrics = served.call("GET", "/metrics", headers=scraper)
        receiver.wait(2)
        wait_until((tmp_path / "checkpoints").exists, "a checkpoint")
    assert statuses >= {400, 401, 404, 405, 415, 422, 429, 500}
    log = {"stderr": served.log, "logging": tmp_path / "through-logging.log", "file": tmp_path / "requests.log"}[where]
    # The tracebacks of the app and the URLs that they are of have a place of their own, and nothing else is there.
    own = (tmp_path / "app.log").read_text()
    assert {place for place, canary in CANARIES.items() if canary in own} <= {
        "exception",
        "path",
        "payload",
        "filename",
        "part",
    }
    assert CANARIES["exception"] in own
    (tmp_path / "app.log").unlink()
    outputs = {
        **{str(path): path.read_bytes().decode("utf-8", "replace") for path in files_of(tmp_path)},
        "metrics": metrics.decode(),
        "alerts": repr(receiver.posts),
        **commands(tmp_path, log, ids, monkeypatch),
    }
    assert 'secure_ml_requests_total{endpoint="predict"' in outputs["metrics"]
    assert {"network_blocked", "anomaly_detected"} <= {each["event"] for each in receiver.alerts}
    assert len(outputs["audit export ecs"].splitlines()) > len(ids)
    assert "401 not_authenticated" in outputs[f"why {ids[-1]}"] or "429" in outputs[f"why {ids[-1]}"]
    found = {(name, place) for name, text in outputs.items() for place, canary in CANARIES.items() if canary in text}
    assert not found, {(name.split("/")[-1].split()[0], place) for name, place in found}
    assert not {name for name, text in outputs.items() if key[17:] in text or wrong[17:] in text}
    # What the documentation says of the request log: the path of a URL that no route has.
    assert UNKNOWN_URL not in "".join(
        text for name, text in outputs.items() if name.startswith(("audit", "metrics", "alerts"))
    )
    kept = [json.loads(line) for line in outputs[str(log)].splitlines() if UNKNOWN_URL in line]
    assert {each.pop("path") for each in kept} == {f"/{UNKNOWN_URL}"}
    assert UNKNOWN_URL not in json.dumps(kept)


def files_of(folder: Path) -> Iterator[Path]:
    """Yield everything that was written, except the key files of the test."""
    return (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".key")


def commands(folder: Path, log: Path, ids: list[str], patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the output of the commands."""
    patch.delenv(APP_LOG)
    patch.delenv("CANARY_REQUEST_LOG")
    patch.setenv("FLASK_SECURE_ML_REQUEST_LOG", "off")
    with unchanged_loggers("flask_secure_ml", REQUEST_LOGGER, "canaries"):
        app = create_app()
        audit = str(folder / "audit")
        words = {f"audit export {form}": ["audit", "export", audit, "--format", form] for form in ("ecs", "cef")}
        words |= {"audit show": ["audit", "show", audit], "audit show --json": ["audit", "show", audit, "--json"]}
        words |= {"limits": ["limits", "list", "--all"], "anomalies": ["anomalies", "scan", str(log)]}
        for each in ids:
            words[f"why {each}"] = ["why", each, "--log", str(log)]
        words["why --json"] = ["why", ids[0], "--log", str(log), "--json"]
        return {name: run(app, each) for name, each in words.items()}


def run(app: Flask, words: list[str]) -> str:
    done = app.test_cli_runner().invoke(secure_ml, words)
    assert done.exit_code == 0, done.output
    return done.output
