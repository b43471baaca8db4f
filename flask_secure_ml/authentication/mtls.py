"""Clients that prove themselves with a certificate (RFC 8705 section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, VerificationError
from flask import Request

from ..config.clients import Identity, MtlsClient, ascii_lower
from ..errors import ConfigError, DependencyUnavailable, NotAuthenticated
from ..exchange import Exchange
from ..principal import Clock, Principal
from ..refresh import WatchedFile

MAX_KNOWN = 1_000
"""How many verified certificates are remembered; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class KnownCertificate:
    """A certificate that was verified, and what that stood on.

    :param begins: its first second, since the epoch.
    :param ends: the last second of the whole chain, since the epoch.
    :param authorities: those that vouched for it; None when it is named by its fingerprint.
    """

    principal: Principal
    begins: float
    ends: float
    authorities: Authorities | None


class MtlsAuthenticator:
    """Takes the client's certificate as its identity.

    A certificate is a client's when it has the one property that names the client. One that is named by fingerprint
    (RFC 8705 section 2.2) may be self-signed; every other must lead to an authority of ours (section 2.1). That the
    client holds the key was proven in the TLS handshake, here or at the trusted proxy.

    :param clients: who is known; each client and each property once.
    :param ca_file: the authorities in PEM, read again when the file changes; None if all are named by fingerprint.
    :param clock: tells whether a certificate is valid now.
    """

    name = "mtls"
    challenge = ""

    def __init__(self, clients: Sequence[MtlsClient], ca_file: str | None, clock: Clock) -> None:
        self._clients = {each.identity: each for each in clients}
        self._authorities = None if ca_file is None else AuthorityFile(ca_file)
        self._clock = clock
        self._known: dict[bytes, KnownCertificate] = {}
        self._lock = Lock()

    def check(self) -> None:
        """Read the authorities at start-up.

        :raises ConfigError: their file is missing or damaged.
        """
        if self._authorities is not None:
            self._authorities.check()

    def find(self, request: Request, exchange: Exchange) -> bytes | None:
        """Return the certificate, in DER, that the transport found."""
        return exchange.certificate

    def verify(self, credential: bytes, exchange: Exchange) -> Principal:
        """Return the client that a certificate names.

        :raises NotAuthenticated: it names no client or several, is not valid now, or no authority vouches for it.
        :raises DependencyUnavailable: the file of the authorities is missing or damaged.
        """
        digest = sha256(credential).digest()
        known = self._known.get(digest)
        if known is None or not self._still_holds(known):
            known = self._examine(credential, digest.hex())
            self._remember(digest, known)
        return known.principal

    def _still_holds(self, known: KnownCertificate) -> bool:
        if not known.begins <= self._clock.now() <= known.ends:
            return False
        return known.authorities is None or known.authorities is self._trusted()

    def _examine(self, der: bytes, fingerprint: str) -> KnownCertificate:
        certificate = read_certificate(der)
        client = self._named(certificate, fingerprint)
        now = self._clock.now()
        if not certificate.begins <= now <= certificate.ends:
            raise NotAuthenticated(f"the certificate of {client.client} is not valid now")
        principal = _principal(client, certificate)
        if client.sha256:
            return KnownCertificate(principal, certificate.begins, certificate.ends, None)
        trusted = self._trusted()
        return KnownCertificate(principal, certificate.begins, trusted.vouched_until(certificate, now), trusted)

    def _named(self, certificate: ClientCertificate, fingerprint: str) -> MtlsClient:
        identities = {*certificate.identities, ("sha256", fingerprint)}
        found = [self._clients[each] for each in identities & self._clients.keys()]
        if not found:
            raise NotAuthenticated(f"no client has the certificate with the SHA-256 fingerprint {fingerprint}")
        if len(found) > 1:
            names = ", ".join(sorted(each.client for each in found))
            raise NotAuthenticated(f"one certificate names several clients: {names}")
        return found[0]

    def _trusted(self) -> Authorities:
        if self._authorities is None:
            raise NotAuthenticated("there is no SECURE_ML_MTLS_CA_FILE that the certificate could lead to")
        return self._authorities.read()

    def _remember(self, digest: bytes, known: KnownCertificate) -> None:
        with self._lock:
            self._known.pop(digest, None)
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[digest] = known


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
"""The largest certificate that is looked at, in bytes of DER."""

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
    """A certificate that was read; that says nothing of who signed it.

    :param parsed: the certificate itself.
    :param identities: its subject and its alternative names, in the form of ``MtlsClient.identity``.
    :param begins: the first second of its validity, since the epoch.
    :param ends: the last second of its validity, since the epoch.
    """

    parsed: x509.Certificate
    identities: frozenset[Identity]
    begins: float
    ends: float


