"""Paths of routes with variables."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import BaseConverter

from flask_secure_ml.checks.url.paths import path_of_description, path_of_rule


class Quarter(BaseConverter):
    """A quarter of a year, which no usual value looks like."""

    regex = r"\d{4}-Q[1-4]"


RULES = {
    "/v1/names/<name>": "/v1/names/0",
    "/v1/models/<int(min=1):model>": "/v1/models/1",
    "/v1/files/<path:file>": "/v1/files/0",
    "/v1/jobs/<uuid:job>/rows/<int:row>": "/v1/jobs/00000000-0000-4000-8000-000000000000/rows/0",
    "/v1/<any(predict, 'explain-all'):action>/<float:share>": "/v1/predict/0.5",
    "/v1/é <name>": "/v1/%C3%A9%200",
    "/v1/reports/<quarter:quarter>": "",
    "/v1/models/<string(length=2):language>/": "",
}


@pytest.fixture
def app() -> Flask:
    app = Flask("paths", static_folder=None)
    app.url_map.converters["quarter"] = Quarter
    for rule in RULES:
        app.add_url_rule(rule, rule, lambda **_values: "ok", methods=["POST"])
    return app


@pytest.mark.parametrize("rule", RULES)
def test_rule(app: Flask, rule: str) -> None:
    """The app routes the path to the rule, or there is none."""
    assert path_of_rule(app, rule, rule, "POST") == RULES[rule]


def test_rule_of_another_method(app: Flask) -> None:
    assert path_of_rule(app, "/v1/names/<name>", "/v1/names/<name>", "GET") == ""


def test_rule_that_another_one_hides(app: Flask) -> None:
    app.add_url_rule("/v1/names/0", "zero", lambda: "ok", methods=["POST"])
    assert path_of_rule(app, "/v1/names/<name>", "/v1/names/<name>", "POST") == "/v1/names/1"


def parameters(**schemas: Any) -> dict[str, Any]:
    return {"parameters": [{"name": name, "in": "path", "schema": schema} for name, schema in schemas.items()]}


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        ({}, "/v1/check/check"),
        (
            parameters(a={"type": "integer"}, b={"type": "string", "format": "uuid"}),
            f"/v1/0/00000000-0000-4000-8000-{0:012}",
        ),
        (parameters(a={"enum": ["x y", "z"]}, b={"type": ["string", "null"]}), "/v1/x%20y/check"),
        ({"parameters": [7, {"name": "a"}, {"name": "b", "schema": {"type": {}, "enum": []}}]}, "/v1/check/check"),
        ({"parameters": "a"}, "/v1/check/check"),
    ],
)
def test_description(operation: dict[str, Any], path: str) -> None:
    """Types and choices are used; a document of any other form is none."""
    assert path_of_description("/v1/{a}/{b}", operation) == path
