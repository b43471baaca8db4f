"""Certificates for the tests: of a server, of authorities, and of clients that they sign."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

HOUR = 3600.0


@dataclass(frozen=True)
class Certificate:
    """The two files of a certificate."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, folder: Path, name: str) -> Certificate:
        """Write both as the files that servers and clients read."""
        files = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        files.certificate.write_bytes(self.pem)
        files.key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files


def issue(
    subject: str,
    issuer: Issued | None = None,
    *,
    names: Sequence[x509.GeneralName] = (),
    usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    now: float | None = None,
    lifetime: float = HOUR,
    extensions: Sequence[x509.ExtensionType] = (x509.BasicConstraints(ca=False, path_length=None),),
    key: CertificateIssuerPrivateKeyTypes | None = None,
) -> Issued:
    """Return a certificate, of a client by default, self-signed if there is no issuer.

    :param subject: the subject in the notation of RFC 4514.
    :param names: the subject alternative names; without any, the extension is omitted.
    :param usages: the extended key usages; without any, the extension is omitted.
    :param now: the current time in seconds since the epoch, by default that of the machine; validity begins five
        minutes earlier.
    :param lifetime: the validity from ``now``, in seconds.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string(subject)
    now = time.time() if now is None else now
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(now) - 300, UTC))
        .not_valid_after(datetime.fromtimestamp(int(now + lifetime), UTC))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return _signed(builder, key, issuer)


def authority(
    name: str = "Test CA",
    issuer: Issued | None = None,
    *,
    now: float | None = None,
    lifetime: float = HOUR,
    usage: x509.KeyUsage | None = None,
    key: CertificateIssuerPrivateKeyTypes | None = None,
) -> Issued:
    """Return an authority, self-signed if there is no issuer; by default without a key usage, as by ``openssl req``."""
    extensions: list[x509.ExtensionType] = [x509.BasicConstraints(ca=True, path_length=None)]
    if usage is not None:
        extensions.append(usage)
    return issue(f"CN={name}", issuer, usages=(), now=now, lifetime=lifetime, extensions=extensions, key=key)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Return a key usage for signatures, and optionally for signing certificates."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def make_certificate(folder: Path) -> Certificate:
    """Write a self-signed server certificate for localhost that is valid for an hour."""
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    itself = x509.BasicConstraints(ca=True, path_length=None)
    return issue("CN=localhost", names=names, usages=(), extensions=[itself]).write(folder, "server")


def _signed(builder: x509.CertificateBuilder, key: CertificateIssuerPrivateKeyTypes, issuer: Issued | None) -> Issued:
    signer = issuer.key if issuer else key
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(authority_key, critical=False)
    digest = None if isinstance(signer, Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, digest), key)
