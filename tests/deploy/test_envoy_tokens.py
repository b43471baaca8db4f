"""JWTs at Envoy: a layer in front of the app that never rejects a token that the app would accept."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask
from joserfc.jwk import Key

from certificates import make_certificate
from flask_secure_ml import SecureML
from flask_secure_ml.deploy.facts import facts_of
from flask_secure_ml.deploy.targets.envoy import TARGET
from flask_secure_ml.describing import described_only
from flask_secure_ml.testing import make_key_set, make_signing_key, make_token
from programs import needs_tool
from proxied import Backend, Proxied, backend, proxied
from proxy_programs import ENVOY
from proxy_requests import PREDICTION, assert_problem
from published_keys import published
from servers import free_port, wait_until
from site_under_test import AUDIENCE, ISSUER


class Issuer(NamedTuple):
    """The key of an issuer, the options of the app for it, and the servers of that app."""

    key: Key
    options: dict[str, Any]
    servers: Backend


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    folder = tmp_path_factory.mktemp("issuer")
    certificate = make_certificate(folder)
    key = make_signing_key("ES256", "current")
    with ExitStack() as running:
        options: dict[str, Any] = {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "algorithms": ["ES256"],
            "jwks_uri": running.enter_context(published(make_key_set(key), certificate)).uri,
            "ca_file": str(certificate.certificate),
            "private_network": True,
        }
        servers = backend(tmp_path_factory.mktemp("servers"), SECURE_ML_TOKEN_ISSUERS=[options])
        yield Issuer(key, options, running.enter_context(servers))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Proxied]:
    with proxied(tmp_path_factory.mktemp("envoy"), ENVOY, behind=issuer.servers) as found:
        # Envoy fetches the keys after it has begun to listen; until then the app decides alone.
        wait_until(lambda: _FETCHED.search(found.status("/stats/prometheus")) is not None, "Envoy fetches no keys")
        yield found


_FAILED = re.compile(rb"jwks_fetch_failed[^ ]* [1-9]")
_FETCHED = re.compile(rb"jwks_fetch_success[^ ]* [1-9]")


def token(key: Key, **changed: Any) -> str:
    claims: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "now": time.time()}
    return make_token(key, **claims | changed)


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


@needs_tool("envoy")
def test_valid(running: Proxied, issuer: Issuer) -> None:
    """A valid token gets a prediction, and so does an API key."""
    assert running.call("POST", "/v1/predict", PREDICTION, bearer(token(issuer.key))).status == 200
    assert running.call("POST", "/v1/predict", PREDICTION, running.key).status == 200


@needs_tool("envoy")
@pytest.mark.parametrize("name", ["forged", "expired"])
def test_rejected_before_the_app(name: str, running: Proxied, issuer: Issuer) -> None:
    """No later key could make it valid, so it is not forwarded to the app."""
    forged = token(make_signing_key("ES256", "current"))
    value = forged if name == "forged" else token(issuer.key, now=time.time() - 3600)
    answer = running.call("POST", f"/v1/predict?{name}", PREDICTION, bearer(value))
    assert_problem(answer, 401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="model", error="invalid_token"'
    assert not running.reached(name)


@needs_tool("envoy")
@pytest.mark.parametrize("name", ["rotated", "elsewhere", "opaque", "basic", "dpop", "two"])
def test_decided_by_the_app(name: str, running: Proxied, issuer: Issuer) -> None:
    """Only the app can decide on a key that Envoy has not fetched, another issuer, or a token that is not a JWT."""
    valid = token(issuer.key)
    headers = {
        "rotated": bearer(token(make_signing_key("ES256", "next"))),
        "elsewhere": bearer(token(make_signing_key("ES256", "current"), issuer="https://elsewhere.example")),
        "opaque": bearer("2YotnFZFEjr1zCsicMWpAA"),
        "basic": {"Authorization": "Basic eDp5"},
        "dpop": {"Authorization": f"DPoP {valid}"},
        "two": bearer(valid) | running.key,
    }[name]
    answer = running.call("POST", f"/v1/predict?{name}", PREDICTION, headers)
    assert answer.status in {400, 401}
    wait_until(lambda: bool(running.reached(name)), "the app was not asked")


@needs_tool("envoy")
@pytest.mark.parametrize("name", ["down", "another authority"])
def test_keys_that_cannot_be_fetched(name: str, tmp_path: Path, issuer: Issuer) -> None:
    """While Envoy has no keys, or a server of keys that it cannot verify, the app decides, which may have them."""
    changed = (
        {"jwks_uri": f"https://localhost:{free_port()}/keys"}
        if name == "down"
        else {"ca_file": str(issuer.servers.place.client_authority)}
    )
    settings = {"SECURE_ML_TOKEN_ISSUERS": [issuer.options | changed]}
    with proxied(tmp_path, ENVOY, behind=issuer.servers, settings=settings) as without:
        wait_until(lambda: _FAILED.search(without.status("/stats/prometheus")) is not None, "Envoy fetches no keys")
        assert without.call("POST", "/v1/predict", PREDICTION, bearer(token(issuer.key))).status == 200
        forged = bearer(token(make_signing_key("ES256", "current")))
        assert_problem(
            without.call("POST", f"/v1/predict?{tmp_path.name}", PREDICTION, forged), 401, "not_authenticated"
        )
        wait_until(lambda: bool(without.reached(tmp_path.name)), "the app was not asked")
        assert _FETCHED.search(without.status("/stats/prometheus")) is None


@pytest.mark.parametrize(
    ("changed", "verified"),
    [
        ({}, True),
        ({"algorithms": ["ES256", "RS256"]}, True),
        ({"algorithms": ["ES256", "Ed25519"]}, False),
        ({"jwks_uri": None, "discover": True}, False),
        ({"proxy": "http://proxy.example:3128"}, False),
        ({"jwks_token": "env:JWKS_TOKEN"}, False),
    ],
)
def test_issuers(changed: dict[str, Any], verified: bool) -> None:
    """Only those whose keys Envoy can fetch as the app does, and whose algorithms it knows."""
    options = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks_uri": "https://as.example/keys"}
    given = {name: value for name, value in (options | changed).items() if value is not None}
    app = Flask("issuers")
    app.config["SECURE_ML_TOKEN_ISSUERS"] = [given]
    with described_only():
        SecureML(app)
    assert ("jwt_authn" in TARGET.make(facts_of(app))["envoy.yaml"]) == verified
