"""Builds the authentication of one app from its settings; every way in stands here once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..config import Settings
from ..config.settings import IN_STORE
from ..principal import Clock
from ..stores import SharedStore
from .api_keys.authenticator import ApiKeyAuthenticator
from .api_keys.file_store import FileKeyStore
from .api_keys.key import KeyStore
from .api_keys.shared_store import SharedKeyStore
from .guard import AuthenticationGuard, Authenticator, Challenges, OnFailure
from .mtls import MtlsAuthenticator
from .resource_metadata import metadata_uri
from .revocation import Revocations
from .tokens.authenticator import AccessTokens, BearerAuthenticator, DPoPAuthenticator, TokenVerifier
from .tokens.dpop import ProofChecker
from .tokens.introspection import Introspector
from .tokens.jwt import JwtVerifier
from .tokens.nonces import Nonces


@dataclass(frozen=True)
class Authentication:
    """The guard, and what the commands work on."""

    guard: AuthenticationGuard
    keys: KeyStore | None
    revocations: Revocations


def build_authentication(
    settings: Settings, clock: Clock, store: SharedStore, declared: Sequence[Authenticator], on_failure: OnFailure
) -> Authentication:
    """Return the parts for an app.

    :param declared: the user's own authenticators, asked after the built-in ones.
    :raises ConfigError: a key set, a secret or a certificate authority cannot be used.
    """
    keys = _key_store(settings, clock, store)
    revocations = Revocations(store, clock)
    authenticators = [*_api_keys(settings, clock, keys), *_tokens(settings, clock, store), *declared]
    challenges = Challenges(settings.realm, [each.challenge for each in authenticators], _parameters(settings))
    guard = AuthenticationGuard(authenticators, challenges, revocations, on_failure, _ambient(settings, clock))
    return Authentication(guard, keys, revocations)


def _key_store(settings: Settings, clock: Clock, store: SharedStore) -> KeyStore | None:
    if settings.api_keys == IN_STORE:
        return SharedKeyStore(store, clock)
    return None if settings.api_keys is None else FileKeyStore(settings.api_keys)


def _api_keys(settings: Settings, clock: Clock, keys: KeyStore | None) -> Iterator[Authenticator]:
    if keys is not None and settings.api_key_pepper is not None:
        yield ApiKeyAuthenticator(keys, settings.api_key_pepper, clock)


def _tokens(settings: Settings, clock: Clock, store: SharedStore) -> Iterator[Authenticator]:
    verifiers = list(_verifiers(settings, clock))
    if not verifiers:
        return
    tokens = AccessTokens(verifiers)
    if settings.dpop != "require":
        yield BearerAuthenticator(tokens)
    if settings.dpop != "off":
        yield DPoPAuthenticator(tokens, _proofs(settings, clock, store))


def _verifiers(settings: Settings, clock: Clock) -> Iterator[TokenVerifier]:
    # Signed tokens first: their form is particular, while an opaque token may look like anything.
    if any(each.key_sources for each in settings.token_issuers):
        yield JwtVerifier.from_settings(settings, clock)
    for each in settings.token_issuers:
        if each.introspection_uri is not None:
            yield Introspector(each, clock, leeway=settings.token_leeway, max_age=settings.introspection_cache_seconds)


def _proofs(settings: Settings, clock: Clock, store: SharedStore) -> ProofChecker:
    secret = settings.dpop_nonce_secret
    return ProofChecker(
        settings.dpop_algorithms,
        settings.dpop_max_age,
        clock,
        store,
        None if secret is None else Nonces(secret, clock),
        external=None if settings.resource_uri is None else _origin(settings.resource_uri),
    )


def _origin(resource: str) -> str:
    # Where the app is mounted is for the server to say; a path in the identifier may be that of a route.
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}"


def _ambient(settings: Settings, clock: Clock) -> Authenticator | None:
    if not settings.mtls_clients:
        return None
    clients = MtlsAuthenticator(settings.mtls_clients, settings.mtls_ca_file, clock)
    clients.check()
    return clients


def _parameters(settings: Settings) -> dict[str, list[str]]:
    everywhere = [f'resource_metadata="{metadata_uri(settings.resource_uri)}"'] if settings.resource_uri else []
    algorithms = f'algs="{" ".join(settings.dpop_algorithms)}"'
    return {"Bearer": everywhere, "DPoP": [algorithms, *everywhere]}
