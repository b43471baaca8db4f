"""A receiver of alerts, and an app that posts to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from alert_receiver import Receiver, receiving
from support import RANDOM_SECRET, MakeApp


@pytest.fixture
def alert_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_SECRET", RANDOM_SECRET)


@pytest.fixture
def receiver(alert_secret: None) -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def alerting(protected: MakeApp, receiver: Receiver) -> Flask:
    """An app with small limits."""
    app = protected(
        ALERT_WEBHOOK=receiver.url,
        ALERT_WEBHOOK_SECRET="env:ALERT_SECRET",
        METRICS="/metrics",
        FAILED_AUTH_LIMITS=["3/minute"],
        PLANS={"default": {"requests": ["2/minute"]}},
        LIMIT_BACKOFF={"tolerance": 1, "base": 10, "jitter": 0, "block_after": 3, "block": 30},
    )
    app.add_url_rule("/x", "x", lambda: "ok")
    return app
