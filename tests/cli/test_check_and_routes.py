"""``flask secure-ml check`` and ``routes``."""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema

from flask_secure_ml import protect, public
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.cli.check import UNSEEN
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.testing import FakeClock, make_api_key
from support import RANDOM_SECRET, MakeApp

ISSUER = {
    "issuer": "https://as.example",
    "audience": "https://api.example",
    "algorithms": ["RS256"],
    "jwks_uri": "http://127.0.0.1:1/jwks",
    "insecure_http": True,
}

PRESET = {"provider": "okta", "issuer": "https://as.example/oauth2/a", "audience": "https://api.example"}
POD = ISSUER | {"provider": "kubernetes"}


def run(app: Flask, *arguments: str) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(secure_ml, list(arguments))
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"REQUIRE_TLS": False}, "SECURE_ML_REQUIRE_TLS is off", id="clear text"),
        pytest.param({"FAILED_AUTH_LIMITS": []}, "SECURE_ML_FAILED_AUTH_LIMITS is empty", id="no throttle"),
        pytest.param({}, "no API keys, issuers or client certificates", id="nobody can come in"),
        pytest.param({"TOKEN_ISSUERS": [ISSUER]}, "without TLS (insecure_http)", id="clear-text keys"),
        pytest.param({}, "limits are counted in memory", id="limits of each worker"),
        pytest.param({"LIMIT_OUTAGE": "open"}, "SECURE_ML_LIMIT_OUTAGE is open", id="limits that fail open"),
        pytest.param(
            {"PLANS": {"default": {"requests": [{"limit": "5/minute", "outage": "open"}]}}},
            "5 per 1 minute has the outage policy open",
            id="a limit that fails open",
        ),
        pytest.param({}, "SECURE_ML_STORE_URI is memory", id="nothing can be revoked"),
        pytest.param(
            {"TOKEN_ISSUERS": [ISSUER], "DPOP": "accept", "RESOURCE_URI": "https://api.example"},
            "can be replayed at another",
            id="DP-13 replays",
        ),
        pytest.param({"TOKEN_ISSUERS": [ISSUER | {"omits": ["typ"]}]}, "may lack typ (omits)", id="AT-1 relaxed"),
        pytest.param({"TOKEN_ISSUERS": [ISSUER | {"header_types": ["JWT"]}]}, "typ jwt (header_types)", id="H4 JWT"),
        pytest.param({"TOKEN_ISSUERS": [ISSUER | {"scope_claims": ["scp"]}]}, "in scp (scope_claims)", id="scopes"),
        pytest.param({"TOKEN_ISSUERS": [ISSUER | {"role_claims": ["a.b"]}]}, "roles in a.b (role_claims)", id="roles"),
        pytest.param({"TOKEN_ISSUERS": [ISSUER | {"client_claims": ["cid"]}]}, "in cid (client_claims)", id="client"),
        pytest.param({"TOKEN_ISSUERS": [ISSUER | {"user_claims": ["oid"]}]}, "in oid (user_claims)", id="subject"),
        pytest.param(
            {"TOKEN_ISSUERS": [ISSUER | {"audience_claims": ["aud", "client_id"]}]},
            "have their audience in aud, client_id (audience_claims)",
            id="JB-12 audience in another claim",
        ),
        pytest.param({"TOKEN_ISSUERS": [ISSUER | {"audience": ["a", "b"]}]}, "any of a, b (audience)", id="audiences"),
        pytest.param(
            {"TOKEN_ISSUERS": [ISSUER | {"max_token_bytes": 9000}]}, "9000 bytes (max_token_bytes)", id="T5 long"
        ),
        pytest.param(
            {"TOKEN_ISSUERS": [ISSUER | {"id_token_claims": ["nonce"], "required_claims": {"typ": "Bearer"}}]},
            "may have nonce as ID tokens do (id_token_claims)",
            id="C6 nonce",
        ),
        pytest.param(
            {"TOKEN_ISSUERS": [PRESET]},
            "may lack typ (omits); have scopes in scp (scope_claims); have their client in cid (client_claims); "
            "provider okta",
            id="preset",
        ),
        pytest.param({"TOKEN_ISSUERS": [POD]}, "every pod of the cluster can get a token of https://as", id="any pod"),
        pytest.param({"TOKEN_ISSUERS": [PRESET | {"proxy": "http://p.example"}]}, "p.example (proxy)", id="proxy"),
        pytest.param({"TOKEN_ISSUERS": [ISSUER | {"private_network": True}]}, "private IP address", id="JB-14 inside"),
        pytest.param({"STORE_URI": "redis://stores.example"}, "another machine without TLS", id="clear-text store"),
        pytest.param(
            {"CORS": {"origins": ["http://app.example"]}},
            "SECURE_ML_CORS allows http://app.example, whose pages anybody on their network can change",
            id="pages in clear text",
        ),
        pytest.param({"PLANS": {"default": {}}}, "the plan 'default' has no request limit", id="no limit"),
    ],
)
def test_warnings(protected: MakeApp, settings: dict[str, Any], words: str) -> None:
    """Each weak setting has a warning; the exit code stays 0."""
    code, output = run(protected(**settings), "check")
    assert code == 0
    assert words in output


def test_pods_that_are_named(protected: MakeApp) -> None:
    """A pod that the issuer's options name is no stranger."""
    named = POD | {"required_claims": {"sub": "system:serviceaccount:batch:scorer"}}
    assert "every pod" not in run(protected(TOKEN_ISSUERS=[named]), "check")[1]


