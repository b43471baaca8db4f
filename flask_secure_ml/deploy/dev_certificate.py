"""Development certificates: a local certificate authority, and a certificate for the names of this machine.

The authority is kept, so that clients need to trust it only once. Its name constraints (RFC 5280 section 4.2.1.10)
limit it to the names that it was created for: a stolen key cannot be used to impersonate other hosts to clients that
enforce them, such as OpenSSL.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
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

from ..refresh import replace_file

DEVELOPMENT = "flask-secure-ml development authority"
VALID = timedelta(days=90)
RENEWED_BEFORE = timedelta(days=30)
AUTHORITY_VALID = timedelta(days=730)
# Certificates must be valid for clients whose clock is slightly behind.
CLOCK_SKEW = timedelta(minutes=5)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LONGEST = 253
_PRIVATE, _READABLE, _OTHERS = 0o600, 0o644, 0o077
# A missing, truncated, unrelated or mismatched file: a new one is needed.
_UNUSABLE = (OSError, TypeError, ValueError, UnsupportedAlgorithm, InvalidSignature, x509.ExtensionNotFound)


@dataclass(frozen=True)
class DevCertificate:
    """The files, and which of them were created.

    :param names: the names and IP addresses of the certificate.
    :param expires: the end of its validity.
    :param created: ``authority`` (and with it the certificate), ``certificate``, or empty.
    """

    authority: Path
    authority_key: Path
    certificate: Path
    key: Path
    names: tuple[str, ...]
    expires: datetime
    created: str


@dataclass(frozen=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(directory: Path, names: Iterable[str], now: datetime) -> DevCertificate:
    """Create or renew the certificate in a directory for localhost, 127.0.0.1, ::1 and the given names.

    The certificate is kept while it is valid for at least 30 more days and only this user can read its key. The
    authority is kept while only this user can read its key, it may sign for these names, and no certificate can outlive
    it. A new authority includes the names of the previous one. Each key is written before its certificate, and each
    file atomically, so that a server that watches them uses a consistent pair.

    :param directory: created if it is missing, accessible only for its owner and ignored by git.
    :param names: DNS names and IP addresses. Unspecified addresses, such as 0.0.0.0, are left out.
    :param now: the current time, with a time zone.
    :raises ValueError: a name is neither a DNS name nor an IP address.
    :raises OSError: the files cannot be written.
    """
    wanted = dict.fromkeys([*_LOOPBACK, *filter(None, map(_checked, names))])
    _create(directory)
    authority_path, certificate_path = directory / "ca.pem", directory / "server.pem"
    authority, created = _read_own(authority_path), ""
    known = () if authority is None else _permitted(authority.certificate)
    covered = tuple(dict.fromkeys([*wanted, *known]))
    if authority is None or not wanted.keys() <= set(known) or not _is_lasting(authority.certificate, now):
        authority, created = _new_authority(covered, now), "authority"
        _write_pair(authority_path, authority)
    found = _read_own(certificate_path)
    if found is None or not _is_usable(found.certificate, authority.certificate, covered, now):
        found, created = _new_certificate(authority, covered, now), created or "certificate"
        _write_pair(certificate_path, found)
    return DevCertificate(
        authority_path,
        _key_path(authority_path),
        certificate_path,
        _key_path(certificate_path),
        covered,
        found.certificate.not_valid_after_utc,
        created,
    )


def _checked(name: str) -> str:
    """Return a name in canonical form; empty for the unspecified address."""
    try:
        address = ip_address(name)
    except ValueError:
        lowered = name.lower().removesuffix(".")
        if len(lowered) > _LONGEST or not all(map(_LABEL.fullmatch, lowered.split("."))):
            raise ValueError(
                f"{name!r} is neither a DNS name nor an IP address; wildcards and ports are invalid"
            ) from None
        return lowered
    # Without the zone of a link-local address, which certificates cannot contain.
    return "" if address.is_unspecified else str(address).partition("%")[0]


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subtree(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_network(name))
    except ValueError:
        return x509.DNSName(name)


def _key_path(certificate: Path) -> Path:
    return certificate.with_suffix(".key")


def _read(path: Path) -> _Pair | None:
    """Return a certificate and its key, or None if they do not match or cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        key = load_pem_private_key(_key_path(path).read_bytes(), None)
    except _UNUSABLE:
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or _spki(key.public_key()) != _spki(certificate.public_key()):
        return None
    return _Pair(certificate, key)


def _read_own(path: Path) -> _Pair | None:
    """Return a pair, or None if its key may be exposed.

    It is if it was in a checkout, or if other users could read the file.
    """
    try:
        status = _key_path(path).stat()
    except OSError:
        return None
    return _read(path) if status.st_uid == os.geteuid() and not status.st_mode & _OTHERS else None


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _permitted(authority: x509.Certificate) -> tuple[str, ...]:
    """Return the names that an authority may sign for."""
    try:
        permitted = authority.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or ()
        return tuple(map(_name, permitted)) if all(map(_is_one, permitted)) else ()
    except _UNUSABLE:
        return ()


def _is_one(subtree: x509.GeneralName) -> bool:
    """Return True if a subtree is one host name or IP address."""
    if isinstance(subtree, x509.IPAddress):
        return isinstance(subtree.value, (IPv4Network, IPv6Network)) and subtree.value.num_addresses == 1
    try:
        return isinstance(subtree, x509.DNSName) and _checked(subtree.value) == subtree.value
    except ValueError:
        return False


def _name(subtree: x509.GeneralName) -> str:
    if isinstance(subtree, x509.IPAddress) and isinstance(subtree.value, (IPv4Network, IPv6Network)):
        return str(subtree.value.network_address)
    return str(subtree.value)


def _is_lasting(authority: x509.Certificate, now: datetime) -> bool:
    # A certificate must not outlive its authority.
    return authority.not_valid_before_utc <= now and now + VALID <= authority.not_valid_after_utc


def _is_usable(certificate: x509.Certificate, authority: x509.Certificate, names: Sequence[str], now: datetime) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
        covered = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except _UNUSABLE:
        return False
    is_current = certificate.not_valid_before_utc <= now and now + RENEWED_BEFORE < certificate.not_valid_after_utc
    return is_current and set(covered) == {_general(name) for name in names}


def _new_authority(names: Sequence[str], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name distinguishes two authorities in a trust store.
    serial = x509.random_serial_number()
    name = _distinguished(f"{DEVELOPMENT} {serial:x}"[:64])
    certificate = (
        _builder(key.public_key(), name, name, now, AUTHORITY_VALID)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.NameConstraints([_subtree(each) for each in names], None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _new_certificate(authority: _Pair, names: Sequence[str], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(key.public_key(), _distinguished("localhost"), authority.certificate.subject, now, VALID)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _builder(
    key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, now: datetime, valid: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + valid)
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


def _create(directory: Path) -> None:
    """Create a directory that git ignores; an existing one is not changed."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return
    replace_file(directory / ".gitignore", b"*\n", mode=_READABLE)


def _write_pair(path: Path, pair: _Pair) -> None:
    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    replace_file(_key_path(path), key, mode=_PRIVATE)
    replace_file(path, pair.certificate.public_bytes(Encoding.PEM), mode=_READABLE)
