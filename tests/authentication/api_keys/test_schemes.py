"""Headers that carry API keys, combinations of credentials that are rejected, and headers left to the view."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request, request
from openapi_spec_validator import OpenAPIV31SpecValidator

from flask_secure_ml import Exchange, Principal, SecureML
from flask_secure_ml.authentication.api_keys.key import checksum, new_key
from flask_secure_ml.authentication.tokens.introspection import Introspector
from flask_secure_ml.errors import ConfigError
from flask_secure_ml.openapi import build_document
from flask_secure_ml.testing import FakeClock, MemorySink, make_api_key, make_key_set, make_signing_key, make_token
from support import HTTPS, RANDOM_SECRET

CORPUS = Path(__file__).parents[2] / "corpus" / "api_keys" / "schemes.json"
ISSUER = "https://issuer.example"
SIGNING = make_signing_key("ES256")
MakeKeyApp = Callable[..., Flask]


@pytest.fixture
def made(tmp_path: Path, clock: FakeClock, sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> MakeKeyApp:
    """Make an app with API keys whose view returns the Authorization header that it sees."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    (tmp_path / "jwks.json").write_text(make_key_set(SIGNING))

    def make(*authenticators: Any, schemes: list[str] | None = None, issuer: bool = False, **settings: Any) -> Flask:
        app = Flask("clients")
        app.config.update(SECURE_ML_API_KEYS=str(tmp_path / "keys.json"), SECURE_ML_API_KEY_PEPPER="env:PEPPER")
        if schemes is not None:
            app.config["SECURE_ML_API_KEY_SCHEMES"] = schemes
        if issuer:
            app.config["SECURE_ML_TOKEN_ISSUERS"] = [
                {
                    "issuer": ISSUER,
                    "audience": "models",
                    "algorithms": ["ES256"],
                    "jwks_file": str(tmp_path / "jwks.json"),
                }
            ]
        app.config.update({f"SECURE_ML_{name}": value for name, value in settings.items()})
        SecureML(clock=clock, sink=sink, authenticators=authenticators).init_app(app)

        @app.get("/")
        def view() -> dict[str, Any]:
            return {"authorization": request.headers.get("Authorization")}

        return app

    return make


def filled(text: str, key: str, token: str) -> str:
    parts = {
        "key": key,
        "token": token,
        "wrong": new_key(),
        "cut": key[:-1],
        "long": "u" * 1024,
    }
    for name, value in parts.items():
        text = text.replace(f"{{{name}}}", value)
    return re.sub(r"\{b64:([^}]*)\}", lambda found: base64.b64encode(found[1].encode()).decode(), text, flags=re.DOTALL)


def send(app: Flask, headers: dict[str, str]) -> Any:
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    return app.test_client().get("/", base_url=HTTPS, environ_overrides=environ)


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize("case", [pytest.param(each, id=each["id"]) for each in json.loads(CORPUS.read_text())])
def test_headers(made: MakeKeyApp, clock: FakeClock, case: dict[str, Any]) -> None:
    """K6, T4: what is accepted, what is ambiguous, and that nothing without a credential of the app passes."""
    app = made(schemes=case.get("schemes"), issuer=case.get("issuer", False), FAILED_AUTH_LIMITS=["1/minute"])
    key = make_api_key(app)
    token = make_token(SIGNING, issuer=ISSUER, audience="models", now=clock.now())
    headers = {name: filled(value, key, token) for name, value in case["headers"].items()}
    response = send(app, headers)
    assert response.status_code == case["status"]
    if response.status_code == 200:
        assert response.json["authorization"] == headers.get("Authorization")
    else:
        assert response.headers.getlist("WWW-Authenticate")
    if "counted" in case:
        assert send(app, headers).status_code == (429 if case["counted"] else 401)


@pytest.mark.parametrize(
    ("schemes", "issuer", "expected"),
    [
        pytest.param(None, False, ["ApiKey"], id="default"),
        pytest.param(["x-api-key"], False, ["ApiKey"], id="own header"),
        pytest.param(["bearer"], False, ["Bearer"], id="bearer"),
        pytest.param(["basic"], False, ['Basic charset="UTF-8"'], id="basic"),
        pytest.param(["x-api-key", "bearer"], True, ["ApiKey", "Bearer"], id="one Bearer for keys and tokens"),
        pytest.param(["basic", "bearer"], True, ["Bearer", 'Basic charset="UTF-8"'], id="bearer and basic"),
    ],
)
def test_challenges_name_what_is_enabled(
    made: MakeKeyApp, schemes: list[str] | None, issuer: bool, expected: list[str]
) -> None:
    """RFC 9110 section 11.6.1: one challenge for each scheme that opens the app."""
    found = send(made(schemes=schemes, issuer=issuer), {}).headers.getlist("WWW-Authenticate")
    assert [each.replace('realm="model", ', "").replace(' realm="model"', "") for each in found] == expected


def test_the_used_scheme_is_challenged_first(made: MakeKeyApp) -> None:
    """RFC 6750 section 3.1: the error code is in the Bearer challenge only if a bearer credential failed."""
    app = made(schemes=["x-api-key", "bearer", "basic"])
    make_api_key(app)
    found = {
        name: send(app, headers).headers.getlist("WWW-Authenticate")[0]
        for name, headers in {
            "bearer": {"Authorization": f"Bearer {new_key()}"},
            "basic": {"Authorization": basic(f"a:{new_key()}")},
            "own": {"X-API-Key": new_key()},
        }.items()
    }
    assert found == {
        "bearer": 'Bearer realm="model", error="invalid_token"',
        "basic": 'Basic realm="model", charset="UTF-8"',
        "own": 'ApiKey realm="model"',
    }


