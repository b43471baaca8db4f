"""The record of every setting, by group; the reference page is generated from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..policy.fields import Boolean, Choice, Choices, Integer, MappingOf, String, Strings
from ..policy.limits import LimitList, Limits
from ..policy.policy import Policy
from ..secrets import SecretRing, client_secret_ring, secret_ring
from .alerts import AlertSettings
from .anomalies import AnomalySettings
from .audit import AuditSettings
from .browsers import BrowserSettings
from .clients import MtlsClient, clients_field
from .fields import (
    HttpsUri,
    Location,
    MountPaths,
    NetworkList,
    Networks,
    SecretReference,
    StoreUri,
    middleware_name,
    setting,
)
from .issuers import ASYMMETRIC, IssuerConfig, issuers_field
from .limits import LimitSettings
from .observability import ObservabilitySettings
from .plans import Plans, plans_field
from .probes import ProbeSettings

IN_STORE = "store"
"""The value of ``SECURE_ML_API_KEYS`` that means the shared store."""


@dataclass(frozen=True)
class TransportSettings:
    """How a request reaches the app."""

    require_tls: bool = setting(
        Boolean(),
        True,
        """Reject clear text with 403 ``tls_required``. Turn it off only where no other machine can reach the port, such
        as for a local development server; ``flask secure-ml check`` warns of it.""",
    )
    trusted_proxies: Networks = setting(
        NetworkList(),
        [],
        """Networks whose ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``X-Request-ID`` are believed, such as
        ``["10.0.3.0/24"]``; ``unix`` means a Unix socket. From anyone else these headers are removed.""",
    )
    hsts_max_age: int = setting(
        Integer(0, unit="seconds"),
        31_536_000,
        """Seconds for which browsers use HTTPS only (``Strict-Transport-Security``), sent on TLS connections only; 0
        ends this in browsers that have it.""",
    )
    hsts_include_subdomains: bool = setting(
        Boolean(),
        True,
        """Extend HSTS to the subdomains of this host (``includeSubDomains``). Browsers then reach none of
        them in clear text for as long as ``SECURE_ML_HSTS_MAX_AGE``; see :doc:`/howto/tls`.""",
    )
    mounts: tuple[str, ...] = setting(
        MountPaths(),
        [],
        """Paths at which WSGI middleware beneath the guards responds itself, such as ``["/metrics"]``. They take no
        policy from a route: theirs is in ``SECURE_ML_POLICIES`` by path, or the default one. The mounts of Werkzeug's
        ``DispatcherMiddleware`` and ``SharedDataMiddleware`` and the path of Socket.IO are known without this.""",
    )
    outer_middleware: tuple[str, ...] = setting(
        Strings("whitenoise.base.WhiteNoise", middleware_name),
        [],
        """WSGI middleware that may be around the app, by the import name of its class or function, such as
        ``["whitenoise.base.WhiteNoise"]``. Requests that it responds to itself are not guarded, so put it there before
        ``init_app`` instead where you can. ``ProxyFix`` is never accepted.""",
    )


@dataclass(frozen=True)
class AuthenticationSettings:
    """Who may call: the realm, API keys, client certificates, and the throttle of invalid ones."""

    realm: str = setting(
        String("1 to 64 letters, digits, spaces or ._-", re.compile(r"[A-Za-z0-9 ._-]{1,64}")),
        "model",
        "The realm that ``WWW-Authenticate`` names: letters, digits, spaces and ``-._``.",
    )
    resource_uri: str | None = setting(
        HttpsUri(),
        None,
        """The URL of this API as clients know it, such as ``https://models.example.com``. With it, the metadata of
        RFC 9728 are served under ``/.well-known/oauth-protected-resource``, and challenges point there.""",
    )
    api_keys: str | None = setting(
        Location(IN_STORE),
        None,
        """Where the hashed API keys are: the path of a file, which ``flask secure-ml keys`` writes and running workers
        read again when it changes, or ``store`` for ``SECURE_ML_STORE_URI``, for several machines. Without it, API keys
        are not accepted.""",
    )
    api_key_pepper: SecretRing | None = setting(
        SecretReference(secret_ring),
        None,
        """A reference to the secret that keys the hash of API keys, at least 32 bytes: ``env:NAME``, ``file:/path``
        or ``vault:mount/path#field``. To rotate it, a list of references, newest first: new keys are hashed with the
        first, and a key of an older one is hashed again when it is next used. Needed for API keys.""",
    )
    api_key_schemes: tuple[str, ...] = setting(
        Choices("x-api-key", "apikey", "bearer", "basic"),
        ["x-api-key", "apikey"],
        """How clients send API keys: in the header ``X-API-Key``, after ``Authorization: ApiKey`` or ``Authorization:
        Bearer``, or as the password of ``Authorization: Basic``, whose user name is ignored. See
        :doc:`/howto/clients`.""",
    )
    client_certificate_header: str | None = setting(
        Choice("Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert"),
        None,
        """The header in which a trusted proxy passes the client's certificate on: ``Client-Cert`` (RFC 9440),
        ``X-SSL-Client-Cert`` (the escaped PEM of nginx) or ``X-Forwarded-Client-Cert`` (Envoy). Believed from
        ``SECURE_ML_TRUSTED_PROXIES`` only. gunicorn's own TLS needs no header.""",
    )
    mtls_clients: tuple[MtlsClient, ...] = setting(
        clients_field(),
        [],
        """Clients that authenticate with a certificate (RFC 8705 section 2), each named by exactly one property of
        it.""",
    )
    mtls_ca_file: str | None = setting(
        String("the path of a file"),
        None,
        """The certificate authorities, in PEM, that the certificates of ``SECURE_ML_MTLS_CLIENTS`` must lead to; needed
        for clients that are not named by fingerprint. It is read again when it changes.""",
    )
    failed_auth_limits: Limits = setting(
        LimitList(),
        ["30/minute"],
        """How many credentials that prove nothing one IP address (or IPv6 /64) may present before more of them get 429.
        Valid ones pass, and expired or revoked ones get 401 and are not counted. An empty list turns the throttle off;
        see :doc:`/howto/limits`.""",
    )
    failed_key_limits: Limits = setting(
        LimitList(),
        ["100/hour"],
        """How many wrong secrets one API key may be presented with, from all IP addresses together, before wrong ones
        get 429. The right secret always passes, so nobody can lock the owner out. For an identity whose secrets people
        choose (``guessable``), how many before every one from new networks gets 429.""",
    )


