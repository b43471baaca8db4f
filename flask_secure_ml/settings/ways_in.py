"""Who may come in: the realm, API keys, client certificates, and the throttles of those who guess."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..mtls_clients import MtlsClient, mtls_clients
from ..secrets import SecretRing, secret_ring
from .record import setting


@dataclass(frozen=True)
class WayInSettings:
    """Who may come in: the realm, API keys, client certificates, and the throttles of those who guess."""

    realm: str = setting(
        "model",
        checks.token_text,
        "The realm that ``WWW-Authenticate`` names: letters, digits, spaces and ``-._``.",
    )
    resource: str | None = setting(
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
    failed_auth_limit: checks.Limits = setting(
        ["30/minute"],
        checks.limits,
        """How many invalid credentials one address may present before it gets 429. An empty list turns
        the throttle off.""",
    )
    failed_key_limit: checks.Limits = setting(
        ["100/hour"],
        checks.limits,
        """How many wrong secrets one API key may be presented with, from all addresses together, before wrong ones get
        429. The right secret always passes, so nobody can lock the owner out.""",
    )
