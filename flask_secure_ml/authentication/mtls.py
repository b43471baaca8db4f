"""Clients that authenticate with a certificate (RFC 8705 section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError
from flask import Request

from ..config.clients import Identity, MtlsClient, ascii_lower
from ..errors import ConfigError, DependencyUnavailable, NotAuthenticated, SecureMLError, UnusableCredential
from ..exchange import Exchange
from ..principal import Clock, Principal
from ..refresh import Outage, WatchedFile, process_lock

MAX_CACHED = 1_000
"""The maximum number of verified certificates that are cached; the oldest is evicted first."""


@dataclass(frozen=True, slots=True)
class VerifiedCertificate:
    """A verified certificate, and the facts on which its verification depended.

    :param begins: the start of its validity, in seconds since the epoch.
    :param ends: the end of the validity of the whole chain, in seconds since the epoch.
    :param authorities: the authorities that it was verified with; None if the client is configured by fingerprint.
    """

    principal: Principal
    begins: float
    ends: float
    authorities: Authorities | None


class MtlsAuthenticator:
    """Identifies a client by its certificate.

    A certificate belongs to a client if it has the one property that the client is configured with. A certificate that
    is configured by fingerprint (RFC 8705 section 2.2) may be self-signed; any other must chain to a configured
    authority (section 2.1). The TLS handshake, here or at the trusted proxy, proves that the client has the private
    key.

    :param clients: the clients; their names and properties must be unique.
    :param ca_file: the authorities in PEM, read again when the file changes; None if all clients have fingerprints.
    :param clock: decides whether a certificate is valid now.
    """

    name = "mtls"
    challenge = ""

    def __init__(self, clients: Sequence[MtlsClient], ca_file: str | None, clock: Clock) -> None:
        self._clients = {each.identity: each for each in clients}
        self._authorities = None if ca_file is None else AuthorityFile(ca_file)
        self._clock = clock
        self._cache: dict[bytes, VerifiedCertificate] = {}
        self._lock = process_lock()

    def check(self) -> None:
        """Read the file of the authorities at start-up.

        :raises ConfigError: it is missing or damaged.
        """
        if self._authorities is not None:
            self._authorities.check()

    def find(self, request: Request, exchange: Exchange) -> bytes | None:
        """Return the certificate of the connection in DER."""
        return exchange.certificate

    def verify(self, credential: bytes, exchange: Exchange) -> Principal:
        """Return the principal of the client to which a certificate belongs.

        :raises NotAuthenticated: it belongs to no client or to several, is not valid now, or chains to no authority.
        :raises DependencyUnavailable: the file of the authorities is missing or damaged.
        """
        digest = sha256(credential).digest()
        verified = self._cache.get(digest)
        if verified is None or not self._is_valid(verified):
            verified = self._verify(credential, digest.hex())
            self._put(digest, verified)
        return verified.principal

    def _is_valid(self, verified: VerifiedCertificate) -> bool:
        if not verified.begins <= self._clock.now() <= verified.ends:
            return False
        return verified.authorities is None or verified.authorities is self._trusted()

    def _verify(self, der: bytes, fingerprint: str) -> VerifiedCertificate:
        certificate = read_certificate(der)
        now = self._clock.now()
        # Before the client is looked up, so that the timing does not reveal which names belong to clients.
        chain = None if ("sha256", fingerprint) in self._clients else self._chain(certificate, now)
        client = self._named(certificate, fingerprint)
        if not certificate.begins <= now <= certificate.ends:
            # Anyone can create a certificate with a client's name, but not one with a client's fingerprint.
            unproven = UnusableCredential if client.sha256 else NotAuthenticated
            raise unproven(f"the certificate of {client.client} is not valid now")
        principal = _principal(client, certificate)
        if chain is None:
            return VerifiedCertificate(principal, certificate.begins, certificate.ends, None)
        if isinstance(chain, SecureMLError):
            raise chain
        trusted, ends = chain
        return VerifiedCertificate(principal, certificate.begins, ends, trusted)

    def _chain(self, certificate: ClientCertificate, now: float) -> tuple[Authorities, float] | SecureMLError:
        """Return the authorities and the expiry of the chain to them, or the error if there is no such chain."""
        try:
            trusted = self._trusted()
            return trusted, trusted.valid_until(certificate, now)
        except (NotAuthenticated, DependencyUnavailable) as error:
            return error

    def _named(self, certificate: ClientCertificate, fingerprint: str) -> MtlsClient:
        identities = {*certificate.identities, ("sha256", fingerprint)}
        found = [self._clients[each] for each in identities & self._clients.keys()]
        if not found:
            raise NotAuthenticated(f"no client matches the certificate with the SHA-256 fingerprint {fingerprint}")
        if len(found) > 1:
            names = ", ".join(sorted(each.client for each in found))
            raise NotAuthenticated(f"the certificate matches several clients: {names}")
        return found[0]

    def _trusted(self) -> Authorities:
        if self._authorities is None:
            raise NotAuthenticated("the certificate cannot be verified without SECURE_ML_MTLS_CA_FILE")
        return self._authorities.read()

    def _put(self, digest: bytes, verified: VerifiedCertificate) -> None:
        with self._lock.get():
            self._cache.pop(digest, None)
            if len(self._cache) >= MAX_CACHED:
                del self._cache[next(iter(self._cache))]
            self._cache[digest] = verified


def _principal(client: MtlsClient, certificate: ClientCertificate) -> Principal:
    return Principal(
        "mtls",
        client.client,
        scopes=client.scopes,
        plan=client.plan,
        client_id=client.client,
        issued=certificate.begins,
    )


MAX_CERTIFICATE = 16_384
"""The largest certificate that is parsed, in bytes of DER."""

MINIMUM_RSA = 2048
MINIMUM_CURVE = 256
_RETRY_AFTER = (("Retry-After", "60"),)
_ALTERNATIVE_NAMES: Mapping[type[Any], str] = {
    x509.DNSName: "san_dns",
    x509.UniformResourceIdentifier: "san_uri",
    x509.IPAddress: "san_ip",
    x509.RFC822Name: "san_email",
}


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A parsed certificate, not verified.

    :param parsed: the certificate itself.
    :param identities: its subject and its alternative names, in the form of ``MtlsClient.identity``.
    :param begins: the start of its validity, in seconds since the epoch.
    :param ends: the end of its validity, in seconds since the epoch.
    """

    parsed: x509.Certificate
    identities: frozenset[Identity]
    begins: float
    ends: float


