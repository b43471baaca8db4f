"""One small app for each framework, as in its quick start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apiflask
import flask_restx
import flask_smorest
from flask import Flask, abort
from flask.views import MethodView

Hook = Callable[[Flask], object]


def nothing(app: Flask) -> None:
    """Do not change the app."""


def by_restx(created: Hook = nothing) -> Flask:
    app = Flask("with_restx")
    created(app)
    key = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    api = flask_restx.Api(app, title="Digits", authorizations={"apiKey": key}, security="apiKey")

    @api.route("/rows")
    class Rows(flask_restx.Resource):
        def get(self) -> Any:
            return {"rows": 3}

        def post(self) -> Any:
            return {"rows": 3}

    @api.route("/own")
    class Own(flask_restx.Resource):
        def get(self) -> Any:
            abort(400, "feature x is missing")

    @api.route("/crash")
    class Crash(flask_restx.Resource):
        def get(self) -> Any:
            raise LookupError("row 7 of /srv/weights")

    return app


def by_smorest(created: Hook = nothing) -> Flask:
    app = Flask("with_smorest")
    app.config |= {
        "API_TITLE": "Digits",
        "API_VERSION": "v1",
        "OPENAPI_VERSION": "3.0.2",
        "OPENAPI_URL_PREFIX": "/",
        "OPENAPI_SWAGGER_UI_PATH": "/swagger",
        "OPENAPI_SWAGGER_UI_URL": "https://cdn.example.net/swagger-ui/",
    }
    created(app)
    api = flask_smorest.Api(app)
    blueprint = flask_smorest.Blueprint("rows", __name__)

    @blueprint.route("/rows")
    class Rows(MethodView):
        @blueprint.response(200)
        def get(self) -> Any:
            return {"rows": 3}

        @blueprint.response(200)
        def post(self) -> Any:
            return {"rows": 3}

    @blueprint.route("/own")
    def own() -> Any:
        flask_smorest.abort(400, message="feature x is missing")

    @blueprint.route("/crash")
    def crash() -> Any:
        raise LookupError("row 7 of /srv/weights")

    api.register_blueprint(blueprint)
    return app


def by_apiflask(created: Hook = nothing) -> Flask:
    app: Any = apiflask.APIFlask("with_apiflask", title="Digits")
    created(app)

    @app.get("/rows")
    def get_rows() -> Any:
        return {"rows": 3}

    @app.post("/rows")
    def post_rows() -> Any:
        return {"rows": 3}

    @app.get("/own")
    def own() -> Any:
        apiflask.abort(400, message="feature x is missing")

    @app.get("/crash")
    def crash() -> Any:
        raise LookupError("row 7 of /srv/weights")

    served: Flask = app
    return served


FRAMEWORKS: dict[str, Callable[..., Flask]] = {"restx": by_restx, "smorest": by_smorest, "apiflask": by_apiflask}
