"""The authentication methods of an app as OpenAPI security schemes, read from the guard that enforces them.

The schemes ``oauth2`` and ``openIdConnect`` are not used: both contain URLs of an authorization server, which a
resource server cannot vouch for (clients discover them by RFC 9728). Tokens are described by the scheme in which they
are sent: ``Bearer`` or ``DPoP``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..authentication.guard import AuthenticationGuard, Authenticator
from ..config import Settings
from ..policy.policy import Policy
from ..state import AppState
from .sentences import listed

Scheme = dict[str, Any]
Requirement = dict[str, list[str]]

_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]")
_KEY = "An API key of this service. It is never read from the URL."
_IN_BASIC = "An API key of this service as the password; the user name is ignored."
_NOBODY: Scheme = {
    "type": "http",
    "scheme": "bearer",
    "description": "No authentication method is configured: every request is a 401.",
}


@dataclass(frozen=True)
class Method:
    """One authentication method: the schemes that are required together. Scopes apply to the first."""

    schemes: Mapping[str, Scheme]

    def requirement(self, scopes: Iterable[str]) -> Requirement:
        """Return the Security Requirement Object for a caller with these scopes."""
        first, *others = self.schemes
        return {first: sorted(scopes)} | {name: [] for name in others}


def methods_of(state: AppState) -> list[Method]:
    """Return the methods that the app accepts, at least one: a route without a method would count as public."""
    guards = [guard for guard in state.pipeline.guards if isinstance(guard, AuthenticationGuard)]
    authenticators = [each for guard in guards for each in guard.authenticators]
    found = [method for each in authenticators for method in _methods(each, state.settings)]
    return found or [Method({"Bearer": _NOBODY})]


def requirements(policy: Policy, methods: Iterable[Method]) -> list[Requirement]:
    """Return the alternatives that a route accepts; if any one of several scopes is enough, one for each scope."""
    if policy.public:
        return []
    alternatives: list[str | None] = [*sorted(policy.access.any_scopes)] or [None]
    return [
        method.requirement(policy.access.scopes | ({scope} if scope else frozenset()))
        for method in methods
        for scope in alternatives
    ]


def _methods(authenticator: Authenticator, settings: Settings) -> Iterable[Method]:
    for kind, methods in _built_in(settings):
        if isinstance(authenticator, kind):
            return methods
    own = _declared(authenticator)
    return [] if own is None else [Method({_UNNAMEABLE.sub("_", authenticator.name): own})]


def _built_in(settings: Settings) -> Iterator[tuple[type[Authenticator], tuple[Method, ...]]]:
    """Yield the class of each configured method with its description; methods that are off are not imported."""
    if settings.api_keys is not None:
        from ..authentication.api_keys.authenticator import ApiKeyAuthenticator

        header = {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": _KEY}
        scheme = {"type": "http", "scheme": "ApiKey", "description": _KEY}
        described = {"x-api-key": Method({"ApiKeyHeader": header}), "apikey": Method({"ApiKey": scheme})}
        methods = tuple(each for name, each in described.items() if name in settings.api_key_schemes)
        yield ApiKeyAuthenticator, methods
    if settings.api_keys is not None and not {"bearer", "basic"}.isdisjoint(settings.api_key_schemes):
        from ..authentication.api_keys.schemes import BasicKeys, BearerKeys

        yield BearerKeys, (Method({"ApiKeyBearer": {"type": "http", "scheme": "bearer", "description": _KEY}}),)
        yield BasicKeys, (Method({"ApiKeyBasic": {"type": "http", "scheme": "basic", "description": _IN_BASIC}}),)
    if settings.token_issuers:
        from ..authentication.tokens.authenticator import BearerAuthenticator, DPoPAuthenticator

        issued = _issued(settings)
        yield BearerAuthenticator, (Method({"Bearer": _token(settings, "bearer", issued)}),)
        bound = _token(settings, "DPoP", f"{issued} It is bound to a key.")
        yield DPoPAuthenticator, (Method({"DPoP": bound, **_proof(settings)}),)
    if settings.mtls_clients:
        from ..authentication.mtls import MtlsAuthenticator

        text = "The client certificate of the TLS handshake (RFC 8705), used if no other credential is sent."
        yield MtlsAuthenticator, (Method({"MutualTLS": {"type": "mutualTLS", "description": text}}),)


def _declared(authenticator: Authenticator) -> Scheme | None:
    """Return the scheme that a custom authenticator declares, or that of its challenge."""
    declared = getattr(authenticator, "security_scheme", None)
    if isinstance(declared, Mapping):
        return dict(declared)
    return {"type": "http", "scheme": authenticator.challenge} if authenticator.challenge else None


def _token(settings: Settings, scheme: str, text: str) -> Scheme:
    found = {"type": "http", "scheme": scheme, "description": text}
    only_jwt = all(each.introspection_uri is None for each in settings.token_issuers)
    return found | ({"bearerFormat": "JWT"} if only_jwt and scheme == "bearer" else {})


def _issued(settings: Settings) -> str:
    known = [f"{each.issuer} for the audience {listed(each.audiences, 'or')}" for each in settings.token_issuers]
    return f"An access token of {listed(known, 'or')}."


def _proof(settings: Settings) -> dict[str, Scheme]:
    nonce = " It needs the nonce in DPoP-Nonce of an earlier response." if settings.dpop_nonce_secret else ""
    text = f"The proof for this request (RFC 9449), signed with {listed(settings.dpop_algorithms, 'or')}.{nonce}"
    return {"DPoPProof": {"type": "apiKey", "in": "header", "name": "DPoP", "description": text}}
