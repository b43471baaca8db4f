"""What no single setting shows: keys that are none, contradictions, and secrets that stand in the configuration."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from .checks import closest

if TYPE_CHECKING:
    from . import Settings


def unknown_keys(given: Collection[str], known: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each key that is no setting; a typing error in a security key must not pass."""
    for key in sorted(set(given) - set(known)):
        guess = closest(key, known)
        yield f"{key} is not a setting" + (f"; did you mean {guess}?" if guess else "")


def contradictions(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each pair of settings that do not go together."""
    keys = settings.api_keys_file or settings.api_keys_in_store
    if keys and settings.api_key_pepper is None:
        yield (
            "SECURE_ML_API_KEY_PEPPER is needed for API keys, such as "
            '"env:API_KEY_PEPPER" or "file:/run/secrets/pepper"'
        )
    if settings.api_keys_file and settings.api_keys_in_store:
        yield "SECURE_ML_API_KEYS_FILE and SECURE_ML_API_KEYS_IN_STORE name two places for API keys; keep one"
    if settings.api_keys_in_store and settings.store_uri.startswith("memory:"):
        yield "SECURE_ML_STORE_URI must not be memory: with SECURE_ML_API_KEYS_IN_STORE"
    if settings.mtls_ca_file is None and any(not each.sha256 for each in settings.mtls_clients):
        yield "SECURE_ML_MTLS_CA_FILE is needed for every client of SECURE_ML_MTLS_CLIENTS without sha256"
    if settings.dpop != "off" and not settings.token_issuers:
        yield "SECURE_ML_DPOP needs SECURE_ML_TOKEN_ISSUERS: a proof goes with an access token"
    if settings.dpop != "off" and settings.resource_uri is None:
        yield "SECURE_ML_RESOURCE_URI is needed with SECURE_ML_DPOP: a proof must name this API, not what Host says"
    if "default" not in settings.plans:
        yield "SECURE_ML_PLANS must have a plan named 'default'"
    for client in settings.mtls_clients:
        if client.plan not in settings.plans:
            yield f"SECURE_ML_MTLS_CLIENTS: the plan {client.plan!r} of {client.client!r} is not in SECURE_ML_PLANS"


def shared_secrets(settings: Settings) -> Iterator[str]:
    """Name the secrets that stand for two things: whoever may use one could forge the other (RFC 8725bis 3.8)."""
    seen: dict[bytes, str] = {}
    for name, ring in (
        ("SECURE_ML_API_KEY_PEPPER", settings.api_key_pepper),
        ("SECURE_ML_DPOP_NONCE_SECRET", settings.dpop_nonce_secret),
        *((f"SECURE_ML_TOKEN_ISSUERS: the secret of {each.issuer}", each.secret) for each in settings.token_issuers),
    ):
        for value in ring.check() if ring else ():
            if seen.setdefault(value, name) != name:
                other = seen[value].removeprefix("SECURE_ML_TOKEN_ISSUERS: ")
                yield f"{name} is also that of {other}; make one for each"


def literal_secrets(settings: Settings) -> Iterator[str]:
    """Name the settings that hold a secret itself; outside debug and testing that is an error."""
    for key, ring in (
        ("API_KEY_PEPPER", settings.api_key_pepper),
        ("DPOP_NONCE_SECRET", settings.dpop_nonce_secret),
        ("STORE_PASSWORD", settings.store_password),
        *((f"TOKEN_ISSUERS secret of {each.issuer}", each.secret) for each in settings.token_issuers),
        *((f"TOKEN_ISSUERS client_secret of {each.issuer}", each.client_secret) for each in settings.token_issuers),
    ):
        if ring is not None and ring.literal:
            yield f'SECURE_ML_{key} must be a reference such as "env:NAME" or "file:/path", never the secret itself'
