"""Settings that do not go together, and keys that would have no effect."""

from __future__ import annotations

import logging
import sys
from typing import Any

import flask_limiter
import pytest
from flask import Flask

from doctored import found_in
from flask_secure_ml import ConfigError, SecureML
from flask_secure_ml.config import Settings
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import MemorySink
from support import HTTPS, OLDER_SECRET, RANDOM_SECRET, MakeApp

ISSUER = {
    "issuer": "https://as.example",
    "audience": "https://api.example",
    "algorithms": ["RS256"],
    "jwks_uri": "https://as.example/jwks",
}
HMAC = {name: ISSUER[name] for name in ("issuer", "audience")} | {"algorithms": ["HS256"], "secret": RANDOM_SECRET}


def problems(config: dict[str, Any], **values: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(config | {f"SECURE_ML_{name}": value for name, value in values.items()})
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        pytest.param(
            {"API_KEYS": "store", "STORE_URI": "sqlite:/x"}, "SECURE_ML_API_KEY_PEPPER: is required", id="no pepper"
        ),
        pytest.param({"API_KEYS": "store"}, "SECURE_ML_STORE_URI: must not be memory:", id="keys in memory"),
        pytest.param(
            {"MTLS_CLIENTS": [{"client": "a", "san_dns": "b"}]}, "SECURE_ML_MTLS_CA_FILE: is required", id="MT-3 no CA"
        ),
        pytest.param(
            {"MTLS_CLIENTS": [{"client": "a", "sha256": "0" * 64, "plan": "x"}]},
            "SECURE_ML_MTLS_CLIENTS[0].plan: 'x' is not in SECURE_ML_PLANS, which has default",
            id="unknown plan",
        ),
        pytest.param(
            {"DPOP": "accept"}, "SECURE_ML_DPOP: requires SECURE_ML_TOKEN_ISSUERS", id="proofs without tokens"
        ),
        pytest.param(
            {"DPOP": "accept", "TOKEN_ISSUERS": [ISSUER]},
            "SECURE_ML_RESOURCE_URI: is required with SECURE_ML_DPOP",
            id="DP-6 Host is believed",
        ),
        pytest.param(
            {"REALM": 5, "DPOP": "accept", "TOKEN_ISSUERS": [ISSUER]},
            "SECURE_ML_RESOURCE_URI: is required with SECURE_ML_DPOP",
            id="beside a wrong setting",
        ),
    ],
)
def test_contradictions(values: dict[str, Any], problem: str) -> None:
    """Settings that do not go together stop the app, also when another setting is wrong."""
    assert any(line.startswith(problem) for line in problems({}, **values))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"API_KEYS": "./keys.json", "API_KEY_PEPPER": "env:NO_SUCH_VARIABLE"}, id="pepper"),
        pytest.param(
            {"PLANS": 5, "MTLS_CLIENTS": [{"client": "a", "sha256": "0" * 64, "plan": "gold"}]}, id="plan of a client"
        ),
        pytest.param(
            {"DPOP": "accept", "RESOURCE_URI": "https://a", "TOKEN_ISSUERS": [{**ISSUER, "jwks_uri": 5}]}, id="issuers"
        ),
        pytest.param({"API_KEYS": 5, "API_KEY_PEPPER": None}, id="keys"),
        pytest.param(
            {"PLANS": None, "MTLS_CLIENTS": [{"client": "a", "sha256": "0" * 64, "plan": "gold"}]}, id="null for plans"
        ),
    ],
)
def test_one_mistake_is_one_problem(values: dict[str, Any]) -> None:
    """A wrong value is not reported a second time as if it were missing."""
    assert len(problems({}, **values)) == 1