@dataclass(frozen=True)
class TokenSettings:
    """Access tokens: whose, how they are verified, and what binds them to a key."""

    token_issuers: tuple[IssuerConfig, ...] = setting(
        issuers_field(),
        [],
        """Authorization servers whose access tokens are accepted: each with the source of its keys, one of
        ``jwks_uri``, ``jwks_file``, ``jwks``, ``secret`` and ``discover``, or for opaque tokens with
        ``introspection_uri``, ``client_id`` and ``client_secret``.""",
    )
    token_leeway: int = setting(
        Integer(0, 300, unit="seconds"), 30, "Seconds by which the clocks of issuer and server may differ."
    )
    jwks_cache_seconds: int = setting(
        Integer(1, 86_400, unit="seconds"),
        300,
        "Seconds for which a fetched key set is used before it is fetched again.",
    )
    jwks_cooldown: int = setting(
        Integer(1, 3_600, unit="seconds"),
        60,
        """Seconds between two fetches of a key set that an unknown ``kid`` can cause, or after a failure. The first
        unknown ``kid`` after a regular fetch need not wait.""",
    )
    token_cache_size: int = setting(
        Integer(0, 1_000_000),
        10_000,
        """How many verified access tokens each worker caches, so that a known one costs microseconds. Expiry, the
        issuer's keys and revocations are checked again every time. 0 turns the cache off.""",
    )
    introspection_cache_seconds: int = setting(
        Integer(0, 3_600, unit="seconds"),
        60,
        """Seconds for which the response of an introspection endpoint is used again, never beyond the token's ``exp``;
        0 introspects for every request.""",
    )
    dpop: str = setting(
        Choice("off", "accept", "require"),
        "off",
        """DPoP (RFC 9449): ``accept`` takes tokens bound to a key with their proof, beside plain bearer tokens;
        ``require`` takes no token without a proof. Whatever is set here, a bound token is never taken without its
        proof. Needs ``SECURE_ML_RESOURCE_URI``.""",
    )
    dpop_algorithms: tuple[str, ...] = setting(
        Choices(*sorted(ASYMMETRIC)),
        ["ES256", "ES384", "PS256", "RS256", "Ed25519", "EdDSA"],
        "What DPoP proofs may be signed with.",
    )
    dpop_max_age: int = setting(
        Integer(5, 600, unit="seconds"), 60, "Seconds for which a DPoP proof is valid; each is taken once."
    )
    dpop_nonce_secret: SecretRing | None = setting(
        SecretReference(secret_ring),
        None,
        """A reference to a secret; with it, DPoP proofs need a nonce of this server that is at most ten minutes old.
        All workers and machines need the same secret.""",
    )


