"""What a body may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..policy.policy import Policy, policies_from_config
from ..secrets import SecretRing, client_secret_ring, secret_ring
from . import checks
from .checks import setting
from .clients import MtlsClient, mtls_clients
from .issuers import ASYMMETRIC, IssuerConfig, issuers


@dataclass(frozen=True)
class InputSettings:
    """What a body may be."""

    max_body_bytes: int = setting(
        4_194_304,
        checks.integer(0),
        """The largest request body in bytes, also for chunked bodies, and again when its content encoding is undone.
        A policy's ``max_bytes`` comes before it.""",
    )
    max_json_depth: int = setting(
        32, checks.integer(1, 1_000), "How deep the arrays and objects of JSON and MessagePack may nest."
    )
    max_json_members: int = setting(
        1_000, checks.integer(1), "How many members one object of JSON or MessagePack may have; more are a 413."
    )
    max_string_length: int = setting(
        1_048_576,
        checks.integer(1),
        """How many bytes one text or name in a body may have, escapes as they are written; more are a 413. Images and
        tensors in base64 are texts too.""",
    )
    max_elements: int = setting(
        1_000_000,
        checks.integer(1),
        """How many values a body of JSON, MessagePack or CSV may have in all (numbers, texts, literals, empty arrays
        and objects), and how many arrays and objects; more are a 413, which is found by counting, before parsing.""",
    )
    max_decoded_bytes: int = setting(
        67_108_864,
        checks.integer(1),
        """How many bytes an array may have that a body of npy, CSV or the Open Inference Protocol claims, found by
        arithmetic before anything is allocated; more are a 413.""",
    )
    wire_formats: tuple[str, ...] = setting(
        ["json"],
        checks.some_of("json", "oip", "npy", "msgpack", "csv"),
        """The formats that routes with a schema take: ``json``, ``oip`` (Open Inference Protocol v2 with its binary
        extension), ``npy`` (``application/x-npy``), ``msgpack`` (extra ``[msgpack]``) and ``csv``.""",
    )
    content_encodings: tuple[str, ...] = setting(
        ["identity"],
        checks.some_of("identity", "gzip", "zstd"),
        """What a body may be compressed with, beside not at all: ``gzip``, ``zstd`` (extra ``[zstd]`` before
        Python 3.14).""",
    )


@dataclass(frozen=True)
class SharedSettings:
    """What all routes share: the store of the workers, plans, and policies by configuration."""

    store_uri: str = setting(
        "memory:",
        checks.store_uri,
        """Where state lives that workers share: revocations, DPoP proofs that were seen, and API keys if they are to.
        ``sqlite:/path`` serves all workers of one machine, ``redis://`` or ``valkey://`` many machines; ``memory:``
        is for one process only. A password may stand in it, or better in ``SECURE_ML_STORE_PASSWORD``.""",
        secret=True,
    )
    store_password: SecretRing | None = setting(
        None,
        client_secret_ring,
        "A reference to the password of the store, instead of one in its address; in a list, the newest first.",
    )
    plans: checks.Plans = setting(
        {"default": {"requests": ["600/minute"], "quotas": []}},
        checks.plans,
        """What callers may use, by plan: ``requests`` are rate limits over all routes, ``quotas`` are quotas in
        rows of input for routes with ``cost=``, ``scores`` is what answers say of scores, such as
        ``{"round": 2, "top_k": 3}``. API keys name their plan; everyone else has ``default``.""",
    )
    limit_outage: str = setting(
        "memory",
        checks.one_of("memory", "closed"),
        """What happens while the limit storage (``RATELIMIT_STORAGE_URI``) is down: ``memory`` counts in each
        worker, ``closed`` answers 503.""",
    )
    policies: Mapping[str, Policy] = setting(
        {},
        policies_from_config,
        """Policies for routes whose code cannot be edited, by endpoint or URL rule:
        ``{"/invocations": {"scopes": ["predict"]}}``. Terms: ``public``, ``scopes``, ``any_scopes``, ``roles``,
        ``claims``, ``principals``, ``owner`` (true, or the import name of a function), ``acr_values``,
        ``max_auth_age``, ``limits``, ``max_bytes``, ``caps``, ``cost``, ``scores``, and ``body`` and ``response`` (the
        import names of schemas). An unknown name is a start-up error.""",
    )


@dataclass(frozen=True)
class ShownSettings:
    """What is told of requests and routes."""

    request_log: str = setting(
        "stderr",
        checks.text,
        """Where the request log goes, one JSON line a request: ``stderr``, ``stdout``, ``off`` or the path of a
        file, which is reopened when it is rotated.""",
    )
    openapi: str = setting(
        "off",
        checks.one_of("off", "public", "protected"),
        """Serve the OpenAPI description of the app as ``/openapi.json`` and a page to read and try it as ``/docs``
        (extra ``[openapi]``): ``public`` to everyone, ``protected`` to every caller with a valid credential.""",
    )


