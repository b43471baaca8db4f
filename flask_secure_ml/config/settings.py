"""All settings, by group; the reference page is generated from them."""

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
from .checks import CheckSettings
from .clients import MtlsClient, clients_field
from .deployment import DeploymentSettings
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
from .metrics import MetricsSettings
from .observability import ObservabilitySettings
from .plans import Plans, plans_field
from .probes import ProbeSettings

IN_STORE = "store"
"""The value of ``SECURE_ML_API_KEYS`` for the shared store."""


@dataclass(frozen=True)
class TransportSettings:
    """TLS, proxies and middleware."""

    require_tls: bool = setting(
        Boolean(),
        True,
        """Reject clear text with 403 ``tls_required``. Turn it off only if other machines cannot reach the port, such
        as for a local development server; ``flask secure-ml check`` reports it.""",
    )
    trusted_proxies: Networks = setting(
        NetworkList(),
        [],
        """Networks whose ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``X-Request-ID`` are trusted, such as
        ``["10.0.3.0/24"]``; ``unix`` means a Unix socket. These headers are removed from requests of other peers.""",
    )
    hsts_max_age: int = setting(
        Integer(0, unit="seconds"),
        31_536_000,
        """The ``max-age`` of ``Strict-Transport-Security`` in seconds, sent only over TLS; 0 makes browsers remove the
        host from their HSTS list.""",
    )
    hsts_include_subdomains: bool = setting(
        Boolean(),
        True,
        """Extend HSTS to the subdomains of this host (``includeSubDomains``). Browsers then use only HTTPS for all of
        them for ``SECURE_ML_HSTS_MAX_AGE``; see :doc:`/howto/tls`.""",
    )
    mounts: tuple[str, ...] = setting(
        MountPaths(),
        [],
        """Paths at which WSGI middleware inside the guards responds itself, such as ``["/metrics"]``. They have no
        route: their policy is set by path in ``SECURE_ML_POLICIES``, or is the default policy. The mounts of Werkzeug's
        ``DispatcherMiddleware`` and ``SharedDataMiddleware`` and the path of Socket.IO are detected automatically.""",
    )
    outer_middleware: tuple[str, ...] = setting(
        Strings("whitenoise.base.WhiteNoise", middleware_name),
        [],
        """WSGI middleware that may wrap the app outside the guards, by the import name of its class or function, such
        as ``["whitenoise.base.WhiteNoise"]``. Its own responses are not protected, so apply it before ``init_app``
        instead if possible. ``ProxyFix`` is never accepted.""",
    )


