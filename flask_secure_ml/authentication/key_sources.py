"""Where the keys of an issuer are found, by its configuration."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from ..config import Settings
from ..exchange import Clock
from ..issuers import IssuerConfig
from .discovery import Discovery
from .fetch import exchange_with, fetch
from .jwks import HttpKeys
from .key_set import VerificationKey
from .static_keys import FileKeys, InlineKeys, SecretKeys


class KeySource(Protocol):
    """Finds the keys that may verify a token of one issuer."""

    def candidates(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """Return the keys to try: at most one public key, or every HMAC secret; none when there is none.

        :raises DependencyUnavailable: the issuer's keys are not known.
        """


def key_source(issuer: IssuerConfig, settings: Settings, clock: Clock) -> KeySource:
    """Return where the keys of a configured issuer are found.

    :raises ValueError: they are configured in place, in a file or as a secret, and not sound.
    """
    if issuer.secret is not None:
        return SecretKeys(issuer.secret, issuer.algorithms)
    if issuer.jwks is not None:
        return InlineKeys(issuer.jwks, issuer.algorithms)
    if issuer.jwks_file is not None:
        keys = FileKeys(issuer.jwks_file, issuer.algorithms)
        keys.check()
        return keys
    return _http_keys(issuer, settings, clock)


def _http_keys(issuer: IssuerConfig, settings: Settings, clock: Clock) -> HttpKeys:
    return HttpKeys(
        issuer.jwks_uri or issuer.issuer,
        issuer.algorithms,
        clock,
        max_age=settings.jwks_max_age,
        cooldown=settings.jwks_cooldown,
        get=_discovery(issuer).key_set if issuer.discover else partial(fetch, private_network=issuer.private_network),
    )


def _discovery(issuer: IssuerConfig) -> Discovery:
    ask = partial(exchange_with, private_network=issuer.private_network)
    return Discovery(issuer.issuer, ask, clear_text=issuer.insecure_http)
