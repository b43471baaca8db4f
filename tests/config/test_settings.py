"""Settings: all problems are reported at once, each with its location and a remedy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import ConfigError, Policy, SecureML
from flask_secure_ml.config import Settings, key_of, settings_by_group
from flask_secure_ml.policy.fields import StrictField
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
TOO_BROAD = "is too broad; name the networks of your proxies"
NO_LIMIT = "'often' is not a limit such as '10/minute', '100/15 minutes' or '10000/day'"
LITERAL = 'must be a reference such as "env:NAME" or "file:/path", never the secret itself'


def load(*, testing: bool = False, **values: Any) -> Settings:
    return Settings.load({"TESTING": testing} | {f"SECURE_ML_{name}": value for name, value in values.items()})


def problems(*, testing: bool = False, **values: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(testing=testing, **values)
    assert "hunter2" not in str(caught.value)
    return list(caught.value.problems)


def test_defaults_are_safe() -> None:
    """Without configuration, TLS is required, no proxy is trusted, and no authentication method is on."""
    settings = load()
    assert settings.require_tls is True
    assert settings.trusted_proxies.networks == ()
    assert (settings.api_keys, settings.token_issuers) == (None, ())
    assert settings.max_body_bytes == 4 * 1024 * 1024


def test_every_problem_at_once() -> None:
    """One error has a line for each wrong key, also for contradictions between those that are right."""
    assert problems(REQUIRE_TLS="n", TOKEN_LEEWAY=301, TRUSTED_PROXY=[], API_KEYS="./keys.json", PLANS={}) == [
        "SECURE_ML_TRUSTED_PROXY: is not known; did you mean SECURE_ML_TRUSTED_PROXIES?",
        "SECURE_ML_REQUIRE_TLS: must be true or false, not 'n'",
        "SECURE_ML_TOKEN_LEEWAY: must be a whole number of seconds from 0 to 300, not 301",
        "SECURE_ML_PLANS.default: is missing; there must be one named 'default'",
        (
            'SECURE_ML_API_KEY_PEPPER: is required for API keys; set it to "env:API_KEY_PEPPER", a secret '
            "generated with python -c 'import secrets; print(secrets.token_hex(32))'"
        ),
    ]


def test_every_problem_inside_structured_settings() -> None:
    """Several wrong options in plans, in policies and in issuers are all reported, each with its path."""
    found = problems(
        PLANS={
            "default": {"requests": ["often", "1/day"], "rate": []},
            "gold": {"quotas": "9/day", "scores": {"top": 1}},
        },
        POLICIES={
            "/a": {"scope": ["x"], "limits": "5/minute", "caps": {"max_bytes": 1}},
            "b": {"public": True, "roles": ["r"]},
        },
        TOKEN_ISSUERS=[{"issuer": "https://as.example", "algorithm": "RS256", "max_age": 0}, "x"],
    )
    assert found == [
        "SECURE_ML_TOKEN_ISSUERS[0].audience: is missing; it must be a non-empty string, or a list of them",
        "SECURE_ML_TOKEN_ISSUERS[0].max_age: must be a whole number of seconds from 1 to 2592000, not 0",
        "SECURE_ML_TOKEN_ISSUERS[0].algorithm: is not known; did you mean algorithms?",
        (
            "SECURE_ML_TOKEN_ISSUERS[0]: requires exactly one of jwks_uri, jwks_file, jwks, secret, discover, or "
            "introspection_uri"
        ),
        "SECURE_ML_TOKEN_ISSUERS[1]: must be an object, not a string (or it is JSON with a mistake in it)",
        f"SECURE_ML_PLANS.default.requests[0]: {NO_LIMIT}",
        "SECURE_ML_PLANS.default.rate: is not known; choose from requests, quotas, in_flight, batch, scores",
        'SECURE_ML_PLANS.gold.quotas: must be a list, not one string; write ["9/day"]',
        "SECURE_ML_PLANS.gold.scores.top: is not known; did you mean top_k?",
        'SECURE_ML_POLICIES["/a"].limits: must be a list, not one string; write ["5/minute"]',
        'SECURE_ML_POLICIES["/a"].caps.max_bytes: is not known; did you mean max_body_bytes?',
        'SECURE_ML_POLICIES["/a"].scope: is not known; did you mean scopes?',
        (
            "SECURE_ML_POLICIES.b.public: is for routes without authentication, so the policy cannot have access "
            "options and a cost"
        ),
    ]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        pytest.param("REQUIRE_TLS", 1, "must be true or false, not 1", id="number for a boolean"),
        pytest.param("REQUIRE_TLS", 0, "must be true or false, not 0", id="zero for a boolean"),
        pytest.param("REQUIRE_TLS", "no", "must be true or false, not 'no'", id="no for a boolean"),
        pytest.param("REQUIRE_TLS", "off", "must be true or false, not 'off'", id="word for a boolean"),
        pytest.param("REQUIRE_TLS", None, "must be true or false, not None", id="null for a boolean"),
        pytest.param(
            "TRUSTED_PROXIES", "10.0.0.0/8", 'must be a list, not one string; write ["10.0.0.0/8"]', id="string"
        ),
        pytest.param(
            "TRUSTED_PROXIES",
            "['10.0.0.0/8']",
            "must be a list, not one string (or it is JSON with a mistake in it)",
            id="Python instead of JSON",
        ),
        pytest.param(
            "SERVE_CERTIFICATE",
            "/x.pem",
            "is read by gunicorn, from the environment variable of this name without FLASK_",
            id="a variable of gunicorn",
        ),
        pytest.param(
            "TRUSTED_PROXIES", {"10.0.0.0/8"}, 'must be a list of networks such as ["10.0.3.0/24"], not a set', id="set"
        ),
        pytest.param("TRUSTED_PROXIES", [5], "[0]: must be a string, not 5", id="number in a list"),
        pytest.param(
            "TRUSTED_PROXIES",
            ["10.0.0.1/8"],
            "[0]: '10.0.0.1/8' is not a network (10.0.0.1/8 has host bits set); write '10.0.3.0/24'",
            id="host bits set",
        ),
        pytest.param(
            "TRUSTED_PROXIES",
            ["10.0.0.0/8", "0.0.0.0/0"],
            f"[1]: '0.0.0.0/0' {TOO_BROAD}",
            id="the whole of IPv4 beside a network",
        ),
        pytest.param("TRUSTED_PROXIES", ["0.0.0.0/0"], f"[0]: '0.0.0.0/0' {TOO_BROAD}", id="the whole of IPv4"),
        pytest.param("TRUSTED_PROXIES", ["::/0"], f"[0]: '::/0' {TOO_BROAD}", id="the whole of IPv6"),
        pytest.param(
            "TRUSTED_PROXIES",
            ["*"],
            "[0]: '*' is not a network ('*' does not appear to be an IPv4 or IPv6 network); write '10.0.3.0/24'",
            id="star",
        ),
        pytest.param("HSTS_MAX_AGE", True, "must be a whole number of seconds, 0 or more, not True", id="true"),
        pytest.param("HSTS_MAX_AGE", "1e3", "must be a whole number of seconds, 0 or more, not '1e3'", id="exponent"),
        pytest.param("HSTS_INCLUDE_SUBDOMAINS", "n", "must be true or false, not 'n'", id="subdomains"),
        pytest.param(
            "REALM", 'a"b', "must be 1 to 64 letters, digits, spaces or ._-, not 'a\"b'", id="quote in the realm"
        ),
        pytest.param("API_KEYS", "  ", "must be 'store' or the path of a file, not '  '", id="blank path"),
        pytest.param(
            "API_KEYS",
            "Store",
            "must be 'store' or the path of a file, such as './Store', not 'Store'; did you mean 'store'?",
            id="misspelt store",
        ),
        pytest.param(
            "REQUEST_LOG",
            "stdrr",
            "must be 'stderr' or 'stdout' or 'off' or 'logging:NAME' or the path of a file, such as './stdrr', "
            "not 'stdrr'; did you mean 'stderr'?",
            id="bare word as a log file",
        ),
        pytest.param(
            "REQUEST_LOG",
            None,
            "must be 'stderr' or 'stdout' or 'off' or 'logging:NAME' or the path of a file, not None",
            id="no log",
        ),
        pytest.param(
            "MODEL", {"name": "a\nb"}, ".name: must be 1 to 128 letters, digits or ._+:/@-, not 'a\\nb'", id="model"
        ),
        pytest.param("REQUEST_LOG_SAMPLE", 1.5, "must be a number from 0 to 1, not 1.5", id="more than all responses"),
        pytest.param(
            "API_KEY_PEPPER", "hunter2", f"{LITERAL}; a literal secret must have at least 32 bytes", id="short literal"
        ),
        pytest.param("API_KEY_PEPPER", "hunter2" * 9, f"{LITERAL}; this one does not look random", id="typed literal"),
        pytest.param(
            "API_KEY_PEPPER", RANDOM_SECRET, f"{LITERAL}; literal secrets are for debug and testing only", id="literal"
        ),
        pytest.param(
            "API_KEY_PEPPER", "env:NO_SUCH_VARIABLE", "environment variable NO_SUCH_VARIABLE is not set", id="unset"
        ),
        pytest.param(
            "API_KEY_PEPPER",
            "file:/no/such/file",
            "file:/no/such/file cannot be read: No such file or directory",
            id="file",
        ),
        pytest.param(
            "API_KEY_PEPPER",
            5,
            'must be a reference such as "env:NAME" or "file:/path", or a list of them, newest first',
            id="number for a secret",
        ),
        pytest.param(
            "STORE_PASSWORD",
            "hunter2",
            f"{LITERAL}; a literal secret must have at least 16 bytes",
            id="literal password",
        ),
        pytest.param(
            "STORE_URI",
            "mongodb://u:hunter2@x",
            "must be 'memory:', 'sqlite:/path/to/file' or a redis: or valkey: URL",
            id="unknown store with a password",
        ),
        pytest.param(
            "STORE_URI",
            "mongodb://x",
            "must be 'memory:', 'sqlite:/path/to/file' or a redis: or valkey: URL",
            id="unknown store",
        ),
        pytest.param(
            "STORE_URI",
            "redis+replica://x",
            "must be 'memory:', 'sqlite:/path/to/file' or a redis: or valkey: URL",
            id="unknown kind of store",
        ),
        pytest.param(
            "STORE_URI", "sqlite:", "must be 'memory:', 'sqlite:/path/to/file' or a redis: or valkey: URL", id="no path"
        ),
        pytest.param(
            "TOKEN_ISSUERS", ISSUER, "must be a list of objects, not one object; put it in a list", id="object"
        ),
        pytest.param(
            "TOKEN_ISSUERS",
            '[{"secret": "hunter2"',
            "must be a list of objects, not a string (or it is JSON with a mistake in it)",
            id="broken JSON is not repeated",
        ),
        pytest.param("DPOP", "on", "must be one of 'off', 'accept', 'require', not 'on'", id="unknown mode"),
        pytest.param("DPOP", ["off"], "must be one of 'off', 'accept', 'require', not a list", id="list for a word"),
        pytest.param(
            "DPOP_ALGORITHMS", ["HS256"], "[0]: 'HS256' is not known; did you mean 'RS256'?", id="DP-4 symmetric proofs"
        ),
        pytest.param("DPOP_ALGORITHMS", [], "is empty; omit it, or name at least one", id="DP-4 no algorithm"),
        pytest.param(
            "DPOP_MAX_AGE", 601, "must be a whole number of seconds from 5 to 600, not 601", id="DP-8 too long"
        ),
        pytest.param(
            "DPOP_NONCE_SECRET",
            "short",
            f"{LITERAL}; a literal secret must have at least 32 bytes",
            id="guessable nonces",
        ),
        pytest.param(
            "CLIENT_CERTIFICATE_HEADER",
            "X-Cert",
            "must be one of 'Client-Cert', 'X-SSL-Client-Cert', 'X-Forwarded-Client-Cert', "
            "'X-Amzn-Mtls-Clientcert-Leaf', not 'X-Cert'",
            id="MT-4 unknown header",
        ),
        pytest.param(
            "RESOURCE_URI",
            "http://models.example.com",
            "must be an https: URI such as 'https://models.example.com', not 'http://models.example.com'",
            id="PR-2 clear text",
        ),
        pytest.param(
            "RESOURCE_URI",
            "models.example.com",
            "must be an https: URI such as 'https://models.example.com', not 'models.example.com'",
            id="PR-2 no scheme",
        ),
        pytest.param(
            "RESOURCE_URI",
            "https://[models",
            "must be an https: URI such as 'https://models.example.com', not 'https://[models'",
            id="broken URI",
        ),
        pytest.param(
            "RESOURCE_URI",
            "https://models.example.com/#a",
            "must have no query, no fragment and only ASCII characters without spaces and quotes",
            id="PR-2 fragment",
        ),
        pytest.param(
            "RESOURCE_URI",
            'https://models.example.com/"',
            "must have no query, no fragment and only ASCII characters without spaces and quotes",
            id="quote in a header",
        ),
        pytest.param("FAILED_AUTH_LIMITS", ["often"], f"[0]: {NO_LIMIT}", id="unreadable limit"),
        pytest.param("FAILED_KEY_LIMITS", ["often"], f"[0]: {NO_LIMIT}", id="unreadable limit of a key"),
        pytest.param("JWKS_COOLDOWN", 0, "must be a whole number of seconds from 1 to 3600, not 0", id="no pause"),
        pytest.param(
            "INTROSPECTION_CACHE_SECONDS",
            3601,
            "must be a whole number of seconds from 0 to 3600, not 3601",
            id="too old responses",
        ),
        pytest.param(
            "JWKS_CACHE_SECONDS", 0, "must be a whole number of seconds from 1 to 86400, not 0", id="no cache"
        ),
        pytest.param("TOKEN_CACHE_SIZE", -1, "must be a whole number from 0 to 1000000, not -1", id="negative cache"),
        pytest.param("MAX_BODY_BYTES", 1.5, "must be a whole number of bytes, 0 or more, not 1.5", id="fraction"),
        pytest.param("MAX_JSON_DEPTH", 5000, "must be a whole number from 1 to 1000, not 5000", id="too deep"),
        pytest.param(
            "LIMIT_OUTAGE", "memory", "must be one of 'degrade', 'closed', 'open', not 'memory'", id="outage policy"
        ),
        pytest.param(
            "PLANS",
            [],
            'must be an object such as {"default": {"requests": ["600/minute"]}}, not a list',
            id="plans as list",
        ),
        pytest.param("PLANS", {"default": {}, b"x": {}}, "[\"b'x'\"]: must have a string for its name", id="bytes"),
        pytest.param("PLANS", {"default": {}, 5: {}}, "[5]: must have a string for its name", id="number as a name"),
        pytest.param("PLANS", {"default": ["1/hour"]}, ".default: must be an object, not a list", id="plan as list"),
        pytest.param(
            "PLANS",
            {"default": {"requests": ["x"]}},
            ".default.requests[0]: " + NO_LIMIT.replace("often", "x"),
            id="limit of a plan",
        ),
        pytest.param(
            "PLANS",
            {"default": {"rate": []}},
            ".default.rate: is not known; choose from requests, quotas, in_flight, batch, scores",
            id="unknown member of a plan",
        ),
        pytest.param(
            "POLICIES",
            [],
            'must be an object such as {"/invocations": {"scopes": ["predict"]}}, not a list',
            id="policies as list",
        ),
        pytest.param(
            "POLICIES", {"x": {"scope": ["a"]}}, ".x.scope: is not known; did you mean scopes?", id="unknown option"
        ),
        pytest.param(
            "POLICIES",
            {"x": {"scopes": {"a": 1}}},
            '.x.scopes: must be a list of strings such as ["predict"], not an object',
            id="scopes as object",
        ),
        pytest.param(
            "POLICIES",
            {"x": {"public": "false"}},
            ".x.public: must be true or false, not 'false'",
            id="public as string",
        ),
        pytest.param(
            "POLICIES",
            {"x": "public"},
            ".x: must be an object, not a string (or it is JSON with a mistake in it)",
            id="policy as string",
        ),
        pytest.param(
            "POLICIES", {"x": {"scopes": "a"}}, '.x.scopes: must be a list, not one string; write ["a"]', id="one scope"
        ),
        pytest.param("POLICIES", {"x": None}, ".x: must be an object, not None", id="policy null"),
        pytest.param("WIRE_FORMATS", ["jsno"], "[0]: 'jsno' is not known; did you mean 'json'?", id="format"),
        pytest.param(
            "MOUNTS",
            ["/metrics/"],
            "[0]: '/metrics/' is not a path such as '/metrics', without a trailing slash or asterisk",
            id="mount with a slash",
        ),
        pytest.param(
            "OUTER_MIDDLEWARE",
            ["werkzeug.middleware.proxy_fix:ProxyFix"],
            "[0]: must not name ProxyFix, which would trust every peer; use SECURE_ML_TRUSTED_PROXIES",
            id="ProxyFix",
        ),
    ],
)
def test_wrong_values(name: str, value: Any, problem: str) -> None:
    """One line has the key, the position in the value, and valid values."""
    between = "" if problem[0] in ".[" else ": "
    assert problems(**{name: value}) == [f"SECURE_ML_{name}{between}{problem}"]


def test_the_whole_of_ipv4_in_two_halves() -> None:
    """Each half trusts too many by itself."""
    assert problems(TRUSTED_PROXIES=["0.0.0.0/1", "128.0.0.0/1"]) == [
        f"SECURE_ML_TRUSTED_PROXIES[0]: '0.0.0.0/1' {TOO_BROAD}",
        f"SECURE_ML_TRUSTED_PROXIES[1]: '128.0.0.0/1' {TOO_BROAD}",
    ]


@pytest.mark.parametrize(
    ("issuer", "path", "problem"),
    [
        pytest.param({}, "audience", "is missing", id="no audience"),
        pytest.param(ISSUER | {"leeway": 3}, "leeway", "is not known; choose from", id="unknown option"),
        pytest.param(ISSUER | {"issuer": 5}, "issuer", "must be a non-empty string, not 5", id="number"),
        pytest.param(ISSUER | {"algorithms": []}, "algorithms", "is empty", id="empty allow-list"),
        pytest.param(ISSUER | {"algorithms": ["none"]}, "algorithms[0]", "'none' is not known", id="none"),
        pytest.param(ISSUER | {"algorithms": ["RS265"]}, "algorithms[0]", "did you mean 'RS256'?", id="misspelt"),
        pytest.param(
            ISSUER | {"algorithms": ["HS256"]}, "algorithms", "is incompatible with jwks_uri", id="HMAC over JWKS"
        ),
        pytest.param(ISSUER | {"algorithms": "RS256"}, "algorithms", 'write ["RS256"]', id="algorithms as string"),
        pytest.param(
            ISSUER | {"algorithms": ["RS256", "HS256"]}, "algorithms", "is incompatible", id="JB-1 both families"
        ),
        pytest.param(
            {name: ISSUER[name] for name in ("issuer", "audience", "jwks_uri")},
            "algorithms",
            'such as ["RS256"]',
            id="none given",
        ),
        pytest.param(ISSUER | {"jwks_file": "x"}, "", "exactly one of jwks_uri, jwks_file", id="two sources"),
        pytest.param(BARE, "", "requires exactly one of", id="no source of keys"),
        pytest.param(ISSUER | {"jwks_uri": "http://as.example/"}, "jwks_uri", "https:", id="clear-text keys"),
        pytest.param(
            ISSUER | {"jwks_uri": "http://as.example/", "insecure_http": True}, "jwks_uri", "https:", id="other machine"
        ),
        pytest.param(ISSUER | {"jwks_uri": "https://"}, "jwks_uri", "https:", id="keys without a host"),
        pytest.param(ISSUER | {"jwks_uri": "https://u:p@h/"}, "jwks_uri", "https:", id="user in the URL"),
        pytest.param(ISSUER | {"jwks_uri": "https://h:x/"}, "jwks_uri", "https:", id="port that is no number"),
        pytest.param(ISSUER | {"issuer": "https://a#b"}, "issuer", "fragment", id="issuer with a fragment"),
        pytest.param(BARE | {"discover": "yes"}, "discover", "must be true or false, not 'yes'", id="switch as string"),
        pytest.param(BARE | {"jwks": []}, "jwks", "JWK Set", id="keys as list"),
        pytest.param(
            BARE | {"secret": RANDOM_SECRET}, "algorithms", "is incompatible with secret", id="RS256 with a secret"
        ),
        pytest.param(HMAC | {"secret": "s3cret"}, "secret", LITERAL, id="A7 short HMAC secret"),
        pytest.param(HMAC | {"secret": "secret" * 10}, "secret", LITERAL, id="A7 typed HMAC secret"),
        pytest.param(HMAC | {"algorithms": ["HS512"]}, "secret", "at least 64 bytes", id="JB-8 shorter than the hash"),
        pytest.param(ISSUER | {"audience": []}, "audience", "or a list of them", id="no audience in a list"),
        pytest.param(ISSUER | {"audience": ["a", ""]}, "audience", "or a list of them", id="JB-12 empty audience"),
        pytest.param(ISSUER | {"header_types": ["dpop+jwt"]}, "header_types[0]", "another kind", id="JB-16 DPoP"),
        pytest.param(
            ISSUER | {"header_types": ["application/Logout+JWT"]}, "header_types[0]", "another kind", id="JB-16 logout"
        ),
        pytest.param(ISSUER | {"header_types": "JWT"}, "header_types", 'write ["JWT"]', id="types as string"),
        pytest.param(
            ISSUER | {"token_types": ["x"]}, "token_types", "is only for introspection", id="no introspection"
        ),
        pytest.param(OPAQUE | {"token_types": ["Refresh"]}, "token_types[0]", "another kind", id="refresh tokens"),
        pytest.param(ISSUER | {"omits": ["aud"]}, "omits", "only for introspection", id="JB-12 JWT without audience"),
        pytest.param(
            ISSUER | {"id_token_claims": ["nonce"]}, "id_token_claims", "requires required", id="C6 ID tokens"
        ),
        pytest.param(
            ISSUER | {"id_token_claims": ["nonce"], "required_claims": {"tenant": "a"}},
            "id_token_claims",
            "requires required_claims",
            id="C6 ID tokens of a tenant",
        ),
        pytest.param(ISSUER | {"id_token_claims": ["events"]}, "id_token_claims[0]", "not known", id="JB-16 events"),
        pytest.param(ISSUER | {"required_claims": {}}, "required_claims", "is empty", id="nothing required"),
        pytest.param(ISSUER | {"required_claims": {"a": []}}, "required_claims.a", "no value", id="no value"),
        pytest.param(ISSUER | {"scope_claims": "scp"}, "scope_claims", 'write ["scp"]', id="claims as string"),
        pytest.param(ISSUER | {"scope_claims": []}, "scope_claims", "is empty", id="no claims"),
        pytest.param(
            ISSUER | {"role_claims": ["a..b"]}, "role_claims[0]", "names separated by dots", id="path with a gap"
        ),
        pytest.param(ISSUER | {"user_claims": ["."]}, "user_claims[0]", "names separated by dots", id="path of a dot"),
        pytest.param(ISSUER | {"max_token_bytes": 65_537}, "max_token_bytes", "to 65536", id="T5 token too long"),
        pytest.param(ISSUER | {"plan_claim": "tier"}, "plan_claim", "requires plans", id="plan without plans"),
        pytest.param(ISSUER | {"plan_claim": ""}, "plan_claim", "a non-empty string", id="plan of no claim"),
        pytest.param(ISSUER | {"plans": {}}, "plans", "an object such as", id="no plans"),
        pytest.param(ISSUER | {"plans": {"a": 1}}, "plans", "an object such as", id="plan that is no name"),
        pytest.param(ISSUER | {"plans": {"batch": "lost"}}, "plans.batch", "is not in SECURE_ML_PLANS", id="no plan"),
        pytest.param(ISSUER | {"provider": "azure"}, "provider", "one of 'auth0', 'cognito'", id="unknown provider"),
        pytest.param(ISSUER | {"provider": ["okta"]}, "provider", "one of 'auth0'", id="provider as list"),
        pytest.param(ISSUER | {"omits": ["exp"]}, "omits[0]", "'exp' is not known", id="relaxation of exp"),
        pytest.param(ISSUER | {"omits": []}, "omits", "is empty", id="empty relaxation"),
        pytest.param(ISSUER | {"max_age": 0}, "max_age", "from 1 to 2592000", id="no age"),
        pytest.param(ISSUER | {"max_age": 2_592_001}, "max_age", "from 1 to", id="C10 outlives its revocation"),
        pytest.param(ISSUER | {"client_id": "a"}, "client_secret", "is missing", id="introspection in part"),
        pytest.param(
            OPAQUE | {"introspection_uri": "http://as.example/i"}, "introspection_uri", "https:", id="IN-1 clear text"
        ),
        pytest.param(OPAQUE | {"algorithms": ["RS256"]}, "algorithms", "requires keys", id="algorithms without keys"),
        pytest.param(BARE | {"discover": True, "issuer": "http://a"}, "issuer", "discover", id="AS-2 discovery"),
    ],
)
def test_wrong_issuers(issuer: Any, path: str, problem: str) -> None:
    """Each problem has the path of the option."""
    start = f"SECURE_ML_TOKEN_ISSUERS[0]{path and '.'}{path}: "
    found = problems(testing=True, TOKEN_ISSUERS=[issuer])
    assert any(line.startswith(start) and problem in line for line in found), found


@pytest.mark.parametrize(
    ("issuers", "problem"),
    [
        pytest.param([ISSUER, ISSUER], "[1].issuer: is the same as in entry 0; name each issuer once", id="twice"),
        pytest.param(
            [OPAQUE, OPAQUE | {"issuer": "https://b"}],
            "[1].introspection_uri: is already set for entry 0; only one issuer can introspect, because an opaque",
            id="two that introspect",
        ),
        pytest.param(
            [ISSUER, {"max_age": 0}, ISSUER], "[2].issuer: is the same as in entry 0", id="beside a wrong one"
        ),
    ],
)
def test_issuers_that_do_not_go_together(issuers: Any, problem: str) -> None:
    """The valid ones are compared, whatever is wrong with others."""
    found = problems(testing=True, TOKEN_ISSUERS=issuers)
    assert any(line.startswith(f"SECURE_ML_TOKEN_ISSUERS{problem}") for line in found)


def test_right_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The typed value of each kind of setting."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    settings = load(
        TRUSTED_PROXIES=["10.0.3.0/24", "unix"],
        API_KEYS="keys.json",
        API_KEY_PEPPER="env:PEPPER",
        TOKEN_ISSUERS=[ISSUER],
        PLANS={"default": {}, "gold": {"requests": ["1/second; 9/hour"], "quotas": ["100/day"]}},
        POLICIES={"/x": {"public": True}},
        RESOURCE_URI=None,
    )
    assert settings.trusted_proxies.unix
    assert settings.api_keys == "keys.json"
    assert settings.api_key_pepper is not None
    assert settings.api_key_pepper.newest() == RANDOM_SECRET.encode()
    assert settings.token_issuers[0].algorithms == ("RS256",)
    assert [len(settings.plans["gold"].requests), len(settings.plans["default"].quotas)] == [2, 0]
    assert settings.policies["/x"] == Policy(public=True)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
@pytest.mark.parametrize("rest", ["://a:1/0", "+sentinel://a:1,b:2/model", "+cluster://a:1,b:2", "+unix:///path"])
def test_stores_on_servers(scheme: str, rest: str) -> None:
    """One server, Sentinels, a cluster or a socket."""
    assert load(STORE_URI=scheme + rest).store_uri == scheme + rest


def test_password_in_a_url_is_not_shown() -> None:
    """The repr of the settings contains no password."""
    assert "hunter2" not in repr(load(STORE_URI="redis://:hunter2@stores.example"))


def test_from_prefixed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``FLASK_SECURE_ML_*`` variables contain JSON."""
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


