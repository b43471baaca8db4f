"""Maps client certificates to callers (``SECURE_ML_MTLS_CLIENTS``, RFC 8705 section 2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from marshmallow import ValidationError

from ..policy.fields import ListOf, String, Strings
from ..policy.options import scope
from ..policy.schema import Check, Problem, option

if TYPE_CHECKING:
    from cryptography.x509 import Name

Identity = tuple[str, Hashable]
"""One of ``NAMES`` and the value in canonical form."""

_DNS_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
_EMAIL = re.compile(r"[!-?A-~]+@[!-?A-~]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def ascii_lower(name: str) -> str:
    """Return an ASCII name in lower case; other names are unchanged, as lower() maps some letters to ASCII."""
    return name.lower() if name.isascii() else name


def _subject(value: str) -> Name:
    if "=#" in value:
        # The library would compare the encoding instead of the encoded string, and never match.
        raise ValidationError("must not have values in hexadecimal")
    # Imported only if a subject is configured.
    from cryptography.x509 import Name
    from cryptography.x509.oid import NameOID

    # The names that OpenSSL and nginx use for attributes without a short name in RFC 4514.
    more = {"emailAddress": NameOID.EMAIL_ADDRESS, "serialNumber": NameOID.SERIAL_NUMBER}
    try:
        return Name.from_rfc4514_string(value, more)
    except ValueError:
        raise ValidationError("must be a name in the format of RFC 4514, such as 'CN=trainer,O=Example'") from None


def _dns(value: str) -> str:
    if not _DNS_NAME.fullmatch(value):
        raise ValidationError("must be one DNS name in ASCII; a wildcard matches no certificate")
    return ascii_lower(value)


def _uri(value: str) -> str:
    try:
        scheme = urlsplit(value).scheme
    except ValueError:
        scheme = ""
    if not value.isascii() or not value.isprintable() or " " in value or not scheme:
        raise ValidationError("must be an absolute URI such as 'spiffe://example.com/trainer'")
    return value


def _ip(value: str) -> Hashable:
    try:
        return ip_address(value)
    except ValueError:
        raise ValidationError(f"must be an IP address, not {value!r}") from None


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value):
        raise ValidationError("must be an email address in ASCII")
    return value


def _fingerprint(value: str) -> str:
    digits = value.replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(digits):
        raise ValidationError("must be 64 hexadecimal digits")
    return digits


_PARSERS: Mapping[str, Callable[[str], Hashable]] = {
    "subject_dn": _subject,
    "san_dns": _dns,
    "san_uri": _uri,
    "san_ip": _ip,
    "san_email": _email,
    "sha256": _fingerprint,
}
NAMES = tuple(_PARSERS)


class CertificateName(String):
    """One property of a certificate, stored as it was written."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        found = super()._deserialize(value, attr, data, **kwargs)
        _PARSERS[self.kind](found)
        return found


def check_one_name(client: MtlsClient) -> Iterator[Problem]:
    """Yield a problem unless exactly one property identifies the certificate."""
    if sum(bool(getattr(client, name)) for name in NAMES) != 1:
        yield (), f"requires exactly one of {', '.join(NAMES)}"


@dataclass(frozen=True)
class MtlsClient:
    """A client and the one property that identifies its certificate."""

    cross_checks: ClassVar[tuple[Check, ...]] = (check_one_name,)

    client: str = option(String(), help_text="The name in logs, limits and revocations.")
    scopes: frozenset[str] = option(Strings("predict", scope, unordered=True), frozenset(), "The scopes of the client.")
    plan: str = option(String(), "default", "The plan in ``SECURE_ML_PLANS`` that limits it.")
    subject_dn: str = option(
        CertificateName("subject_dn"), "", "The whole subject in the format of RFC 4514: ``CN=trainer,O=Example``."
    )
    san_dns: str = option(
        CertificateName("san_dns"), "", "A DNS name, compared case-insensitively; wildcards are not accepted."
    )
    san_uri: str = option(CertificateName("san_uri"), "", "A URI, compared character by character.")
    san_ip: str = option(CertificateName("san_ip"), "", "An IP address, in any notation.")
    san_email: str = option(CertificateName("san_email"), "", "An email address, compared character by character.")
    sha256: str = option(
        CertificateName("sha256"),
        "",
        "The fingerprint of its certificate, 64 hexadecimal digits; its chain is not verified.",
    )

    @property
    def named_by(self) -> tuple[str, str]:
        """The property and its value."""
        return next((name, getattr(self, name)) for name in NAMES if getattr(self, name))

    @property
    def identity(self) -> Identity:
        """The property and its value in canonical form."""
        name, value = self.named_by
        return name, _PARSERS[name](value)


def _check_unique(clients: Mapping[int, MtlsClient]) -> Iterator[Problem]:
    seen: dict[Hashable, int] = {}
    for index, each in clients.items():
        for key, path in ((each.client, "client"), (each.identity, each.named_by[0])):
            if seen.setdefault(key, index) != index:
                yield (index, path), f"is the same as in entry {seen[key]}; name each client and certificate once"


def clients_field() -> ListOf:
    """Return the field of ``SECURE_ML_MTLS_CLIENTS``."""
    return ListOf(MtlsClient, _check_unique)