def test_an_issuer_of_rfc_9068(protected: MakeApp) -> None:
    """An issuer whose options relax nothing has no warning; stricter options are none."""
    strict = {**ISSUER, "jwks_uri": "https://as.example/jwks", "insecure_http": False}
    output = run(protected(TOKEN_ISSUERS=[strict | {"required_claims": {"tenant": "a"}}]), "check")[1]
    assert "as.example" not in output


class Clipping(Schema):
    x = Tensor((1,), maximum=1, outside="clip")


def test_a_configured_schema_that_changes_what_it_loads(protected: MakeApp) -> None:
    """The view of a foreign app never gets what the schema made."""
    app = protected(POLICIES={"view": {"public": True, "body": f"{__name__}:Clipping"}})
    app.add_url_rule("/view", endpoint="view", view_func=lambda: "ok", methods=["POST"])
    code, output = run(app, "check")
    assert code == 0
    assert "warning: a view at 'view' that reads the body itself" in output
    assert 'x (outside="clip")' in output


def of_flask_cors(module: str) -> Any:
    """Return a function that is defined in a module of flask-cors, as far as Python can tell."""
    made: dict[str, Any] = {"__name__": f"flask_cors.{module}"}
    exec("def made(response=None): return response", made)
    return made["made"]


def test_flask_cors(protected: MakeApp) -> None:
    """Its preflights would get 401, so the check says what to use instead; other hooks are not named."""
    app = Flask("model_app")
    app.after_request(lambda response: response)
    app.add_url_rule("/own", "own", protect(lambda: "own"))
    assert "flask-cors" not in run(protected(app), "check")[1]
    app = Flask("model_app")
    app.after_request(of_flask_cors("extension"))
    app.add_url_rule("/shared", "shared", protect(wraps(lambda: "shared")(of_flask_cors("decorator"))))
    code, output = run(protected(app), "check")
    assert code == 0
    assert "warning: flask-cors gets no preflight past the guards" in output
    assert "warning: cross_origin of flask-cors is on shared and gets no preflight" in output


def test_debug_is_weak(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interactive debugger is a remote shell."""
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert "debug is on" in run(app, "check")[1]


def test_a_key_with_an_unknown_plan(
    protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """Its owner would be rejected."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(API_KEYS=str(tmp_path / "keys.json"), API_KEY_PEPPER="env:PEPPER")
    make_api_key(app, plan="lost")
    assert "has the plan 'lost', which is not in SECURE_ML_PLANS" in run(app, "check")[1]


def test_nothing_weak(protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound setup has no warnings."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(
        API_KEYS=str(tmp_path / "keys.json"),
        API_KEY_PEPPER="env:PEPPER",
        STORE_URI=f"sqlite:{tmp_path}/state.db",
    )
    assert run(app, "check") == (0, f"{UNSEEN}\nok: no warnings\n")


def test_what_is_not_weak_is_not_named(
    protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """An issuer over TLS and a key with a known plan are fine."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    issuer = {name: value for name, value in ISSUER.items() if name != "insecure_http"}
    app = protected(
        API_KEYS=str(tmp_path / "keys.json"),
        API_KEY_PEPPER="env:PEPPER",
        TOKEN_ISSUERS=[issuer | {"jwks_uri": "https://as.example/jwks"}],
        STORE_URI=f"sqlite:{tmp_path}/state.db",
    )
    make_api_key(app)
    assert run(app, "check")[1].splitlines()[-1] == "ok: no warnings"


def test_a_policy_without_a_route(protected: MakeApp) -> None:
    """Exit code 1 and the name."""
    code, output = run(protected(POLICIES={"/predct": {}}), "check")
    assert code == 1
    assert "'/predct', which is neither an endpoint nor a URL rule" in output


def test_routes(app: Flask) -> None:
    """A line for each rule and policy."""
    app.add_url_rule("/healthz", endpoint="healthz", view_func=public(lambda: "ok"))
    marked = protect(scopes=["predict", "explain"], limits=["5/minute"])(lambda: "ok")
    app.add_url_rule("/predict", endpoint="predict", view_func=marked, methods=["POST"])
    app.add_url_rule("/rows", endpoint="rows", view_func=protect(body=Clipping)(lambda payload: "ok"), methods=["POST"])
    code, output = run(app, "routes")
    lines = [line.split("  ") for line in output.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert code == 0
    assert ["GET,HEAD,OPTIONS", "/healthz", "public", "-", "-", "code"] in cells
    assert ["OPTIONS,POST", "/predict", "explain predict", "5 per 1 minute", "-", "code"] in cells
    assert ["POST", "/rows", "any principal", "-", "Clipping", "code"] in cells
    assert ["OPTIONS", "/rows", "any principal", "-", "-", "code"] in cells
    assert ["GET,HEAD,OPTIONS", "/static/<path:filename>", "any principal", "-", "-", "default"] in cells


@pytest.mark.parametrize("command", ["check", "routes"])
def test_an_app_without_protection(bare_app: Flask, command: str) -> None:
    """The message names what to call."""
    result = bare_app.test_cli_runner().invoke(secure_ml, [command])
    assert result.exit_code == 1
    assert "SecureML().init_app(app)" in result.output


def test_json(app: Flask) -> None:
    """--json prints what a program reads."""
    app.add_url_rule("/healthz", endpoint="healthz", view_func=public(lambda: "ok"))
    listed = json.loads(run(app, "routes", "--json")[1])
    methods = "GET,HEAD,OPTIONS"
    healthz = {"methods": methods, "rule": "/healthz", "access": "public", "limits": "-", "body": "-", "policy": "code"}
    assert healthz in listed
    found = json.loads(run(app, "check", "--json")[1])
    assert any("limits are counted in memory" in each for each in found["warnings"])
