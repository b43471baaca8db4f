"""The settings of metrics."""

from __future__ import annotations

from typing import Any

import pytest

from flask_secure_ml import ConfigError
from flask_secure_ml.config.metrics import listen_address
from flask_secure_ml.state import state_of
from support import RANDOM_SECRET, MakeApp


@pytest.mark.parametrize(
    ("value", "local"),
    [
        ("127.0.0.1:9100", True),
        ("127.9.9.9:1", True),
        ("[::1]:65535", True),
        ("0.0.0.0:9100", False),
        ("[::]:9100", False),
        ("10.0.0.7:9100", False),
    ],
)
def test_an_address(value: str, local: bool) -> None:
    """It is written as it was given."""
    assert (str(listen_address(value)), listen_address(value).is_local) == (value, local)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "9100",
        ":9100",
        "localhost:9100",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:+1",
        "127.0.0.1:\uff11",
        "127.0.0.1:" + "9" * 5000,
        "::1:9100",
        "[127.0.0.1]:9100",
        "[::1]",
        "unix:/run/x",
        9100,
        ["127.0.0.1:9100"],
        True,
    ],
)
def test_what_is_no_address(protected: MakeApp, value: Any) -> None:
    """A host name can have several addresses, and port 0 is any one."""
    with pytest.raises(ConfigError, match="SECURE_ML_METRICS_LISTEN: must be an IP address and a port"):
        protected(METRICS_LISTEN=value)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "[::]"])
def test_other_machines_need_a_token(protected: MakeApp, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Loopback does not."""
    with pytest.raises(ConfigError, match="SECURE_ML_METRICS_TOKEN: is required"):
        protected(METRICS_LISTEN=f"{host}:9100")
    monkeypatch.setenv("TOKEN", RANDOM_SECRET)
    for settings in ({"METRICS_LISTEN": f"{host}:9100", "METRICS_TOKEN": "env:TOKEN"}, {"METRICS_LISTEN": "[::1]:1"}):
        assert state_of(protected(**settings)).metrics is not None


def test_what_would_have_no_effect(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token without a listener, and a certificate without metrics."""
    monkeypatch.setenv("TOKEN", RANDOM_SECRET)
    with pytest.raises(ConfigError, match="SECURE_ML_METRICS_LISTEN: is required"):
        protected(METRICS="/metrics", METRICS_TOKEN="env:TOKEN")
    with pytest.raises(ConfigError, match="SECURE_ML_METRICS: or SECURE_ML_METRICS_LISTEN is required"):
        protected(SERVER_CERTIFICATE="/etc/x.pem")


def test_a_token_that_serves_two_purposes(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named."""
    monkeypatch.setenv("TOKEN", RANDOM_SECRET)
    with pytest.raises(ConfigError, match="METRICS_TOKEN: is the same secret as SECURE_ML_API_KEY_PEPPER"):
        protected(
            METRICS_LISTEN="127.0.0.1:9100",
            METRICS_TOKEN="env:TOKEN",
            API_KEYS="./keys.json",
            API_KEY_PEPPER="env:TOKEN",
        )
