"""The check of ``SECURE_ML_MTLS_CLIENTS``: which certificate is which client (RFC 8705 section 2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from cryptography.x509 import Name
from cryptography.x509.oid import NameOID

from ..policy.options import SCOPE_TOKEN

NAMES = ("subject_dn", "san_dns", "san_uri", "san_ip", "san_email", "sha256")
Identity = tuple[str, Hashable]
"""One of ``NAMES`` and the value in the one form in which it is compared."""

_DNS_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
_EMAIL = re.compile(r"[!-?A-~]+@[!-?A-~]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
# What OpenSSL and nginx write for attributes that RFC 4514 gives no short name.
_MORE_ATTRIBUTES = {"emailAddress": NameOID.EMAIL_ADDRESS, "serialNumber": NameOID.SERIAL_NUMBER}


@dataclass(frozen=True)
class MtlsClient:
    """A client and the one property of its certificate that names it.

    :param client: the name in logs, limits and revocations.
    :param scopes: what it may do.
    :param plan: the plan in ``SECURE_ML_PLANS`` that limits it.
    :param subject_dn: the whole subject as RFC 4514 writes it, such as ``CN=trainer,O=Example``.
    :param san_dns: a DNS name; compared without regard to case, and a wildcard stands for nothing.
    :param san_uri: a URI, compared character by character.
    :param san_ip: an IP address, in any spelling.
    :param san_email: an email address, compared character by character.
    :param sha256: the fingerprint of its certificate, 64 hexadecimal digits; its chain is not looked at.
    """

    client: str
    scopes: frozenset[str] = frozenset()
    plan: str = "default"
    subject_dn: str = ""
    san_dns: str = ""
    san_uri: str = ""
    san_ip: str = ""
    san_email: str = ""
    sha256: str = ""

    @property
    def named_by(self) -> tuple[str, str]:
        """The property and its value."""
        return next((name, getattr(self, name)) for name in NAMES if getattr(self, name))

    @property
    def identity(self) -> Identity:
        """The property and its value in the form in which it is compared.

        :raises ValueError: the value is not one of its kind.
        """
        name, value = self.named_by
        return name, _PARSERS[name](value)


def mtls_clients(value: Any) -> tuple[MtlsClient, ...]:
    """Accept a list of client objects; no two of one name or one certificate.

    :raises ValueError: names the entry by its number.
    """
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"must be a list of objects with client, scopes and one of {', '.join(NAMES)}")
    found = tuple(_client(f"[{number}]", entry) for number, entry in enumerate(value))
    if len({each.client for each in found}) < len(found) or len({each.identity for each in found}) < len(found):
        raise ValueError("names a client or a certificate twice")
    return found


def ascii_lower(name: str) -> str:
    """Return an ASCII name in lower case and any other as it is: some letters beyond ASCII become ASCII ones."""
    return name.lower() if name.isascii() else name


def _client(where: str, entry: Any) -> MtlsClient:
    known = {"client", "scopes", "plan", *NAMES}
    if not isinstance(entry, Mapping) or "client" not in entry or not entry.keys() <= known:
        raise ValueError(f"{where} must be an object with client, scopes, plan and one of {', '.join(NAMES)}")
    if any(not isinstance(entry[name], str) or not entry[name] for name in entry.keys() - {"scopes"}):
        raise ValueError(f"{where} has a member that is not a text")
    if len(entry.keys() & set(NAMES)) != 1:
        raise ValueError(f"{where} needs exactly one of {', '.join(NAMES)}")
    client = MtlsClient(**{**entry, "scopes": _scopes(where, entry.get("scopes", []))})
    try:
        _ = client.identity
    except ValueError as error:
        raise ValueError(f"{where} {client.named_by[0]} {error}") from None
    return client


def _scopes(where: str, value: Any) -> frozenset[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(scope, str) for scope in value):
        raise ValueError(f"{where} scopes must be a list of texts")
    if not all(SCOPE_TOKEN.fullmatch(scope) for scope in value):
        raise ValueError(f"{where} has a scope with characters that RFC 6749 section 3.3 forbids")
    return frozenset(value)


def _subject(value: str) -> Name:
    if "=#" in value:
        # The library would take the encoding for the text that is encoded, and match nothing.
        raise ValueError("must not have values in hexadecimal")
    try:
        return Name.from_rfc4514_string(value, _MORE_ATTRIBUTES)
    except ValueError:
        raise ValueError("must be a name as RFC 4514 writes it, such as 'CN=trainer,O=Example'") from None


def _dns(value: str) -> str:
    if not _DNS_NAME.fullmatch(value):
        raise ValueError("must be one DNS name in ASCII; wildcards are not looked at")
    return ascii_lower(value)


def _uri(value: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value or not urlsplit(value).scheme:
        raise ValueError("must be an absolute URI such as 'spiffe://example.com/trainer'")
    return value


def _ip(value: str) -> Hashable:
    try:
        return ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address") from None


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value):
        raise ValueError("must be an email address in ASCII")
    return value


def _fingerprint(value: str) -> str:
    digits = value.replace(":", "").lower()
    if not _FINGERPRINT.fullmatch(digits):
        raise ValueError("must be 64 hexadecimal digits")
    return digits


_PARSERS: Mapping[str, Callable[[str], Hashable]] = {
    "subject_dn": _subject,
    "san_dns": _dns,
    "san_uri": _uri,
    "san_ip": _ip,
    "san_email": _email,
    "sha256": _fingerprint,
}
