"""Each setting of the audit log has its effect."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from audited_app import Audited
from flask_secure_ml import ConfigError, SecureML
from flask_secure_ml.config import Settings
from flask_secure_ml.observe.audit.keys import load_app_keys, make_keys
from flask_secure_ml.observe.audit.log import AuditLog
from flask_secure_ml.observe.audit.writer import LogOptions
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock
from servers import wait_until
from support import HTTPS, caller


def options_of(log: AuditLog) -> LogOptions:
    return log._writers.get()._options


def test_off_is_the_default(app: Flask) -> None:
    """There is no log, and its modules are not imported (tests/test_lazy_imports.py)."""
    assert state_of(app).audit is None


def test_a_directory_without_keys(tmp_path: Path) -> None:
    """The app does not start, and the message has a remedy."""
    app = Flask("audited")
    app.config["SECURE_ML_AUDIT_LOG"] = str(tmp_path / "log")
    with pytest.raises(ConfigError, match="flask secure-ml audit init"):
        SecureML(app)


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """The message has the file and the reason, without an error number."""
    folder = tmp_path / "log"
    make_keys(folder, tmp_path / "verification.key", "test/audit")
    (folder / "streams").write_text("")
    app = Flask("audited")
    app.config["SECURE_ML_AUDIT_LOG"] = str(folder)
    with pytest.raises(ConfigError, match=f"SECURE_ML_AUDIT_LOG: {folder}/streams: File exists"):
        SecureML(app)


def test_required_needs_a_log() -> None:
    """Otherwise the setting would have no effect."""
    with pytest.raises(ConfigError, match="requires SECURE_ML_AUDIT_LOG"):
        Settings.load({"SECURE_ML_AUDIT_REQUIRED": True})


@pytest.mark.parametrize(
    "sink",
    [
        *(
            "file:relative",
            "file://host/path",
            "stderr",
            "syslog://host",
            "syslog+udp://host/path",
            "http://192.0.2.1/",
        ),
        *("https://user:hunter2@host/", "https:///path", "syslog+udp://", "http://example.com/", "https://[", ""),
    ],
)
def test_sinks_that_are_none(sink: str) -> None:
    """Invalid sinks are an error that does not quote them."""
    with pytest.raises(ConfigError, match=r"AUDIT_CHECKPOINT_SINKS\[0\]: must be 'file:/path'") as caught:
        Settings.load({"SECURE_ML_AUDIT_CHECKPOINT_SINKS": [sink]})
    assert "hunter2" not in str(caught.value)


def test_input_digest(tmp_path: Path, clock: FakeClock) -> None:
    """The HMAC of the body as it was sent, under the key of the log; off, there is none."""
    body = json.dumps({"rows": [[1, 2]]}).encode()
    call: dict[str, Any] = {
        "base_url": HTTPS,
        "headers": caller("ada", "predict") | {"Content-Type": "application/json"},
        "data": body,
    }
    on = Audited(tmp_path / "on", clock)
    on.client.post("/predict/x", **call)
    on.client.post("/predict/x", **(call | {"data": b"[NaN"}))
    on.client.get("/open", base_url=HTTPS)
    key = load_app_keys(on.folder).digest
    assert [each.get("input_digest") for each in on.records("request")] == [
        hmac.digest(key, body, "sha256").hex(),
        hmac.digest(key, b"[NaN", "sha256").hex(),
        None,
    ]
    off = Audited(tmp_path / "off", clock, AUDIT_INPUT_DIGEST=False)
    off.client.post("/predict/x", **call)
    assert "input_digest" not in off.records("request")[0]


def sizes(audited: Audited) -> list[int]:
    notes = audited.outside.read_text().split("tests/audit\n")[1:] if audited.outside.exists() else []
    return [int(each.partition("\n")[0]) for each in notes if each[0].isdigit()]


def test_checkpoint_records(tmp_path: Path, clock: FakeClock) -> None:
    """So many records cause a checkpoint, long before its time."""
    audited = Audited(tmp_path, clock, AUDIT_CHECKPOINT_RECORDS=5, AUDIT_CHECKPOINT_SECONDS=86_400)
    audited.log.start()
    wait_until(lambda: bool(sizes(audited)), "no first checkpoint")
    first = len(sizes(audited))
    for _ in range(3):
        audited.client.get("/open", base_url=HTTPS)
    assert len(sizes(audited)) == first
    for _ in range(3):
        audited.client.get("/open", base_url=HTTPS)
    wait_until(lambda: len(sizes(audited)) > first, "no checkpoint")


def test_checkpoint_seconds(tmp_path: Path, clock: FakeClock) -> None:
    """After this time a checkpoint is made, also without requests."""
    audited = Audited(tmp_path, clock, AUDIT_CHECKPOINT_SECONDS=1)
    audited.log.start()
    wait_until(lambda: len(sizes(audited)) >= 3, "no heartbeats")
    index = [json.loads(line) for line in (audited.folder / "index.jsonl").read_text().splitlines()]
    assert {each["every"] for each in index} == {1}


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("AUDIT_SYNC", "record", lambda options: options.stream.sync),
        ("AUDIT_ROTATE_BYTES", 5000, lambda options: options.stream.rotate_bytes),
        ("AUDIT_ROTATE_SECONDS", 5, lambda options: options.stream.rotate_seconds),
    ],
)
def test_options_of_files(tmp_path: Path, clock: FakeClock, name: str, value: object, read: Any) -> None:
    """Reach the files, whose tests are in test_files.py."""
    assert read(options_of(Audited(tmp_path, clock, **{name: value}).log)) == value


def test_retention_days(tmp_path: Path, clock: FakeClock) -> None:
    """Reach the files in seconds."""
    assert options_of(Audited(tmp_path, clock, AUDIT_RETENTION_DAYS=2).log).retention == 2 * 86_400


def test_rotation_in_an_app(tmp_path: Path, clock: FakeClock) -> None:
    """Requests are recorded in one file after another."""
    audited = Audited(tmp_path, clock, AUDIT_ROTATE_BYTES=4096)
    for _ in range(40):
        audited.client.get("/open", base_url=HTTPS)
    assert len(list((audited.folder / "streams").iterdir())) > 3
    audited.log.close()
    audited.assert_verifies()


def test_the_configuration_is_not_told(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the name of the changed setting, and a digest that reveals nothing without the key."""
    monkeypatch.setenv("PEPPER", "c4n4ry-pepper-71f0b92e6ad84c53a7e1d6f8")
    audited = Audited(tmp_path, clock, API_KEYS=str(tmp_path / "c4n4ry.json"), API_KEY_PEPPER="env:PEPPER")
    audited.log.start()
    audited.log.close()
    for path in audited.folder.rglob("*"):
        assert path.is_dir() or b"c4n4ry" not in path.read_bytes()
    assert (audited.folder / "configuration").exists()


@pytest.mark.parametrize(
    "sink", ["https://vault.example/in/a-token-of-ours", "https+private://a.example/?k=a-token-of-ours"]
)
def test_no_representation_has_the_url_of_a_receiver(sink: str) -> None:
    """The URL can contain the secret of the sender, and error trackers report representations."""
    settings = Settings.load({"SECURE_ML_AUDIT_CHECKPOINT_SINKS": [sink]})
    assert settings.audit_checkpoint_sinks[0].target.endswith("a-token-of-ours")
    assert "a-token-of-ours" not in repr(settings) + repr(settings.audit_checkpoint_sinks)
