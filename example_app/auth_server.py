"""An OAuth2 authorization server for development: client credentials, JWT and opaque tokens, with Authlib.

An EXAMPLE, not a product: it has no users, no consent and no throttling, and its signing key is in a file. It shows
what flask-secure-ml requires of a real server. It is served over TLS only::

    python -m example_app.auth_setup .demo
    flask secure-ml tls dev-certificate
    export SECURE_ML_SERVE_CERTIFICATE=.tls/server.pem SECURE_ML_SERVE_PRIVATE_KEY=.tls/server.key
    AUTH_STATE=.demo gunicorn --config example_app/gunicorn.conf.py 'example_app.auth_server:create_app()'
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from .auth_clients import BASIC, GRANT, SCOPES, load_clients
from .auth_grant import DemoServer
from .auth_keys import SigningKeys
from .auth_setup import Config
from .auth_tokens import TokenStore

log = logging.getLogger(__name__)

MAX_BODY = 16 * 1024
METADATA_PATH = "/.well-known/oauth-authorization-server"
FORM = "application/x-www-form-urlencoded"
UNSAFE_SWITCH = "AUTHLIB_INSECURE_TRANSPORT"


class ServerMetadata(AuthorizationServerMetadata):
    """The metadata of a server that has a token endpoint but no authorization endpoint."""

    def validate_response_types_supported(self) -> None:
        """Require the member (RFC 8414 section 2), which may be empty, because the server has no response types."""
        if not isinstance(self.get("response_types_supported"), list):
            raise ValueError('"response_types_supported" is required and must be an array')


def create_app(environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.time) -> Flask:
    """Return the server, configured by ``AUTH_ISSUER``, ``AUTH_RESOURCES`` and ``AUTH_STATE``.

    :param clock: returns seconds since the epoch, for the expiry of tokens.
    :raises ClientsError: the file of clients is missing or invalid; run ``python -m example_app.auth_setup``.
    :raises SigningKeysError: the file of keys is missing or invalid.
    :raises ValueError: the issuer is not an ``https:`` URL, or Authlib is configured to accept clear text.
    """
    if environ.get(UNSAFE_SWITCH) or os.environ.get(UNSAFE_SWITCH):
        raise ValueError(f"unset {UNSAFE_SWITCH}: this server has a certificate")
    config = Config.from_environ(environ)
    keys = SigningKeys(config.keys)
    _check_state(config, keys)
    app = Flask(__name__, static_folder=None)
    app.debug = False
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY, PROPAGATE_EXCEPTIONS=False)
    _add_documents(app, keys, metadata(config))
    _add_endpoints(app, DemoServer(config, TokenStore(config.tokens, clock)))
    _add_hooks(app)
    return app


def _check_state(config: Config, keys: SigningKeys) -> None:
    """Check the files at start, so that the server does not fail at the first request."""
    load_clients(config.clients)
    keys.public()


def metadata(config: Config) -> dict[str, Any]:
    """Return the metadata of the server (RFC 8414 section 2).

    :raises ValueError: Authlib considers it invalid.
    """
    document = {
        "issuer": config.issuer,
        "token_endpoint": f"{config.issuer}/token",
        "jwks_uri": f"{config.issuer}/jwks",
        "introspection_endpoint": f"{config.issuer}/introspect",
        "revocation_endpoint": f"{config.issuer}/revoke",
        "scopes_supported": list(SCOPES),
        "grant_types_supported": [GRANT],
        "response_types_supported": [],
    }
    for endpoint in ("token", "introspection", "revocation"):
        document[f"{endpoint}_endpoint_auth_methods_supported"] = [BASIC]
    ServerMetadata(document).validate()
    return document


def _add_documents(app: Flask, keys: SigningKeys, document: dict[str, Any]) -> None:
    @app.get(METADATA_PATH)
    def describe() -> dict[str, Any]:
        return document

    @app.get("/jwks")
    def jwks() -> dict[str, Any]:
        return keys.public()

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}


def _add_endpoints(app: Flask, server: DemoServer) -> None:
    @app.post("/token")
    def token() -> Response:
        if not request.form.get("grant_type"):
            raise InvalidRequestError("grant_type is missing.")
        response: Response = server.create_token_response()
        return response

    @app.post("/introspect")
    def introspect() -> Response:
        response: Response = server.create_endpoint_response("introspection")
        return response

    @app.post("/revoke")
    def revoke() -> Response:
        response: Response = server.create_endpoint_response("revocation")
        return response


def _add_hooks(app: Flask) -> None:
    @app.before_request
    def check_form() -> None:
        # Authlib would accept clear text on loopback.
        if not request.is_secure:
            raise InvalidRequestError("Use https.")
        if request.method == "POST" and (request.mimetype != FORM or request.content_length is None):
            raise InvalidRequestError(f"Send a body of the type {FORM} and its length.")

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            # Authlib's challenge has no realm (RFC 7617 section 2).
            response.headers["WWW-Authenticate"] = 'Basic realm="authorization server", charset="UTF-8"'
        return response

    app.register_error_handler(OAuth2Error, _oauth_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _fault)


def _oauth_error(error: OAuth2Error) -> tuple[Response, int]:
    status, body, _ = error()
    return jsonify(body), status


def _http_error(error: HTTPException) -> tuple[Response, int]:
    return jsonify(error="invalid_request", error_description=error.name), error.code or HTTPStatus.BAD_REQUEST


def _fault(error: Exception) -> tuple[Response, int]:
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return jsonify(error="server_error"), HTTPStatus.INTERNAL_SERVER_ERROR