@pytest.mark.parametrize("name", ["API_KEY_PEPPER", "DPOP_NONCE_SECRET"])
def test_one_secret_for_two_purposes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """JB-10: a secret that signs tokens must not be a pepper, and two issuers must not share one."""
    monkeypatch.setenv("ONE", RANDOM_SECRET)
    shared = {**HMAC, "secret": "env:ONE"}
    assert problems({}, **{name: "env:ONE", "TOKEN_ISSUERS": [shared]}) == [
        f"SECURE_ML_TOKEN_ISSUERS[0].secret: is the same secret as SECURE_ML_{name}; generate one for each purpose"
    ]
    assert problems({}, TOKEN_ISSUERS=[shared, shared | {"issuer": "https://b"}]) == [
        (
            "SECURE_ML_TOKEN_ISSUERS[1].secret: is the same secret as SECURE_ML_TOKEN_ISSUERS[0]; "
            "generate one for each purpose"
        )
    ]


@pytest.mark.parametrize("flag", ["DEBUG", "TESTING"])
def test_literal_secrets_are_for_debug_and_testing(flag: str) -> None:
    """Elsewhere each is an error, also inside an issuer."""
    values = {"SECURE_ML_API_KEY_PEPPER": OLDER_SECRET, "SECURE_ML_TOKEN_ISSUERS": [HMAC]}
    assert Settings.load(values | {flag: True}).api_key_pepper is not None
    paths = [line.partition(":")[0] for line in problems(values)]
    assert paths == ["SECURE_ML_API_KEY_PEPPER", "SECURE_ML_TOKEN_ISSUERS[0].secret"]


