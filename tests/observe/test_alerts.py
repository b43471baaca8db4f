"""Alerts: their content, sending once, and signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from alert_receiver import Receiver, counted, no_thread, sender
from audited_app import Audited
from flask_secure_ml.config.alerts import WebhookAddress
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.observe.alerts import Alerts, Webhook, signature_of, verify_alert
from flask_secure_ml.observe.audit.stream import Stream
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.signals import audit_log_changed, limit_store_changed
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.testing import FakeClock
from servers import wait_until
from support import HTTPS, OLDER_SECRET, RANDOM_SECRET, MakeApp, caller

SECRET = RANDOM_SECRET.encode()


pytestmark = pytest.mark.usefixtures("alert_secret")


def get(app: Flask, name: str = "ada", address: str = "192.0.2.1") -> int:
    client = app.test_client()
    headers, environ = caller(name), {"REMOTE_ADDR": address}
    return client.get("/x", base_url=HTTPS, headers=headers, environ_base=environ).status_code


@pytest.mark.parametrize(
    ("address", "network"), [("203.0.113.7", "203.0.113.7"), ("2001:db8::7", "2001:db8::"), ("", "unknown")]
)
def test_a_blocked_network(alerting: Flask, receiver: Receiver, address: str, network: str) -> None:
    """Once for each block, however many requests it rejects."""
    statuses = [get(alerting, "bad", address) for _ in range(20)]
    assert statuses.count(429) == 17
    (alert,) = receiver.wait(1)
    assert {name: alert[name] for name in ("event", "network", "seconds", "app")} == {
        "event": "network_blocked",
        "network": network,
        "seconds": 60,
        "app": "model_app",
    }
    assert alert["summary"] == f"{network} is blocked for 60 s: too many invalid credentials."
    wait_until(no_thread, "the thread to end")
    assert len(receiver.posts) == 1


def test_the_next_block(alerting: Flask, receiver: Receiver, clock: FakeClock) -> None:
    """A network that continues at once when its block has ended is blocked again, with a new alert."""
    for _ in range(5):
        get(alerting, "bad")
    receiver.wait(1)
    clock.advance(60.5)
    for _ in range(5):
        get(alerting, "bad")
    assert [each["seconds"] for each in receiver.wait(2)] == [60, 120]


def test_wrong_secrets_of_one_key_are_no_block(protected: MakeApp, receiver: Receiver, clock: FakeClock) -> None:
    """The same status for another reason causes no alert."""
    asked: list[str] = []

    def blocked_for(network: str) -> int:
        asked.append(network)
        return 0

    ring = SecretRing(Secret("env:ALERT_SECRET"))
    alerts = Alerts(Webhook(WebhookAddress(receiver.url), ring, clock), "app", clock, MemoryStore(clock), blocked_for)
    app = protected(parts={"recorders": [alerts]}, FAILED_AUTH_LIMITS=["1/minute"])
    for _ in range(10):
        get(app, "bad")
    wait_until(lambda: bool(asked) and no_thread(), "the thread to end")
    assert (asked, receiver.posts) == (["192.0.2.1"], [])


def test_a_block_that_cannot_be_read(protected: MakeApp, receiver: Receiver, clock: FakeClock) -> None:
    """Is counted as lost, and the next alert is posted."""
    results: list[str] = []

    def blocked_for(network: str) -> int:
        raise DependencyUnavailable("the limit store is down")

    ring = SecretRing(Secret("env:ALERT_SECRET"))
    webhook = Webhook(WebhookAddress(receiver.url), ring, clock)
    alerts = Alerts(webhook, "app", clock, MemoryStore(clock), blocked_for, count=results.append)
    app = protected(parts={"recorders": [alerts]}, FAILED_AUTH_LIMITS=["1/minute"])
    for _ in range(4):
        get(app, "bad")
    alerts.limit_store_changed(None, up=False)
    wait_until(lambda: results == ["failed", "sent"], "the results")


def test_a_caller_that_goes_on(alerting: Flask, receiver: Receiver, clock: FakeClock) -> None:
    """Each penalty, and in the end the block, which it extends without another alert."""
    for _ in range(100):
        get(alerting, "eve")
        wait_until(no_thread, "the thread to end")
        clock.advance(1.5)
    found = receiver.alerts
    assert [(each["event"], each["caller"], each["seconds"], each["strikes"]) for each in found] == [
        ("caller_penalized", "test:eve", 10, 1),
        ("caller_penalized", "test:eve", 20, 2),
        ("caller_blocked", "test:eve", 30, 3),
    ]


def test_a_caller_that_waits_causes_none(alerting: Flask, receiver: Receiver) -> None:
    """Nor does an error of another kind."""
    assert [get(alerting) for _ in range(3)] == [200, 200, 429]
    get(alerting, "bad", "192.0.2.9")
    assert no_thread()
    assert receiver.posts == []


def test_an_outage_of_the_store(alerting: Flask, receiver: Receiver) -> None:
    """Its beginning and its end, in this order."""
    limit_store_changed.send(alerting, up=False)
    limit_store_changed.send(alerting, up=True)
    assert [each["event"] for each in receiver.wait(2)] == ["limit_store_down", "limit_store_up"]
    wait_until(lambda: counted(alerting)["sent"] == 2, "the count")


def test_an_audit_log_that_cannot_be_written(
    tmp_path: Path, clock: FakeClock, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beginning of the outage and its end, not each missing record."""
    settings = {"ALERT_WEBHOOK": receiver.url, "ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET"}
    audited = Audited(tmp_path, clock, **settings, AUDIT_CHECKPOINT_SECONDS=86_400)
    audited.log.start()
    write = Stream._write_line

    def full(stream: Stream, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Stream, "_write_line", full)
    assert [audited.client.get("/open", base_url=HTTPS).status_code for _ in range(3)] == [200] * 3
    monkeypatch.setattr(Stream, "_write_line", write)
    audited.client.get("/open", base_url=HTTPS)
    assert [(each["event"], each["summary"]) for each in receiver.wait(2)] == [
        ("audit_degraded", "The audit log cannot be written: No space left on device."),
        ("audit_restored", "The audit log is written again."),
    ]
    wait_until(no_thread, "the thread to end")
    assert len(receiver.posts) == 2


