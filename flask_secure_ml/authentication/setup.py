"""Builds the authentication of one app from its settings; every authentication method is listed here once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..config import Settings
from ..config.settings import IN_STORE
from ..errors import ConfigError
from ..principal import Clock
from ..stores import SharedStore
from .challenges import Challenges
from .guard import AuthenticationGuard, Authenticator
from .resource_metadata import metadata_uri
from .revocation import Revocations
from .throttle import Throttle

if TYPE_CHECKING:
    from .api_keys.key import KeyStore
    from .tokens.authenticator import TokenVerifier
    from .tokens.dpop import ProofChecker

# Each authentication method is imported in the function that builds it, and so only where it is configured.


@dataclass(frozen=True)
class Authentication:
    """The guard, and the stores that the commands work on.

    :param load: reads keys and revocations from the shared store, if that was not done a moment ago.
    :param parts: what the credentials of requests need, by name; each raises an error while it is down.
    """

    guard: AuthenticationGuard
    keys: KeyStore | None
    revocations: Revocations
    load: Callable[[], None]
    parts: Mapping[str, Callable[[], object]]


def build_authentication(
    settings: Settings,
    clock: Clock,
    store: SharedStore,
    declared: Sequence[Authenticator],
    throttle: Throttle,
    session: Authenticator | None = None,
) -> Authentication:
    """Return the parts for an app.

    :param declared: the user's own authenticators, called after the built-in ones.
    :param throttle: counts the credentials that fail.
    :param session: the authenticator for the cookie session, which needs the app.
    :raises ConfigError: a key set, a secret, a certificate authority, a challenge or an authenticator cannot be used.
    """
    keys = _key_store(settings, clock, store)
    revocations = Revocations(store, clock)
    verifiers = list(_verifiers(settings, clock))
    others = [*_tokens(settings, clock, store, throttle, verifiers), *declared]
    authenticators = [*_api_keys(settings, clock, keys, others), *others]
    load = _loader(store, revocations, keys)
    challenges = _challenges(settings, authenticators)
    # The session first: unlike a certificate, it counts only for requests of the same origin.
    ambient = [*([] if session is None else [session]), *_certificates(settings, clock)]
    try:
        guard = AuthenticationGuard(settings.plans, authenticators, challenges, revocations, throttle, ambient, load)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    parts = dict(_parts(settings, store, keys, revocations, verifiers))
    return Authentication(guard, keys, revocations, load, parts)


def _parts(
    settings: Settings,
    store: SharedStore,
    keys: KeyStore | None,
    revocations: Revocations,
    verifiers: Sequence[TokenVerifier],
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what every credential of a kind needs, and a function that does what a request would do."""
    if store.shared:
        yield "store", revocations.ready
    if keys is not None and settings.api_key_pepper is not None:
        yield "api_keys", partial(keys.get, "")
        yield "api_key_pepper", settings.api_key_pepper.read
    for verifier in verifiers:
        for issuer, part in getattr(verifier, "parts", tuple)():
            yield f"issuer {issuer}", part


def _loader(store: SharedStore, revocations: Revocations, keys: KeyStore | None) -> Callable[[], None]:
    """Return a function that keeps what is cached of a shared store current; it raises nothing.

    Called for every request, it lets a worker survive an outage that begins before its first credential.
    """
    if not store.shared:
        return lambda: None
    from .api_keys.shared_store import SharedKeyStore

    polls = [revocations.poll, *([keys.poll] if isinstance(keys, SharedKeyStore) else [])]

    def load() -> None:
        for poll in polls:
            poll()

    return load


def _challenges(settings: Settings, authenticators: Sequence[Authenticator]) -> Challenges:
    try:
        return Challenges(settings.realm, [each.challenge for each in authenticators], _parameters(settings))
    except ValueError as error:
        raise ConfigError([f"the challenge of an authenticator cannot be used: {error}"]) from None


