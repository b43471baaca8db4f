"""An app with an identity provider: policies applied to the tokens that a preset accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc.jwk import Key

from flask_secure_ml import current_principal, protect
from flask_secure_ml.testing import make_key_set, make_signing_key, sign_parts
from support import HTTPS, MakeApp

FILE = json.loads((Path(__file__).parents[1] / "corpus" / "providers" / "okta.json").read_text())
USER = FILE["tokens"][0]["claims"]
Call = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def key() -> Key:
    return make_signing_key("RS256", kid="current")


@pytest.fixture
def client(protected: MakeApp, key: Key) -> FlaskClient:
    entry = {
        "provider": "okta",
        **FILE["issuer"],
        "jwks": json.loads(make_key_set(key)),
        "plan_claim": "groups",
        "plans": {"Data science": "gold"},
    }
    plans = {"default": {"requests": ["9/minute"]}, "gold": {"requests": ["90/minute"]}}
    app = protected(TOKEN_ISSUERS=[entry], PLANS=plans)

    def view() -> str:
        return current_principal.plan

    routes: dict[str, dict[str, Any]] = {
        "/scope": {"scopes": ["predict"]},
        "/role": {"roles": ["Data science"]},
        "/claim": {"claims": {"groups": ["Data science"]}},
        "/acr": {"acr_values": ["mfa"]},
        "/recent": {"max_auth_age": 600},
        "/methods": {"claims": {"amr": ["otp"]}},
    }
    for path, options in routes.items():
        app.add_url_rule(path, path.strip("/"), protect(**options)(view))
    return app.test_client()


@pytest.fixture
def call(client: FlaskClient, key: Key) -> Call:
    """Call a route with the token of a user, with some other claims; return the status, and the plan or error code."""

    def run(path: str, **claims: Any) -> tuple[int, str]:
        body = {name: value for name, value in {**USER, **claims}.items() if value is not ...}
        token = sign_parts(key, b'{"alg": "RS256", "kid": "current"}', json.dumps(body).encode())
        response = client.get(path, headers={"Authorization": f"Bearer {token}"}, base_url=HTTPS)
        return response.status_code, response.json["code"] if response.json else response.text

    return run


@pytest.mark.parametrize(
    ("path", "claims", "expected"),
    [
        ("/scope", {}, (200, "gold")),
        ("/scope", {"groups": ["Everyone"]}, (200, "default")),
        ("/scope", {"scp": ["openid"]}, (403, "insufficient_scope")),
        ("/scope", {"scp": ..., "scope": "predict"}, (403, "insufficient_scope")),
        ("/scope", {"scp": [5]}, (401, "not_authenticated")),
        ("/scope", {"cid": ...}, (401, "not_authenticated")),
        ("/scope", {"exp": USER["iat"] - 1}, (401, "not_authenticated")),
        ("/role", {}, (200, "gold")),
        ("/role", {"groups": "Data science"}, (200, "gold")),
    ],
    ids=str,
)
def test_okta(call: Call, path: str, claims: dict[str, Any], expected: tuple[int, str]) -> None:
    """BT-4, BT-6: a token that is not accepted is 401, and one without the right 403."""
    assert call(path, **claims) == expected


@pytest.mark.parametrize(
    ("path", "claims", "status"),
    [
        ("/role", {"groups": ["Data science", 5]}, 403),
        ("/claim", {"groups": {"Data science": True}}, 403),
        ("/methods", {"amr": "otp"}, 403),
        ("/acr", {"acr": ["mfa"]}, 401),
        ("/recent", {"auth_time": str(USER["auth_time"])}, 401),
        ("/recent", {"auth_time": None}, 401),
    ],
    ids=str,
)
def test_at_10_malformed_claims_decide_nothing(call: Call, path: str, claims: dict[str, Any], status: int) -> None:
    """AT-10: a malformed claim that only informs is missing for the policy that needs it, and for no other."""
    assert call("/scope", **claims)[0] == 200
    assert call(path, **claims)[0] == status


@pytest.mark.parametrize(
    ("path", "claims"),
    [("/acr", {"acr": "mfa"}), ("/recent", {}), ("/methods", {"amr": ["otp"]}), ("/claim", {})],
    ids=str,
)
def test_at_10_sound_claims_decide(call: Call, path: str, claims: dict[str, Any]) -> None:
    """AT-10: the same policies let the token pass when the claim is sound."""
    assert call(path, **claims)[0] == 200
