"""The metadata of the protected resource (RFC 9728), as a client fetches it."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from flask_secure_ml import SecureML, protect
from flask_secure_ml.authentication.resource_metadata import metadata_path, metadata_uri
from support import HTTPS

RESOURCE = "https://models.example.com/v1"
ISSUER = {
    "issuer": "https://as.example",
    "audience": RESOURCE,
    "algorithms": ["RS256"],
    "jwks_uri": "https://as.example/jwks",
}
WELL_KNOWN = "/.well-known/oauth-protected-resource"


def make_app(**settings: Any) -> Flask:
    app = Flask("resource")
    for name, value in {"RESOURCE_URI": RESOURCE, "TOKEN_ISSUERS": [ISSUER], **settings}.items():
        if value is not None:
            app.config[f"SECURE_ML_{name}"] = value
    SecureML(app)

    @app.get("/predict")
    @protect(scopes=["predict", "audit"])
    def predict() -> str:
        return "3"

    return app


def fetch(app: Flask, path: str = WELL_KNOWN + "/v1", **options: Any) -> Any:
    return app.test_client().get(path, base_url=HTTPS, **options)


def test_document() -> None:
    """PR-1, PR-3, PR-4: open to everyone, cacheable, and only what holds; what is empty is left out."""
    response = fetch(make_app())
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.headers["Cache-Control"] == "public, max-age=3600"
    assert response.json == {
        "resource": RESOURCE,
        "authorization_servers": ["https://as.example"],
        "scopes_supported": ["audit", "predict"],
        "bearer_methods_supported": ["header"],
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param(
            {"DPOP": "accept", "DPOP_ALGORITHMS": ["ES256"]},
            {"dpop_signing_alg_values_supported": ["ES256"]},
            id="dpop",
        ),
        pytest.param({"DPOP": "require"}, {"dpop_bound_access_tokens_required": True}, id="dpop required"),
        pytest.param(
            {"CLIENT_CERTIFICATE_HEADER": "Client-Cert"},
            {"tls_client_certificate_bound_access_tokens": True},
            id="certificates",
        ),
    ],
)
def test_document_is_truthful(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    """PR-4: the members follow the settings, and none is there without its setting."""
    plain = fetch(make_app()).json
    assert expected.items() <= fetch(make_app(**settings)).json.items()
    assert not expected.keys() & plain.keys()
    assert "none" not in str(fetch(make_app(**settings)).json.get("dpop_signing_alg_values_supported"))


def test_host_header_is_not_repeated() -> None:
    """PR-2: the identifier comes from the configuration, whatever the Host header is."""
    assert fetch(make_app(), headers={"Host": "evil.example"}).json["resource"] == RESOURCE


def test_not_over_clear_text() -> None:
    """PR-6: the document is served over TLS only."""
    assert make_app().test_client().get(WELL_KNOWN + "/v1", base_url="http://localhost").status_code == 403


def test_challenge_points_to_it() -> None:
    """PR-5: a 401 has the URL of the document, for Bearer and DPoP."""
    challenges = fetch(make_app(DPOP="accept"), "/predict").headers.getlist("WWW-Authenticate")
    where = f'resource_metadata="https://models.example.com{WELL_KNOWN}/v1"'
    assert [where in each for each in challenges] == [True, True]


def test_without_the_setting_there_is_no_route() -> None:
    """Challenges do not refer to metadata that do not exist."""
    app = make_app(RESOURCE_URI=None)
    assert fetch(app).status_code == 401
    assert "resource_metadata" not in fetch(app, "/predict").headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ("https://a.example", WELL_KNOWN),
        ("https://a.example/", WELL_KNOWN),
        ("https://a.example:8443/x/y", WELL_KNOWN + "/x/y"),
        ("https://a.example/x/", WELL_KNOWN + "/x/"),
    ],
)
def test_where_it_is(resource: str, path: str) -> None:
    """PR-1: the well-known text goes between host and path; a slash goes only where it follows the host."""
    assert metadata_path(resource) == path
    assert metadata_uri(resource) == resource.split("/", maxsplit=1)[0] + "//" + resource.split("/")[2] + path
