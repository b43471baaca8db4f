"""Other extensions in the same app: CORS, forms, limits, metrics, logins and the JSON of flask-restx."""

from __future__ import annotations

import re
from typing import Any

import flask_restx
import numpy as np
import pytest
from flask import Flask, Response, render_template_string
from flask_cors import CORS
from flask_jwt_extended import JWTManager, create_access_token, get_jwt_identity, jwt_required
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from flask_wtf import CSRFProtect, FlaskForm
from prometheus_client import CollectorRegistry
from prometheus_flask_exporter import PrometheusMetrics
from werkzeug.test import TestResponse
from wtforms import StringField

from flask_secure_ml.cli import secure_ml
from support import HTTPS, MakeApp, caller

ORIGIN = "https://app.example.com"


# --- flask-cors -------------------------------------------------------------------------------------------------------


def test_flask_cors_is_named(protected: MakeApp) -> None:
    """Its responses to preflights are never sent, and the command reports this."""
    app = Flask("with_cors")
    CORS(app, origins=[ORIGIN])
    app.add_url_rule("/rows", "rows", lambda: "rows")
    protected(app)
    client = app.test_client()
    preflight = client.options(
        "/rows", base_url=HTTPS, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    )
    assert preflight.status_code == 401
    assert client.get("/rows", base_url=HTTPS, headers=caller()).status_code == 200
    assert "flask-cors is used, but the guards reject" in app.test_cli_runner().invoke(secure_ml, ["check"]).output


