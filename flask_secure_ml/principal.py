"""The caller of a request, and the clock: what the parts below the exchange need of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Clock(Protocol):
    """Where every part reads the time, so that a test can move it."""

    def now(self) -> float:
        """Return seconds since the epoch (UTC)."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return seconds since the epoch (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, as proven by a credential.

    :param kind: the credential's kind: ``api_key``, ``jwt``, ``introspection`` or ``mtls``.
    :param issuer: who vouches for the subject; empty for this app's own keys and for certificates.
    :param subject: the identity at that issuer; never unique without the issuer (RFC 8725bis, ASVS 10.3.3).
    :param scopes: what the credential allows.
    :param plan: the name of the plan in ``SECURE_ML_PLANS`` that limits this caller.
    :param client_id: the OAuth2 client, or the client name of a key or certificate.
    :param claims: the verified claims of a token, read-only; empty for keys and certificates.
    :param roles: the roles, groups and entitlements that the issuer states (RFC 9068 section 2.2.3.1).
    :param endpoints: the endpoints or URL rules that the credential is for; None for every one.
    :param token_id: the ``jti`` of a token, by which it is revoked; empty where there is none.
    :param issued: when the credential was issued, in seconds since the epoch; None where that is not known.
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
        """One string that names this caller in logs, as a limiter's key and when it is revoked.

        The kind of a token is no part of it: a subject stays itself whether its token is a JWT or an opaque one.
        """
        return f"{self.issuer}#{self.subject}" if self.issuer else f"{self.kind}:{self.subject}"
