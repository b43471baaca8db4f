"""Probes: what they reveal, dependencies that are down, their cost, and exemption from limits."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from flask_secure_ml import ConfigError, SecureML, public
from flask_secure_ml.authentication.tokens.jwks import HttpKeys
from flask_secure_ml.authentication.tokens.key_set import parse_key_set
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.openapi import build_document
from flask_secure_ml.testing import FakeClock, MemorySink, make_api_key, make_key_set, make_signing_key
from flask_secure_ml.transport.probes import CACHED, Readiness
from support import HTTPS, RANDOM_SECRET, MakeApp

HTTP = "http://localhost"
ISSUER = {
    "issuer": "https://issuer.example",
    "audience": "models",
    "algorithms": ["ES256"],
    "jwks_uri": "https://issuer.example/jwks",
}
SCRAPER = {"X-Test-Caller": "prometheus metrics"}


@pytest.fixture
def keyed(protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """An app with API keys and probes."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(PROBES={}, API_KEYS=str(tmp_path / "keys.json"), API_KEY_PEPPER="env:PEPPER")
    make_api_key(app)
    return app


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize("base", [HTTP, HTTPS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_anyone_may_probe(protected: MakeApp, path: str, base: str, method: str) -> None:
    """Without a credential and without TLS, and the response is the same for everyone."""
    client = protected(PROBES={}).test_client()
    for headers in ({}, SCRAPER, {"Authorization": "Bearer x, Bearer y"}):
        response = client.open(path, method=method, base_url=base, headers=headers)
        assert response.status_code == 200
        assert response.get_data(as_text=True).strip() == ('{"status":"ok"}' if method == "GET" else "")
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "method"), [("/livez", "POST"), ("/readyz/", "GET"), ("/readyz/details", "GET"), ("/livezz", "GET")]
)
def test_nothing_else_is_open_in_clear_text(protected: MakeApp, path: str, method: str) -> None:
    """The exemption is for the two routes only, not for similar ones."""
    client = protected(PROBES={}).test_client()
    assert client.open(path, method=method, base_url=HTTP, headers=SCRAPER).status_code == 403


def test_off_by_default(protected: MakeApp) -> None:
    """Without the setting there are no such routes, and `ready` still works."""
    app = protected()
    assert app.test_client().get("/livez", base_url=HTTPS).status_code == 401
    assert SecureML.ready(app) == []


