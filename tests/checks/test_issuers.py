"""Findings for issuers: each option that allows tokens to differ from RFC 9068."""

from __future__ import annotations

from typing import Any

import pytest

from doctored import found_in
from support import MakeApp

ISSUER = {
    "issuer": "https://as.example",
    "audience": "https://api.example",
    "algorithms": ["RS256"],
    "jwks_uri": "https://as.example/jwks",
}
PRESET = {"provider": "okta", "issuer": "https://as.example/oauth2/a", "audience": "https://api.example"}
POD = ISSUER | {"provider": "kubernetes"}


@pytest.mark.parametrize(
    ("issuer", "words"),
    [
        pytest.param(
            ISSUER | {"jwks_uri": "http://127.0.0.1:1/jwks", "insecure_http": True},
            "without TLS (insecure_http)",
            id="clear-text keys",
        ),
        pytest.param(ISSUER | {"omits": ["typ"]}, "may lack typ (omits)", id="AT-1 relaxed"),
        pytest.param(ISSUER | {"header_types": ["JWT"]}, "typ jwt (header_types)", id="H4 JWT"),
        pytest.param(ISSUER | {"scope_claims": ["scp"]}, "in scp (scope_claims)", id="scopes"),
        pytest.param(ISSUER | {"role_claims": ["a.b"]}, "roles in a.b (role_claims)", id="roles"),
        pytest.param(ISSUER | {"client_claims": ["cid"]}, "in cid (client_claims)", id="client"),
        pytest.param(ISSUER | {"user_claims": ["oid"]}, "in oid (user_claims)", id="subject"),
        pytest.param(
            ISSUER | {"audience_claims": ["aud", "client_id"]},
            "have their audience in aud, client_id (audience_claims)",
            id="JB-12 audience in another claim",
        ),
        pytest.param(ISSUER | {"audience": ["a", "b"]}, "any of a, b (audience)", id="audiences"),
        pytest.param(ISSUER | {"max_token_bytes": 9000}, "9000 bytes (max_token_bytes)", id="T5 long"),
        pytest.param(
            ISSUER | {"id_token_claims": ["nonce"], "required_claims": {"typ": "Bearer"}},
            "may have nonce as ID tokens do (id_token_claims)",
            id="C6 nonce",
        ),
        pytest.param(
            PRESET,
            "may lack typ (omits); have scopes in scp (scope_claims); have their client in cid (client_claims); "
            "provider okta",
            id="preset",
        ),
        pytest.param(POD, "every pod of the cluster can get a token from https://as", id="any pod"),
        pytest.param(PRESET | {"proxy": "http://p.example"}, "p.example (proxy)", id="proxy"),
        pytest.param(ISSUER | {"private_network": True}, "private IP address", id="JB-14 inside"),
        pytest.param(
            ISSUER | {"audience": ["https://api.example", "account"]}, "audience 'account'", id="JB-12 shared"
        ),
    ],
)
def test_an_option_that_relaxes(protected: MakeApp, issuer: dict[str, Any], words: str) -> None:
    """Each is named, with the option that causes it."""
    assert any(words in sentence for sentence in found_in(protected(TOKEN_ISSUERS=[issuer])))


def test_pods_that_are_named(protected: MakeApp) -> None:
    """A pod that the issuer's options name is accepted."""
    named = POD | {"required_claims": {"sub": "system:serviceaccount:batch:scorer"}}
    assert not [each for each in found_in(protected(TOKEN_ISSUERS=[named])) if "every pod" in each]


def test_an_issuer_of_rfc_9068(protected: MakeApp) -> None:
    """An issuer without relaxing options has no findings; stricter options cause none."""
    strict = ISSUER | {"required_claims": {"tenant": "a"}}
    assert not [each for each in found_in(protected(TOKEN_ISSUERS=[strict])) if "as.example" in each]
