"""Policies by configuration for many routes at once: the most specific name counts."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask
from marshmallow import Schema

from flask_secure_ml import ConfigError, SecureML, protect
from flask_secure_ml.inputs import Tensor
from support import HTTPS, MakeApp, caller

READ, WRITE, ADMIN = ({"scopes": [scope]} for scope in ("read", "write", "admin"))


def tracking_server() -> Flask:
    """Return an app with the shape of a tracking server: two versions of an API, a user interface and probes."""
    app = Flask("tracking", static_folder=None)
    api = Blueprint("api", "api", url_prefix="/api/2.0/mlflow")
    users = Blueprint("users", "users", url_prefix="/users")
    for name in ("experiments", "runs", "models"):
        api.add_url_rule(f"/{name}/get", f"get_{name}", lambda: "read", methods=["GET"])
        api.add_url_rule(f"/{name}/create", f"create_{name}", lambda: "written", methods=["POST"])
    users.add_url_rule("/<name>", "user", lambda name: name, methods=["GET", "DELETE"])
    api.register_blueprint(users)
    app.register_blueprint(api)
    app.add_url_rule("/ajax-api/<path:rest>", "ajax", lambda rest: rest, methods=["GET", "POST"])
    app.add_url_rule("/health", "health", lambda: "OK")
    app.add_url_rule("/", "page", lambda: "page")
    return app


POLICIES: dict[str, Any] = {
    "*": ADMIN,
    "GET *": READ,
    "blueprint:api": READ,
    "POST blueprint:api": WRITE,
    "blueprint:api.users": ADMIN,
    "/ajax-api/*": WRITE,
    "GET /ajax-api/*": READ,
    "GET,POST /ajax-api/graphql/*": ADMIN,
    "GET /health": {"public": True},
}


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/api/2.0/mlflow/experiments/get", "read"),
        ("HEAD", "/api/2.0/mlflow/experiments/get", "read"),
        ("POST", "/api/2.0/mlflow/runs/create", "write"),
        ("GET", "/api/2.0/mlflow/users/ada", "admin"),
        ("DELETE", "/api/2.0/mlflow/users/ada", "admin"),
        ("POST", "/ajax-api/2.0/runs", "write"),
        ("GET", "/ajax-api/2.0/runs", "read"),
        ("GET", "/ajax-api/graphql/x", "admin"),
        ("GET", "/", "read"),
        ("OPTIONS", "/", "admin"),
        ("GET", "/ajax-api/2.0/../graphql/x", "admin"),
    ],
)
def test_the_most_specific_name_counts(protected: MakeApp, method: str, path: str, scope: str) -> None:
    """Each request passes with the scope of its name, and with none of the others."""
    app = protected(tracking_server(), POLICIES=POLICIES)
    SecureML.check(app)
    passed = [
        each
        for each in ("read", "write", "admin")
        if app.test_client().open(path, method=method, base_url=HTTPS, headers=caller("ada", each)).status_code == 200
    ]
    assert passed == [scope]


def test_what_is_public(protected: MakeApp) -> None:
    """Only the named method, not others of the same URL or an unknown URL, whatever ``*`` is."""
    client = protected(tracking_server(), POLICIES=POLICIES).test_client()
    found = {
        (method, path): client.open(path, method=method, base_url=HTTPS).status_code
        for method in ("GET", "HEAD", "OPTIONS", "POST")
        for path in ("/health", "/unknown")
    }
    assert {key for key, status in found.items() if status == 200} == {("GET", "/health"), ("HEAD", "/health")}
    assert set(found.values()) == {200, 401}


def test_code_comes_before_wide_names(protected: MakeApp) -> None:
    """A route with a policy of its own keeps it; one that is named by itself as well is an error."""
    app = protected(POLICIES={"*": ADMIN, "/v1/*": ADMIN})
    app.add_url_rule("/v1/predict", "predict", protect(scopes=["predict"])(lambda: "predicted"))
    SecureML.check(app)
    client = app.test_client()
    assert client.get("/v1/predict", base_url=HTTPS, headers=caller("ada", "predict")).status_code == 200
    assert client.get("/v1/predict", base_url=HTTPS, headers=caller("ada", "admin")).status_code == 403


def test_an_unknown_url_has_the_policy_of_every_request(protected: MakeApp) -> None:
    """It is rejected by the same rule as a known one, so that routes cannot be listed."""
    client = protected(tracking_server(), POLICIES={"*": ADMIN}).test_client()
    statuses = [
        client.get(path, base_url=HTTPS, headers=headers).status_code
        for headers in ({}, caller("ada"), caller("ada", "admin"))
        for path in ("/unknown", "/health")
    ]
    assert statuses == [401, 401, 403, 403, 404, 200]


@pytest.mark.parametrize(
    ("policies", "problem"),
    [
        ({"PUT /health": READ}, "'PUT /health', but no route there accepts PUT, only "),
        ({"/heatlh": READ}, "nor a path below a mount; did you mean '/health'?"),
        ({"helth": READ}, "nor a path below a mount; did you mean 'health'?"),
        ({"GET,PUT health": READ}, "'GET,PUT health', but no route there accepts PUT"),
        ({"DELETE blueprint:api": READ, "PATCH *": READ}, "'PATCH *', but no route there accepts PATCH"),
        (
            {"blueprint:apis": READ},
            "a blueprint of this app with a route; did you mean 'blueprint:api'?",
        ),
        ({"/model/*": READ}, "'/model/*', which is a path without a route of this app"),
        ({"get /health": READ}, "'get /health', which is neither an endpoint nor a URL rule"),
        ({"*": {"public": True}}, "makes all requests public with '*'"),
        ({"GET *": {"public": True}}, "makes all requests public with 'GET *'"),
        ({"GET /health": READ, "GET,HEAD /health": READ}, "'GET /health' and 'GET,HEAD /health' for the same requests"),
    ],
)
def test_a_name_for_nothing_or_for_too_much(protected: MakeApp, policies: dict[str, Any], problem: str) -> None:
    """It is an error at the start, and until it is mended no request is served."""
    app = protected(tracking_server(), POLICIES=policies)
    with pytest.raises(ConfigError) as caught:
        SecureML.check(app)
    assert problem in str(caught.value)
    assert app.test_client().get("/health", base_url=HTTPS, headers=caller("ada", "read")).status_code == 500


def test_a_policy_in_code_for_one_method(protected: MakeApp) -> None:
    """A view with a policy in its code can have another in the configuration for no method that runs it."""
    app = protected(POLICIES={"POST /predict": WRITE})
    app.add_url_rule("/predict", "predict", protect(scopes=["predict"])(lambda: "predicted"), methods=["GET", "POST"])
    with pytest.raises(ConfigError, match="a policy in SECURE_ML_POLICIES and another in its code"):
        SecureML.check(app)


def test_a_public_tree_opens_no_other_spelling(protected: MakeApp) -> None:
    """A path with dot segments has the default policy, even if a wider name has another one."""
    client = protected(tracking_server(), POLICIES={"/ajax-api/*": {"public": True}}).test_client()
    statuses = [
        client.get(path, base_url=HTTPS).status_code for path in ("/ajax-api/x", "/ajax-api/a/../x", "/ajax-api/./x")
    ]
    assert statuses == [200, 401, 401]


class Rows(Schema):
    instances = Tensor(shape=(None, 2))


def test_automatic_options_of_a_wide_name_with_a_body(protected: MakeApp) -> None:
    """No view runs, so there is no body to check; access is still checked."""
    app = protected(tracking_server(), POLICIES={"/ajax-api/*": WRITE | {"body": f"{__name__}:Rows"}})
    client, able = app.test_client(), caller("ada", "write")
    assert client.options("/ajax-api/x", base_url=HTTPS, headers=caller()).status_code == 403
    assert client.options("/ajax-api/x", base_url=HTTPS, headers=able).status_code == 200
    assert client.post("/ajax-api/x", base_url=HTTPS, headers=able, json={}).status_code == 422