@dataclass(frozen=True)
class SharedSettings:
    """What all routes share: the store of the workers, plans, and policies by configuration."""

    store_uri: str = setting(
        StoreUri(),
        "memory:",
        """Where the state is that workers share: revocations, DPoP proofs that were seen, and API keys with
        ``SECURE_ML_API_KEYS=store``. ``sqlite:/path`` serves all workers of one machine, ``redis://`` or ``valkey://``
        many machines; ``memory:`` is for one process only. It may hold a password, which is better in
        ``SECURE_ML_STORE_PASSWORD``.""",
        secret=True,
    )
    store_password: SecretRing | None = setting(
        SecretReference(client_secret_ring),
        None,
        "A reference to the password of the store, instead of one in its URL; in a list, the newest first.",
    )
    plans: Plans = setting(
        plans_field(),
        {"default": {"requests": ["600/minute"], "quotas": []}},
        """What callers may use, by plan. API keys and client certificates name their plan; everyone else has
        ``default``.""",
    )
    policies: Mapping[str, Policy] = setting(
        MappingOf(Policy, '{"/invocations": {"scopes": ["predict"]}}'),
        {},
        """Policies for routes whose code cannot be edited, by URL rule, endpoint, path (``/static/*``), blueprint
        (``blueprint:api``) or for every request (``*``), each with methods or without:
        ``{"POST /invocations": {"scopes": ["predict"]}}``. The options are those of :doc:`/howto/policies` and
        ``public``; ``owner``, ``body`` and ``response`` take import names. See :doc:`/howto/foreign_apps`.""",
    )


@dataclass(frozen=True)
class InputSettings:
    """How much a request body may have, and in which formats. The ``caps`` of a policy come before these limits."""

    max_body_bytes: int = setting(
        Integer(0, unit="bytes"),
        4_194_304,
        "The maximum size of a request body, chunked or not, before and after decompression.",
    )
    max_json_depth: int = setting(
        Integer(1, 1_000), 32, "How deep the arrays and objects of JSON and MessagePack may nest."
    )
    max_json_members: int = setting(
        Integer(1), 1_000, "How many members one object of JSON or MessagePack may have; more are a 413."
    )
    max_string_length: int = setting(
        Integer(1, unit="bytes"),
        1_048_576,
        """How many bytes one string or name in a body may have, escapes as they are written; more are a 413. Images and
        tensors in base64 are strings too.""",
    )
    max_elements: int = setting(
        Integer(1),
        1_000_000,
        """How many values a body of JSON, MessagePack or CSV may have in all (numbers, strings, literals, empty arrays
        and objects), and how many arrays and objects; more are a 413, which is found by counting, before parsing.""",
    )
    max_decoded_bytes: int = setting(
        Integer(1, unit="bytes"),
        67_108_864,
        """How many bytes an array may have that a body of npy, CSV or the Open Inference Protocol declares, found by
        arithmetic before anything is allocated; more are a 413.""",
    )
    wire_formats: tuple[str, ...] = setting(
        Choices("json", "oip", "npy", "msgpack", "csv"),
        ["json"],
        """The formats that routes with a schema take: ``json``, ``oip`` (Open Inference Protocol v2 with its binary
        extension), ``npy`` (``application/x-npy``), ``msgpack`` (extra ``[msgpack]``) and ``csv``.""",
    )
    content_encodings: tuple[str, ...] = setting(
        Choices("identity", "gzip", "zstd"),
        ["identity"],
        """The content encodings that are accepted besides none: ``gzip``, ``zstd`` (extra ``[zstd]`` before
        Python 3.14).""",
    )


GROUPS: Mapping[str, type] = {
    "Transport": TransportSettings,
    "Browsers": BrowserSettings,
    "Authentication": AuthenticationSettings,
    "Access tokens": TokenSettings,
    "Stores, plans and policies": SharedSettings,
    "Limits": LimitSettings,
    "Request bodies": InputSettings,
    "Observability": ObservabilitySettings,
    "Audit log": AuditSettings,
    "Alerts": AlertSettings,
    "Anomalies": AnomalySettings,
    "Probes": ProbeSettings,
}
"""The groups of the reference page, in its order."""
