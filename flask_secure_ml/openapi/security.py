"""The ways in as OpenAPI calls them: security schemes, read from the guard that enforces them.

There is no ``oauth2`` and no ``openIdConnect`` scheme: both name addresses of an authorization server that a resource
server has no part in and cannot vouch for (RFC 9728 is how a client finds them). Tokens are described as what is taken
here: ``Bearer`` or ``DPoP``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..authentication.api_keys.authenticator import ApiKeyAuthenticator
from ..authentication.guard import AuthenticationGuard, Authenticator
from ..authentication.mtls import MtlsAuthenticator
from ..authentication.tokens.authenticator import BearerAuthenticator, DPoPAuthenticator
from ..config import Settings
from ..policy.policy import Policy
from ..state import AppState
from .words import listed

Scheme = dict[str, Any]
Requirement = dict[str, list[str]]

_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]")
_KEY = "An API key of this service. It is never taken from the address."
_NOBODY: Scheme = {"type": "http", "scheme": "bearer", "description": "No way in is configured: every call is a 401."}


@dataclass(frozen=True)
class Way:
    """One way in: the schemes that are needed together, the first of which has the scopes."""

    schemes: Mapping[str, Scheme]

    def requirement(self, scopes: Iterable[str]) -> Requirement:
        """Return the Security Requirement Object for a caller with these scopes."""
        first, *others = self.schemes
        return {first: sorted(scopes)} | {name: [] for name in others}


def ways_of(state: AppState) -> list[Way]:
    """Return every way in that the app takes, at least one: a route without any would read as open."""
    guards = [guard for guard in state.pipeline.guards if isinstance(guard, AuthenticationGuard)]
    asked = [each for guard in guards for each in guard.authenticators]
    found = [way for each in asked for way in _ways(each, state.settings)]
    return found or [Way({"Bearer": _NOBODY})]


def requirements(policy: Policy, ways: Iterable[Way]) -> list[Requirement]:
    """Return what a route asks for: one of these. Where one of several scopes will do, there is one for each."""
    if policy.public:
        return []
    alternatives: list[str | None] = [*sorted(policy.access.any_scopes)] or [None]
    return [
        way.requirement(policy.access.scopes | ({scope} if scope else frozenset()))
        for way in ways
        for scope in alternatives
    ]


def _ways(authenticator: Authenticator, settings: Settings) -> Iterator[Way]:
    if isinstance(authenticator, ApiKeyAuthenticator):
        yield Way({"ApiKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": _KEY}})
        yield Way({"ApiKey": {"type": "http", "scheme": "ApiKey", "description": _KEY}})
    elif isinstance(authenticator, BearerAuthenticator):
        yield Way({"Bearer": _token(settings, "bearer", _issued(settings))})
    elif isinstance(authenticator, DPoPAuthenticator):
        yield Way({"DPoP": _token(settings, "DPoP", _issued(settings) + " It is bound to a key."), **_proof(settings)})
    elif isinstance(authenticator, MtlsAuthenticator):
        text = "The certificate that the client shows in the TLS handshake (RFC 8705). It counts when no other is sent."
        yield Way({"MutualTLS": {"type": "mutualTLS", "description": text}})
    elif (own := _declared(authenticator)) is not None:
        yield Way({_UNNAMEABLE.sub("_", authenticator.name): own})


def _declared(authenticator: Authenticator) -> Scheme | None:
    """Return what the app's own authenticator says of itself, or the scheme that its challenges name."""
    said = getattr(authenticator, "security_scheme", None)
    if isinstance(said, Mapping):
        return dict(said)
    return {"type": "http", "scheme": authenticator.challenge} if authenticator.challenge else None


def _token(settings: Settings, scheme: str, text: str) -> Scheme:
    found = {"type": "http", "scheme": scheme, "description": text}
    only_jwt = all(each.introspection_uri is None for each in settings.token_issuers)
    return found | ({"bearerFormat": "JWT"} if only_jwt and scheme == "bearer" else {})


def _issued(settings: Settings) -> str:
    known = [f"{each.issuer} for the audience {each.audience}" for each in settings.token_issuers]
    return f"An access token of {listed(known, 'or')}."


def _proof(settings: Settings) -> dict[str, Scheme]:
    nonce = " It needs the nonce of an earlier answer's DPoP-Nonce." if settings.dpop_nonce_secret else ""
    text = f"The proof for this one request (RFC 9449), signed with {listed(settings.dpop_algorithms, 'or')}.{nonce}"
    return {"DPoPProof": {"type": "apiKey", "in": "header", "name": "DPoP", "description": text}}
