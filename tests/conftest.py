"""An app in the smallest protected form."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import SecureML
from flask_secure_ml.testing import FakeClock, MemorySink
from support import MakeApp, NameAuthenticator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where ``REQUIRE_PACKAGES`` says that all are installed, a test that skips for lack of one has failed."""
    report = yield
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    if report.skipped and "could not import" in reason and os.environ.get("REQUIRE_PACKAGES"):
        report.outcome = "failed"
        report.longrepr = reason
    return report


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def bare_app() -> Flask:
    """An app with nothing on it but strict settings for tests."""
    return Flask("model_app")


@pytest.fixture
def protected(clock: FakeClock, sink: MemorySink) -> MakeApp:
    """Make a protected app; keywords are settings without the prefix, ``parts`` go to SecureML."""

    def make(app: Flask | None = None, parts: dict[str, Any] | None = None, **settings: Any) -> Flask:
        app = app or Flask("model_app")
        for name, value in settings.items():
            app.config[name if name.startswith("RATELIMIT_") else f"SECURE_ML_{name}"] = value
        declared: dict[str, Any] = {"authenticators": [NameAuthenticator()], "clock": clock, "sink": sink} | (
            parts or {}
        )
        SecureML(**declared).init_app(app)
        return app

    return make


@pytest.fixture
def app(protected: MakeApp) -> Flask:
    return protected()
