"""Checked by mypy, never run: how a user's annotated code sees the public names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

from flask import Blueprint, Flask, Request, Response
from flask.views import MethodView
from marshmallow import Schema

from flask_secure_ml import Exchange, Principal, SecureML, Stage, current_principal, protect, public
from flask_secure_ml.inputs import Tensor


class PredictRequest(Schema):
    instances = Tensor(shape=(None, 4), dtype="float32", max_items=4096)


class Authenticator:
    name = "mine"
    challenge = "Mine"

    def find(self, request: Request, exchange: Exchange) -> str | None:
        return request.headers.get("X-Mine")

    def verify(self, credential: Any, exchange: Exchange) -> Principal:
        return Principal("mine", str(credential), scopes=frozenset({"predict"}))


class Guard:
    name = "mine"
    stage = Stage.INPUT

    def check(self, request: Request, exchange: Exchange) -> None:
        assert_type(exchange.principal, Principal | None)


class Filter:
    def apply(self, response: Response, exchange: Exchange) -> None:
        response.headers["X-Mine"] = exchange.request_id


class Recorder:
    def record(self, exchange: Exchange) -> None:
        assert_type(exchange.milliseconds, float)


secure_ml = SecureML(authenticators=[Authenticator()], guards=[Guard()], filters=[Filter()], recorders=[Recorder()])


@protect(scopes=["predict"], body=PredictRequest, limits=["10/second"], cost="instances")
def predict(payload: dict[str, Any]) -> dict[str, Any]:
    return {"who": current_principal.subject, "rows": len(payload["instances"])}


@public
def healthz() -> str:
    return "ok"


@protect
def stream(rows: int) -> Iterator[str]:
    yield from map(str, range(rows))


@public(cors={"origins": ["https://app.example.com"], "max_age": 600})
def shared() -> str:
    return "shared"


@protect(cors=False, headers={"preset": "page", "values": {"X-Frame-Options": None}})
def unshared() -> str:
    return "unshared"


@protect(scopes=["jobs"])
class Jobs(MethodView):
    def get(self) -> str:
        return "jobs"


admin = protect(scopes=["admin"])(Blueprint("admin", __name__))


def decorated_names_keep_their_types(app: Flask) -> None:
    assert_type(predict({}), dict[str, Any])
    assert_type(healthz(), str)
    assert_type(stream(2), Iterator[str])
    assert_type(admin, Blueprint)
    assert_type(Jobs().get(), str)
    assert_type(secure_ml.init_app(app), None)


def mistakes_are_found(app: Flask) -> None:
    """Each ignore is itself checked: mypy reports one without effect."""
    SecureML(app, guards=[Filter()])  # type: ignore[list-item]
    SecureML(authenticators=[Recorder()])  # type: ignore[list-item]
    protect(scope=["predict"])  # type: ignore[call-overload]
    protect(caps={"max_body_bytes": "1 MB"})  # type: ignore[call-overload]
    protect(headers="pages")  # type: ignore[call-overload]
    protect(cors={"origins": [1]})  # type: ignore[call-overload]
    public(scopes=["predict"])  # type: ignore[call-overload]
