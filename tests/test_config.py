"""Settings: every wrong key at once, each value checked, nothing believed by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import ConfigError, Policy, SecureML
from flask_secure_ml.config import Settings, key_of, settings_fields

ISSUER = {
    "issuer": "https://as.example",
    "audience": "https://api.example",
    "algorithms": ["RS256"],
    "jwks_uri": "https://as.example/jwks",
}


def load(**values: Any) -> Settings:
    return Settings.load({f"SECURE_ML_{name}": value for name, value in values.items()})


def test_defaults_are_safe() -> None:
    """Nothing configured: TLS is required, nobody is trusted, no way to authenticate is on."""
    settings = load()
    assert settings.require_tls is True
    assert settings.trusted_proxies.networks == ()
    assert (settings.api_keys_file, settings.jwt_issuers) == (None, ())
    assert settings.max_body_bytes == 4 * 1024 * 1024


def test_every_problem_at_once() -> None:
    """One error names all wrong keys."""
    with pytest.raises(ConfigError) as caught:
        load(REQUIRE_TLS="no", JWT_LEEWAY=301, TRUSTED_PROXY=[], API_KEYS_FILE="keys.json", PLANS={})
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    for words in (
        "SECURE_ML_TRUSTED_PROXY is not a setting; did you mean SECURE_ML_TRUSTED_PROXIES?",
        "SECURE_ML_REQUIRE_TLS must be true or false, not 'no'",
        "SECURE_ML_JWT_LEEWAY must be a whole number from 0 to 300, not 301",
        "SECURE_ML_API_KEY_PEPPER is needed with SECURE_ML_API_KEYS_FILE",
        "SECURE_ML_PLANS must have a plan named 'default'",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        pytest.param("REQUIRE_TLS", 1, "true or false", id="number for a boolean"),
        pytest.param("TRUSTED_PROXIES", "10.0.0.0/8", "must be a list", id="string for a list"),
        pytest.param("TRUSTED_PROXIES", ["10.0.0.1/8"], "not a network", id="host bits set"),
        pytest.param("TRUSTED_PROXIES", ["0.0.0.0/0"], "trusts too many", id="the whole of IPv4"),
        pytest.param("TRUSTED_PROXIES", ["0.0.0.0/1", "128.0.0.0/1"], "trusts too many", id="IPv4 in two halves"),
        pytest.param("TRUSTED_PROXIES", ["::/0"], "trusts too many", id="the whole of IPv6"),
        pytest.param("TRUSTED_PROXIES", ["*"], "not a network", id="star"),
        pytest.param("HSTS_MAX_AGE", True, "whole number", id="boolean for a number"),
        pytest.param("REALM", 'a"b', "letters", id="quote in the realm"),
        pytest.param("API_KEYS_FILE", "  ", "not empty", id="blank path"),
        pytest.param("API_KEY_PEPPER", "hunter2", "never the secret itself", id="literal secret"),
        pytest.param("API_KEY_PEPPER", 5, "reference", id="number for a secret"),
        pytest.param("API_KEY_PEPPER", "env:NO_SUCH_VARIABLE", "at least 32 bytes", id="missing variable"),
        pytest.param("API_KEY_PEPPER", "file:/no/such/file", "cannot be read", id="missing file"),
        pytest.param("JWT_ISSUERS", ISSUER, "list of objects", id="one issuer without a list"),
        pytest.param("JWT_ISSUERS", [{}], "must be an object with issuer", id="empty issuer"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"leeway": 3}], "must be an object", id="unknown member"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"issuer": 5}], "not a text", id="issuer that is no text"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"algorithms": []}], "algorithms", id="empty allow-list"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"algorithms": ["none"]}], "algorithms", id="none"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"algorithms": ["HS256"]}], "algorithms", id="HMAC over JWKS"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"algorithms": "RS256"}], "must be a list", id="algorithms as string"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"jwks_file": "x"}], "exactly one", id="two sources"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"jwks_uri": "http://as.example/"}], "https:", id="clear-text keys"),
        pytest.param(
            "JWT_ISSUERS",
            [ISSUER | {"jwks_uri": "http://as.example/", "insecure_http": True}],
            "https:",
            id="clear-text keys from another machine",
        ),
        pytest.param("JWT_ISSUERS", [ISSUER | {"jwks_uri": "https://"}], "https:", id="keys without a host"),
        pytest.param("JWT_ISSUERS", [ISSUER | {"issuer": "https://a#b"}], "fragment", id="issuer with a fragment"),
        pytest.param("JWT_ISSUERS", [ISSUER, ISSUER], "twice", id="issuer twice"),
        pytest.param("JWKS_MAX_AGE", 0, "from 1", id="no caching"),
        pytest.param("JWKS_COOLDOWN", 0, "from 1", id="no pause"),
        pytest.param("FAILED_AUTH_LIMIT", ["often"], "not a limit", id="unreadable limit"),
        pytest.param("PLANS", [], "object", id="plans as list"),
        pytest.param("PLANS", {"default": ["1/hour"]}, "not an object", id="plan as list"),
        pytest.param("PLANS", {"default": {"requests": ["x"]}}, "'default' that has 'x'", id="limit of a plan"),
        pytest.param("PLANS", {"default": {"rate": []}}, "not an object", id="unknown member of a plan"),
        pytest.param("LIMIT_OUTAGE", "open", "one of 'memory', 'closed'", id="fail open"),
        pytest.param("POLICIES", [], "object", id="policies as list"),
        pytest.param("POLICIES", {"x": {"scope": ["a"]}}, "'x': got an unexpected", id="unknown term"),
        pytest.param("POLICIES", {"x": {"scopes": "a"}}, "'x': scopes and limits", id="scopes as string"),
        pytest.param("POLICIES", {"x": {"public": "false"}}, "'x': public must be", id="public as text"),
        pytest.param("POLICIES", {"x": {"scopes": {"a": 1}}}, "'x': scopes and limits", id="scopes as object"),
        pytest.param("POLICIES", {"x": "public"}, "'x'", id="policy as string"),
        pytest.param("MAX_BODY_BYTES", 1.5, "whole number", id="fraction"),
        pytest.param("MAX_JSON_DEPTH", 5000, "from 1 to 1000", id="too deep"),
        pytest.param("REQUEST_LOG", None, "not empty", id="no log"),
    ],
)
def test_wrong_values(name: str, value: Any, fault: str) -> None:
    """Each names its key, the fault and what would be right."""
    with pytest.raises(ConfigError, match=f"SECURE_ML_{name} ") as caught:
        load(**{name: value})
    assert fault in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_right_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The typed value of each kind of setting."""
    monkeypatch.setenv("PEPPER", "p" * 32)
    settings = load(
        TRUSTED_PROXIES=["10.0.3.0/24", "unix"],
        API_KEYS_FILE=str(tmp_path / "keys.json"),
        API_KEY_PEPPER="env:PEPPER",
        JWT_ISSUERS=[ISSUER],
        PLANS={"default": {}, "gold": {"requests": ["1/second; 9/hour"], "cost": ["100/day"]}},
        POLICIES={"/x": {"public": True}},
    )
    assert settings.trusted_proxies.unix
    assert settings.api_key_pepper is not None
    assert settings.api_key_pepper.read() == b"p" * 32
    assert settings.jwt_issuers[0].algorithms == ("RS256",)
    assert [len(settings.plans["gold"].requests), len(settings.plans["default"].cost)] == [2, 0]
    assert settings.policies["/x"] == Policy(public=True)


def test_from_prefixed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``FLASK_SECURE_ML_*`` variables hold JSON."""
    monkeypatch.setenv("FLASK_SECURE_ML_MAX_BODY_BYTES", "100")
    monkeypatch.setenv("FLASK_SECURE_ML_TRUSTED_PROXIES", '["10.0.0.0/8"]')
    app = Flask("environment")
    app.config.from_prefixed_env()
    SecureML(app)
    settings = app.extensions["secure_ml"].settings
    assert settings.max_body_bytes == 100
    assert str(settings.trusted_proxies.networks[0]) == "10.0.0.0/8"


def test_a_wrong_setting_stops_the_app() -> None:
    """init_app raises and leaves the app as it was."""
    app = Flask("wrong")
    app.config["SECURE_ML_REQIRE_TLS"] = True
    with pytest.raises(ConfigError):
        SecureML(app)
    assert "secure_ml" not in app.extensions


@pytest.mark.parametrize("record", settings_fields(), ids=key_of)
def test_every_setting_is_documented(record: Any) -> None:
    """Help and the default's written form stand beside each setting."""
    assert len(record.metadata["help"]) > 20
    assert "shown" in record.metadata