def test_cors_instead(protected: MakeApp) -> None:
    """With SECURE_ML_CORS the same page may call, flask-cors or not."""
    app = Flask("with_cors")
    CORS(app, origins=["*"])
    app.add_url_rule("/rows", "rows", lambda: "rows")
    protected(app, CORS={"origins": [ORIGIN]})
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    preflight = app.test_client().options("/rows", base_url=HTTPS, headers=asked)
    assert (preflight.status_code, preflight.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    response = app.test_client().get("/rows", base_url=HTTPS, headers=caller() | {"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in response.headers


# --- Flask-WTF --------------------------------------------------------------------------------------------------------


def with_form(protected: MakeApp, headers: str) -> Flask:
    app = Flask("with_wtf")
    app.secret_key = "3d6f45a5fc12445dbac2f59c3b6c7cb1"
    CSRFProtect(app)

    class NameForm(FlaskForm):
        name = StringField()

    @app.route("/", methods=["GET", "POST"])
    def form() -> str:
        filled = NameForm()
        if filled.validate_on_submit():
            return f"hello {filled.name.data}"
        return render_template_string("<form method=post>{{ form.hidden_tag() }}{{ form.name }}</form>", form=filled)

    return protected(app, POLICIES={"/": {"public": True, "headers": headers}})


def test_a_form(protected: MakeApp) -> None:
    """Its page sends the Referer that the check needs; with the token it is accepted."""
    client = with_form(protected, "page").test_client()
    page = client.get("/", base_url=HTTPS)
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert {"Secure", "HttpOnly"} <= set(page.headers["Set-Cookie"].split("; "))
    found = re.search(r'value="([^"]+)"', page.text)
    assert found is not None
    form = {"name": "ada", "csrf_token": found[1]}
    sent = client.post("/", base_url=HTTPS, data=form, headers={"Referer": f"{HTTPS}/"})
    assert (sent.status_code, sent.text) == (200, "hello ada")


def test_a_forged_form(protected: MakeApp) -> None:
    """It gets 400 with the reason of Flask-WTF."""
    client = with_form(protected, "page").test_client()
    sent = client.post("/", base_url=HTTPS, data={"name": "eve"}, headers={"Referer": f"{HTTPS}/"})
    body: Any = sent.json
    assert (sent.status_code, body["detail"]) == (400, "The CSRF token is missing.")


# --- flask-limiter ----------------------------------------------------------------------------------------------------


def test_a_limiter_of_the_app(protected: MakeApp) -> None:
    """It uses RATELIMIT_*; it does not count rejected callers, and its 429 has Retry-After."""
    app = Flask("with_limiter")
    app.config |= {"RATELIMIT_DEFAULT": "2/hour", "RATELIMIT_HEADERS_ENABLED": True}
    Limiter(get_remote_address, app=app, storage_uri="memory://")
    app.add_url_rule("/rows", "rows", lambda: "rows")
    protected(app)
    client = app.test_client()

    def ask(headers: Any = None) -> TestResponse:
        return client.get("/rows", base_url=HTTPS, headers=headers)

    assert [ask().status_code for _ in range(3)] == [401] * 3
    responses = [ask(caller()) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    body: Any = responses[2].json
    assert (body["code"], body["detail"]) == ("rate_limited", "2 per 1 hour")
    assert int(responses[2].headers["Retry-After"]) > 0


# --- prometheus-flask-exporter ----------------------------------------------------------------------------------------


def test_metrics(protected: MakeApp) -> None:
    """The exporter's route is closed as any other, and it counts rejections too."""
    app = Flask("with_metrics")
    PrometheusMetrics(app, registry=CollectorRegistry())
    protected(app, POLICIES={"/metrics": {"scopes": ["metrics"]}})
    client = app.test_client()
    assert client.get("/metrics", base_url=HTTPS).status_code == 401
    assert client.get("/metrics", base_url=HTTPS, headers=caller()).status_code == 403
    metrics = client.get("/metrics", base_url=HTTPS, headers=caller("prometheus", "metrics"))
    assert metrics.status_code == 200
    assert 'flask_http_request_total{method="GET",status="401"} 1.0' in metrics.text


# --- Flask-Login and Flask-JWT-Extended -------------------------------------------------------------------------------


def test_a_login_of_the_app(protected: MakeApp) -> None:
    """On a public route, its sessions decide; its 401 is the problem document."""
    app = Flask("with_login")
    app.secret_key = "3d6f45a5fc12445dbac2f59c3b6c7cb1"
    manager = LoginManager(app)

    class User(UserMixin):
        id = "ada"

    manager.user_loader(lambda _: User())
    app.add_url_rule("/login", "login", lambda: str(login_user(User())), methods=["POST"])
    app.add_url_rule("/mine", "mine", login_required(lambda: current_user.id))
    protected(app, POLICIES={"/login": {"public": True}, "/mine": {"public": True}})
    client = app.test_client()
    rejected = client.get("/mine", base_url=HTTPS)
    assert (rejected.status_code, rejected.headers["X-Error-Code"]) == (401, "not_authenticated")
    login = client.post("/login", base_url=HTTPS)
    assert {"Secure", "HttpOnly"} <= set(login.headers["Set-Cookie"].split("; "))
    assert client.get("/mine", base_url=HTTPS).text == "ada"


def test_tokens_of_the_app(protected: MakeApp) -> None:
    """On a public route, Flask-JWT-Extended reads the header itself and writes its own errors."""
    app = Flask("with_jwt")
    app.config["JWT_SECRET_KEY"] = "5b1f0e9d7c6a48f2b3e4d5c6a7988f10"
    JWTManager(app)
    app.add_url_rule("/mine", "mine", jwt_required()(get_jwt_identity))
    protected(app, POLICIES={"/mine": {"public": True}})
    with app.app_context():
        token = create_access_token("ada")
    client = app.test_client()
    rejected = client.get("/mine", base_url=HTTPS)
    assert (rejected.status_code, rejected.json) == (401, {"msg": "Missing Authorization Header"})
    assert (rejected.headers["X-Error-Code"], len(rejected.headers["X-Request-ID"])) == ("not_authenticated", 32)
    assert client.get("/mine", base_url=HTTPS, headers={"Authorization": f"Bearer {token}"}).text == "ada"


# --- the JSON of flask-restx ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "body"),
    [("GET", 200, {"scores": [0, 1, 2]}), ("PUT", 201, [1]), ("DELETE", 200, None)],
)
def test_arrays_in_resources(protected: MakeApp, method: str, status: int, body: Any) -> None:
    """With the representation of the documentation, a resource returns arrays; errors leave as before."""
    app = Flask("with_restx")
    api = flask_restx.Api(app)

    @api.representation("application/json")
    def as_json(data: Any, code: int, headers: Any = None) -> Response:
        response: Any = app.json.response(data)
        response.status_code = code
        response.headers.extend(headers or {})
        written: Response = response
        return written

    @api.route("/scores")
    class Scores(flask_restx.Resource):
        def get(self) -> Any:
            return {"scores": np.arange(3)}

        def put(self) -> Any:
            return [np.float32(1)], 201, {"X-Model": "digits"}

        def delete(self) -> Any:
            return None

    protected(app)
    response = app.test_client().open("/scores", method=method, base_url=HTTPS, headers=caller())
    assert (response.status_code, response.json) == (status, body)
    assert response.headers.get("X-Model") == ("digits" if method == "PUT" else None)
    assert app.test_client().patch("/scores", base_url=HTTPS, headers=caller()).status_code == 405
