"""Access tokens: whose, how they are verified, and what binds them to a key."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..issuers import ASYMMETRIC, IssuerConfig, issuers
from ..secrets import SecretRing, secret_ring
from .record import setting


@dataclass(frozen=True)
class TokenSettings:
    """Access tokens: whose, how they are verified, and what binds them to a key."""

    jwt_issuers: tuple[IssuerConfig, ...] = setting(
        [],
        issuers,
        """Authorization servers whose access tokens are accepted: a list of objects with ``issuer``, ``audience``,
        ``algorithms`` and the source of its keys, one of ``jwks_uri``, ``jwks_file``, ``jwks`` (a JWK Set), ``secret``
        (a reference, or a list of them, newest first, for HMAC) or ``discover: true`` (RFC 8414). Opaque tokens are
        introspected (RFC 7662) with ``introspection_uri``, ``client_id`` and ``client_secret``. ``omits`` lists
        which of ``typ``, ``jti``, ``client_id`` and (introspected) ``sub`` its tokens may lack; ``max_age`` is the most
        seconds since ``iat`` (86400); ``private_network: true`` allows addresses that are not public,
        ``insecure_http: true`` a ``http:`` address on the loopback interface.""",
    )
    jwt_leeway: int = setting(
        30, checks.integer(0, 300), "Seconds by which the clocks of issuer and server may differ (at most 300)."
    )
    jwks_max_age: int = setting(
        300, checks.integer(1, 86_400), "Seconds for which a fetched key set is used before it is fetched again."
    )
    jwks_cooldown: int = setting(
        60,
        checks.integer(1, 3_600),
        "Seconds between two fetches of a key set that an unknown ``kid`` or a failure can cause.",
    )
    token_cache_size: int = setting(
        10_000,
        checks.integer(0, 1_000_000),
        """How many verified access tokens each worker remembers, so that a known one costs microseconds. Expiry, the
        issuer's keys and revocations are looked at again every time. 0 turns the cache off.""",
    )
    introspection_max_age: int = setting(
        60,
        checks.integer(0, 3_600),
        """Seconds for which the answer of an introspection endpoint is used again, never beyond the token's ``exp``;
        0 asks for every request.""",
    )
    dpop: str = setting(
        "off",
        checks.one_of("off", "accept", "require"),
        """DPoP (RFC 9449): ``accept`` takes tokens bound to a key with their proof, beside plain bearer tokens;
        ``require`` takes no token without a proof. Whatever is set here, a bound token is never taken without its
        proof. Needs ``SECURE_ML_RESOURCE``.""",
    )
    dpop_algorithms: tuple[str, ...] = setting(
        ["ES256", "ES384", "PS256", "RS256", "Ed25519", "EdDSA"],
        checks.some_of(*sorted(ASYMMETRIC)),
        "What DPoP proofs may be signed with.",
    )
    dpop_max_age: int = setting(
        60, checks.integer(5, 600), "Seconds for which a DPoP proof is good; each is taken once."
    )
    dpop_nonce_secret: SecretRing | None = setting(
        None,
        secret_ring,
        """A reference to a secret; with it, DPoP proofs need a nonce of this server that is at most ten minutes old.
        All workers and machines need the same secret.""",
    )
