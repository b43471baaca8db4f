"""The settings: one record for each key, with its default, its check and its help.

Every key is ``SECURE_ML_`` and the upper-case name of the field. The reference page in the documentation is
generated from these records, so a fact about a setting stands only here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, cast

from . import checks
from .contradictions import contradictions, literal_secrets, shared_secrets
from .errors import ConfigError
from .issuers import ASYMMETRIC, IssuerConfig, issuers
from .mtls_clients import MtlsClient, mtls_clients
from .policy import Policy, policies_from_config
from .secrets import SecretRing, client_secret_ring, secret_ring

PREFIX = "SECURE_ML_"


def _setting(default: Any, check: Callable[[Any], Any], help_text: str, *, secret: bool = False) -> Any:
    metadata = {"check": check, "help": " ".join(help_text.split())}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: check(default), metadata=metadata | {"shown": default})
    return field(default=default, repr=not secret, metadata=metadata | {"shown": default})


@dataclass(frozen=True)
class Settings:
    """The checked settings of one app. Read once by ``init_app``; later changes have no effect."""

    require_tls: bool = _setting(
        True,
        checks.boolean,
        """Refuse clear text with 403 ``tls_required``. Turn it off only where no other machine can reach the
        port, such as a local development server; ``flask secure-ml check`` names it.""",
    )
    trusted_proxies: checks.Networks = _setting(
        [],
        checks.networks,
        """Networks whose ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``X-Request-ID`` are believed, such as
        ``["10.0.3.0/24"]``; ``unix`` means a Unix socket. From anyone else these headers are removed.""",
    )
    hsts_max_age: int = _setting(
        31_536_000,
        checks.integer(0),
        """Seconds for which browsers shall use HTTPS only (``Strict-Transport-Security``), sent on TLS
        connections only; 0 tells browsers to forget it.""",
    )
    realm: str = _setting(
        "model",
        checks.token_text,
        "The realm that ``WWW-Authenticate`` names: letters, digits, spaces and ``-._``.",
    )
    api_keys_file: str | None = _setting(
        None,
        checks.text,
        """The file that holds the hashed API keys, written by ``flask secure-ml keys``. Running workers see a
        change at their next request. Without it, API keys are not accepted.""",
    )
    api_keys_in_store: bool = _setting(
        False,
        checks.boolean,
        """Keep the hashed API keys in ``SECURE_ML_STORE_URI`` instead of a file, for several machines.""",
    )
    api_key_pepper: SecretRing | None = _setting(
        None,
        secret_ring,
        """A reference to the secret that keys the hash of API keys, at least 32 bytes: ``env:NAME``, ``file:/path``
        or ``vault:mount/path#field``. To rotate it, a list of references, newest first: new keys are hashed with the
        first, and a key of an older one is hashed anew when it is next used. Needed for API keys.""",
    )
    jwt_issuers: tuple[IssuerConfig, ...] = _setting(
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
    jwt_leeway: int = _setting(
        30, checks.integer(0, 300), "Seconds by which the clocks of issuer and server may differ (at most 300)."
    )
    jwks_max_age: int = _setting(
        300, checks.integer(1, 86_400), "Seconds for which a fetched key set is used before it is fetched again."
    )
    jwks_cooldown: int = _setting(
        60,
        checks.integer(1, 3_600),
        "Seconds between two fetches of a key set that an unknown ``kid`` or a failure can cause.",
    )
    token_cache_size: int = _setting(
        10_000,
        checks.integer(0, 1_000_000),
        """How many verified access tokens each worker remembers, so that a known one costs microseconds. Expiry, the
        issuer's keys and revocations are looked at again every time. 0 turns the cache off.""",
    )
    introspection_max_age: int = _setting(
        60,
        checks.integer(0, 3_600),
        """Seconds for which the answer of an introspection endpoint is used again, never beyond the token's ``exp``;
        0 asks for every request.""",
    )
    dpop: str = _setting(
        "off",
        checks.one_of("off", "accept", "require"),
        """DPoP (RFC 9449): ``accept`` takes tokens bound to a key with their proof, beside plain bearer tokens;
        ``require`` takes no token without a proof. Whatever is set here, a bound token is never taken without its
        proof. Needs ``SECURE_ML_RESOURCE``.""",
    )
    dpop_algorithms: tuple[str, ...] = _setting(
        ["ES256", "ES384", "PS256", "RS256", "Ed25519", "EdDSA"],
        checks.some_of(*sorted(ASYMMETRIC)),
        "What DPoP proofs may be signed with.",
    )
    dpop_max_age: int = _setting(
        60, checks.integer(5, 600), "Seconds for which a DPoP proof is good; each is taken once."
    )
    dpop_nonce_secret: SecretRing | None = _setting(
        None,
        secret_ring,
        """A reference to a secret; with it, DPoP proofs need a nonce of this server that is at most ten minutes old.
        All workers and machines need the same secret.""",
    )
    client_certificate_header: str | None = _setting(
        None,
        checks.one_of("Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert"),
        """The header in which a trusted proxy passes the client's certificate on: ``Client-Cert`` (RFC 9440),
        ``X-SSL-Client-Cert`` (the escaped PEM of nginx) or ``X-Forwarded-Client-Cert`` (Envoy). Believed from
        ``SECURE_ML_TRUSTED_PROXIES`` only. gunicorn's own TLS needs no header.""",
    )
    mtls_clients: tuple[MtlsClient, ...] = _setting(
        [],
        mtls_clients,
        """Clients that prove themselves with a certificate (RFC 8705 section 2): a list of objects with ``client``,
        ``scopes``, ``plan``, and one of ``subject_dn`` (RFC 4514), ``san_dns``, ``san_uri``, ``san_ip``,
        ``san_email`` or ``sha256`` (the fingerprint of one certificate, in hexadecimal).""",
    )
    mtls_ca_file: str | None = _setting(
        None,
        checks.text,
        """The certificate authorities, in PEM, that the certificates of ``SECURE_ML_MTLS_CLIENTS`` must lead to; needed
        for clients that are not named by fingerprint. It is read again when it changes.""",
    )
    resource: str | None = _setting(
        None,
        checks.https_uri,
        """The address of this API as clients know it, such as ``https://models.example.com``. With it, the metadata of
        RFC 9728 are served under ``/.well-known/oauth-protected-resource``, and challenges point there.""",
    )
    store_uri: str = _setting(
        "memory:",
        checks.store_uri,
        """Where state lives that workers share: revocations, DPoP proofs that were seen, and API keys if they are to.
        ``sqlite:/path`` serves all workers of one machine, ``redis://`` or ``valkey://`` many machines; ``memory:``
        is for one process only. A password may stand in it, or better in ``SECURE_ML_STORE_PASSWORD``.""",
        secret=True,
    )
    store_password: SecretRing | None = _setting(
        None,
        client_secret_ring,
        "A reference to the password of the store, instead of one in its address; in a list, the newest first.",
    )
    failed_auth_limit: checks.Limits = _setting(
        ["30/minute"],
        checks.limits,
        """How many invalid credentials one address may present before it gets 429. An empty list turns
        the throttle off.""",
    )
    failed_key_limit: checks.Limits = _setting(
        ["100/hour"],
        checks.limits,
        """How many wrong secrets one API key may be presented with, from all addresses together, before wrong ones get
        429. The right secret always passes, so nobody can lock the owner out.""",
    )
    plans: checks.Plans = _setting(
        {"default": {"requests": ["600/minute"], "cost": []}},
        checks.plans,
        """What callers may use, by plan: ``requests`` are rate limits over all routes, ``cost`` are quotas in
        rows of input for routes with ``cost=``. API keys name their plan; everyone else has ``default``.""",
    )
    limit_outage: str = _setting(
        "memory",
        checks.one_of("memory", "closed"),
        """What happens while the limit storage (``RATELIMIT_STORAGE_URI``) is down: ``memory`` counts in each
        worker, ``closed`` answers 503.""",
    )
    policies: Mapping[str, Policy] = _setting(
        {},
        policies_from_config,
        """Policies for routes whose code cannot be edited, by endpoint or URL rule:
        ``{"/invocations": {"scopes": ["predict"]}}``. Terms: ``public``, ``scopes``, ``any_scopes``, ``roles``,
        ``claims``, ``principals``, ``owner`` (true, or the import name of a function), ``acr_values``,
        ``max_auth_age``, ``limits``, ``max_bytes``, ``cost`` and ``body`` (the import name of a schema). An unknown
        name is a start-up error.""",
    )
    max_body_bytes: int = _setting(
        4_194_304, checks.integer(0), "The largest request body in bytes, also for chunked bodies."
    )
    max_json_depth: int = _setting(32, checks.integer(1, 1_000), "How deep the arrays and objects of JSON may nest.")
    request_log: str = _setting(
        "stderr",
        checks.text,
        """Where the request log goes, one JSON line a request: ``stderr``, ``stdout``, ``off`` or the path of a
        file, which is reopened when it is rotated.""",
    )

    @classmethod
    def load(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check every ``SECURE_ML_*`` key.

        :raises ConfigError: one sentence for each unknown key, wrong value and contradiction.
        """
        given = {key: value for key, value in config.items() if key.startswith(PREFIX)}
        problems = list(_unknown(given))
        values: dict[str, Any] = {}
        for record in settings_fields():
            if (name := key_of(record)) in given:
                _read(record, given[name], values, problems)
        settings = cls(**values)
        # What was given and is wrong is told once, not a second time as if it were missing.
        wrong = {problem.split(" ", 1)[0] for problem in problems}
        problems += [each for each in contradictions(settings) if each.split(" ", 1)[0] not in wrong]
        problems += shared_secrets(settings)
        if not (config.get("DEBUG") or config.get("TESTING")):
            problems += literal_secrets(settings)
        if problems:
            raise ConfigError(problems)
        return settings


def settings_fields() -> tuple[Field[Any], ...]:
    """Return the record of every setting, in the order of the reference page."""
    return fields(cast("Any", Settings))


def key_of(record: Field[Any]) -> str:
    """Return the configuration key of a setting."""
    return PREFIX + record.name.upper()


def _unknown(given: Mapping[str, Any]) -> Iterator[str]:
    known = {key_of(record) for record in settings_fields()}
    for key in sorted(given.keys() - known):
        guess = checks.closest(key, known)
        yield f"{key} is not a setting" + (f"; did you mean {guess}?" if guess else "")


def _read(record: Field[Any], value: Any, values: dict[str, Any], problems: list[str]) -> None:
    try:
        values[record.name] = record.metadata["check"](value)
    except (TypeError, ValueError) as error:
        problems.append(f"{key_of(record)} {error}")