def read_certificate(der: bytes) -> ClientCertificate:
    """Parse a certificate.

    :raises NotAuthenticated: it cannot be parsed, is larger than 16 KiB, or its key is weak.
    """
    if len(der) > MAX_CERTIFICATE:
        raise NotAuthenticated(f"the client certificate has more than {MAX_CERTIFICATE} bytes")
    try:
        certificate = _read(der)
        strong = _is_strong(certificate.parsed.public_key())
    except Exception as error:  # noqa: BLE001  the parser raises many types, not only ValueError
        raise NotAuthenticated(f"the client certificate cannot be parsed: {type(error).__name__}") from None
    if not strong:
        raise NotAuthenticated("the key of the client certificate is too weak")
    return certificate


def _is_strong(key: object) -> bool:
    if isinstance(key, RSAPublicKey):
        return key.key_size >= MINIMUM_RSA
    if isinstance(key, EllipticCurvePublicKey):
        return key.curve.key_size >= MINIMUM_CURVE
    return isinstance(key, (Ed25519PublicKey, Ed448PublicKey))


def _read(der: bytes) -> ClientCertificate:
    parsed = x509.load_der_x509_certificate(der)
    names = frozenset({("subject_dn", parsed.subject), *_alternative_names(parsed.extensions)})
    return ClientCertificate(
        parsed, names, parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()
    )


def _alternative_names(extensions: x509.Extensions) -> list[Identity]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found = [(_ALTERNATIVE_NAMES.get(type(each)), each.value) for each in names]
    return [(kind, ascii_lower(value) if kind == "san_dns" else value) for kind, value in found if kind is not None]


class Authorities:
    """The certificate authorities that client certificates must chain to.

    Each of them is a trust anchor, even if it is an intermediate authority.

    :param pem: one or more certificates.
    :raises ValueError: there is none, or one of them is not an authority.
    """

    def __init__(self, pem: bytes) -> None:
        certificates = x509.load_pem_x509_certificates(pem)
        for each in certificates:
            _check_authority(each)
        self._store = Store(certificates)

    def valid_until(self, certificate: ClientCertificate, now: float) -> float:
        """Return when the chain of a certificate expires, in seconds since the epoch.

        The chain is validated by RFC 5280 in the profile of the Web PKI, with two exceptions for private authorities: a
        client certificate needs no alternative name, and an authority's certificate needs no key usage. Extended key
        usages, if there are any, must include ``clientAuth``.

        :raises NotAuthenticated: there is no valid chain to an authority.
        """
        builder = PolicyBuilder().store(self._store).time(datetime.fromtimestamp(now, UTC))
        verifier = builder.extension_policies(ca_policy=_authority(), ee_policy=_client()).build_client_verifier()
        try:
            chain = verifier.verify(certificate.parsed, []).chain
        except VerificationError:
            raise NotAuthenticated(
                "the client certificate has no valid chain to an authority, or is not for client authentication"
            ) from None
        return min(each.not_valid_after_utc.timestamp() for each in chain)


class AuthorityFile:
    """The file of the authorities, which is read again when it changes.

    :param path: the file, in PEM.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = WatchedFile(path, Authorities)
        self._outage = Outage(f"the CA file {path} cannot be used", f"the CA file {path} can be used again")

    def read(self) -> Authorities:
        """Return the authorities, as the same object while the file is unchanged.

        :raises DependencyUnavailable: the file is missing or damaged.
        """
        try:
            authorities = self._parse()
        except ValueError as error:
            self._outage.failed(str(error))
            raise DependencyUnavailable(str(error), headers=_RETRY_AFTER) from None
        self._outage.ended()
        return authorities

    def check(self) -> None:
        """Read the file at start-up.

        :raises ConfigError: it is missing or damaged.
        """
        try:
            self._parse()
        except ValueError as error:
            raise ConfigError([str(error)]) from None

    def _parse(self) -> Authorities:
        try:
            return self._file.read()
        except OSError as error:
            raise ValueError(f"SECURE_ML_MTLS_CA_FILE cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"SECURE_ML_MTLS_CA_FILE is damaged: {error}") from None


def _check_authority(certificate: x509.Certificate) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise ValueError("it contains a certificate without basic constraints, which is not a CA certificate") from None
    if not constraints.ca:
        # As a trust anchor, a client certificate would verify itself.
        raise ValueError("it contains a certificate that is not a CA certificate")
    if not isinstance(certificate.public_key(), (RSAPublicKey, EllipticCurvePublicKey)):
        raise ValueError("it contains a CA certificate whose key is neither RSA nor on a NIST curve")


def _authority() -> ExtensionPolicy:
    return ExtensionPolicy.webpki_defaults_ca().may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)


def _client() -> ExtensionPolicy:
    return ExtensionPolicy.webpki_defaults_ee().may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def _signs_certificates(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    """Check a key usage, if there is one, against RFC 5280 section 6.1.4 (n)."""
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("the key usage of a CA certificate lacks keyCertSign")