def test_what_is_down(keyed: Flask, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anonymous callers learn that a part is down, a caller with the scope learns which; it ends with the outage."""
    client = keyed.test_client()
    assert (client.get("/readyz", base_url=HTTP).status_code, SecureML.ready(keyed)) == (200, [])
    (tmp_path / "keys.json").rename(tmp_path / "gone")
    monkeypatch.delenv("PEPPER")
    assert client.get("/readyz", base_url=HTTP).status_code == 200, "cached"
    clock.advance(CACHED)
    response = client.get("/readyz", base_url=HTTP)
    assert (response.status_code, response.json) == (503, {"status": "unavailable"})
    assert response.headers["Retry-After"] == "1"
    assert client.get("/livez", base_url=HTTP).status_code == 200
    assert SecureML.ready(keyed) == ["api_keys", "api_key_pepper"]
    details = client.get("/readyz/details", base_url=HTTPS, headers=SCRAPER)
    assert (details.status_code, details.json) == (
        503,
        {"status": "unavailable", "unavailable": ["api_keys", "api_key_pepper"]},
    )
    assert RANDOM_SECRET not in details.text
    (tmp_path / "gone").rename(tmp_path / "keys.json")
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    clock.advance(CACHED)
    assert client.get("/readyz", base_url=HTTP).status_code == 200


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"X-Test-Caller": "ada predict"}, 403), (SCRAPER, 200)])
def test_details_need_the_scope(protected: MakeApp, headers: dict[str, str], status: int) -> None:
    """Only a caller with `metrics` gets them."""
    response = protected(PROBES={}).test_client().get("/readyz/details", base_url=HTTPS, headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize(("outage", "expected"), [("closed", ["limit store"]), ("degrade", [])])
def test_limit_storage(protected: MakeApp, outage: str, expected: list[str]) -> None:
    """A storage that is down is a problem if requests are rejected for it, not if they are counted locally."""
    pytest.importorskip("redis")
    app = protected(PROBES={}, LIMIT_OUTAGE=outage, RATELIMIT_STORAGE_URI="redis://127.0.0.1:1")
    assert SecureML.ready(app) == expected
    assert app.test_client().get("/readyz", base_url=HTTP).status_code == (503 if expected else 200)
    assert app.test_client().get("/livez", base_url=HTTP).status_code == 200


def test_store(protected: MakeApp, tmp_path: Path, clock: FakeClock) -> None:
    """A store that other processes share is a part; while it is down, the last minute's content serves requests."""
    folder = tmp_path / "state"
    folder.mkdir()
    app = protected(PROBES={}, STORE_URI=f"sqlite:{folder / 'state.db'}")
    assert SecureML.ready(app) == []
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()
    folder.write_text("not a folder")
    clock.advance(30)
    assert SecureML.ready(app) == []
    clock.advance(90)
    assert SecureML.ready(app) == ["store"]


def test_keys_of_an_issuer(protected: MakeApp, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes fetch a key set no more often than tokens would: not at all in the pause after a failure."""
    fetched: list[float] = []

    def fetch(_self: HttpKeys, _keys: object, _attempt: object) -> Any:
        fetched.append(clock.monotonic())
        raise DependencyUnavailable("down")

    monkeypatch.setattr(HttpKeys, "_fetch", fetch)
    monkeypatch.setattr("flask_secure_ml.authentication.tokens.jwks.FetchError", DependencyUnavailable)
    app = protected(PROBES={}, TOKEN_ISSUERS=[ISSUER])
    for _ in range(30):
        assert SecureML.ready(app) == ["issuer https://issuer.example"]
        clock.advance(CACHED)
    assert len(fetched) == 1


def test_a_known_key_set_is_not_fetched_for_probes(
    protected: MakeApp, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe has no key, which is not a reason to fetch the keys again."""
    fetched: list[float] = []
    keys = parse_key_set(make_key_set(*(make_signing_key("ES256", kid) for kid in "ab")).encode(), ["ES256"])

    def fetch(_self: HttpKeys, _keys: object, _attempt: object) -> Any:
        fetched.append(clock.monotonic())
        return keys

    monkeypatch.setattr(HttpKeys, "_fetch", fetch)
    app = protected(PROBES={}, TOKEN_ISSUERS=[ISSUER], JWKS_CACHE_SECONDS=300)
    for _ in range(290):
        assert SecureML.ready(app) == []
        clock.advance(CACHED)
    assert len(fetched) == 1


def test_no_limit_holds_for_probes(protected: MakeApp) -> None:
    """A client in the kubelet's network cannot end the process by using up its limit."""
    app = protected(PROBES={}, PLANS={"default": {"requests": ["2/minute"]}})

    @app.get("/open")
    @public
    def opened() -> str:
        return ""

    client = app.test_client()
    assert [client.get("/open", base_url=HTTPS).status_code for _ in range(3)] == [200, 200, 429]
    assert {client.get(path, base_url=HTTPS).status_code for path in ("/livez", "/readyz")} == {200}
    assert client.get("/readyz/details", base_url=HTTPS, headers=SCRAPER).status_code == 200


def test_probes_are_logged_and_not_described(protected: MakeApp, sink: MemorySink) -> None:
    """They are requests like others, and no part of the API."""
    app = protected(PROBES={})
    app.test_client().get("/livez", base_url=HTTP)
    assert json.loads(sink.lines[-1])["endpoint"] == "secure_ml_live"
    document = build_document(app)
    OpenAPIV31SpecValidator(document).validate()
    assert document["paths"] == {}


def test_own_paths(protected: MakeApp) -> None:
    """The paths are those that a manifest has already."""
    client = protected(PROBES={"live": "/health/live", "ready": "/ping"}).test_client()
    assert {client.get(path, base_url=HTTP).status_code for path in ("/health/live", "/ping")} == {200}
    assert client.get("/livez", base_url=HTTPS).status_code == 401


@pytest.mark.parametrize(
    "value",
    [
        {"live": "livez"},
        {"live": "/"},
        {"live": "/livez/"},
        {"live": "/<name>"},
        {"live": "/a//b"},
        {"live": "/../b"},
        {"live": "/readyz"},
        {"live": "/readyz/details"},
        {"alive": "/livez"},
        True,
        [],
    ],
    ids=str,
)
def test_wrong_setting(protected: MakeApp, value: Any) -> None:
    """A path that could match more than itself is an error."""
    with pytest.raises(ConfigError, match="SECURE_ML_PROBES"):
        protected(PROBES=value)


def test_a_route_of_the_app(protected: MakeApp) -> None:
    """One that exists already is an error at once, one that comes later is found by the check."""
    app = Flask("model_app")
    app.add_url_rule("/readyz/", "own", lambda: "")
    with pytest.raises(ConfigError, match="SECURE_ML_PROBES uses /readyz"):
        protected(app, PROBES={})
    app = protected(PROBES={})
    app.add_url_rule("/livez", "own", lambda: "")
    with pytest.raises(ConfigError, match="'/livez' is a URL rule of flask-secure-ml"):
        SecureML.check(app)


def test_one_thread_finds_out(clock: FakeClock) -> None:
    """While a check is slow, others do not wait: they get the last result, or none at first."""
    calls: list[int] = []
    gates: list[tuple[threading.Event, threading.Event]] = []

    def slow() -> None:
        calls.append(1)
        gates[-1][0].set()
        assert gates[-1][1].wait(30)
        if len(calls) > 1:
            raise KeyError("unforeseen")

    readiness = Readiness({"slow": slow}, clock)
    for meanwhile, after in ((("start",), ()), ((), ("slow",))):
        began, ends = threading.Event(), threading.Event()
        gates.append((began, ends))
        found: list[Any] = []
        thread = threading.Thread(target=lambda found=found: found.append(readiness.problems()))
        thread.start()
        assert began.wait(30)
        assert [readiness.problems() for _ in range(10)] == [meanwhile] * 10
        ends.set()
        thread.join(30)
        assert (found, readiness.problems()) == ([after], after)
        clock.advance(CACHED)
    assert len(calls) == 2


def test_one_line_for_an_outage(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is probed."""
    down = [True]

    def part() -> None:
        if down[0]:
            raise DependencyUnavailable("no route")

    readiness = Readiness({"store": part}, clock)
    for _ in range(5):
        assert readiness.problems() == ("store",)
        clock.advance(CACHED)
    down[0] = False
    assert readiness.problems() == ()
    assert [each.message for each in caplog.records] == ["not ready: store: no route", "ready again: store"]