RECORDS = [record for _, _, records in settings_by_group() for record in records]


def test_every_setting_is_in_one_group() -> None:
    """The reference page lists each once."""
    names = [record.name for record in RECORDS]
    assert sorted(names) == sorted(each.name for each in fields(Settings))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: key_of(record.name))
def test_every_setting_is_documented(record: Field[Any]) -> None:
    """Help, type and the default as users write it are with each setting, and the default is valid."""
    kind = record.metadata["field"]
    default = record.metadata["default"]
    assert len(record.metadata["help"]) > 20
    assert isinstance(kind, StrictField)
    assert default is None or kind.deserialize(default) == getattr(Settings(), record.name)


def test_schemas_are_made_when_they_are_needed() -> None:
    """Importing the package makes none, and loading settings none of a feature that is off."""
    code = (
        "from flask_secure_ml.policy.schema import schema_of; import flask_secure_ml\n"
        "from flask_secure_ml.config import Settings; print(schema_of.cache_info().currsize)\n"
        "Settings.load({}); print(schema_of.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Of the settings, of the default plan and of the backoff.
    assert done.stdout.split() == ["0", "3"]


def test_a_pepper_in_a_file(tmp_path: Path) -> None:
    """A reference to a file is read at start, so a wrong one is found there."""
    path = tmp_path / "pepper"
    path.write_text(RANDOM_SECRET)
    assert load(API_KEYS="store", STORE_URI="sqlite:/x", API_KEY_PEPPER=f"file:{path}").api_keys == "store"
