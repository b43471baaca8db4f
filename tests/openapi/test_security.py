"""Each security scheme of a description is a way in: used as it says, it opens a route that rejects without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from flask_secure_ml import SecureML, protect, public
from flask_secure_ml.openapi import build_document
from flask_secure_ml.testing import FakeClock, make_api_key, make_dpop_proof, make_key_set, make_signing_key, make_token
from support import HTTPS, OLDER_SECRET, RANDOM_SECRET, NameAuthenticator

ISSUER = "https://issuer.example"
KEY = make_signing_key("ES256")
PROVER = make_signing_key("ES256", None)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    (tmp_path / "jwks.json").write_text(make_key_set(KEY))
    issuer = {
        "issuer": ISSUER,
        "audience": "models",
        "algorithms": ["ES256"],
        "jwks_file": str(tmp_path / "jwks.json"),
    }
    return {
        "API_KEYS": str(tmp_path / "keys.json"),
        "API_KEY_PEPPER": "env:PEPPER",
        "TOKEN_ISSUERS": [issuer],
        "RESOURCE_URI": HTTPS,
    }


def made(settings: dict[str, Any], clock: FakeClock, *authenticators: Any) -> Flask:
    app = Flask("ways")
    app.config.update({f"SECURE_ML_{name}": value for name, value in settings.items()}, TESTING=True)
    app.config["SECURE_ML_REQUEST_LOG"] = "off"
    SecureML(authenticators=authenticators, clock=clock).init_app(app)

    @app.post("/predict")
    @protect(scopes=["predict"])
    def predict() -> dict[str, Any]:
        return {}

    @app.post("/either")
    @protect(scopes=["predict"], any_scopes=["batch", "admin"])
    def either() -> dict[str, Any]:
        return {}

    @app.post("/open")
    @public
    def open_to_all() -> dict[str, Any]:
        return {}

    return app


def schemes(app: Flask) -> dict[str, Any]:
    document = build_document(app)
    OpenAPIV31SpecValidator(document).validate()
    found: dict[str, Any] = document["components"]["securitySchemes"]
    return found


def api_key(app: Flask, clock: FakeClock) -> str:
    return make_api_key(app)


def token(clock: FakeClock, *, bound: bool = False) -> str:
    claims = {"cnf": {"jkt": PROVER.thumbprint()}} if bound else {}
    return make_token(KEY, issuer=ISSUER, audience="models", now=clock.now(), claims=claims)


def proof(clock: FakeClock, text: str) -> str:
    return make_dpop_proof(PROVER, text, now=clock.now())


def headers_for(requirement: dict[str, Any], described: dict[str, Any], app: Flask, clock: FakeClock) -> dict[str, str]:
    """Return the headers of a client that knows only the document."""
    bound = "DPoP" in requirement
    credential = token(clock, bound=bound) if bound or "Bearer" in requirement else api_key(app, clock)
    found = {}
    for name in requirement:
        scheme = described[name]
        if scheme["type"] == "http":
            found["Authorization"] = f"{scheme['scheme']} {credential}"
        else:
            assert (scheme["type"], scheme["in"]) == ("apiKey", "header")
            found[scheme["name"]] = proof(clock, credential) if name == "DPoPProof" else credential
    return found


@pytest.mark.parametrize(
    ("dpop", "ways"),
    [
        pytest.param("off", {"ApiKeyHeader", "ApiKey", "Bearer"}, id="no DPoP"),
        pytest.param("accept", {"ApiKeyHeader", "ApiKey", "Bearer", "DPoP"}, id="DPoP too"),
        pytest.param("require", {"ApiKeyHeader", "ApiKey", "DPoP"}, id="DPoP for every token"),
    ],
)
def test_every_way_opens(settings: dict[str, Any], clock: FakeClock, dpop: str, ways: set[str]) -> None:
    """A client that follows any alternative is accepted, and one without a credential gets 401."""
    app = made(settings | {"DPOP": dpop}, clock)
    document = build_document(app)
    described = schemes(app)
    asked = document["paths"]["/predict"]["post"]["security"]
    assert {next(iter(each)) for each in asked} == ways
    assert app.test_client().post("/predict", base_url=HTTPS).status_code == 401
    for each in asked:
        response = app.test_client().post("/predict", base_url=HTTPS, headers=headers_for(each, described, app, clock))
        assert response.status_code == 200, each


def test_a_way_that_is_off_is_not_described(settings: dict[str, Any], clock: FakeClock) -> None:
    """Without API keys there is no scheme for them, and a key is not accepted."""
    own = {name: settings[name] for name in ("TOKEN_ISSUERS", "RESOURCE_URI")}
    app = made(own, clock)
    assert set(schemes(app)) == {"Bearer"}
    assert (
        app.test_client()
        .post("/predict", base_url=HTTPS, headers={"X-API-Key": api_key(made(settings, clock), clock)})
        .status_code
        == 401
    )


def test_scopes_of_alternatives(settings: dict[str, Any], clock: FakeClock) -> None:
    """Required scopes are in each alternative, each of several sufficient ones in its own."""
    asked = build_document(made(settings, clock))["paths"]["/either"]["post"]["security"]
    bearer = sorted(each["Bearer"] for each in asked if "Bearer" in each)
    assert bearer == [["admin", "predict"], ["batch", "predict"]]


def test_open_routes_ask_nothing(settings: dict[str, Any], clock: FakeClock) -> None:
    """An empty list, which differs from no list: no scheme of the document applies there."""
    app = made(settings, clock)
    operation = build_document(app)["paths"]["/open"]["post"]
    assert operation["security"] == []
    assert "401" not in operation["responses"]
    assert app.test_client().post("/open", base_url=HTTPS).status_code == 200


def test_a_nonce_is_described_where_it_is_sent(settings: dict[str, Any], clock: FakeClock) -> None:
    """The header of a 401 is described only with the setting."""
    own = settings | {"DPOP": "require"}
    app = made(own | {"DPOP_NONCE_SECRET": OLDER_SECRET}, clock)
    text = token(clock, bound=True)
    headers = {"Authorization": f"DPoP {text}", "DPoP": proof(clock, text)}
    response = app.test_client().post("/predict", base_url=HTTPS, headers=headers)
    assert (response.status_code, "DPoP-Nonce" in response.headers) == (401, True)
    document = build_document(app)
    assert "DPoP-Nonce" in document["components"]["responses"]["401.not_authenticated"]["headers"]
    OpenAPIV31SpecValidator(document).validate()
    assert "DPoP-Nonce" not in json.dumps(build_document(made(own, clock))["components"]["headers"])


def test_certificates(clock: FakeClock) -> None:
    """A client certificate is the scheme of OpenAPI for it."""
    client = {"sha256": "0" * 64, "client": "robot", "scopes": ["predict"], "plan": "default"}
    app = made(
        {"MTLS_CLIENTS": [client], "CLIENT_CERTIFICATE_HEADER": "Client-Cert", "TRUSTED_PROXIES": ["192.0.2.0/24"]},
        clock,
    )
    assert schemes(app)["MutualTLS"]["type"] == "mutualTLS"


class Declared(NameAuthenticator):
    name = "house key"
    security_scheme = {"type": "apiKey", "in": "header", "name": "X-Test-Caller"}  # noqa: RUF012 - as users write it


class Silent(NameAuthenticator):
    name = "silent"
    challenge = ""


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(NameAuthenticator, {"test": {"type": "http", "scheme": "Test"}}, id="by its challenge"),
        pytest.param(Declared, {"house_key": Declared.security_scheme}, id="by what it declares"),
    ],
)
def test_own_authenticators(clock: FakeClock, make: Callable[[], Any], expected: dict[str, Any]) -> None:
    """A custom authenticator is described by its own declaration, under a valid name."""
    assert schemes(made({}, clock, make())) == expected


def test_one_that_says_nothing_is_not_open(clock: FakeClock) -> None:
    """With an unknown authentication method, the route still does not count as public."""
    operation = build_document(made({}, clock, Silent()))["paths"]["/predict"]["post"]
    assert operation["security"] != []
    assert "401" in operation["responses"]


def test_secrets_and_files_stay_out(settings: dict[str, Any], clock: FakeClock, tmp_path: Path) -> None:
    """No secret, no name of a variable and no path of the server is in the description."""
    app = made(settings | {"DPOP": "accept", "DPOP_NONCE_SECRET": OLDER_SECRET}, clock)
    text = json.dumps(build_document(app))
    assert [
        each
        for each in (str(tmp_path), RANDOM_SECRET, OLDER_SECRET, "PEPPER", "keys.json", "jwks.json")
        if each in text
    ] == []
