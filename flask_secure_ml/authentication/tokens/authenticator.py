"""Access tokens as they come with a request: the schemes ``Bearer`` and ``DPoP``, whichever kind of token it is.

The token itself is verified elsewhere. Here it is decided who verifies it, and whether the one who sends it may: a
token that is bound to a key or a certificate is worth nothing without it (RFC 8705 section 3, RFC 9449 section 7).
"""

from __future__ import annotations

import hashlib
import hmac
import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from flask import Request

from ...errors import NotAuthenticated
from ...exchange import Exchange
from ...principal import Principal
from ..credentials import token68


class ProofOfPossession(Protocol):
    """Checks the proof that comes with a token."""

    def check(self, request: Request, exchange: Exchange, token: str) -> str:
        """Return the thumbprint of the key that made the proof (RFC 7638).

        :raises InvalidProof: it is missing or wrong.
        """


class AccessTokens:
    """Asks the first verifier that knows the form of a token.

    :param verifiers: the more particular first.
    """

    def __init__(self, verifiers: Sequence[TokenVerifier]) -> None:
        self._verifiers = tuple(verifiers)

    def verify(self, token: str) -> VerifiedToken:
        """Return what the token proves.

        :raises NotAuthenticated: it is invalid, or of a form that no verifier knows.
        :raises DependencyUnavailable: what is needed to tell is down.
        """
        for verifier in self._verifiers:
            if verifier.accepts(token):
                return verifier.verify(token)
        raise NotAuthenticated("no verifier knows tokens of this form")


class BearerAuthenticator:
    """Accepts ``Authorization: Bearer <token>`` (RFC 6750 section 2.1) for tokens that are not bound to a DPoP key."""

    name = "bearer"
    challenge = "Bearer"

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    def find(self, request: Request, exchange: Exchange) -> str | None:
        """Return the token.

        :raises MalformedRequest: what follows ``Bearer`` is not one b64token.
        """
        return token68(request, "bearer")

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        """Return who the token speaks for.

        :raises NotAuthenticated: it is invalid, bound to a DPoP key, or bound to another client's certificate.
        :raises DependencyUnavailable: what is needed to tell is down.
        """
        verified = self._tokens.verify(credential)
        if verified.confirmation is not None:
            check_binding(verified.confirmation, thumbprint=None, certificate=exchange.certificate)
        return verified.principal


class DPoPAuthenticator:
    """Accepts ``Authorization: DPoP <token>`` with its proof (RFC 9449 section 7.1)."""

    name = "dpop"
    challenge = "DPoP"

    def __init__(self, tokens: AccessTokens, proofs: ProofOfPossession) -> None:
        self._tokens = tokens
        self._proofs = proofs

    def find(self, request: Request, exchange: Exchange) -> tuple[Request, str] | None:
        """Return the request, which the proof speaks of, and the token.

        :raises MalformedRequest: what follows ``DPoP`` is not one b64token.
        """
        token = token68(request, "dpop")
        return None if token is None else (request, token)

    def verify(self, credential: tuple[Request, str], exchange: Exchange) -> Principal:
        """Return who the token speaks for.

        :raises NotAuthenticated: the token is invalid, or bound to another key or to none.
        :raises InvalidProof: the proof is missing or wrong.
        :raises DependencyUnavailable: what is needed to tell is down.
        """
        request, token = credential
        # The token first: who has none that is valid cannot fill the store of proofs that were seen.
        verified = self._tokens.verify(token)
        thumbprint = self._proofs.check(request, exchange, token)
        check_binding(verified.confirmation, thumbprint=thumbprint, certificate=exchange.certificate)
        return verified.principal


T = TypeVar("T")