@dataclass(frozen=True)
class TokenSettings:
    """Access tokens: whose, how they are verified, and what binds them to a key."""

    token_issuers: tuple[IssuerConfig, ...] = setting(
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
    token_leeway: int = setting(
        30, checks.integer(0, 300), "Seconds by which the clocks of issuer and server may differ (at most 300)."
    )
    jwks_cache_seconds: int = setting(
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
    introspection_cache_seconds: int = setting(
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
        proof. Needs ``SECURE_ML_RESOURCE_URI``.""",
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


@dataclass(frozen=True)
class TransportSettings:
    """How a request reaches the app."""

    require_tls: bool = setting(
        True,
        checks.boolean,
        """Refuse clear text with 403 ``tls_required``. Turn it off only where no other machine can reach the
        port, such as a local development server; ``flask secure-ml check`` names it.""",
    )
    trusted_proxies: checks.Networks = setting(
        [],
        checks.networks,
        """Networks whose ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``X-Request-ID`` are believed, such as
        ``["10.0.3.0/24"]``; ``unix`` means a Unix socket. From anyone else these headers are removed.""",
    )
    hsts_max_age: int = setting(
        31_536_000,
        checks.integer(0),
        """Seconds for which browsers shall use HTTPS only (``Strict-Transport-Security``), sent on TLS
        connections only; 0 tells browsers to forget it.""",
    )
    mounts: tuple[str, ...] = setting(
        [],
        checks.mount_paths,
        """Paths at which WSGI middleware beneath the guards responds itself, such as ``["/metrics"]``. They take no
        policy from a route: theirs is in ``SECURE_ML_POLICIES`` by path, or the default one. The mounts of Werkzeug's
        ``DispatcherMiddleware`` and ``SharedDataMiddleware`` and the path of Socket.IO are known without this.""",
    )
    outer_middleware: tuple[str, ...] = setting(
        [],
        checks.middleware_names,
        """WSGI middleware that may stand around the app, by the import name of its class or function, such as
        ``["whitenoise.base.WhiteNoise"]``. Requests that it responds to itself are not guarded, so put it there before
        ``init_app`` instead where you can. ``ProxyFix`` is never accepted.""",
    )


@dataclass(frozen=True)
class WayInSettings:
    """Who may come in: the realm, API keys, client certificates, and the throttles of those who guess."""

    realm: str = setting(
        "model",
        checks.token_text,
        "The realm that ``WWW-Authenticate`` names: letters, digits, spaces and ``-._``.",
    )
    resource_uri: str | None = setting(
        None,
        checks.https_uri,
        """The address of this API as clients know it, such as ``https://models.example.com``. With it, the metadata of
        RFC 9728 are served under ``/.well-known/oauth-protected-resource``, and challenges point there.""",
    )
    api_keys_file: str | None = setting(
        None,
        checks.text,
        """The file that holds the hashed API keys, written by ``flask secure-ml keys``. Running workers see a
        change at their next request. Without it, API keys are not accepted.""",
    )
    api_keys_in_store: bool = setting(
        False,
        checks.boolean,
        """Keep the hashed API keys in ``SECURE_ML_STORE_URI`` instead of a file, for several machines.""",
    )
    api_key_pepper: SecretRing | None = setting(
        None,
        secret_ring,
        """A reference to the secret that keys the hash of API keys, at least 32 bytes: ``env:NAME``, ``file:/path``
        or ``vault:mount/path#field``. To rotate it, a list of references, newest first: new keys are hashed with the
        first, and a key of an older one is hashed anew when it is next used. Needed for API keys.""",
    )
    client_certificate_header: str | None = setting(
        None,
        checks.one_of("Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert"),
        """The header in which a trusted proxy passes the client's certificate on: ``Client-Cert`` (RFC 9440),
        ``X-SSL-Client-Cert`` (the escaped PEM of nginx) or ``X-Forwarded-Client-Cert`` (Envoy). Believed from
        ``SECURE_ML_TRUSTED_PROXIES`` only. gunicorn's own TLS needs no header.""",
    )
    mtls_clients: tuple[MtlsClient, ...] = setting(
        [],
        mtls_clients,
        """Clients that prove themselves with a certificate (RFC 8705 section 2): a list of objects with ``client``,
        ``scopes``, ``plan``, and one of ``subject_dn`` (RFC 4514), ``san_dns``, ``san_uri``, ``san_ip``,
        ``san_email`` or ``sha256`` (the fingerprint of one certificate, in hexadecimal).""",
    )
    mtls_ca_file: str | None = setting(
        None,
        checks.text,
        """The certificate authorities, in PEM, that the certificates of ``SECURE_ML_MTLS_CLIENTS`` must lead to; needed
        for clients that are not named by fingerprint. It is read again when it changes.""",
    )
    failed_auth_limits: checks.Limits = setting(
        ["30/minute"],
        checks.limits,
        """How many invalid credentials one address may present before it gets 429. An empty list turns
        the throttle off.""",
    )
    failed_key_limits: checks.Limits = setting(
        ["100/hour"],
        checks.limits,
        """How many wrong secrets one API key may be presented with, from all addresses together, before wrong ones get
        429. The right secret always passes, so nobody can lock the owner out.""",
    )
