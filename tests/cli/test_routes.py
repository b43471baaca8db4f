"""``flask secure-ml routes`` and ``check``: every option of a policy, and an owner hook that is missing."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from authorization_hooks import owns_job
from flask_secure_ml import protect
from flask_secure_ml.cli import secure_ml
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
    """The column Access reads as what is enforced."""
    app = protected(**({"POLICIES": {"job": options}} if where == "configured" else {}))
    view = protect(**options)(lambda: "ok") if where == "code" else lambda: "ok"
    app.add_url_rule("/jobs", endpoint="job", view_func=view)
    lines = run(app, "routes")[1].splitlines()
    row = next(line for line in lines if " /jobs " in line)
    assert [each.strip() for each in row.split("  ") if each.strip()][2] == cell


@pytest.mark.parametrize(("owner", "code"), [(None, 1), (owns_job, 0)])
def test_a_missing_owner_hook(owner: Any, code: int, protected: MakeApp) -> None:
    """``check`` names each route that nobody could call, once."""
    app = protected(parts={"owner": owner})
    app.add_url_rule("/jobs/<job_id>", endpoint="job", view_func=protect(owner=True)(lambda job_id: "ok"))
    found, output = run(app, "check")
    assert found == code
    assert output.count("'job' has a policy with owner=True, which needs SecureML(owner=...)") == code


def run(app: Flask, *arguments: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(secure_ml, list(arguments))
    return result.exit_code, result.output