class TokenCache(Generic[T]):
    """A bounded memory by the digest of a token; the token itself is not kept.

    Whether what it returns still holds is for the caller to check. Only what was verified should be put in: then
    nobody without a valid token can fill it.

    :param size: the most tokens; the one that was put in first is forgotten first. 0 remembers nothing. What a usual
        JWT proves takes about 2 KB.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = Lock()
        self._entries: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: str) -> T | None:
        """Return what is remembered of a token, or None."""
        # Most of the cost is the digest.
        return self._entries.get(_digest(token)) if self._entries else None

    def put(self, token: str, value: T) -> None:
        """Remember something of a token."""
        if not self._size:
            return
        with self._lock:
            key = _digest(token)
            self._entries.pop(key, None)
            while len(self._entries) >= self._size:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = value

    def forget(self, token: str) -> None:
        """Forget a token."""
        with self._lock:
            self._entries.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


DPOP_KEY = "jkt"
"""The thumbprint of a DPoP key (RFC 9449 section 6.1)."""

CERTIFICATE = "x5t#S256"
"""The digest of a client certificate (RFC 8705 section 3.1)."""

_KNOWN = frozenset({DPOP_KEY, CERTIFICATE})


def check_binding(confirmation: Any, *, thumbprint: str | None, certificate: bytes | None) -> None:
    """Refuse a token that is bound to something else than what came with it.

    A plain bearer token, bound to nothing, passes where no proof was made. Every binding of a token must hold.

    :param confirmation: the claim ``cnf`` of the token, or the member of its introspection; None for an unbound token.
    :param thumbprint: of the key behind the verified DPoP proof (RFC 7638); None for the scheme ``Bearer``.
    :param certificate: the client's certificate on this connection in DER, or None.
    :raises NotAuthenticated: a binding does not hold or is of an unknown kind, or a proof was made for a token that no
        key is bound to (RFC 9449 section 7.1, RFC 8705 section 3).
    """
    bound = {} if confirmation is None else _bindings(confirmation)
    if thumbprint is not None and DPOP_KEY not in bound:
        raise NotAuthenticated("a token that is not bound to a DPoP key was sent with the scheme DPoP")
    if DPOP_KEY in bound:
        _check_key(bound[DPOP_KEY], thumbprint)
    if CERTIFICATE in bound:
        _check_certificate(bound[CERTIFICATE], certificate)


def _bindings(confirmation: Any) -> Mapping[str, str]:
    if not isinstance(confirmation, Mapping) or not confirmation:
        raise NotAuthenticated("cnf is not an object with members")
    if not confirmation.keys() <= _KNOWN:
        # RFC 7800 section 3.1 allows to ignore these; what we do not understand we cannot check.
        raise NotAuthenticated("cnf has a member that is neither jkt nor x5t#S256")
    if not all(isinstance(value, str) for value in confirmation.values()):
        raise NotAuthenticated("a member of cnf is not a text")
    return confirmation


def _check_key(expected: str, thumbprint: str | None) -> None:
    if thumbprint is None:
        raise NotAuthenticated("a token bound to a DPoP key was sent without the scheme DPoP")
    if not _same(expected, thumbprint):
        raise NotAuthenticated("the DPoP proof was made with another key than the token is bound to")


def _check_certificate(expected: str, certificate: bytes | None) -> None:
    if certificate is None:
        raise NotAuthenticated("a token bound to a certificate came over a connection without one")
    digest = urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()
    if not _same(expected, digest):
        raise NotAuthenticated("the token is bound to another certificate than that of the connection")


def _same(expected: str, actual: str) -> bool:
    # compare_digest takes ASCII texts only; a digest is never anything else.
    return expected.isascii() and hmac.compare_digest(expected, actual)


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token whose signature (or introspection) and claims are all right.

    It is not enough to let its bearer in: its binding and its revocation are looked at for every request.

    :param principal: who it speaks for.
    :param expires: seconds since the epoch after which it must not be used without verifying it again.
    :param confirmation: its claim ``cnf`` (RFC 7800), whatever type it has; None when there is none.
    """

    principal: Principal
    expires: float = math.inf
    confirmation: Any = None


class TokenVerifier(Protocol):
    """Turns the text of an access token into a :class:`VerifiedToken`."""

    def accepts(self, token: str) -> bool:
        """Tell from its form whether a token is one for this verifier."""

    def verify(self, token: str) -> VerifiedToken:
        """Return what the token proves.

        :raises NotAuthenticated: it is invalid; the reason is private.
        :raises DependencyUnavailable: what is needed to tell is down.
        """


Claims = Mapping[str, Any]
