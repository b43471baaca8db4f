"""Settings: every wrong key at once, each value checked, nothing believed by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import ConfigError, Policy, SecureML
from flask_secure_ml.config import Settings, key_of, settings_fields
from support import RANDOM_SECRET

ISSUER = {
    "issuer": "https://as.example",
    "audience": "https://api.example",
    "algorithms": ["RS256"],
    "jwks_uri": "https://as.example/jwks",
}

BARE = {name: ISSUER[name] for name in ("issuer", "audience", "algorithms")}
HMAC = BARE | {"algorithms": ["HS256"], "secret": RANDOM_SECRET}
OPAQUE = {
    "issuer": "https://as.example",
    "audience": "https://api.example",
    "introspection_uri": "https://as.example/introspect",
    "client_id": "api",
    "client_secret": "client-secret-of-the-api",
}


def load(**values: Any) -> Settings:
    return Settings.load({f"SECURE_ML_{name}": value for name, value in values.items()})


def test_defaults_are_safe() -> None:
    """Nothing configured: TLS is required, nobody is trusted, no way to authenticate is on."""
    settings = load()
    assert settings.require_tls is True
    assert settings.trusted_proxies.networks == ()
    assert (settings.api_keys_file, settings.token_issuers) == (None, ())
    assert settings.max_body_bytes == 4 * 1024 * 1024


def test_every_problem_at_once() -> None:
    """One error names all wrong keys."""
    with pytest.raises(ConfigError) as caught:
        load(REQUIRE_TLS="no", TOKEN_LEEWAY=301, TRUSTED_PROXY=[], API_KEYS_FILE="keys.json", PLANS={})
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    for words in (
        "SECURE_ML_TRUSTED_PROXY is not a setting; did you mean SECURE_ML_TRUSTED_PROXIES?",
        "SECURE_ML_REQUIRE_TLS must be true or false, not 'no'",
        "SECURE_ML_TOKEN_LEEWAY must be a whole number from 0 to 300, not 301",
        "SECURE_ML_API_KEY_PEPPER is needed for API keys",
        "SECURE_ML_PLANS must have a plan named 'default'",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        pytest.param({"API_KEYS_IN_STORE": True, "STORE_URI": "sqlite:/x"}, "PEPPER is needed", id="keys, no pepper"),
        pytest.param({"API_KEYS_IN_STORE": True}, "must not be memory:", id="keys in memory"),
        pytest.param({"API_KEYS_IN_STORE": True, "API_KEYS_FILE": "x"}, "two places", id="two places for keys"),
        pytest.param({"MTLS_CLIENTS": [{"client": "a", "san_dns": "b"}]}, "MTLS_CA_FILE is needed", id="MT-3 no CA"),
        pytest.param(
            {"MTLS_CLIENTS": [{"client": "a", "sha256": "0" * 64, "plan": "x"}]}, "plan 'x' of 'a'", id="unknown plan"
        ),
        pytest.param({"DPOP": "accept"}, "SECURE_ML_DPOP needs", id="proofs without tokens"),
        pytest.param(
            {"DPOP": "accept", "TOKEN_ISSUERS": [ISSUER]}, "RESOURCE_URI is needed", id="DP-6 Host is believed"
        ),
    ],
)
def test_contradictions(values: dict[str, Any], fault: str) -> None:
    """Settings that do not go together stop the app."""
    with pytest.raises(ConfigError, match="SECURE_ML_") as caught:
        load(**values)
    assert fault in str(caught.value)


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
        pytest.param("API_KEY_PEPPER", "hunter2", "at least 32 bytes", id="literal secret"),
        pytest.param("API_KEY_PEPPER", 5, "reference", id="number for a secret"),
        pytest.param(
            "API_KEY_PEPPER",
            "env:NO_SUCH_VARIABLE",
            "environment variable NO_SUCH_VARIABLE is not set",
            id="missing variable",
        ),
        pytest.param("API_KEY_PEPPER", "file:/no/such/file", "cannot be read", id="missing file"),
        pytest.param("TOKEN_ISSUERS", ISSUER, "must be a list", id="one issuer without a list"),
        pytest.param("TOKEN_ISSUERS", [{}], "must be an object with issuer", id="empty issuer"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"leeway": 3}], "must be an object", id="unknown member"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"issuer": 5}], "not a text", id="issuer that is no text"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"algorithms": []}], "algorithms", id="empty allow-list"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"algorithms": ["none"]}], "algorithms", id="none"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"algorithms": ["HS256"]}], "do not fit", id="HMAC over JWKS"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"algorithms": "RS256"}], "must be a list", id="algorithms as string"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"jwks_file": "x"}], "exactly one", id="two sources"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"jwks_uri": "http://as.example/"}], "https:", id="clear-text keys"),
        pytest.param(
            "TOKEN_ISSUERS",
            [ISSUER | {"jwks_uri": "http://as.example/", "insecure_http": True}],
            "https:",
            id="clear-text keys from another machine",
        ),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"jwks_uri": "https://"}], "https:", id="keys without a host"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"issuer": "https://a#b"}], "fragment", id="issuer with a fragment"),
        pytest.param("TOKEN_ISSUERS", [ISSUER, ISSUER], "twice", id="issuer twice"),
        pytest.param("TOKEN_ISSUERS", [BARE], "exactly one of", id="no source of keys"),
        pytest.param("TOKEN_ISSUERS", [BARE | {"discover": "yes"}], "true nor false", id="switch as text"),
        pytest.param("TOKEN_ISSUERS", [BARE | {"jwks": []}], "JWK Set", id="keys as list"),
        pytest.param("TOKEN_ISSUERS", [BARE | {"secret": RANDOM_SECRET}], "do not fit", id="RS256 with a secret"),
        pytest.param(
            "TOKEN_ISSUERS", [ISSUER | {"algorithms": ["RS256", "HS256"]}], "do not fit", id="JB-1 both families"
        ),
        pytest.param("TOKEN_ISSUERS", [HMAC | {"secret": "s3cret"}], "at least 32 bytes", id="A7 short HMAC secret"),
        pytest.param("TOKEN_ISSUERS", [HMAC | {"secret": "secret" * 10}], "look random", id="A7 typed HMAC secret"),
        pytest.param(
            "TOKEN_ISSUERS", [HMAC | {"algorithms": ["HS512"]}], "at least 64 bytes", id="JB-8 shorter than the hash"
        ),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"omits": ["exp"]}], "omits must be", id="relaxation of exp"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"omits": []}], "omits must be", id="empty relaxation"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"max_age": 0}], "max_age", id="no age"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"max_age": 2_592_001}], "max_age", id="C10 outlives its revocation"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"client_id": "a"}], "together", id="introspection in part"),
        pytest.param(
            "TOKEN_ISSUERS", [OPAQUE | {"introspection_uri": "http://as.example/i"}], "https:", id="IN-1 clear text"
        ),
        pytest.param(
            "TOKEN_ISSUERS", [OPAQUE, OPAQUE | {"issuer": "https://b"}], "two issuers", id="two that introspect"
        ),
        pytest.param(
            "TOKEN_ISSUERS", [OPAQUE | {"algorithms": ["RS256"]}], "only for keys", id="algorithms without keys"
        ),
        pytest.param("TOKEN_ISSUERS", [BARE | {"discover": True, "issuer": "http://a"}], "https:", id="AS-2 discovery"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"jwks_uri": "https://u:p@h/"}], "https:", id="user in the address"),
        pytest.param("TOKEN_ISSUERS", [ISSUER | {"jwks_uri": "https://h:x/"}], "https:", id="port that is no number"),
        pytest.param("JWKS_CACHE_SECONDS", 0, "from 1", id="no caching"),
        pytest.param("TOKEN_CACHE_SIZE", -1, "from 0", id="negative cache"),
        pytest.param("INTROSPECTION_CACHE_SECONDS", 3601, "from 0 to 3600", id="too old answers"),
        pytest.param("DPOP", "on", "one of 'off'", id="unknown mode"),
        pytest.param("DPOP_ALGORITHMS", ["HS256"], "must be a list of", id="DP-4 symmetric proofs"),
        pytest.param("DPOP_ALGORITHMS", [], "must be a list of", id="DP-4 no algorithm"),
        pytest.param("DPOP_MAX_AGE", 601, "from 5 to 600", id="DP-8 proofs for too long"),
        pytest.param("DPOP_NONCE_SECRET", "short", "at least 32", id="guessable nonces"),
        pytest.param("CLIENT_CERTIFICATE_HEADER", "X-Cert", "one of", id="MT-4 unknown header"),
        pytest.param("RESOURCE_URI", "http://models.example.com", "https: URI", id="PR-2 clear text"),
        pytest.param("RESOURCE_URI", "https://models.example.com/#a", "no query", id="PR-2 fragment"),
        pytest.param("RESOURCE_URI", 'https://models.example.com/"', "quotes", id="quote in a header"),
        pytest.param("RESOURCE_URI", "models.example.com", "https: URI", id="PR-2 no scheme"),
        pytest.param("STORE_URI", "mongodb://x", "redis: or valkey:", id="unknown store"),
        pytest.param("STORE_URI", "sqlite:", "redis: or valkey:", id="file without a path"),
        pytest.param("FAILED_KEY_LIMITS", ["often"], "not a limit", id="unreadable limit of a key"),
        pytest.param("JWKS_COOLDOWN", 0, "from 1", id="no pause"),
        pytest.param("FAILED_AUTH_LIMITS", ["often"], "not a limit", id="unreadable limit"),
        pytest.param("PLANS", [], "object", id="plans as list"),
        pytest.param("PLANS", {"default": ["1/hour"]}, "not an object", id="plan as list"),
        pytest.param("PLANS", {"default": {"requests": ["x"]}}, "'default' that has 'x'", id="limit of a plan"),
        pytest.param("PLANS", {"default": {"rate": []}}, "not an object", id="unknown member of a plan"),
        pytest.param("LIMIT_OUTAGE", "open", "one of 'memory', 'closed'", id="fail open"),
        pytest.param("POLICIES", [], "object", id="policies as list"),
        pytest.param("POLICIES", {"x": {"scope": ["a"]}}, "'x': got an unexpected", id="unknown term"),
        pytest.param("POLICIES", {"x": {"scopes": "a"}}, "'x': scopes must be a list", id="scopes as string"),
        pytest.param("POLICIES", {"x": {"public": "false"}}, "'x': public must be", id="public as text"),
        pytest.param("POLICIES", {"x": {"scopes": {"a": 1}}}, "'x': scopes must be a list", id="scopes as object"),
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
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    settings = load(
        TRUSTED_PROXIES=["10.0.3.0/24", "unix"],
        API_KEYS_FILE=str(tmp_path / "keys.json"),
        API_KEY_PEPPER="env:PEPPER",
        TOKEN_ISSUERS=[ISSUER],
        PLANS={"default": {}, "gold": {"requests": ["1/second; 9/hour"], "quotas": ["100/day"]}},
        POLICIES={"/x": {"public": True}},
    )
    assert settings.trusted_proxies.unix
    assert settings.api_key_pepper is not None
    assert settings.api_key_pepper.newest() == RANDOM_SECRET.encode()
    assert settings.token_issuers[0].algorithms == ("RS256",)
    assert [len(settings.plans["gold"].requests), len(settings.plans["default"].quotas)] == [2, 0]
    assert settings.policies["/x"] == Policy(public=True)


@pytest.mark.parametrize("name", ["API_KEY_PEPPER", "DPOP_NONCE_SECRET"])
def test_one_secret_for_two_things(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """JB-10: a secret that signs tokens is no pepper, and two issuers do not share one."""
    monkeypatch.setenv("ONE", RANDOM_SECRET)
    shared = {**HMAC, "secret": "env:ONE"}
    for values in (
        {name: "env:ONE", "TOKEN_ISSUERS": [shared]},
        {"TOKEN_ISSUERS": [shared, shared | {"issuer": "https://b"}]},
    ):
        with pytest.raises(ConfigError, match="make one for each") as caught:
            load(**values)
        assert RANDOM_SECRET not in str(caught.value)


def test_password_in_an_address_is_not_shown() -> None:
    """What a debugger prints of the settings holds no password."""
    assert "hunter2" not in repr(load(STORE_URI="redis://:hunter2@stores.example"))


def test_wrong_value_is_not_told_to_be_missing() -> None:
    """A pepper that is no good is one problem, not two."""
    with pytest.raises(ConfigError) as caught:
        load(API_KEYS_FILE="keys.json", API_KEY_PEPPER="env:NO_SUCH_VARIABLE")
    assert len(caught.value.problems) == 1


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
