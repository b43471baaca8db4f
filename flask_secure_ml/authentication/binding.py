"""What an access token is bound to (``cnf``, RFC 7800), and whether the one who sends it has that."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from ..errors import NotAuthenticated

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
