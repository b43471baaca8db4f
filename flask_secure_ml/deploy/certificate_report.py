"""Reports the contents and problems of a certificate file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from .dev_certificate import DEVELOPMENT

SOON = timedelta(days=30)
_LONGEST = timedelta(days=398)
_RSA_BITS = 2048
_CURVE_BITS = 256
_OTHERS = 0o077
_WEAK = (hashes.MD5, hashes.SHA1)


class CertificateError(ValueError):
    """A file has no usable certificate; the message contains the reason."""


@dataclass(frozen=True)
class Entry:
    """One certificate of the chain.

    :param names: the subject alternative names.
    :param key: such as ``EC secp256r1`` or ``RSA 2048``.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    serial: str
    not_before: datetime
    not_after: datetime
    key: str
    signature: str
    sha256: str
    authority: bool


@dataclass(frozen=True)
class Report:
    """The certificates of a file, the server certificate first.

    :param private_key: whether a private key was read and matches the first certificate.
    :param errors: the reasons why clients reject it or servers cannot use it.
    :param warnings: recommended changes.
    """

    certificates: tuple[Entry, ...]
    private_key: bool
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def report(path: Path, key_path: Path | None, now: datetime) -> Report:
    """Return the contents and problems of a certificate file and its key.

    :param key_path: the file of the private key, unless ``path`` contains it.
    :param now: the current time, with a time zone.
    :raises CertificateError: there is no PEM certificate, or no private key in ``key_path``.
    :raises OSError: a file cannot be read.
    """
    data = path.read_bytes()
    try:
        chain = x509.load_pem_x509_certificates(data)
        entries = tuple(_entry(each) for each in chain)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{path} has no valid PEM certificate: {error}") from None
    errors, warnings = [*_expired(chain, now), *_broken(chain)], [*_ends_soon(chain, now), *_unusual(chain)]
    key_data = data if key_path is None else key_path.read_bytes()
    has_key = b"PRIVATE KEY-----" in key_data
    if key_path is not None and not has_key:
        raise CertificateError(f"{key_path} has no PEM private key")
    if has_key:
        errors += _wrong_key(key_data, chain[0])
        key_file = key_path or path
        if key_file.stat().st_mode & _OTHERS:
            warnings.append(f"other users can read the private key: chmod 600 {key_file}")
    return Report(entries, has_key, tuple(errors), tuple(warnings))


def _entry(certificate: x509.Certificate) -> Entry:
    digest = certificate.signature_hash_algorithm
    return Entry(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        tuple(str(getattr(name, "value", name)) for name in _names(certificate)),
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        _kind(certificate.public_key()),
        "none" if digest is None else digest.name,
        certificate.fingerprint(hashes.SHA256()).hex(),
        _is_authority(certificate),
    )


def _names(certificate: x509.Certificate) -> Sequence[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _kind(key: PublicKeyTypes) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey").strip("_")


def _expired(chain: Sequence[x509.Certificate], now: datetime) -> Iterator[str]:
    for each in chain:
        if each.not_valid_after_utc < now:
            yield f"{_title(each)} expired at {each.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        if each.not_valid_before_utc > now:
            yield f"{_title(each)} is not valid before {each.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"


def _ends_soon(chain: Sequence[x509.Certificate], now: datetime) -> Iterator[str]:
    for each in chain:
        if now <= each.not_valid_after_utc < now + SOON:
            yield f"{_title(each)} expires in {(each.not_valid_after_utc - now).days} days; renew it"


def _broken(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    for each, above in pairwise(chain):
        try:
            each.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            yield f"the chain is broken: {_title(each)} is not signed by the next one, {_title(above)}"
    first = chain[0]
    if not _names(first):
        yield f"{_title(first)} has no subject alternative name, so clients do not accept it for any host"
    key = first.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _RSA_BITS:
        yield f"{_title(first)} has an RSA key with {key.key_size} bits; at least {_RSA_BITS} are required"
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < _CURVE_BITS:
        yield f"{_title(first)} has a key on {key.curve.name}; at least {_CURVE_BITS} bits are required"
    elif not isinstance(
        key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
    ):
        yield f"{_title(first)} has a key type that TLS clients do not support"
    for each in chain:
        if isinstance(each.signature_hash_algorithm, _WEAK):
            yield f"{_title(each)} is signed with {each.signature_hash_algorithm.name}, which clients reject"
    if _usages(first) and ExtendedKeyUsageOID.SERVER_AUTH not in _usages(first):
        yield f"{_title(first)} is not valid for servers: its extended key usage lacks serverAuth"


def _usages(certificate: x509.Certificate) -> Sequence[x509.ObjectIdentifier]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return ()


def _unusual(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    first, last = chain[0], chain[-1]
    if _is_authority(first):
        yield f"{_title(first)} is a CA certificate; a server certificate has CA:FALSE"
    if first.not_valid_after_utc - first.not_valid_before_utc > _LONGEST:
        yield f"{_title(first)} is valid for more than {_LONGEST.days} days, which browsers reject"
    if len(chain) > 1 and last.subject == last.issuer:
        yield f"{_title(last)} is a root certificate; remove it, as clients use their own copy"
    # A development certificate has no intermediate CA.
    if len(chain) == 1 and first.subject != first.issuer and DEVELOPMENT not in first.issuer.rfc4514_string():
        yield (
            "the file contains only one certificate; if an intermediate CA signed it, append the certificate of that CA"
        )


def _wrong_key(data: bytes, certificate: x509.Certificate) -> Iterator[str]:
    if b"ENCRYPTED" in data:
        yield "the private key is encrypted; a server cannot prompt for the pass phrase"
        return
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield "the private key cannot be read"
        return
    own, wanted = (
        each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for each in (key.public_key(), certificate.public_key())
    )
    if own != wanted:
        yield "the private key does not match the certificate"


def _title(certificate: x509.Certificate) -> str:
    return f"the certificate of {certificate.subject.rfc4514_string() or 'nobody'}"
