"""An app in the smallest protected form."""

from __future__ import annotations

import inspect
import os
import re
import socket
import threading
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings

from flask_secure_ml import SecureML
from flask_secure_ml.observe.audit.writer import Writer
from flask_secure_ml.testing import FakeClock, MemorySink
from servers import PATIENCE
from support import MakeApp, NameAuthenticator

settings.register_profile(
    "suite",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")),
    deadline=None,
    print_blob=True,
    # Fixtures of these tests hold no state that an example could change.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("suite")

_IMPORTS_FLASK = re.compile(r"^\s*(from|import) (flask|werkzeug)\b", re.MULTILINE)
_RUNS_CHROMIUM = re.compile(r"^from browsers import\b", re.MULTILINE)
_RUNS_PROXIES = re.compile(r"^from proxied import\b", re.MULTILINE)
_OF_PROCESSES = ("process", "program", "proxy", "server")
_MEASURED = frozenset({"test_gunicorn_hooks.py", "test_metrics_port.py", "test_serving.py"})
_STARTS_PROCESSES = frozenset({"Popen", "fork", "get_context", "multiprocessing", "run_forking", "subprocess"})
_STARTS_SERVERS = re.compile(r"^from (servers import .*\bgunicorn|auth_server import .*\bauth_server)\b", re.MULTILINE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what their outcome depends on: see the markers in pyproject.toml."""
    for item in items:
        marks = _marks_of(item.path)
        if "app" in getattr(item, "fixturenames", ()) and "flask" not in marks:
            item.add_marker(pytest.mark.flask)
        for mark in marks:
            item.add_marker(mark)
        if any("is not installed" in mark.kwargs["reason"] for mark in item.iter_markers("skipif")):
            item.add_marker(pytest.mark.program)
        if isinstance(item, pytest.Function) and _names_of(item.function) & _STARTS_PROCESSES:
            item.add_marker(pytest.mark.process)
        if (reruns := int(os.environ.get("RERUNS", "0"))) and any(map(item.get_closest_marker, _OF_PROCESSES)):
            item.add_marker(pytest.mark.flaky(reruns=reruns))


@cache
def _marks_of(path: Path) -> tuple[str, ...]:
    """Return the marks of all tests of a module."""
    source = path.read_text(encoding="utf-8")
    server = "servers" in path.parts or _STARTS_SERVERS.search(source)
    found = {
        "flask": _IMPORTS_FLASK.search(source),
        "server": server,
        "program": _RUNS_CHROMIUM.search(source),
        "proxy": _RUNS_PROXIES.search(source),
        "measured": path.name in _MEASURED or (server and "checks" in path.parts),
    }
    return tuple(mark for mark, has in found.items() if has)


@cache
def _names_of(function: FunctionType) -> frozenset[str]:
    """Return the names that a function of the tests uses, and those that its helpers of the tests use."""
    found, functions = set[str](), [function]
    for each in functions:
        codes = [each.__code__]
        for code in codes:
            found.update(code.co_names)
            codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
            helpers = (helper for name in code.co_names for helper in _functions_of(each.__globals__.get(name)))
            functions += [helper for helper in helpers if helper not in functions]
    return frozenset(found)


def _functions_of(value: object) -> list[FunctionType]:
    """Return a function of the tests, or those of a class."""
    values = vars(value).values() if isinstance(value, type) else [value]
    functions = [inspect.unwrap(each) for each in values if isinstance(each, FunctionType)]
    root = Path(__file__).parent
    return [each for each in functions if Path(each.__code__.co_filename).is_relative_to(root)]


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


@pytest.fixture(autouse=True)
def _ended_audit_logs() -> Iterator[None]:
    """End the audit logs of a test: the app of another test would record what their threads log."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name == "audit-checkpoints":
            # Absent when the thread has ended.
            writer = getattr(getattr(thread, "_target", None), "__self__", None)
            if isinstance(writer, Writer):
                writer.close()
            thread.join(PATIENCE)


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pauses after failures exactly as long as they are on average; their jitter has tests of its own."""
    for module in ("breaker", "value"):
        monkeypatch.setattr(f"flask_secure_ml.refresh.{module}.JITTER", 0.0)


@pytest.fixture
def socket_waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The timeouts that sockets of this process are given, one after another; None is for ever."""
    noted: list[float | None] = []
    settimeout = socket.socket.settimeout

    def note(channel: socket.socket, seconds: float | None) -> None:
        noted.append(seconds)
        settimeout(channel, seconds)

    monkeypatch.setattr(socket.socket, "settimeout", note)
    return noted


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