def test_audit_checkpoints_that_cannot_be_sent(tmp_path: Path, clock: FakeClock, receiver: Receiver) -> None:
    """To the index or to a sink."""
    sink = tmp_path / "mount" / "checkpoints"
    settings = {"ALERT_WEBHOOK": receiver.url, "ALERT_WEBHOOK_SECRET": "env:ALERT_SECRET"}
    audited = Audited(tmp_path, clock, **settings, AUDIT_CHECKPOINT_SINKS=[f"file:{sink}"])
    audited.log.start()
    receiver.wait(1)
    sink.parent.mkdir()
    audited.log.checkpoint()
    assert [(each["event"], each["summary"]) for each in receiver.wait(2)] == [
        ("audit_degraded", "The sink file of audit checkpoints is down: No such file or directory."),
        ("audit_restored", "The sink file of audit checkpoints works again."),
    ]
    audited.log.close()
    index = audited.folder / "index.jsonl"
    index.unlink()
    index.mkdir()
    # An app that is no longer referenced may end its log before the first checkpoint.
    another = Audited(tmp_path, clock, **settings)
    another.log.start()
    assert receiver.wait(3)[2]["summary"] == "The audit log has no new checkpoints: Is a directory."


def test_workers_of_one_machine(receiver: Receiver, clock: FakeClock) -> None:
    """Post a change of the audit log once together, each other change separately, and the next outage again."""
    store = MemoryStore(clock)
    workers = [sender(receiver.url, clock, store=store) for _ in range(2)]
    for message in ("the audit log cannot be written: a", "the audit log cannot be written: b"):
        for worker in workers:
            worker.audit_log_changed(None, up=False, message=message)
            wait_until(no_thread, "the thread to end")
    clock.advance(60)
    workers[1].audit_log_changed(None, up=False, message="the audit log cannot be written: a")
    wait_until(no_thread, "the thread to end")
    summaries = [each["summary"] for each in receiver.alerts]
    assert summaries == [f"The audit log cannot be written: {reason}." for reason in "aba"]


