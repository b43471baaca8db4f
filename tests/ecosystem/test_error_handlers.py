"""Frameworks that respond to every HTTP error themselves: flask-restx, flask-smorest and APIFlask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema
from marshmallow.fields import Integer
from werkzeug.test import TestResponse

from flask_secure_ml.testing import MemorySink
from framework_apps import FRAMEWORKS
from support import HTTPS, MakeApp, caller


class Rows(Schema):
    """The body of a request for some rows."""

    rows = Integer(strict=True)


SETTINGS: dict[str, Any] = {
    "MAX_BODY_BYTES": 200,
    "POLICIES": {"POST /rows": {"body": f"{__name__}:Rows"}, "GET /rows": {"limits": ["1/hour"]}},
}


@pytest.fixture(params=["last", "first"])
def order(request: pytest.FixtureRequest) -> str:
    """Return whether the app is protected when it is complete, or before the framework gets it."""
    return str(request.param)


@pytest.fixture(params=FRAMEWORKS)
def serving(request: pytest.FixtureRequest, protected: MakeApp, order: str) -> Callable[..., Flask]:
    def make(**settings: Any) -> Flask:
        def protect(app: Flask) -> Flask:
            return protected(app, **SETTINGS, **settings)

        framework = FRAMEWORKS[request.param]
        app = framework(protect) if order == "first" else protect(framework())
        app.config["PROPAGATE_EXCEPTIONS"] = False
        return app

    return make


def ask(app: Flask, method: str, path: str, headers: Any = None, **request: Any) -> TestResponse:
    return app.test_client().open(path, method=method, base_url=HTTPS, headers=headers, **request)


CASES: dict[str, tuple[str, str, dict[str, Any], int, str, str | None]] = {
    "no credential": ("GET", "/rows", {}, 401, "not_authenticated", "WWW-Authenticate"),
    "unknown URL": ("GET", "/nowhere", {"headers": caller()}, 404, "not_found", None),
    "wrong method": ("PATCH", "/rows", {"headers": caller()}, 405, "method_not_allowed", "Allow"),
    "too large": ("POST", "/rows", {"headers": caller(), "json": "1" * 300}, 413, "payload_too_large", None),
    "not a row": ("POST", "/rows", {"headers": caller(), "json": {"rows": "x"}}, 422, "validation_failed", None),
    "crash": ("GET", "/crash", {"headers": caller()}, 500, "internal_error", None),
}


@pytest.mark.parametrize("replaced", [False, True], ids=["app", "ours"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_errors(serving: Callable[..., Flask], sink: MemorySink, case: Any, replaced: bool) -> None:
    """Status, code, id and protocol headers are kept; the log has a reason; the setting selects the body."""
    method, path, request, status, code, header = case
    app = serving(**({"ERROR_BODY": "ours"} if replaced else {}))
    response = ask(app, method, path, **request)
    assert (response.status_code, response.headers.getlist("X-Error-Code")) == (status, [code])
    assert len(response.headers["X-Request-ID"]) == 32
    assert header is None or len(response.headers.getlist(header)) == 1
    assert "weights" not in response.text
    body: Any = response.get_json(force=True)
    assert ("errors" in body) == (status == 422)
    if replaced:
        assert (response.mimetype, body["code"]) == ("application/problem+json", code)
    (line,) = sink.records
    assert (line["status"], line["code"]) == (status, code)
    assert line["reason"]


def test_when_to_try_again(serving: Callable[..., Flask]) -> None:
    """A 429 has Retry-After."""
    app = serving()
    assert ask(app, "GET", "/rows", caller()).status_code == 200
    response = ask(app, "GET", "/rows", caller())
    assert (response.status_code, response.headers["X-Error-Code"]) == (429, "rate_limited")
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("error_body", ["app", "ours"])
def test_errors_of_the_app(serving: Callable[..., Flask], sink: MemorySink, error_body: str) -> None:
    """Its abort keeps its text and the body that its framework writes, whatever the setting."""
    response = ask(serving(ERROR_BODY=error_body), "GET", "/own", caller())
    body: Any = response.json
    assert (response.status_code, body["message"]) == (400, "feature x is missing")
    assert response.headers["X-Error-Code"] == "malformed_request"
    assert sink.records[0]["reason"]
