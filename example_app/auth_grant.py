"""The use of Authlib by the example authorization server: grant, tokens, introspection and revocation.

Each override closes a gap or restricts a default that is too permissive for client credentials only.
"""

from __future__ import annotations

import secrets
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.integrations.flask_oauth2.requests import FlaskOAuth2Payload, FlaskOAuth2Request
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import ClientCredentialsGrant, InvalidRequestError, InvalidScopeError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Request, request

from .auth_clients import BASIC, Client, authenticate_basic, beyond, load_clients
from .auth_keys import ALGORITHM, SigningKeys
from .auth_setup import Config
from .auth_tokens import LIFETIME, Token, TokenStore, opaque_token


class InvalidTargetError(OAuth2Error):
    """The ``resource`` of a request is unknown (RFC 8707 section 2)."""

    error = "invalid_target"
    description = "No tokens are issued for this resource."


class FormPayload(FlaskOAuth2Payload):
    """The form in the body. Authlib's own class also accepts parameters in the URL, which is often logged."""

    def __init__(self, incoming: Request) -> None:
        super().__init__(incoming)
        self._form = incoming.form

    @property
    def data(self) -> Any:
        """Return the form, in which no parameter is repeated (RFC 6749 section 3.2)."""
        return self._form


class DemoServer(AuthorizationServer):
    """Authlib's server with the clients, keys and tokens of one state directory.

    :param config: the settings, with the paths of all files.
    :param tokens: the store of issued tokens.
    """

    def __init__(self, config: Config, tokens: TokenStore) -> None:
        super().__init__()
        self.config = config
        self.tokens = tokens
        self.register_token_generator("default", AccessTokens(config))
        self.register_grant(ClientCredentials)
        self.register_endpoint(Introspection)
        self.register_endpoint(Revocation)
        self.register_client_auth_method(BASIC, self._authenticate)

    def query_client(self, client_id: str) -> Client | None:
        """Return a registered client."""
        return load_clients(self.config.clients).get(client_id)

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        """Store an issued token."""
        audience = choose_resource(self.config, request.form)
        self.tokens.save(token["access_token"], request.client.client_id, token["scope"], audience)

    def create_oauth2_request(self, _: object) -> FlaskOAuth2Request:
        """Return the current request for Authlib, after checking it for repeated parameters."""
        incoming = FlaskOAuth2Request(request)
        incoming.payload = FormPayload(request)
        if any(len(values) > 1 for _, values in request.form.lists()):
            raise InvalidRequestError("A parameter is repeated.")
        return incoming

    def _authenticate(self, _query: object, incoming: Any) -> Client | None:
        return authenticate_basic(load_clients(self.config.clients), incoming.headers)


class ClientCredentials(ClientCredentialsGrant):
    """Tokens for the client itself (RFC 6749 section 4.4)."""

    def validate_token_request(self) -> None:
        """Reject scopes for which the client is not registered; Authlib would silently remove them."""
        super().validate_token_request()
        if beyond(self.client, self.request.payload.scope):
            raise InvalidScopeError
        choose_resource(self.server.config, self.request.form)


class AccessTokens(JWTBearerTokenGenerator):
    """JWT access tokens (RFC 9068), or opaque ones for clients that are registered for them."""

    def __init__(self, config: Config) -> None:
        # Without the last argument, tokens of this grant would be valid for ten days.
        super().__init__(config.issuer, ALGORITHM, expires_generator=lambda _client, _grant: LIFETIME)
        self._config = config

    def access_token_generator(self, client: Client, grant_type: str, user: None, scope: str) -> str:
        """Return the token."""
        if client.opaque:
            return opaque_token()
        return str(super().access_token_generator(client, grant_type, user, scope))

    def get_jwks(self) -> Any:
        """Return the signing key."""
        return SigningKeys(self._config.keys).signing()

    def get_audiences(self, client: Client, user: None, scope: str) -> str:
        """Return the API as the audience; Authlib would return the client."""
        return choose_resource(self._config, request.form)

    def get_jti(self, client: Client, grant_type: str, user: None, scope: str) -> str:
        """Return 128 random bits."""
        return secrets.token_urlsafe(16)


class Introspection(IntrospectionEndpoint):
    """Introspection (RFC 7662) for resource servers. For other clients, every token is inactive."""

    def check_permission(self, token: Token, client: Client, request: Any) -> bool:
        """Return True if the client is a resource server."""
        return client.introspects

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        """Return the record of a token, which may be a JWT or opaque; None if it is unknown."""
        found: Token | None = self.server.tokens.find(token_string)
        return found

    def introspect_token(self, token: Token) -> dict[str, Any]:
        """Return the introspection response for an active token (RFC 7662 section 2.2)."""
        return {
            "active": True,
            "token_type": "Bearer",
            "scope": token.scope,
            "client_id": token.client_id,
            "sub": token.client_id,
            "aud": token.audience,
            "iss": self.server.config.issuer,
            "jti": token.jti,
            "iat": token.issued,
            "exp": token.expires,
        }


class Revocation(RevocationEndpoint):
    """Revocation of a token (RFC 7009) by the client to which it was issued."""

    query_token = Introspection.query_token

    def revoke_token(self, token: Token, request: Any) -> None:
        """Store the revocation; Authlib's own endpoint rejects JWTs."""
        self.server.tokens.revoke(token)


def choose_resource(config: Config, form: Any) -> str:
    """Return the API for which a token is requested: the parameter ``resource``, or the first API (RFC 8707 section 2).

    :raises InvalidTargetError: the server does not know this API.
    """
    wanted: str = form.get("resource") or config.resources[0]
    if wanted not in config.resources:
        raise InvalidTargetError
    return wanted
