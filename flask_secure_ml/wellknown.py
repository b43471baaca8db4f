"""The route that the extension itself adds: the metadata of RFC 9728, when ``SECURE_ML_RESOURCE`` is set."""

from __future__ import annotations

from flask import Flask
from werkzeug.sansio.response import Response

from .authentication.metadata import MAX_AGE, metadata_document, metadata_path
from .policy import public
from .state import AppState

ENDPOINT = "secure_ml_resource_metadata"


def add_resource_metadata(app: Flask, state: AppState) -> None:
    """Serve the metadata document, open to everyone and cacheable (RFC 9728 section 3)."""
    if state.settings.resource is None:
        return

    @public(outputs=False)
    def resource_metadata() -> Response:
        response = app.json.response(metadata_document(state.settings, _scopes(state)))
        response.headers["Cache-Control"] = f"public, max-age={MAX_AGE}"
        return response

    app.add_url_rule(metadata_path(state.settings.resource), ENDPOINT, resource_metadata, methods=["GET"])


def _scopes(state: AppState) -> set[str]:
    return {scope for _, _, policy in state.policies.routes() for scope in policy.scopes}
