"""An app with a route of every kind that the OpenAPI document must describe."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask
from flask.views import MethodView
from marshmallow import EXCLUDE, Schema, fields, validate

from flask_secure_ml import protect, public
from flask_secure_ml.inputs import Base64Tensor, Categorical, Image, Tensor, Text, Url

HIDDEN = ["acme-corp", "api-key:secret-customer", "only_on_sundays", "models.internal.example", "golden-plan"]
PLANS = {
    "default": {"requests": ["60/minute"], "quotas": ["10000/day"], "scores": {"label_only": True}},
    "golden-plan": {"requests": ["123456/minute"]},
}


def only_on_sundays(_principal: object) -> bool:
    return True


class Rows(Schema):
    """Measurements of flowers."""

    instances = Tensor((None, 4), minimum=0, maximum=[1, 2, 3, 4], max_items=10)


class Prediction(Schema):
    predictions = Tensor((None,), "int64")


class Options(Schema):
    class Meta:
        unknown = EXCLUDE

    temperature = fields.Float(validate=validate.Range(0.1, 2), load_default=1.0)


class Node(Schema):
    name = fields.String(required=True)
    children = fields.List(fields.Nested("Node"))


class Everything(Schema):
    left = Tensor(("rows", 3), "int16", required=False)
    packed = Base64Tensor((None, 2), "uint8", required=False)
    kinds = Categorical(["a", "b"], (None,), required=False)
    name = Text(20, data_key="display-name", metadata={"description": "Shown to people."}, required=False)
    address = Url(["models.internal.example"], required=False)
    picture = Image(required=False)
    options = fields.Nested(Options)
    several = fields.List(fields.Nested(Options))
    root = fields.Nested(Node)
    clipped = Tensor((2,), minimum=0, outside="clip", allow_none=True, required=False)
    unbounded = Tensor((2,), minimum=float("-inf"), maximum=[1.5, float("inf")], required=False)


def rows_of_another_module() -> type[Schema]:
    class Rows(Schema):
        names = fields.List(fields.String(), required=True)

    return Rows


def add_routes(app: Flask) -> Flask:
    """Add a route of every kind to an app."""

    @app.post("/v1/predict")
    @protect(
        scopes=["predict"],
        body=Rows,
        response=Prediction,
        cost="instances",
        limits=["600/minute"],
        caps={"max_body_bytes": 5000},
    )
    def predict(payload: dict[str, Any]) -> dict[str, Any]:
        """Tell the species of flowers.

        One row of ``instances`` for each flower.

        :param payload: nothing for callers.
        """
        return {"predictions": payload["instances"].sum(axis=1).astype("int64")}

    @app.post("/v1/everything")
    @protect(any_scopes=["batch", "admin"], body=Everything, when=only_on_sundays)
    def everything(payload: dict[str, Any]) -> dict[str, Any]:
        return {"members": sorted(payload)}

    @app.post("/v1/names")
    @protect(body=rows_of_another_module(), claims={"tenant": "acme-corp"}, principals=["api-key:secret-customer"])
    def names(payload: dict[str, Any]) -> dict[str, Any]:
        return payload

    @app.post("/v1/many")
    @protect(body=Options(many=True))
    def many(payload: list[Any]) -> dict[str, Any]:
        return {"count": len(payload)}

    @app.post("/open/predict")
    @public(body=Rows)
    def open_predict(payload: dict[str, Any]) -> dict[str, Any]:
        return {"count": len(payload["instances"])}

    @app.get("/healthz")
    @public
    def healthz() -> dict[str, Any]:
        return {"status": "ok"}

    jobs = Blueprint("jobs", __name__, url_prefix="/jobs")

    class Job(MethodView):
        """One job."""

        def get(self, number: int) -> dict[str, Any]:
            return {"number": number}

        def delete(self, number: int) -> dict[str, Any]:
            """Stop a job."""
            return {"number": number}

    jobs.add_url_rule("/<int(min=1, max=99):number>", view_func=Job.as_view("job"))
    app.register_blueprint(jobs)
    for name, rule in (
        ("file", "/files/<path:name>"),
        ("sort", "/sorted/<any(up, down):way>"),
        ("id", "/ids/<uuid:id>"),
    ):
        app.add_url_rule(rule, name, lambda **names: {"names": sorted(names)})
    app.add_url_rule("/same/<one>", "first", lambda one: {"one": one})
    app.add_url_rule("/same/<int:two>", "second", lambda two: {"two": two})
    return app
