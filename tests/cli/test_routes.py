"""``flask secure-ml routes``: every route and option of a policy, and ``check`` for a missing owner hook."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema

from authorization_hooks import owns_job
from flask_secure_ml import protect, public
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.inputs import Tensor
from support import MakeApp


class Weekdays:
    """A predicate that is an object."""

    def __call__(self, principal: object) -> bool:
        return True


@pytest.mark.parametrize(
    ("options", "cell"),
    [
        pytest.param({}, "any principal", id="none"),
        pytest.param({"scopes": ["b", "a"]}, "a b", id="scopes"),
        pytest.param({"any_scopes": ["b", "a"]}, "any of: a b", id="any_scopes"),
        pytest.param({"roles": ["b", "a"]}, "roles: a b", id="roles"),
        pytest.param({"claims": {"tenant": ["acme", "x"]}}, 'tenant="acme"|"x"', id="claims"),
        pytest.param({"claims": {"verified": True, "level": 1}}, "verified=true; level=1", id="claims of other types"),
        pytest.param({"principals": ["mtls:b", "mtls:a"]}, "principals: mtls:a mtls:b", id="principals"),
        pytest.param({"when": Weekdays()}, "when Weekdays", id="when"),
        pytest.param({"owner": True}, "owner", id="the owner hook of the app"),
        pytest.param({"owner": "authorization_hooks:owns_job"}, "owner owns_job", id="an owner hook"),
        pytest.param({"acr_values": ["b", "a"]}, "acr: b a", id="acr_values"),
        pytest.param({"max_auth_age": 300}, "authenticated within 300 s", id="max_auth_age"),
        pytest.param({"scopes": ["a"], "roles": ["b"], "owner": True}, "a; roles: b; owner", id="several"),
    ],
)
@pytest.mark.parametrize("where", ["code", "configured"])
def test_every_option_is_listed(options: dict[str, Any], cell: str, where: str, protected: MakeApp) -> None:
    """The column Access describes what is enforced."""
    app = protected(**({"POLICIES": {"job": options}} if where == "configured" else {}))
    view = protect(**options)(lambda: "ok") if where == "code" else lambda: "ok"
    app.add_url_rule("/jobs", endpoint="job", view_func=view)
    lines = run(app, "routes")[1].splitlines()
    row = next(line for line in lines if " /jobs " in line)
    assert [each.strip() for each in row.split("  ") if each.strip()][2] == cell


@pytest.mark.parametrize(("owner", "code"), [(None, 1), (owns_job, 0)])
def test_a_missing_owner_hook(owner: Any, code: int, protected: MakeApp) -> None:
    """``check`` lists each route that no caller could use, once."""
    app = protected(parts={"owner": owner})
    app.add_url_rule("/jobs/<job_id>", endpoint="job", view_func=protect(owner=True)(lambda job_id: "ok"))
    found, output = run(app, "check")
    assert found == code
    assert output.count("'job' has a policy with owner=True, which requires SecureML(owner=...)") == code


def run(app: Flask, *arguments: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(secure_ml, list(arguments))
    return result.exit_code, result.output


class Row(Schema):
    x = Tensor((1,))


def test_routes(app: Flask) -> None:
    """A line for each rule and policy, and an object for each with ``--json``."""
    app.add_url_rule("/healthz", endpoint="healthz", view_func=public(lambda: "ok"))
    marked = protect(scopes=["predict", "explain"], limits=["5/minute"])(lambda: "ok")
    app.add_url_rule("/predict", endpoint="predict", view_func=marked, methods=["POST"])
    app.add_url_rule("/rows", endpoint="rows", view_func=protect(body=Row)(lambda payload: "ok"), methods=["POST"])
    result = app.test_cli_runner().invoke(secure_ml, ["routes"])
    lines = [line.split("  ") for line in result.output.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert result.exit_code == 0
    assert ["GET,HEAD,OPTIONS", "/healthz", "public", "-", "-", "code"] in cells
    assert ["OPTIONS,POST", "/predict", "explain predict", "5 per 1 minute", "-", "code"] in cells
    assert ["POST", "/rows", "any principal", "-", "Row", "code"] in cells
    assert ["OPTIONS", "/rows", "any principal", "-", "-", "code"] in cells
    assert ["GET,HEAD,OPTIONS", "/static/<path:filename>", "any principal", "-", "-", "default"] in cells
    listed = json.loads(app.test_cli_runner().invoke(secure_ml, ["routes", "--json"]).output)
    methods = "GET,HEAD,OPTIONS"
    healthz = {"methods": methods, "rule": "/healthz", "access": "public", "limits": "-", "body": "-", "policy": "code"}
    assert healthz in listed


def test_an_app_without_protection(bare_app: Flask) -> None:
    """The message names the missing call."""
    result = bare_app.test_cli_runner().invoke(secure_ml, ["routes"])
    assert result.exit_code == 1
    assert "SecureML().init_app(app)" in result.output