def test_a_receiver_of_the_signal_that_fails(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails no request."""
    audited = Audited(tmp_path, clock, AUDIT_CHECKPOINT_SECONDS=86_400)
    audited.log.start()

    def broken(_app: object, *, up: bool, message: str) -> None:
        raise RuntimeError("broken")

    def full(stream: Stream, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Stream, "_write_line", full)
    with audit_log_changed.connected_to(broken, audited.app):
        assert audited.client.get("/open", base_url=HTTPS).status_code == 200
    assert "a receiver of audit_log_changed failed" in caplog.messages


def test_another_app(alerting: Flask, receiver: Receiver) -> None:
    """The signal of another app is not posted."""
    limit_store_changed.send(Flask("other"), up=False)
    assert no_thread()
    assert receiver.posts == []


def test_workers_that_share_a_store(receiver: Receiver, clock: FakeClock, protected: MakeApp) -> None:
    """Post a block once together; each of them while the store is down."""

    class Down(MemoryStore):
        def add(self, *args: Any) -> bool:
            raise DependencyUnavailable("down")

    for store, expected in ((MemoryStore(clock), 1), (Down(clock), 2)):
        receiver.posts.clear()
        workers = [sender(receiver.url, clock, store=store) for _ in range(2)]
        for worker in workers:
            app = protected(parts={"recorders": [worker]}, FAILED_AUTH_LIMITS=["1/minute"])
            for _ in range(4):
                get(app, "bad")
            wait_until(no_thread, "the thread to end")
        assert len(receiver.posts) == expected


def test_secrets_are_redacted(alerting: Flask, receiver: Receiver) -> None:
    """A name that looks like a credential is not posted."""
    for _ in range(12):
        get(alerting, "sml_abcdefgh_ijkl")
        alerting.extensions["secure_ml"].clock.advance(1.5)
    assert receiver.wait(1)[0]["caller"] == "test:[redacted]"


def test_signature(alerting: Flask, receiver: Receiver, clock: FakeClock) -> None:
    """Over timestamp and body, under the newest secret."""
    limit_store_changed.send(alerting, up=False)
    receiver.wait(1)
    ((headers, body),) = receiver.posts
    assert headers["Content-Type"] == "application/json"
    assert verify_alert(SECRET, headers, body, clock.now())
    assert not verify_alert(OLDER_SECRET.encode(), headers, body, clock.now())
    assert not verify_alert(SECRET, headers, body + b" ", clock.now())


BODY = b'{"event": "limit_store_up"}'


@pytest.mark.parametrize(
    ("timestamp", "signature", "valid"),
    [
        ("1800000000", None, True),
        ("1799999701", None, True),
        ("1800000299", None, True),
        ("1799999699", None, False),
        ("1800000301", None, False),
        ("1800000000", "", False),
        ("1800000000", "v1=", False),
        ("1800000000", "v1=" + "0" * 64, False),
        ("1800000000", "ä", False),
        ("1800000000", "\udce4", False),
        ("\udce4", None, False),
        ("", None, False),
        ("-1800000000", None, False),
        ("1.8e9", None, False),
        ("١٨٠٠٠٠٠٠٠٠", None, False),
        ("9" * 5000, None, False),
    ],
)
def test_verify(timestamp: str, signature: str | None, *, valid: bool) -> None:
    """Signatures that are old, from the future, forged or malformed are rejected."""
    if signature is None:
        signature = f"v1={signature_of(SECRET, timestamp.encode('ascii', 'replace').decode(), BODY)}"
    headers = {"x-secure-ml-timestamp": timestamp, "X-SECURE-ML-SIGNATURE": signature}
    assert verify_alert(SECRET, headers, BODY, 1_800_000_000.0) is valid


def test_a_timestamp_of_another_post(clock: FakeClock) -> None:
    """Does not make an old body new."""
    old = f"v1={signature_of(SECRET, '1799990000', BODY)}"
    headers = {"X-Secure-ML-Timestamp": "1800000000", "X-Secure-ML-Signature": old}
    assert not verify_alert(SECRET, headers, BODY, clock.now())
