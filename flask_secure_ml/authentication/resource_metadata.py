"""The metadata document of a protected resource (RFC 9728): which tokens this API accepts, and who issues them.

Its content comes from the settings and the policies, never from the request: with a document that depends on the
``Host`` header, an attacker could direct clients to another authorization server.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.sansio.response import Response

from ..config import Settings
from ..policy.decorators import public

WELL_KNOWN = "/.well-known/oauth-protected-resource"
MAX_AGE = 3600
"""Seconds for which clients may cache the document."""

if TYPE_CHECKING:
    from ..state import AppState


def metadata_path(resource: str) -> str:
    """Return the path of the document of a resource (RFC 9728 section 3.1)."""
    path = urlsplit(resource).path
    return WELL_KNOWN + ("" if path == "/" else path)


def metadata_uri(resource: str) -> str:
    """Return the URL of the document of a resource."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{metadata_path(resource)}"


def metadata_document(settings: Settings, scopes: Iterable[str]) -> dict[str, Any]:
    """Return the metadata of this app, without empty members (RFC 9728 section 3.2).

    :param scopes: every scope that a route may require.
    """
    document = {
        "resource": settings.resource_uri,
        "authorization_servers": [each.issuer for each in settings.token_issuers],
        "scopes_supported": sorted(scopes),
        "bearer_methods_supported": ["header"] if settings.dpop != "require" else [],
        "dpop_signing_alg_values_supported": [] if settings.dpop == "off" else list(settings.dpop_algorithms),
        "dpop_bound_access_tokens_required": settings.dpop == "require",
        "tls_client_certificate_bound_access_tokens": _uses_certificates(settings),
    }
    return {name: value for name, value in document.items() if value}


def _uses_certificates(settings: Settings) -> bool:
    # If gunicorn terminates TLS, certificates need no setting here; then the document does not mention them.
    return bool(settings.client_certificate_header or settings.mtls_ca_file or settings.mtls_clients)


ENDPOINT = "secure_ml_resource_metadata"


def add_resource_metadata(app: Flask, state: AppState) -> None:
    """Serve the metadata document, public and cacheable (RFC 9728 section 3)."""
    if state.settings.resource_uri is None:
        return

    @public(scores=False)
    def resource_metadata() -> Response:
        response = app.json.response(metadata_document(state.settings, _scopes(state)))
        response.headers["Cache-Control"] = f"public, max-age={MAX_AGE}"
        return response

    app.add_url_rule(metadata_path(state.settings.resource_uri), ENDPOINT, resource_metadata, methods=["GET"])


def _scopes(state: AppState) -> set[str]:
    return {scope for _, _, policy in state.policies.routes() for scope in policy.scopes}
