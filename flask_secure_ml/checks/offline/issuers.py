"""Checks of the authorization servers whose tokens are accepted."""

from __future__ import annotations

from collections.abc import Iterator

from ...config.issuers import MAX_TOKEN_BYTES, IssuerConfig
from ...config.providers import PROVIDERS
from ..finding import Check, Found, Severity, Where
from ..setup import Setup

_GENERIC = frozenset({"account", "api", "api://default", "default"})
"""Audiences that authorization servers put into tokens by default, regardless of the API."""

_RELAXED = {
    "omits": "may lack {}",
    "header_types": "may have the header typ {}",
    "token_types": "may have token_type {}",
    "id_token_claims": "may have {} as ID tokens do",
    "audience_claims": "have their audience in {}",
    "scope_claims": "have scopes in {}",
    "role_claims": "have roles in {}",
    "client_claims": "have their client in {}",
    "user_claims": "have their subject in {}",
}
_STRICT = IssuerConfig("", "")


def _place(issuer: IssuerConfig) -> Where:
    return Where("issuer", issuer.issuer)


def clear_text(setup: Setup) -> Iterator[Found]:
    """Yield the issuers that are reached without TLS."""
    for issuer in setup.settings.token_issuers:
        if issuer.insecure_http:
            yield Found(_place(issuer), f"{issuer.issuer} is reached without TLS (insecure_http)")


def private(setup: Setup) -> Iterator[Found]:
    """Yield the issuers that may resolve to a private IP address."""
    for issuer in setup.settings.token_issuers:
        if issuer.private_network:
            yield Found(_place(issuer), f"{issuer.issuer} may resolve to a private IP address (private_network)")


def proxied(setup: Setup) -> Iterator[Found]:
    """Yield the issuers that are reached through a proxy."""
    for issuer in setup.settings.token_issuers:
        if issuer.proxy:
            yield Found(_place(issuer), f"{issuer.issuer} is reached through {issuer.proxy} (proxy)")


def strangers(setup: Setup) -> Iterator[Found]:
    """Yield the issuers that give tokens for this API to unrelated clients."""
    for issuer in setup.settings.token_issuers:
        preset = PROVIDERS.get(issuer.provider or "")
        if preset and preset.callers and not issuer.required_claims:
            yield Found(_place(issuer), f"{preset.callers} can get a token from {issuer.issuer}")


def generic_audience(setup: Setup) -> Iterator[Found]:
    """Yield the audiences that tokens for other services also have."""
    for issuer in setup.settings.token_issuers:
        for audience in sorted({*issuer.audiences} & _GENERIC):
            yield Found(_place(issuer), f"the audience {audience!r} of {issuer.issuer} is not specific to this API")


def relaxed(setup: Setup) -> Iterator[Found]:
    """Yield the issuers whose tokens may differ from RFC 9068."""
    for issuer in setup.settings.token_issuers:
        if options := list(_relaxed(issuer)):
            source = f"; provider {issuer.provider}" if issuer.provider else ""
            yield Found(_place(issuer), f"tokens of {issuer.issuer} {'; '.join(options)}{source}")


def _relaxed(issuer: IssuerConfig) -> Iterator[str]:
    for name, sentence in _RELAXED.items():
        value = getattr(issuer, name)
        if value != getattr(_STRICT, name):
            yield f"{sentence.format(', '.join(sorted(value)))} ({name})"
    if len(issuer.audiences) > 1:
        yield f"may be for any of {', '.join(issuer.audiences)} (audience)"
    if issuer.max_token_bytes > MAX_TOKEN_BYTES:
        yield f"may have {issuer.max_token_bytes} bytes (max_token_bytes)"


CHECKS = (
    Check(
        "SML221",
        Severity.WARNING,
        "An issuer is reached without TLS",
        "An attacker on the network can replace the keys that verify tokens.",
        '"jwks_uri": "https://as.example.com/jwks", without insecure_http',
        clear_text,
    ),
    Check(
        "SML222",
        Severity.WARNING,
        "An issuer may resolve to a private IP address",
        "A manipulated DNS record makes the app connect to a machine in your network.",
        'remove "private_network" where the issuer is public',
        private,
    ),
    Check(
        "SML223",
        Severity.WARNING,
        "An issuer is reached through a proxy",
        "The proxy resolves the issuer's hostname, and the app cannot check the IP address.",
        'remove "proxy" where the server reaches the issuer itself',
        proxied,
    ),
    Check(
        "SML224",
        Severity.WARNING,
        "Unrelated clients can get a token for this API",
        "Every client that gets a token of this issuer for this audience can call the API.",
        '"required_claims": {"sub": ["system:serviceaccount:batch:scorer"]}',
        strangers,
    ),
    Check(
        "SML225",
        Severity.WARNING,
        "The audience is generic",
        "A token that was issued for another service is accepted here (RFC 9068 section 4).",
        '"audience": "https://models.example.com"',
        generic_audience,
    ),
    Check(
        "SML226",
        Severity.NOTE,
        "Tokens may differ from RFC 9068",
        "Each relaxed option accepts tokens that the standard rejects. A preset relaxes what its provider needs.",
        "remove the options that the tokens of this issuer do not need",
        relaxed,
    ),
)
