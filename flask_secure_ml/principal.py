"""The caller of a request, and the clock: what packages need that must not import the exchange."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import Any, Protocol

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Clock(Protocol):
    """The source of time of every part, so that a test can set it."""

    def now(self) -> float:
        """Return seconds since the epoch (UTC)."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


class SystemClock:
    """The machine's clock."""

    # The functions themselves: requests read the clock a dozen times.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller, as authenticated by a credential.

    :param kind: the kind of the credential: ``api_key``, ``jwt``, ``introspection``, ``mtls`` or ``session``.
    :param issuer: the issuer of the subject; empty for this app's own keys and for certificates.
    :param subject: the identity at that issuer; never unique without the issuer (RFC 8725bis, ASVS 10.3.3).
    :param scopes: the scopes of the credential.
    :param plan: the name of the plan in ``SECURE_ML_PLANS`` that limits this caller.
    :param client_id: the OAuth2 client, or the client name of a key or certificate.
    :param claims: the verified claims of a token, read-only; empty for keys and certificates.
    :param roles: the roles, groups and entitlements in the token (RFC 9068 section 2.2.3.1).
    :param endpoints: the endpoints or URL rules that the credential is for; None for every one.
    :param token_id: the ``jti`` of a token, by which it is revoked; empty without one.
    :param issued: when the credential was issued, in seconds since the epoch; None if that is not known.
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

        It does not contain the kind of a token: a subject is the same with a JWT and with an opaque token.
        """
        return f"{self.issuer}#{self.subject}" if self.issuer else f"{self.kind}:{self.subject}"


def network_of(address: str) -> str:
    """Return the IP address, and for IPv6 the /64 network that one subscriber usually has."""
    if ":" not in address:
        return address or "unknown"
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return "unknown"
    # On a socket for both families every IPv4 caller is an IPv6 address with one common prefix.
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