@dataclass(frozen=True)
class AuthenticationSettings:
    """The realm, API keys, client certificates, and the throttle of failed authentication."""

    realm: str = setting(
        String("1 to 64 letters, digits, spaces or ._-", re.compile(r"[A-Za-z0-9 ._-]{1,64}")),
        "model",
        "The realm in ``WWW-Authenticate``: letters, digits, spaces and ``-._``.",
    )
    resource_uri: str | None = setting(
        HttpsUri(),
        None,
        """The public URL of this API, such as ``https://models.example.com``. If set, the metadata of RFC 9728 is
        served under ``/.well-known/oauth-protected-resource``, and challenges refer to it.""",
    )
    api_keys: str | None = setting(
        Location(IN_STORE),
        None,
        """The store of hashed API keys: the path of a file, which ``flask secure-ml keys`` writes and running workers
        reload when it changes, or ``store`` for ``SECURE_ML_STORE_URI``, for several machines. Without it, API keys are
        not accepted.""",
    )
    api_key_pepper: SecretRing | None = setting(
        SecretReference(secret_ring),
        None,
        """A reference to the secret key of the API key hash, at least 32 bytes: ``env:NAME``, ``file:/path`` or
        ``vault:mount/path#field``. To rotate it, use a list of references, newest first: new keys are hashed with the
        first, and other keys are rehashed on their next use. Required for API keys.""",
    )
    api_key_schemes: tuple[str, ...] = setting(
        Choices("x-api-key", "apikey", "bearer", "basic"),
        ["x-api-key", "apikey"],
        """How clients send API keys: in the header ``X-API-Key``, in ``Authorization: ApiKey`` or ``Authorization:
        Bearer``, or as the password of ``Authorization: Basic``, whose user name is ignored. See
        :doc:`/howto/clients`.""",
    )
    client_certificate_header: str | None = setting(
        Choice("Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "X-Amzn-Mtls-Clientcert-Leaf"),
        None,
        """The header in which a trusted proxy forwards the client's certificate: ``Client-Cert`` (RFC 9440),
        ``X-SSL-Client-Cert`` (the escaped PEM of nginx), ``X-Forwarded-Client-Cert`` (Envoy) or
        ``X-Amzn-Mtls-Clientcert-Leaf`` (AWS). Trusted only from ``SECURE_ML_TRUSTED_PROXIES``. If gunicorn terminates
        TLS, no header is needed.""",
    )
    mtls_clients: tuple[MtlsClient, ...] = setting(
        clients_field(),
        [],
        """Clients that authenticate with a certificate (RFC 8705 section 2), each identified by exactly one of its
        properties.""",
    )
    mtls_ca_file: str | None = setting(
        String("the path of a file"),
        None,
        """The certificate authorities, in PEM, that verify the certificates of ``SECURE_ML_MTLS_CLIENTS``; required for
        clients that are not identified by fingerprint. The file is reloaded when it changes.""",
    )
    failed_auth_limits: Limits = setting(
        LimitList(),
        ["30/minute"],
        """Limits of invalid credentials from one IP address (or IPv6 /64); beyond them, further ones get 429. Valid
        credentials still pass; expired or revoked ones get 401 and are not counted. An empty list turns the throttle
        off; see :doc:`/howto/limits`.""",
    )
    failed_key_limits: Limits = setting(
        LimitList(),
        ["100/hour"],
        """Limits of wrong secrets for one API key, from all IP addresses together; beyond them, wrong secrets get 429.
        The correct secret always passes, so an attacker cannot lock out the owner. For an identity whose secret a
        person chose (``guessable``), all attempts from new networks get 429 beyond these limits.""",
    )


@dataclass(frozen=True)
class TokenSettings:
    """Access tokens: issuers, verification, and proof of possession (DPoP)."""

    token_issuers: tuple[IssuerConfig, ...] = setting(
        issuers_field(),
        [],
        """Authorization servers whose access tokens are accepted, each with one source of keys: ``jwks_uri``,
        ``jwks_file``, ``jwks``, ``secret`` or ``discover``; or for opaque tokens with ``introspection_uri``,
        ``client_id`` and ``client_secret``.""",
    )
    token_leeway: int = setting(
        Integer(0, 300, unit="seconds"), 30, "Leeway for the clock difference between issuer and server, in seconds."
    )
    jwks_cache_seconds: int = setting(
        Integer(1, 86_400, unit="seconds"),
        300,
        "Seconds after which a cached key set is fetched again.",
    )
    jwks_cooldown: int = setting(
        Integer(1, 3_600, unit="seconds"),
        60,
        """Minimum number of seconds between two fetches of a key set because of an unknown ``kid``, or after a failure.
        The first unknown ``kid`` after a regular fetch causes a fetch immediately.""",
    )
    token_cache_size: int = setting(
        Integer(0, 1_000_000),
        10_000,
        """Maximum number of verified access tokens in the cache of each worker; a cached token costs microseconds.
        Expiry, the issuer's keys and revocations are checked for every request. 0 turns the cache off.""",
    )
    introspection_cache_seconds: int = setting(
        Integer(0, 3_600, unit="seconds"),
        60,
        """Seconds for which an introspection response is cached, never beyond the token's ``exp``; 0 introspects for
        every request.""",
    )
    dpop: str = setting(
        Choice("off", "accept", "require"),
        "off",
        """DPoP (RFC 9449): ``accept`` accepts both key-bound tokens with a proof and plain bearer tokens; ``require``
        rejects tokens without a proof. A bound token is always rejected without its proof. Requires
        ``SECURE_ML_RESOURCE_URI``.""",
    )
    dpop_algorithms: tuple[str, ...] = setting(
        Choices(*sorted(ASYMMETRIC)),
        ["ES256", "ES384", "PS256", "RS256", "Ed25519", "EdDSA"],
        "The accepted signature algorithms of DPoP proofs.",
    )
    dpop_max_age: int = setting(
        Integer(5, 600, unit="seconds"), 60, "Seconds for which a DPoP proof is valid; each is accepted once."
    )
    dpop_nonce_secret: SecretRing | None = setting(
        SecretReference(secret_ring),
        None,
        """A reference to a secret; if set, DPoP proofs need a nonce of this server that is at most ten minutes old. All
        workers and machines need the same secret.""",
    )


@dataclass(frozen=True)
class SharedSettings:
    """The shared store, plans, and policies by configuration."""

    store_uri: str = setting(
        StoreUri(),
        "memory:",
        """The store of state that workers share: revocations, seen DPoP proofs, and API keys with
        ``SECURE_ML_API_KEYS=store``. ``sqlite:/path`` serves all workers of one machine, ``redis://`` or ``valkey://``
        many machines; ``memory:`` is for one process only. It may contain a password, but prefer
        ``SECURE_ML_STORE_PASSWORD``.""",
        secret=True,
    )
    store_password: SecretRing | None = setting(
        SecretReference(client_secret_ring),
        None,
        "A reference to the password of the store, instead of a password in its URL; or a list, newest first.",
    )
    plans: Plans = setting(
        plans_field(),
        {"default": {"requests": ["600/minute"], "quotas": []}},
        """The plans and their limits. API keys and client certificates name their plan; other callers have
        ``default``.""",
    )
    policies: Mapping[str, Policy] = setting(
        MappingOf(Policy, '{"/invocations": {"scopes": ["predict"]}}'),
        {},
        """Policies for routes whose code cannot be changed, by URL rule, endpoint, path (``/static/*``), blueprint
        (``blueprint:api``) or for all requests (``*``), optionally with methods: ``{"POST /invocations": {"scopes":
        ["predict"]}}``. The options are those of :doc:`/howto/policies` and ``public``; ``owner``, ``body`` and
        ``response`` take import names. See :doc:`/howto/foreign_apps`.""",
    )


@dataclass(frozen=True)
class InputSettings:
    """Limits and formats of request bodies. The ``caps`` of a policy override these limits."""

    max_body_bytes: int = setting(
        Integer(0, unit="bytes"),
        4_194_304,
        "The maximum size of a request body, chunked or not, before and after decompression.",
    )
    max_json_depth: int = setting(
        Integer(1, 1_000), 32, "Maximum nesting depth of arrays and objects in JSON and MessagePack."
    )
    max_json_members: int = setting(
        Integer(1), 1_000, "Maximum number of members of one object in JSON or MessagePack; more are rejected with 413."
    )
    max_string_length: int = setting(
        Integer(1, unit="bytes"),
        1_048_576,
        """Maximum number of bytes in one string or name of a body, with escape sequences counted as written; more are
        rejected with 413. Images and tensors in base64 are also strings.""",
    )
    max_elements: int = setting(
        Integer(1),
        1_000_000,
        """Maximum total number of values in a JSON, MessagePack or CSV body (numbers, strings, literals, empty arrays
        and objects), and of arrays and objects; more are rejected with 413, by counting before the body is parsed.""",
    )
    max_decoded_bytes: int = setting(
        Integer(1, unit="bytes"),
        67_108_864,
        """Maximum number of bytes of an array that a body in npy, CSV or the Open Inference Protocol declares, computed
        before memory is allocated; more are rejected with 413.""",
    )
    wire_formats: tuple[str, ...] = setting(
        Choices("json", "oip", "npy", "msgpack", "csv"),
        ["json"],
        """The formats that routes with a schema accept: ``json``, ``oip`` (Open Inference Protocol v2 with its binary
        extension), ``npy`` (``application/x-npy``), ``msgpack`` (extra ``[msgpack]``) and ``csv``.""",
    )
    content_encodings: tuple[str, ...] = setting(
        Choices("identity", "gzip", "zstd"),
        ["identity"],
        """The accepted content encodings: ``gzip``, ``zstd`` (extra ``[zstd]`` before Python 3.14).""",
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
    "Metrics": MetricsSettings,
    "Audit log": AuditSettings,
    "Alerts": AlertSettings,
    "Anomalies": AnomalySettings,
    "Checks": CheckSettings,
    "Probes": ProbeSettings,
    "Deployment": DeploymentSettings,
}
"""The groups of the reference page, in its order."""
