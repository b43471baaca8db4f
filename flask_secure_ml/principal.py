"""The caller of a request, and the clock, for packages that must not import the exchange."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import Any, Protocol

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Clock(Protocol):
    """The source of time, an argument of every part so that tests can replace it."""

    def now(self) -> float:
        """Return seconds since the epoch (UTC)."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that never goes backwards."""


class SystemClock:
    """The machine's clock."""

    # The functions themselves, because each request reads the clock a dozen times.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    :param kind: the kind of the credential: ``api_key``, ``jwt``, ``introspection``, ``mtls`` or ``session``.
    :param issuer: the issuer of the subject; empty for this app's own keys and for certificates.
    :param subject: the identity at that issuer; never unique without the issuer (RFC 8725bis, ASVS 10.3.3).
    :param scopes: the scopes of the credential.
    :param plan: the name of the plan in ``SECURE_ML_PLANS`` that limits this caller.
    :param client_id: the OAuth2 client, or the client name of a key or certificate.
    :param claims: the verified claims of a token, read-only; empty for keys and certificates.
    :param roles: the roles, groups and entitlements in the token (RFC 9068 section 2.2.3.1).
    :param endpoints: the endpoints or URL rules that the credential is valid for; None for all.
    :param token_id: the ``jti`` of a token, by which it is revoked; empty if it has none.
    :param issued: when the credential was issued, in seconds since the epoch; None if unknown.
    """

    kind: str
    subject: str
    issuer: str = ""
    scopes: frozenset[str] = frozenset()
    plan: str = "default"
    client_id: str = ""
    claims: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)
    roles: frozenset[str] = frozenset()
    endpoints: frozenset[str] | None = None
    token_id: str = ""
    issued: float | None = None

    @property
    def id(self) -> str:
        """The string that identifies this caller in logs, limits and revocations.

        For tokens it does not contain the kind: a subject is the same with a JWT and with an opaque token.
        """
        return f"{self.issuer}#{self.subject}" if self.issuer else f"{self.kind}:{self.subject}"


def network_of(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address.

    A /64 is usually the network of one subscriber.
    """
    if ":" not in address:
        return address or "unknown"
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return "unknown"
    # On a dual-stack socket, all IPv4 callers are IPv6 addresses with the same prefix.
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
