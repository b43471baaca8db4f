"""The options of an issuer: each changes only what it names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from joserfc.jwk import Key

from flask_secure_ml.authentication.tokens.introspection import check_response
from flask_secure_ml.authentication.tokens.jwt import JwtVerifier
from flask_secure_ml.config import Settings
from flask_secure_ml.config.issuers import IssuerConfig
from flask_secure_ml.errors import NotAuthenticated
from flask_secure_ml.principal import Principal
from flask_secure_ml.testing import FakeClock, make_key_set
from introspection_endpoint import NOW, USUAL
from support import RANDOM_SECRET

ISSUER, AUDIENCE = "https://issuer.example", "https://api.example"
Options = dict[str, Any]
GOLD: Mapping[str, Any] = {"default": {"requests": ["9/minute"]}, "gold": {"requests": ["90/minute"]}}


@pytest.fixture
def verify(clock: FakeClock, signing_keys: Mapping[str, Key], token: Any) -> Callable[..., Principal | str]:
    """Verify a token under some options of its issuer; return its principal, or why there is none."""

    def run(options: Options, header: Options | None = None, claims: Options | None = None) -> Principal | str:
        usual = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256"]}
        entry = {**usual, "jwks": json.loads(make_key_set(signing_keys["RS256"])), **options}
        settings = Settings.load({"SECURE_ML_TOKEN_ISSUERS": [entry], "SECURE_ML_PLANS": GOLD, "TESTING": True})
        try:
            return JwtVerifier.from_settings(settings, clock).verify(token(header=header, claims=claims)).principal
        except NotAuthenticated as error:
            return error.reason

    return run


OKTA = "application/okta-internal-at+jwt"


@pytest.mark.parametrize(
    ("options", "header", "claims"),
    [
        pytest.param({"header_types": ["JWT"]}, {"typ": "JWT"}, {}, id="H4 typ JWT"),
        pytest.param({"header_types": ["JWT"]}, {"typ": "application/jwt"}, {}, id="H4 typ in full"),
        pytest.param({"header_types": [OKTA]}, {"typ": OKTA}, {}, id="H4 typ of a product"),
        pytest.param({"omits": ["sub"]}, {}, {"sub": ...}, id="sub"),
        pytest.param({"omits": ["jti"]}, {}, {"jti": None}, id="jti null"),
        pytest.param({"audience": [AUDIENCE, "https://b"]}, {}, {"aud": "https://b"}, id="C4 second audience"),
        pytest.param({"audience": ["https://b", "https://c"]}, {}, {"aud": ["x", "https://c"]}, id="C4 both lists"),
        pytest.param(
            {"audience_claims": ["aud", "client_id"], "audience": "app"},
            {},
            {"aud": ..., "client_id": "app"},
            id="audience in client_id",
        ),
        pytest.param({"scope_claims": ["scp"]}, {}, {"scp": ["a"], "scope": 5}, id="C7 another claim for scope"),
        pytest.param({"scope_claims": ["scope"]}, {}, {"scope": ["a"]}, id="C7 scope list"),
        pytest.param({"scope_claims": ["scope"]}, {}, {"scope": None}, id="C7 scope null"),
        pytest.param({"role_claims": ["r"]}, {}, {"roles": 5}, id="another claim for roles"),
        pytest.param({"client_claims": ["azp"]}, {}, {"client_id": ..., "azp": "a"}, id="client in azp"),
        pytest.param({"user_claims": ["oid"]}, {}, {"sub": ..., "oid": "a"}, id="subject in oid"),
        pytest.param(
            {"id_token_claims": ["nonce"], "omits": ["typ"], "required_claims": {"typ": "Bearer"}},
            {"typ": "JWT"},
            {"nonce": "n", "typ": "Bearer"},
            id="C6 nonce in an access token",
        ),
        pytest.param({"max_token_bytes": 20_000}, {}, {"x": "y" * 9_000}, id="T5 long token"),
    ],
)
def test_what_an_option_allows(
    verify: Callable[..., Principal | str], options: Options, header: Options, claims: Options
) -> None:
    """The token is accepted with the option, and rejected without it."""
    with_option, without = verify(options, header, claims), verify({}, header, claims)
    assert isinstance(with_option, Principal), with_option
    assert isinstance(without, str)


JWT = {"header_types": ["JWT"]}


@pytest.mark.parametrize(
    ("options", "header", "claims"),
    [
        pytest.param(JWT, {"typ": ...}, {}, id="H4 typ missing"),
        pytest.param(JWT, {"typ": "dpop+jwt"}, {}, id="H4 DPoP proof"),
        pytest.param(JWT, {"typ": "application/application/jwt"}, {}, id="JB-15 prefix twice"),
        pytest.param(JWT, {"typ": "JWT"}, {"nonce": "n"}, id="C6 ID token by its nonce"),
        pytest.param({"header_types": [OKTA]}, {"typ": OKTA}, {"at_hash": "h"}, id="C6 ID token by at_hash"),
        pytest.param({"header_types": [OKTA]}, {"typ": "JWT"}, {}, id="H4 another typ"),
        pytest.param({"omits": ["sub"]}, {}, {"sub": 5}, id="JB-11 sub of a wrong type"),
        pytest.param({"omits": ["sub"]}, {}, {"sub": ..., "username": "alice"}, id="JB-11 user without sub"),
        pytest.param({"omits": ["sub", "client_id"]}, {}, {"sub": ..., "client_id": ...}, id="JB-11 nobody"),
        pytest.param({"audience": ["https://a", "https://b"]}, {}, {"aud": "https://c"}, id="C4 third audience"),
        pytest.param({"audience": ["https://a", "https://b"]}, {}, {"aud": "https://"}, id="C4 substring"),
        pytest.param({"audience": ["https://a", "https://b"]}, {}, {"aud": []}, id="C4 none"),
        pytest.param(
            {"audience_claims": ["aud", "client_id"], "audience": "app"},
            {},
            {"aud": "https://other", "client_id": "app"},
            id="JB-12 aud is there and counts",
        ),
        pytest.param(
            {"audience_claims": ["aud", "client_id"], "audience": "app"},
            {},
            {"aud": [], "client_id": "app"},
            id="JB-12 empty aud is there and counts",
        ),
        pytest.param({"audience_claims": ["client_id"]}, {}, {"client_id": "x"}, id="JB-12 another client"),
        pytest.param({"scope_claims": ["scp"]}, {}, {"scp": 5}, id="C7 scopes of a wrong type"),
        pytest.param({"role_claims": ["a.b"]}, {}, {"a": {"b": 5}}, id="AT-10 roles of a wrong type"),
        pytest.param({"client_claims": ["azp"]}, {}, {}, id="AT-6 client in another claim"),
        pytest.param({"user_claims": ["oid"]}, {}, {}, id="JB-11 subject in another claim"),
        pytest.param({"required_claims": {"tenant": "a"}}, {}, {}, id="required claim missing"),
        pytest.param({"required_claims": {"tenant": "a"}}, {}, {"tenant": "b"}, id="required claim of another value"),
        pytest.param({"required_claims": {"tenant": "a"}}, {}, {"tenant": ["b"]}, id="required claim in a list"),
        pytest.param({"required_claims": {"verified": True}}, {}, {"verified": 1}, id="required claim of another type"),
        pytest.param({"required_claims": {"a.b": "c"}}, {}, {"a": {"b": None}}, id="required claim null"),
        pytest.param(
            {"id_token_claims": ["nonce"], "omits": ["typ"], "required_claims": {"typ": "Bearer"}},
            {"typ": "JWT"},
            {"nonce": "n", "at_hash": "h", "typ": "Bearer"},
            id="C6 at_hash beside nonce",
        ),
        pytest.param(
            {"id_token_claims": ["nonce"], "omits": ["typ"], "required_claims": {"typ": "Bearer"}},
            {"typ": "JWT"},
            {"nonce": "n"},
            id="C6 nonce alone",
        ),
        pytest.param({"max_token_bytes": 20_000}, {}, {"x": "y" * 20_000}, id="T5 longer token"),
        pytest.param({"max_token_bytes": 300}, {}, {}, id="T5 short limit"),
    ],
)
def test_what_an_option_does_not_allow(
    verify: Callable[..., Principal | str], options: Options, header: Options, claims: Options
) -> None:
    """C6, C7, H4: an option relaxes no more than it names."""
    assert isinstance(verify(options, header, claims), str)


def test_long_tokens_of_another_issuer(clock: FakeClock, signing_keys: Mapping[str, Key], token: Any) -> None:
    """T5: the limit of one issuer is not that of another."""
    keys = json.loads(make_key_set(signing_keys["RS256"]))
    usual = {"audience": AUDIENCE, "algorithms": ["RS256"], "jwks": keys}
    entries = [{"issuer": ISSUER, **usual}, {"issuer": "https://b", "max_token_bytes": 20_000, **usual}]
    verifier = JwtVerifier.from_settings(Settings.load({"SECURE_ML_TOKEN_ISSUERS": entries}), clock)
    assert verifier.verify(token(issuer="https://b", claims={"x": "y" * 9_000})).principal.subject == "alice"
    with pytest.raises(NotAuthenticated) as caught:
        verifier.verify(token(claims={"x": "y" * 9_000}))
    assert caught.value.reason == "the token has more than 8192 characters"


@pytest.mark.parametrize(
    ("options", "claims", "plan"),
    [
        ({}, {"plan": "gold"}, "default"),
        ({"plans": {"tests": "gold"}}, {}, "gold"),
        ({"plans": {"other": "gold"}}, {}, "default"),
        ({"plan_claim": "org.tier", "plans": {"paid": "gold"}}, {"org": {"tier": "paid"}}, "gold"),
        ({"plan_claim": "org.tier", "plans": {"paid": "gold"}}, {"org": {"tier": "gold"}}, "default"),
        ({"plan_claim": "org.tier", "plans": {"paid": "gold"}}, {"org": []}, "default"),
    ],
    ids=str,
)
def test_plans(verify: Callable[..., Principal | str], options: Options, claims: Options, plan: str) -> None:
    """A value that the configuration does not name has the default plan."""
    principal = verify(options, {}, claims)
    assert isinstance(principal, Principal), principal
    assert principal.plan == plan


def introspected(options: Options, **members: Any) -> Principal | str:
    """Return the principal of a response, or why there is none."""
    usual = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "introspection_uri": "https://issuer.example/introspect",
        "client_id": "api",
        "client_secret": RANDOM_SECRET,
    }
    loaded = {"SECURE_ML_TOKEN_ISSUERS": [{**usual, **options}], "SECURE_ML_PLANS": GOLD, "TESTING": True}
    config: IssuerConfig = Settings.load(loaded).token_issuers[0]
    response = {name: value for name, value in {**USUAL, **members}.items() if value is not ...}
    try:
        return check_response(response, config, now=NOW, leeway=30).principal
    except NotAuthenticated as error:
        return error.reason


@pytest.mark.parametrize(
    ("options", "members"),
    [
        pytest.param({"scope_claims": ["scope"]}, {"scope": ["predict"]}, id="IN-3 scope list"),
        pytest.param({"token_types": ["access_token"]}, {"token_type": "access_token"}, id="token_type"),
        pytest.param({"token_types": ["Access_Token"]}, {"token_type": "ACCESS_TOKEN"}, id="token_type in any case"),
        pytest.param({"omits": ["aud"]}, {"aud": []}, id="IN-3 aud empty"),
        pytest.param({"omits": ["aud"]}, {"aud": None}, id="IN-3 aud null"),
        pytest.param({"audience": [AUDIENCE, "https://b"]}, {"aud": "https://b"}, id="IN-3 second audience"),
        pytest.param({"user_claims": ["uid"]}, {"sub": ..., "uid": "u"}, id="subject"),
        pytest.param({"role_claims": ["r"]}, {"roles": 5}, id="roles"),
    ],
)
def test_what_an_option_allows_in_introspection(options: Options, members: Options) -> None:
    """The response is accepted with the option, and rejected without it."""
    with_option, without = introspected(options, **members), introspected({}, **members)
    assert isinstance(with_option, Principal), with_option
    assert isinstance(without, str)


@pytest.mark.parametrize(
    ("options", "members"),
    [
        pytest.param({"token_types": ["access_token"]}, {"token_type": "refresh_token"}, id="JB-16 refresh token"),
        pytest.param({"token_types": ["access_token"]}, {"token_type": ["access_token"]}, id="token_type in a list"),
        pytest.param({"omits": ["aud"]}, {"aud": "https://other"}, id="IN-3 another audience"),
        pytest.param({"omits": ["aud"]}, {"aud": [[]]}, id="IN-3 aud with an empty list"),
        pytest.param({"omits": ["aud"]}, {"aud": ""}, id="IN-3 aud an empty string"),
        pytest.param({"omits": ["aud"]}, {"aud": {}}, id="IN-3 aud an empty object"),
        pytest.param({"required_claims": {"tenant": "a"}}, {}, id="required claim"),
        pytest.param({"client_claims": ["cid"]}, {}, id="client in another claim"),
        pytest.param({"scope_claims": ["scope"]}, {"scope": [5]}, id="IN-3 scope list of a number"),
        pytest.param({"max_age": 60}, {}, id="IN-3 lifetime"),
    ],
)
def test_what_an_option_does_not_allow_in_introspection(options: Options, members: Options) -> None:
    """IN-3: an option relaxes no more than it names."""
    assert isinstance(introspected(options, **members), str)


def test_plan_of_an_opaque_token() -> None:
    """The plan of a caller is the same for opaque tokens."""
    principal = introspected({"plans": {"tests": "gold"}})
    assert isinstance(principal, Principal)
    assert principal.plan == "gold"
