"""The sample receiver, run as its page says, between the real sender and a chat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from alert_receiver import Receiver, receiving
from flask_secure_ml.config.alerts import WebhookAddress
from flask_secure_ml.observe.alerts import Alerts, Webhook, signature_of
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores.memory import MemoryStore
from monitoring import DEPLOY
from servers import PATIENCE, accepts, free_port, started, wait_until
from support import OLDER_SECRET, RANDOM_SECRET

SECRET = RANDOM_SECRET.encode()


@pytest.fixture
def chat() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def port(chat: Receiver, tmp_path: Path) -> Iterator[int]:
    number = free_port()
    environ = dict(os.environ) | {"ALERT_SECRET": RANDOM_SECRET, "CHAT_WEBHOOK": chat.url, "no_proxy": "127.0.0.1"}
    command = [sys.executable, str(DEPLOY / "webhook" / "receiver.py"), "127.0.0.1", str(number)]
    with started(command, partial(accepts, number), tmp_path / "receiver.log", env=environ):
        yield number


def post(port: int, body: bytes, secret: bytes = SECRET, shift: int = 0, headers: dict[str, str] | None = None) -> int:
    """Post a body, signed at another time."""
    timestamp = str(int(time.time()) + shift)
    signed = {
        "X-Secure-ML-Timestamp": timestamp,
        "X-Secure-ML-Signature": f"v1={signature_of(secret, timestamp, body)}",
    }
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/", body, signed | (headers or {}))
        return connection.getresponse().status
    finally:
        connection.close()


def alert(identity: str = "1", **members: str) -> bytes:
    found = {"id": identity, "app": "model", "host": "web-1", "event": "caller_blocked", "summary": "a is blocked."}
    return json.dumps(found | members).encode()


def test_from_the_app_to_the_chat(port: int, chat: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for an event."""
    monkeypatch.setenv("ALERT_SECRET", RANDOM_SECRET)
    clock, results = SystemClock(), list[str]()
    webhook = Webhook(WebhookAddress(f"http://127.0.0.1:{port}/"), SecretRing(Secret("env:ALERT_SECRET")), clock)
    alerts = Alerts(webhook, "model", clock, MemoryStore(clock), lambda _: 60, count=results.append)
    alerts.limit_store_changed(None, up=False)
    (found,) = chat.wait(1)
    assert found["text"].startswith("[!] model on ")
    assert found["text"].endswith(": The limit store is down.")
    wait_until(lambda: results == ["sent"], "the result")


def test_what_is_rejected(port: int, chat: Receiver) -> None:
    """Another secret, an old or future post, a large one, and no signature at all."""
    assert post(port, alert(), OLDER_SECRET.encode()) == 401
    assert post(port, alert(), shift=-302) == 401
    assert post(port, alert(), shift=302) == 401
    assert post(port, alert(), headers={"X-Secure-ML-Signature": ""}) == 401
    assert post(port, alert(), headers={"X-Secure-ML-Timestamp": "x"}) == 401
    assert post(port, alert(summary="x" * 20_000)) == 413
    assert chat.posts == []


def test_a_replay(port: int, chat: Receiver) -> None:
    """Is accepted and not passed on again."""
    assert [post(port, alert()) for _ in range(3)] == [204, 204, 204]
    assert post(port, alert("2")) == 204
    assert len(chat.posts) == 2


def test_a_chat_that_is_down(port: int, chat: Receiver) -> None:
    """It is a 502, so that the app sends the alert again, which does not count as a replay."""
    chat.statuses = [500]
    assert [post(port, alert()), post(port, alert())] == [502, 204]


def test_names_are_escaped(port: int, chat: Receiver) -> None:
    """A caller cannot make links or mentions of its name."""
    post(port, alert(summary="<!channel> & <http://evil.example|click>"))
    assert chat.alerts[0]["text"].endswith("&lt;!channel&gt; &amp; &lt;http://evil.example|click&gt;")


@pytest.mark.parametrize(
    ("arguments", "unset", "message"),
    [
        pytest.param([], [], "usage: python receiver.py HOST PORT", id="no arguments"),
        pytest.param(["127.0.0.1", "http"], [], "usage: python receiver.py HOST PORT", id="no number"),
        pytest.param(["127.0.0.1", "99999"], [], "127.0.0.1:99999 cannot be used", id="no port"),
        pytest.param(
            ["127.0.0.1", "0"],
            ["ALERT_SECRET", "CHAT_WEBHOOK"],
            "set the environment variable ALERT_SECRET and CHAT_WEBHOOK",
            id="no secret",
        ),
    ],
)
def test_what_is_missing_at_the_start(arguments: list[str], unset: list[str], message: str) -> None:
    """It is one sentence, and the receiver does not start."""
    environ = dict(os.environ) | {"ALERT_SECRET": RANDOM_SECRET, "CHAT_WEBHOOK": "https://chat.example.com/"}
    for name in unset:
        del environ[name]
    command = [sys.executable, str(DEPLOY / "webhook" / "receiver.py"), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(message)
