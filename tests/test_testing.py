"""The test helpers that the package offers to its users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request, session

from flask_secure_ml import current_principal, protect, public
from flask_secure_ml.testing import FakeClock, SecureClient, make_api_key
from support import RANDOM_SECRET, MakeApp


@pytest.fixture
def app(protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(API_KEYS=str(tmp_path / "keys.json"), API_KEY_PEPPER="env:PEPPER")

    @app.get("/whoami")
    @protect(scopes=["predict"])
    def whoami() -> dict[str, Any]:
        return {"client": current_principal.client_id, "scheme": request.scheme, "via": request.headers.get("X-Via")}

    app.add_url_rule("/open", endpoint="open", view_func=public(lambda: {"url": request.url}))
    return app


def test_a_key_for_an_app(app: Flask, clock: FakeClock) -> None:
    """It is in the app's own store, with the app's own pepper, and expires by the app's own clock."""
    client = SecureClient(app, api_key=make_api_key(app, client="ada", lifetime=60))
    assert client.get("/whoami").get_json() == {"client": "ada", "scheme": "https", "via": None}
    assert SecureClient(app, api_key=make_api_key(app, scopes=["other"])).get("/whoami").status_code == 403
    clock.advance(61)
    assert client.get("/whoami").status_code == 401


@pytest.mark.parametrize("is_protected", [False, True])
def test_an_app_without_keys(bare_app: Flask, protected: MakeApp, is_protected: bool) -> None:
    """The error has a remedy."""
    with pytest.raises(RuntimeError, match="SECURE_ML_API_KEYS" if is_protected else "init_app"):
        make_api_key(protected() if is_protected else bare_app)


def test_the_client_without_a_credential(app: Flask) -> None:
    """It uses HTTPS, so the response is 401 and not 403."""
    assert SecureClient(app).get("/whoami").get_json()["code"] == "not_authenticated"


def test_a_client_as_the_class_of_the_app(app: Flask) -> None:
    """``app.test_client()`` takes the same options then, with what Flask's own client can do."""
    app.test_client_class = SecureClient
    with app.test_client(api_key=make_api_key(app), headers={"X-Via": "gateway"}) as client:
        assert client.get("/whoami").get_json()["via"] == "gateway"
        assert client.get("/whoami", headers={"X-Via": "other"}).get_json()["via"] == "other"
        assert request.path == "/whoami"


def test_the_token_of_a_client(app: Flask) -> None:
    """It is sent as a bearer token."""
    app.add_url_rule("/header", view_func=public(lambda: request.headers["Authorization"]))
    assert SecureClient(app, token="t0ken").get("/header").text == "Bearer t0ken"


@pytest.mark.parametrize(
    ("args", "kwargs", "status"),
    [
        pytest.param(["/open"], {}, 200, id="a path"),
        pytest.param(["/open"], {"base_url": "http://localhost"}, 403, id="a base URL"),
        pytest.param(["/open"], {"url_scheme": "http"}, 403, id="a scheme"),
        pytest.param(["http://localhost/open"], {}, 403, id="a URL in clear text"),
        pytest.param(["https://models.example/open"], {}, 200, id="a URL"),
        pytest.param([], {"path": "/open"}, 200, id="a path by its keyword"),
    ],
)
def test_where_requests_go(app: Flask, args: list[str], kwargs: dict[str, str], status: int) -> None:
    """Over HTTPS, unless the call names a scheme."""
    assert SecureClient(app).get(*args, **kwargs).status_code == status


def test_sessions(app: Flask) -> None:
    """Cookies are kept between requests, secure ones too."""
    app.secret_key = RANDOM_SECRET

    @app.get("/count")
    @public
    def count() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    client = SecureClient(app)
    assert [client.get("/count").text for _ in range(2)] == ["1", "2"]
