"""Clients that prove themselves with a certificate (RFC 8705 section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock

from flask import Request

from ..errors import NotAuthenticated
from ..exchange import Clock, Exchange, Principal
from ..mtls_clients import MtlsClient
from .certificates import Authorities, AuthorityFile, ClientCertificate, read_certificate

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
