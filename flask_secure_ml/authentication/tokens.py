"""Access tokens as they come with a request: the schemes ``Bearer`` and ``DPoP``, whichever kind of token it is.

The token itself is verified elsewhere. Here it is decided who verifies it, and whether the one who sends it may: a
token that is bound to a key or a certificate is worth nothing without it (RFC 8705 section 3, RFC 9449 section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flask import Request

from ..errors import NotAuthenticated
from ..exchange import Exchange, Principal
from .binding import check_binding
from .credentials import token68
from .verified import TokenVerifier, VerifiedToken


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