def _key_store(settings: Settings, clock: Clock, store: SharedStore) -> KeyStore | None:
    if settings.api_keys is None:
        return None
    if settings.api_keys != IN_STORE:
        from .api_keys.file_store import FileKeyStore

        return FileKeyStore(settings.api_keys, clock)
    from .api_keys.shared_store import SharedKeyStore

    return SharedKeyStore(store, clock)


def _api_keys(
    settings: Settings, clock: Clock, keys: KeyStore | None, others: Sequence[Authenticator]
) -> Iterator[Authenticator]:
    """Yield what finds API keys in the configured headers.

    :param others: the authenticators for everything else.
    """
    if keys is None or settings.api_key_pepper is None:
        return
    from .api_keys.authenticator import ApiKeyAuthenticator

    schemes = settings.api_key_schemes
    taken = {each.challenge.partition(" ")[0].lower() for each in others}
    issued = {"bearer", "dpop"} if settings.token_issuers else set()
    # ApiKey is reserved where it is off too: it is the scheme of this extension, and never one of the view's.
    reserved = {"apikey", *taken, *issued, *schemes}
    main = ApiKeyAuthenticator(keys, settings.api_key_pepper, clock, schemes, reserved)
    if not {"x-api-key", "apikey"}.isdisjoint(schemes):
        yield main
    if "bearer" in schemes:
        from .api_keys.schemes import BearerKeys

        yield BearerKeys(main, alone="bearer" not in taken)
    if "basic" in schemes:
        from .api_keys.schemes import BasicKeys

        yield BasicKeys(main, alone="basic" not in taken)


def _tokens(
    settings: Settings, clock: Clock, store: SharedStore, throttle: Throttle, verifiers: Sequence[TokenVerifier]
) -> Iterator[Authenticator]:
    if not verifiers:
        return
    from .tokens.authenticator import AccessTokens, BearerAuthenticator, DPoPAuthenticator

    tokens = AccessTokens(verifiers)
    if settings.dpop != "require":
        yield BearerAuthenticator(tokens, throttle.calls, _keys_in(settings, "bearer"))
    if settings.dpop != "off":
        yield DPoPAuthenticator(tokens, _proofs(settings, clock, store), throttle.calls)


def _keys_in(settings: Settings, scheme: str) -> str:
    """Return the beginning of the API keys that a scheme carries; empty if it carries none."""
    if settings.api_keys is None or scheme not in settings.api_key_schemes:
        return ""
    from .api_keys.key import PREFIX

    return PREFIX


def _verifiers(settings: Settings, clock: Clock) -> Iterator[TokenVerifier]:
    # Signed tokens first: their form is specific, while an opaque token may look like anything.
    if any(each.key_sources for each in settings.token_issuers):
        from .tokens.jwt import JwtVerifier

        yield JwtVerifier.from_settings(settings, clock)
    if settings.api_keys is not None and any(each.introspection_uri for each in settings.token_issuers):
        from .api_keys.schemes import KeysAreNoTokens

        yield KeysAreNoTokens()
    for each in settings.token_issuers:
        if each.introspection_uri is not None:
            from .tokens.introspection import Introspector

            yield Introspector(each, clock, leeway=settings.token_leeway, max_age=settings.introspection_cache_seconds)


def _proofs(settings: Settings, clock: Clock, store: SharedStore) -> ProofChecker:
    from .tokens.dpop import ProofChecker
    from .tokens.nonces import Nonces

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
    # The server knows where the app is mounted; a path in the identifier may be that of a route.
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}"


def _certificates(settings: Settings, clock: Clock) -> Iterator[Authenticator]:
    if not settings.mtls_clients:
        return
    from .mtls import MtlsAuthenticator

    clients = MtlsAuthenticator(settings.mtls_clients, settings.mtls_ca_file, clock)
    clients.check()
    yield clients


def _parameters(settings: Settings) -> dict[str, list[str]]:
    everywhere = [f'resource_metadata="{metadata_uri(settings.resource_uri)}"'] if settings.resource_uri else []
    algorithms = f'algs="{" ".join(settings.dpop_algorithms)}"'
    return {"Bearer": everywhere, "DPoP": [algorithms, *everywhere]}