@pytest.mark.parametrize(
    ("values", "module", "line"),
    [
        (
            {"STORE_URI": "redis://a"},
            "redis",
            "STORE_URI: requires the package redis: pip install 'flask-secure-ml[redis]'",
        ),
        (
            {"WIRE_FORMATS": ["msgpack"]},
            "msgpack",
            "WIRE_FORMATS: requires the package msgpack: pip install 'flask-secure-ml[msgpack]'",
        ),
        (
            {"OPENAPI": "public"},
            "apispec",
            "OPENAPI: requires the package apispec: pip install 'flask-secure-ml[openapi]'",
        ),
        pytest.param(
            {"CONTENT_ENCODINGS": ["zstd"]},
            "backports.zstd",
            "CONTENT_ENCODINGS: requires the package backports.zstd: pip install 'flask-secure-ml[zstd]'",
            marks=pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has it"),
        ),
        (
            {"API_KEY_PEPPER": "vault:secret/model#pepper"},
            "hvac",
            "API_KEY_PEPPER: vault:secret/model#pepper requires the package hvac: pip install 'flask-secure-ml[vault]'",
        ),
    ],
    ids=["redis", "msgpack", "openapi", "zstd", "vault"],
)
def test_missing_packages(values: Any, module: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the install command, with all other problems."""
    monkeypatch.setitem(sys.modules, module, None)
    assert f"SECURE_ML_{line}" in problems({}, REALM=5, **values)


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("RATELIMIT_DEFAULT", "set these limits as requests of a plan in SECURE_ML_PLANS; remove it"),
        ("RATELIMIT_APPLICATION_PER_METHOD", "set these limits as requests of a plan in SECURE_ML_PLANS; remove it"),
        (
            "RATELIMIT_SWALLOW_ERRORS",
            "set SECURE_ML_LIMIT_OUTAGE to the policy during an outage of the storage; remove it",
        ),
        ("RATELIMIT_IN_MEMORY_FALLBACK_ENABLED", "set SECURE_ML_LIMIT_OUTAGE to the policy"),
        ("RATELIMIT_KEY_FUNC", "limits are counted per caller; remove it"),
        ("RATELIMIT_KEY_PREFIX", "remove it"),
        ("RATELIMIT_HEADERS_ENABLED", "SECURE_ML_LIMIT_HEADERS sends RateLimit and RateLimit-Policy; remove it"),
        ("RATELIMIT_STORAGE_OPTIONS", "set options in the URI, and the timeout in SECURE_ML_STORE_TIMEOUT"),
        ("RATELIMIT_STORAGE_URL", "remove it"),
    ],
)
def test_keys_of_flask_limiter_without_effect(key: str, instead: str) -> None:
    """Keys that would be ignored are an error with a remedy."""
    (line,) = problems({key: "x"})
    assert line.startswith(f"{key}: has no effect; {instead}")


def test_every_key_of_flask_limiter_works_or_is_an_error() -> None:
    """The keys of the installed release: none is silently ignored."""
    keys = {value for value in vars(flask_limiter.constants.ConfigVars).values() if str(value).startswith("RATELIMIT_")}
    rejected = {line.partition(":")[0] for line in problems(dict.fromkeys(keys - {"RATELIMIT_ENABLED"}, "x"))}
    assert keys - rejected == {
        "RATELIMIT_STORAGE_URI",
        "RATELIMIT_STRATEGY",
        "RATELIMIT_ENABLED",
    }


@pytest.mark.parametrize("value", [False, "false", 0])
def test_limits_cannot_be_disabled(value: object) -> None:
    """RATELIMIT_ENABLED is true, or an error with the other ways to lift limits."""
    (line,) = problems({"RATELIMIT_ENABLED": value})
    assert line == "RATELIMIT_ENABLED: must be true; to disable limits, remove them from plans and policies"


def test_a_limiter_of_the_apps_own() -> None:
    """Its keys have their effect there."""
    app = Flask("limited")
    app.config["RATELIMIT_DEFAULT"] = "1 per day"
    flask_limiter.Limiter(lambda: "everyone", app=app, storage_uri="memory://")
    SecureML(app, sink=MemorySink())
    assert state_of(app).settings.plans["default"].requests


def test_the_session_cookie(caplog: pytest.LogCaptureFixture) -> None:
    """Where TLS is required, Secure is set, and that is logged."""
    app = Flask("cookie")
    app.config["SESSION_COOKIE_SECURE"] = False
    with caplog.at_level(logging.INFO, logger=app.logger.name):
        SecureML(app, sink=MemorySink())
    assert app.config["SESSION_COOKIE_SECURE"] is True
    assert [record.getMessage() for record in caplog.records if "SESSION" in record.getMessage()] == [
        "SESSION_COOKIE_SECURE was False and is now True",
        "SESSION_COOKIE_SAMESITE was None and is now 'Lax'",
    ]


def test_the_session_cookie_in_clear_text() -> None:
    """Where TLS is not required, a browser would drop a Secure cookie; it stays as the app has it, with a warning."""
    app = Flask("cookie")
    app.config |= {"SECURE_ML_REQUIRE_TLS": False, "SESSION_COOKIE_SAMESITE": "Strict"}
    SecureML(app, sink=MemorySink())
    assert (app.config["SESSION_COOKIE_SECURE"], app.config["SESSION_COOKIE_SAMESITE"]) == (False, "Strict")
    assert any("SESSION_COOKIE_SECURE is off" in line for line in found_in(app))


@pytest.mark.parametrize(
    ("subdomains", "header"), [(True, "max-age=60; includeSubDomains"), (False, "max-age=60")], ids=["with", "without"]
)
def test_hsts_of_subdomains(protected: MakeApp, subdomains: bool, header: str) -> None:
    """SECURE_ML_HSTS_INCLUDE_SUBDOMAINS decides whether other hosts of the domain must use HTTPS too."""
    app = protected(HSTS_MAX_AGE=60, HSTS_INCLUDE_SUBDOMAINS=subdomains)
    response = app.test_client().get("/x", base_url=HTTPS)
    assert response.headers["Strict-Transport-Security"] == header


def test_a_wrong_setting_hides_no_problem_of_another() -> None:
    """A check of several settings still runs for the valid ones."""
    found = problems(
        {},
        API_KEY_PEPPER=5,
        DPOP_NONCE_SECRET=RANDOM_SECRET,
        DPOP="accept",
        RESOURCE_URI=5,
        TOKEN_ISSUERS=[HMAC, {**HMAC, "issuer": "https://b", "max_age": 0}],
    )
    assert [line.partition(": ")[0] for line in found] == [
        "SECURE_ML_RESOURCE_URI",
        "SECURE_ML_API_KEY_PEPPER",
        "SECURE_ML_TOKEN_ISSUERS[0].secret",
        "SECURE_ML_TOKEN_ISSUERS[1].secret",
        "SECURE_ML_TOKEN_ISSUERS[1].max_age",
        "SECURE_ML_DPOP_NONCE_SECRET",
    ]
