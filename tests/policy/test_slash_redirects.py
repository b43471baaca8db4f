"""Flask's redirect to a trailing slash: strangers get it for public routes, and a 401 for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_secure_ml import protect, public
from flask_secure_ml.testing import MemorySink
from support import HTTPS, MakeApp, caller


class Body(Schema):
    rows = fields.List(fields.Integer())


@pytest.fixture
def routes() -> Flask:
    app = Flask("model_app")

    @app.get("/pub/")
    @public
    def pub() -> str:
        return "pub"

    @app.get("/pub/<name>/")
    @public
    def named(name: str) -> str:
        return name

    @app.post("/pub/")
    def pub_post() -> str:
        return "post"

    @app.get("/closed/")
    @protect(scopes=["predict"])
    def closed() -> str:
        return "closed"

    @app.post("/body/")
    @public(body=Body)
    def body(payload: Any) -> str:
        return "body"

    app.add_url_rule("/moved", "moved", lambda: "", redirect_to="/closed/")
    app.add_url_rule("/moved/", "moved_pub", public(lambda: ""))
    app.add_url_rule("/configured/", "configured", lambda: "")
    return app


CASES = [
    pytest.param("GET", "/pub", 308, id="public"),
    pytest.param("HEAD", "/pub", 308, id="HEAD"),
    pytest.param("OPTIONS", "/pub", 308, id="automatic OPTIONS of a public route"),
    pytest.param("GET", "/pub?a=b", 308, id="with a query"),
    pytest.param("GET", "/pub/ada", 308, id="with a variable"),
    pytest.param("GET", "/pub/%C3%A4%20b", 308, id="with escapes"),
    pytest.param("POST", "/body", 308, id="a body is not read for it"),
    pytest.param("GET", "/configured", 308, id="public by configuration"),
    pytest.param("POST", "/pub", 401, id="another method is not public"),
    pytest.param("DELETE", "/pub", 401, id="no such method"),
    pytest.param("GET", "/closed", 401, id="not public"),
    pytest.param("GET", "/nothing", 401, id="no such route"),
    pytest.param("GET", "/pub//", 401, id="merged slashes"),
    pytest.param("GET", "/pub//ada/", 401, id="merged slashes inside"),
    pytest.param("GET", "/moved", 401, id="a redirect of the app's own"),
]


@pytest.mark.parametrize("mounted", [False, True], ids=["plain", "mounts beneath"])
@pytest.mark.parametrize(("method", "path", "status"), CASES)
def test_strangers(
    protected: MakeApp, routes: Flask, sink: MemorySink, mounted: bool, method: str, path: str, status: int
) -> None:
    """The redirect goes to the same path with a slash, and reveals no other path."""
    if mounted:
        routes.wsgi_app = DispatcherMiddleware(routes.wsgi_app, {"/mount": _wsgi})  # type: ignore[method-assign]
    app = protected(routes, POLICIES={"configured": {"public": True}})
    response = app.test_client().open(path, method=method, base_url=HTTPS)
    assert response.status_code == status
    if status == 308:
        name, _, query = path.partition("?")
        assert response.headers["Location"] == f"{HTTPS}{name}/" + (f"?{query}" if query else "")
    assert len(sink.lines) == 1


def _wsgi(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


def test_callers(protected: MakeApp, routes: Flask) -> None:
    """An authenticated caller gets every redirect, as before."""
    client = protected(routes).test_client()
    for path in ("/pub", "/closed", "/moved"):
        assert client.get(path, base_url=HTTPS, headers=caller("ada")).status_code in {302, 308}


def test_the_other_guards_hold(protected: MakeApp, routes: Flask) -> None:
    """TLS and limits are those of a public route."""
    client = protected(routes, PLANS={"default": {"requests": ["2/minute"]}}).test_client()
    assert client.get("/pub", base_url="http://localhost").status_code == 403
    assert [client.get("/pub", base_url=HTTPS).status_code for _ in range(3)] == [308, 308, 429]


def test_beneath_a_script_name(protected: MakeApp, routes: Flask) -> None:
    """Where the app is mounted, the redirect stays there."""
    app = protected(routes)
    response = app.test_client().get("/pub", base_url=f"{HTTPS}/models")
    assert (response.status_code, response.headers["Location"]) == (308, f"{HTTPS}/models/pub/")