@pytest.mark.parametrize(
    ("schemes", "described"),
    [
        pytest.param(["x-api-key", "apikey"], {"ApiKeyHeader", "ApiKey"}, id="default"),
        pytest.param(["bearer", "basic"], {"ApiKeyBearer", "ApiKeyBasic"}, id="standard schemes"),
        pytest.param(["apikey", "basic"], {"ApiKey", "ApiKeyBasic"}, id="mixed"),
    ],
)
def test_description_has_what_is_enabled(made: MakeKeyApp, schemes: list[str], described: set[str]) -> None:
    """OpenAPI has a security scheme for each, and each opens the route."""
    app = made(schemes=schemes)
    document = build_document(app)
    OpenAPIV31SpecValidator(document).validate()
    found = document["components"]["securitySchemes"]
    assert set(found) == described
    key = make_api_key(app)
    for each in found.values():
        value = basic(f"a:{key}") if each.get("scheme") == "basic" else f"{each.get('scheme')} {key}"
        headers = {"X-API-Key": key} if each["type"] == "apiKey" else {"Authorization": value}
        assert send(app, headers).status_code == 200


@pytest.mark.parametrize("value", [["cookie"], [], "bearer", ["X-API-Key"]], ids=str)
def test_unknown_schemes_are_errors(made: MakeKeyApp, value: Any) -> None:
    """A misspelt scheme is an error, not a scheme that is off."""
    with pytest.raises(ConfigError, match="SECURE_ML_API_KEY_SCHEMES"):
        made(schemes=value)


class OwnScheme:
    """An authenticator of the app for a scheme that API keys have too."""

    name = "own"

    def __init__(self, scheme: str) -> None:
        self.challenge = scheme

    def find(self, request: Request, exchange: Exchange) -> str | None:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        return value if scheme == self.challenge and value == "theirs" else None

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        return Principal("own", credential)


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_scheme_shared_with_an_authenticator_of_the_app(made: MakeKeyApp, scheme: str) -> None:
    """Keys are recognized by their prefix; all other values, even invalid base64, are for that authenticator."""
    app = made(OwnScheme(scheme), schemes=["x-api-key", "bearer", "basic"])
    key = make_api_key(app)
    value = basic(f"a:{key}") if scheme == "Basic" else f"Bearer {key}"
    assert send(app, {"Authorization": value}).status_code == 200
    assert send(app, {"Authorization": f"{scheme} theirs"}).status_code == 200
    assert send(app, {"Authorization": f"{scheme} other"}).status_code == 401
    assert send(app, {"X-API-Key": key, "Authorization": f"{scheme} theirs"}).status_code == 400


@pytest.mark.parametrize("schemes", [["x-api-key"], ["bearer"]], ids=str)
@pytest.mark.parametrize("scheme", ["Bearer", "DPoP"])
def test_no_issuer_is_asked_about_a_key(
    made: MakeKeyApp, monkeypatch: pytest.MonkeyPatch, schemes: list[str], scheme: str
) -> None:
    """A key in the place of an opaque token stays here: an introspection request would give it away."""
    asked: list[str] = []
    monkeypatch.setattr(Introspector, "verify", lambda _self, token, _calls: asked.append(token))
    monkeypatch.setenv("CLIENT_SECRET", RANDOM_SECRET[::-1])
    issuer = {
        "issuer": ISSUER,
        "audience": "models",
        "introspection_uri": f"{ISSUER}/introspect",
        "client_id": "models",
        "client_secret": "env:CLIENT_SECRET",
    }
    app = made(schemes=schemes, TOKEN_ISSUERS=[issuer], DPOP="accept", RESOURCE_URI=HTTPS)
    key = make_api_key(app)
    for text in (key, key[:-1], new_key(), "sml_"):
        send(app, {"Authorization": f"{scheme} {text}"})
    assert asked == []
    send(app, {"Authorization": f"{scheme} opaque"})
    assert asked == ["opaque"]


def test_one_count_for_every_scheme(made: MakeKeyApp, sink: MemorySink) -> None:
    """K3: changing the scheme gives no further guesses, and the right key is accepted with each scheme meanwhile."""
    app = made(schemes=["x-api-key", "bearer", "basic"], FAILED_KEY_LIMITS=["2/hour"], FAILED_AUTH_LIMITS=[])
    key = make_api_key(app)

    def by_each(text: str) -> list[int]:
        ways = ({"Authorization": f"Bearer {text}"}, {"Authorization": basic(f"a:{text}")}, {"X-API-Key": text})
        return [send(app, headers).status_code for headers in ways]

    body = key[:17] + "0" * 43
    guess = body + checksum(body)
    assert by_each(guess) == [401, 401, 429]
    assert by_each(guess) == [429] * 3
    assert by_each(key) == [200] * 3
    log = "".join(sink.lines)
    assert not any(each in log for each in (guess, key, basic(f"a:{key}")[6:], basic(f"a:{guess}")[6:]))
