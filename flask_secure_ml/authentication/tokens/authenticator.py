"""The authenticators for access tokens: the schemes ``Bearer`` and ``DPoP``, for every kind of token.

They select the verifier of a token, and check that its sender may use it: a token that is bound to a key or a
certificate is accepted only with proof of possession (RFC 8705 section 3, RFC 9449 section 7).
"""

from __future__ import annotations

import hashlib
import hmac
import math
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, Protocol, TypeVar

from flask import Request

from ...errors import NotAuthenticated
from ...exchange import Exchange
from ...principal import Principal
from ...refresh import process_lock
from ..guard import token68
from ..throttle import UNLIMITED, Calls, unlimited


class ProofOfPossession(Protocol):
    """Checks the proof that is sent with a token."""

    def check(
        self, request: Request, exchange: Exchange, token: str, accept: Callable[[str], None] = lambda _: None
    ) -> str:
        """Return the thumbprint of the key that signed the proof (RFC 7638).

        :param accept: raises an error unless the token is bound to the key with this thumbprint; called before the
            proof is stored as used, so that proofs with other keys cannot fill the store.
        :raises InvalidProof: it is missing or wrong.
        """


class AccessTokens:
    """Passes a token to the first verifier that accepts its form.

    :param verifiers: the most specific first.
    """

    def __init__(self, verifiers: Sequence[TokenVerifier]) -> None:
        self._verifiers = tuple(verifiers)

    def verify(self, token: str, calls: Calls = UNLIMITED) -> VerifiedToken:
        """Verify a token.

        :param calls: decides which network requests the token may cause.
        :raises NotAuthenticated: it is invalid, or no verifier accepts its form.
        :raises DependencyUnavailable: a dependency that is needed to verify it is down.
        """
        for verifier in self._verifiers:
            if verifier.accepts(token):
                return verifier.verify(token, calls)
        raise NotAuthenticated("no verifier accepts tokens of this form")


class BearerAuthenticator:
    """Accepts ``Authorization: Bearer <token>`` (RFC 6750 section 2.1) for tokens that are not bound to a DPoP key.

    :param keys: the prefix of API keys if this scheme may carry them; a value with this prefix is not a token.
    """

    name = "bearer"
    challenge = "Bearer"

    def __init__(self, tokens: AccessTokens, calls: Callable[[Exchange], Calls] = unlimited, keys: str = "") -> None:
        self._tokens = tokens
        self._calls = calls
        self._keys = keys

    def find(self, request: Request, exchange: Exchange) -> str | None:
        """Return the token.

        :raises MalformedRequest: the value after ``Bearer`` is not one b64token.
        """
        token = token68(request, "bearer")
        return None if self._keys and token is not None and token.startswith(self._keys) else token

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        """Return the principal of the token.

        :raises NotAuthenticated: it is invalid, bound to a DPoP key, or bound to another client's certificate.
        :raises DependencyUnavailable: a dependency that is needed to verify it is down.
        """
        verified = self._tokens.verify(credential, self._calls(exchange))
        if verified.confirmation is not None:
            check_binding(verified.confirmation, thumbprint=None, certificate=exchange.certificate)
        return verified.principal


class DPoPAuthenticator:
    """Accepts ``Authorization: DPoP <token>`` with its proof (RFC 9449 section 7.1)."""

    name = "dpop"
    challenge = "DPoP"

    def __init__(
        self, tokens: AccessTokens, proofs: ProofOfPossession, calls: Callable[[Exchange], Calls] = unlimited
    ) -> None:
        self._tokens = tokens
        self._proofs = proofs
        self._calls = calls

    def find(self, request: Request, exchange: Exchange) -> tuple[Request, str] | None:
        """Return the request, which the proof must match, and the token.

        :raises MalformedRequest: the value after ``DPoP`` is not one b64token.
        """
        token = token68(request, "dpop")
        return None if token is None else (request, token)

    def verify(self, credential: tuple[Request, str], exchange: Exchange) -> Principal:
        """Return the principal of the token.

        :raises NotAuthenticated: the token is invalid, or bound to another key or to no key.
        :raises InvalidProof: the proof is missing or wrong.
        :raises DependencyUnavailable: a dependency that is needed to verify it is down.
        """
        request, token = credential
        # The token first, so that only clients with a valid token can add proofs to the store.
        verified = self._tokens.verify(token, self._calls(exchange))

        def accept(thumbprint: str) -> None:
            check_binding(verified.confirmation, thumbprint=thumbprint, certificate=exchange.certificate)

        accept(self._proofs.check(request, exchange, token, accept))
        return verified.principal


