"""Builds the authentication of one app from its settings; this is the list of all authentication methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..config import Settings
from ..config.settings import IN_STORE
from ..describing import is_described_only
from ..errors import ConfigError, DependencyUnavailable
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
    from .tokens.sources import Refreshes

# Each authentication method is imported in the function that builds it, and therefore only if it is configured.


@dataclass(frozen=True)
class Authentication:
    """The guard, and the stores that the commands use.

    :param load: reads keys and revocations when a worker starts; a source that cannot be read is logged.
    :param parts: checks of the dependencies of authentication, by name; each raises an error while its dependency is
        down.
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
    refreshed: Refreshes = lambda _issuer, _usable: None,
) -> Authentication:
    """Return the authentication of an app.

    :param declared: the user's own authenticators, called after the built-in ones.
    :param throttle: counts failed credentials.
    :param session: the authenticator for the cookie session, which needs the app.
    :param refreshed: called after each fetch of a key set.
    :raises ConfigError: a key set, a secret, a certificate authority, a challenge or an authenticator cannot be used.
    """
    keys = _key_store(settings, clock, store)
    revocations = Revocations(store, clock)
    verifiers = list(_verifiers(settings, clock, refreshed))
    others = [*_tokens(settings, clock, store, throttle, verifiers), *declared]
    authenticators = [*_api_keys(settings, clock, keys, others), *others]
    poll = _poller(store, revocations, keys)
    challenges = _challenges(settings, authenticators)
    # The session first: unlike a certificate, it is accepted only in requests of the same origin.
    ambient = [*([] if session is None else [session]), *_certificates(settings, clock)]
    try:
        guard = AuthenticationGuard(settings.plans, authenticators, challenges, revocations, throttle, ambient, poll)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    parts = dict(_parts(settings, store, keys, revocations, verifiers))
    return Authentication(guard, keys, revocations, partial(_load, poll, keys), parts)


def _parts(
    settings: Settings,
    store: SharedStore,
    keys: KeyStore | None,
    revocations: Revocations,
    verifiers: Sequence[TokenVerifier],
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the name of each dependency, and a function that uses it as a request would."""
    if store.shared:
        yield "store", revocations.ready
    if keys is not None and settings.api_key_pepper is not None:
        yield "api_keys", partial(keys.get, "")
        yield "api_key_pepper", settings.api_key_pepper.read
    for verifier in verifiers:
        for issuer, part in getattr(verifier, "parts", tuple)():
            yield f"issuer {issuer}", part


def _poller(store: SharedStore, revocations: Revocations, keys: KeyStore | None) -> Callable[[], None]:
    """Return a function that refreshes what is cached from a shared store; it never raises.

    It is called for every request, so that a worker has a cache if an outage begins before its first credential.
    """
    if not store.shared:
        return lambda: None
    from .api_keys.shared_store import SharedKeyStore

    polls = [revocations.poll, *([keys.poll] if isinstance(keys, SharedKeyStore) else [])]

    def poll() -> None:
        for each in polls:
            each()

    return poll


def _load(poll: Callable[[], None], keys: KeyStore | None) -> None:
    """Read what the first credential needs, so that a wrong path is logged at the start of a worker."""
    poll()
    if keys is None:
        return
    from .api_keys.file_store import FileKeyStore

    # The other store is read by the poll, which does not wait for a server that is down.
    if isinstance(keys, FileKeyStore):
        with suppress(DependencyUnavailable):
            keys.cached()


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
    """Yield the authenticators for API keys in the configured headers.

    :param others: the authenticators for other credentials.
    """
    if keys is None or settings.api_key_pepper is None:
        return
    from .api_keys.authenticator import ApiKeyAuthenticator

    schemes = settings.api_key_schemes
    taken = {each.challenge.partition(" ")[0].lower() for each in others}
    issued = {"bearer", "dpop"} if settings.token_issuers else set()
    # ApiKey is reserved even if it is off: it is the scheme of this extension, never one for the view.
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
    """Return the prefix of API keys if a scheme may carry them, or else an empty string."""
    if settings.api_keys is None or scheme not in settings.api_key_schemes:
        return ""
    from .api_keys.key import PREFIX

    return PREFIX


def _verifiers(settings: Settings, clock: Clock, refreshed: Refreshes) -> Iterator[TokenVerifier]:
    # Signed tokens first: they have a specific form, while an opaque token may have any.
    if any(each.key_sources for each in settings.token_issuers):
        from .tokens.jwt import JwtVerifier

        yield JwtVerifier.from_settings(settings, clock, refreshed)
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
    # The server sets the path where the app is mounted; a path in the identifier may be that of a route.
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}"


def _certificates(settings: Settings, clock: Clock) -> Iterator[Authenticator]:
    if not settings.mtls_clients:
        return
    from .mtls import MtlsAuthenticator

    clients = MtlsAuthenticator(settings.mtls_clients, settings.mtls_ca_file, clock)
    if not is_described_only():
        clients.check()
    yield clients


def _parameters(settings: Settings) -> dict[str, list[str]]:
    everywhere = [f'resource_metadata="{metadata_uri(settings.resource_uri)}"'] if settings.resource_uri else []
    algorithms = f'algs="{" ".join(settings.dpop_algorithms)}"'
    return {"Bearer": everywhere, "DPoP": [algorithms, *everywhere]}