def read_certificate(der: bytes) -> ClientCertificate:
    """Return what a certificate says.

    :raises NotAuthenticated: it cannot be read, is larger than 16 KiB, or its key is weak.
    """
    if len(der) > MAX_CERTIFICATE:
        raise NotAuthenticated(f"the client certificate has more than {MAX_CERTIFICATE} bytes")
    try:
        certificate = _read(der)
        strong = _is_strong(certificate.parsed.public_key())
    except Exception as error:  # noqa: BLE001  the parser raises many types, some of them no ValueError
        raise NotAuthenticated(f"the client certificate cannot be read: {type(error).__name__}") from None
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
    """The certificate authorities that client certificates must lead to.

    Each of them is a trust anchor, an intermediate one too.

    :param pem: one or more certificates.
    :raises ValueError: there is none, or one that cannot sign for others.
    """

    def __init__(self, pem: bytes) -> None:
        certificates = x509.load_pem_x509_certificates(pem)
        for each in certificates:
            _check_authority(each)
        self._store = Store(certificates)

    def vouched_until(self, certificate: ClientCertificate, now: float) -> float:
        """Return until when the whole chain of a certificate is valid, in seconds since the epoch.

        The chain follows RFC 5280 in the profile of the Web PKI, with two allowances for private authorities: a
        client certificate needs no alternative name, and an authority's certificate needs no key usage. Extended key
        usages, where there are any, must include ``clientAuth``.

        :raises NotAuthenticated: no valid chain leads to an authority.
        """
        builder = PolicyBuilder().store(self._store).time(datetime.fromtimestamp(now, UTC))
        verifier = builder.extension_policies(ca_policy=_authority(), ee_policy=_client()).build_client_verifier()
        try:
            chain = verifier.verify(certificate.parsed, []).chain
        except VerificationError:
            raise NotAuthenticated(
                "no valid chain leads from the client certificate to an authority, or it is not for clients"
            ) from None
        return min(each.not_valid_after_utc.timestamp() for each in chain)


class AuthorityFile:
    """A file of authorities that is read again when it changes.

    :param path: the file, in PEM.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = WatchedFile(path, Authorities)

    def read(self) -> Authorities:
        """Return the authorities: the same object for as long as the file stays the same.

        :raises DependencyUnavailable: the file is missing or damaged.
        """
        try:
            return self._file.read()
        except OSError as error:
            reason = f"SECURE_ML_MTLS_CA_FILE cannot be read: {error.strerror}"
        except ValueError as error:
            reason = f"SECURE_ML_MTLS_CA_FILE is damaged: {error}"
        raise DependencyUnavailable(reason, headers=_RETRY_AFTER)

    def check(self) -> None:
        """Read the file at start-up.

        :raises ConfigError: it is missing or damaged.
        """
        try:
            self.read()
        except DependencyUnavailable as error:
            raise ConfigError([error.reason]) from None


def _check_authority(certificate: x509.Certificate) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise ValueError("a certificate in it has no basic constraints, so it is no authority") from None
    if not constraints.ca:
        # As a trust anchor a client certificate would vouch for itself.
        raise ValueError("a certificate in it is no authority")
    if not isinstance(certificate.public_key(), (RSAPublicKey, EllipticCurvePublicKey)):
        raise ValueError("an authority in it has a key that is neither RSA nor on an elliptic curve of NIST")


def _authority() -> ExtensionPolicy:
    return ExtensionPolicy.webpki_defaults_ca().may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)


def _client() -> ExtensionPolicy:
    return ExtensionPolicy.webpki_defaults_ee().may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def _signs_certificates(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    """Hold a key usage, where there is one, to RFC 5280 section 6.1.4 (n)."""
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("the key usage of an authority lacks keyCertSign")