T = TypeVar("T")


class TokenCache(Generic[T]):
    """A bounded cache by the digest of a token; the token itself is not stored.

    The caller checks whether a cached value is still valid. Cache only verified tokens, so that clients without a valid
    token cannot fill it.

    :param size: the maximum number of tokens; the oldest is evicted first. 0 disables the cache. An entry for a typical
        JWT takes about 2 KB.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = process_lock()
        self._entries: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: str) -> T | None:
        """Return the cached value of a token, or None."""
        # The digest is most of the cost, and unnecessary if the cache is empty.
        return self._entries.get(_digest(token)) if self._entries else None

    def put(self, token: str, value: T) -> None:
        """Cache the value of a token."""
        if not self._size:
            return
        with self._lock.get():
            key = _digest(token)
            self._entries.pop(key, None)
            while len(self._entries) >= self._size:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = value

    def evict(self, token: str) -> None:
        """Remove the value of a token."""
        with self._lock.get():
            self._entries.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


DPOP_KEY = "jkt"
"""The thumbprint of a DPoP key (RFC 9449 section 6.1)."""

CERTIFICATE = "x5t#S256"
"""The digest of a client certificate (RFC 8705 section 3.1)."""

_KNOWN = frozenset({DPOP_KEY, CERTIFICATE})


def check_binding(confirmation: Any, *, thumbprint: str | None, certificate: bytes | None) -> None:
    """Reject a token whose binding does not match the proof or the certificate of the request.

    A plain bearer token is accepted if there is no proof. If a token has several bindings, all must match.

    :param confirmation: ``cnf`` of the token or of its introspection response; None for an unbound token.
    :param thumbprint: of the key of the verified DPoP proof (RFC 7638); None for the scheme ``Bearer``.
    :param certificate: the client's certificate on this connection in DER, or None.
    :raises NotAuthenticated: a binding does not match or is of an unknown kind, or the request has a proof but the
        token is not bound to a key (RFC 9449 section 7.1, RFC 8705 section 3).
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
        # RFC 7800 section 3.1 allows ignoring unknown members, but an unknown binding cannot be checked.
        raise NotAuthenticated("cnf has a member that is neither jkt nor x5t#S256")
    if not all(isinstance(value, str) for value in confirmation.values()):
        raise NotAuthenticated("a member of cnf is not a string")
    return confirmation


def _check_key(expected: str, thumbprint: str | None) -> None:
    if thumbprint is None:
        raise NotAuthenticated("a token bound to a DPoP key was sent without the scheme DPoP")
    if not _same(expected, thumbprint):
        raise NotAuthenticated("the key of the DPoP proof is not the one that the token is bound to")


def _check_certificate(expected: str, certificate: bytes | None) -> None:
    if certificate is None:
        raise NotAuthenticated("a token bound to a certificate was sent over a connection without one")
    digest = urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()
    if not _same(expected, digest):
        raise NotAuthenticated("the certificate of the connection is not the one that the token is bound to")


def _same(expected: str, actual: str) -> bool:
    # compare_digest accepts ASCII strings only, and every digest is ASCII.
    return expected.isascii() and hmac.compare_digest(expected, actual)


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token whose signature (or introspection) and claims are valid.

    That alone does not authenticate its sender: binding and revocation are checked for every request.

    :param principal: the caller that it identifies.
    :param expires: when it must be verified again, in seconds since the epoch.
    :param confirmation: its claim ``cnf`` (RFC 7800), not validated; None if it has none.
    """

    principal: Principal
    expires: float = math.inf
    confirmation: Any = None


class TokenVerifier(Protocol):
    """Verifies access tokens of one form."""

    def accepts(self, token: str) -> bool:
        """Return True if a token has the form that this verifier handles."""

    def verify(self, token: str, calls: Calls) -> VerifiedToken:
        """Verify a token.

        :param calls: decides which network requests the token may cause.
        :raises UnusableCredential: it is authentic, but expired, not valid yet or for another audience.
        :raises NotAuthenticated: it is invalid; the reason is private.
        :raises DependencyUnavailable: a dependency that is needed to verify it is down.
        """
