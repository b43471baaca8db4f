"""The settings of alerts."""

from __future__ import annotations

import pytest

from flask_secure_ml import ConfigError
from flask_secure_ml.config.alerts import WebhookAddress
from flask_secure_ml.observe.alerts import Alerts
from support import RANDOM_SECRET, MakeApp

SECRET = RANDOM_SECRET.encode()


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_SECRET", RANDOM_SECRET)


@pytest.mark.parametrize(
    "url",
    [
        "http://alerts.example.com/x",
        "http://10.0.0.1/x",
        "ftp://a.example/x",
        "https:///x",
        "https://user:pw@a.example/",
        "https://a.example/#x",
        "https://a.example/ x",
        "https://a.example:0/",
        "https://ä.example/",
        "",
        7,
    ],
)
def test_a_url_that_is_none(protected: MakeApp, url: object) -> None:
    """It is named, and never repeated: it may be a secret."""
    with pytest.raises(ConfigError, match="SECURE_ML_ALERT_WEBHOOK") as caught:
        protected(ALERT_WEBHOOK=url, ALERT_WEBHOOK_SECRET="env:ALERT_SECRET")
    assert "a.example" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "private"),
    [("https://a.example/x?y=1", False), ("https+private://10.0.0.1/x", True), ("http://[::1]:8080/x", False)],
)
def test_a_url(protected: MakeApp, url: str, *, private: bool) -> None:
    """Over TLS, or on loopback."""
    app = protected(ALERT_WEBHOOK=url, ALERT_WEBHOOK_SECRET="env:ALERT_SECRET")
    found = app.extensions["secure_ml"].settings
    assert found.alert_webhook == WebhookAddress(url.replace("+private", ""), private)
    assert "a.example" not in repr(found)


def test_one_without_the_other(protected: MakeApp) -> None:
    """No alert without a signature, and no secret that signs nothing."""
    with pytest.raises(ConfigError, match="SECURE_ML_ALERT_WEBHOOK_SECRET: is required"):
        protected(ALERT_WEBHOOK="https://a.example/x")
    with pytest.raises(ConfigError, match="SECURE_ML_ALERT_WEBHOOK: is required"):
        protected(ALERT_WEBHOOK_SECRET="env:ALERT_SECRET")


def test_a_secret_for_two_purposes(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver of alerts must not be able to hash API keys."""
    with pytest.raises(ConfigError, match="is the same secret"):
        protected(
            ALERT_WEBHOOK="https://a.example/x",
            ALERT_WEBHOOK_SECRET="env:ALERT_SECRET",
            API_KEY_PEPPER="env:ALERT_SECRET",
        )


def test_off_by_default(protected: MakeApp) -> None:
    """No alerts are recorded."""
    assert not any(isinstance(each, Alerts) for each in protected().extensions["secure_ml"].pipeline.recorders)
