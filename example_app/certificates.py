"""A development certificate for this machine, signed by an authority that signs nothing else.

The authority's private key is never written: it signs one certificate and is forgotten. Whoever trusts
``ca.pem`` therefore trusts one server, not everyone who can read a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .files import PRIVATE, write

VALID = timedelta(days=30)
RENEWED_BEFORE = timedelta(days=7)
# A client whose clock is a little behind must not find a certificate from the future.
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Certificates:
    """The paths of three files: the authority, the certificate of the server, and its private key."""

    authority: Path
    server: Path
    key: Path


def ensure(directory: Path, host: str, now: datetime) -> tuple[Certificates, bool]:
    """Return certificates for localhost and ``host``, new ones if they expire within a week.

    :param now: the time, with its zone.
    :return: the files, and whether they are new.
    """
    found = Certificates(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    names = _names(host)
    fresh = not _usable(found, names, now)
    if fresh:
        _create(found, names, now)
    return found, fresh


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ip_address(loopback)) for loopback in ("127.0.0.1", "::1")]
    own = _name(host)
    return names if own is None or own in names else [*names, own]


def _name(host: str) -> x509.GeneralName | None:
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return x509.DNSName(host)
    return None if address.is_unspecified else x509.IPAddress(address)


def _usable(found: Certificates, names: Sequence[x509.GeneralName], now: datetime) -> bool:
    try:
        authority = x509.load_pem_x509_certificate(found.authority.read_bytes())
        server = x509.load_pem_x509_certificate(found.server.read_bytes())
        key = load_pem_private_key(found.key.read_bytes(), None)
        server.verify_directly_issued_by(authority)
        covered = list(server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    # A file that is missing, cut short, or of another pair: all mean that new ones are needed.
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm, InvalidSignature, x509.ExtensionNotFound):
        return False
    paired = _public_bytes(key.public_key()) == _public_bytes(server.public_key())
    return paired and covered == list(names) and now + RENEWED_BEFORE < server.not_valid_after_utc


def _public_bytes(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _create(paths: Certificates, names: Sequence[x509.GeneralName], now: datetime) -> None:
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _sign_authority(authority_key, now)
    server = _sign_server(server_key, authority, authority_key, names, now)
    private = server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write(paths.key, private, PRIVATE)
    write(paths.server, server.public_bytes(Encoding.PEM))
    write(paths.authority, authority.public_bytes(Encoding.PEM))


def _sign_authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    # The serial number in the name keeps two authorities of two starts apart in a client's store.
    serial = x509.random_serial_number()
    name = _distinguished(f"flask-secure-ml development authority {serial:x}"[:64])
    return (
        _builder(key.public_key(), name, name, now)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _sign_server(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: Sequence[x509.GeneralName],
    now: datetime,
) -> x509.Certificate:
    return (
        _builder(key.public_key(), _distinguished("flask-secure-ml demo"), authority.subject, now)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _distinguished(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
