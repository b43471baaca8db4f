"""The identity that a rejected credential claims, for counting attempts; it is never used as the caller."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from hashlib import blake2b
from typing import Any

from ..errors import NotAuthenticated
from ..strictjson import loads

_DIGITS = 16
_BUCKET = 3
"""Hexadecimal digits of the digest of a credential that claims no identity: enough to count ten different ones, too few
to guess the credential."""

_LONGEST = 16_384
_DOTS = 2


def claimed_identity(authenticator: Any, credential: object, error: NotAuthenticated, identity: str) -> str:
    """Return the identity that a rejected credential claims.

    It consists of the method, a colon, and an id or a digest. API keys have an id. Strings that people type, such as
    user names, may be secrets, and the claims of a token or a certificate are unverified, so a digest of these is used.
    A credential that claims no identity gets a short digest.

    :param error: why it was rejected; for an API key, it has the id.
    :param identity: the claimed identity of a guessable credential; empty for any other.
    """
    name = authenticator.name
    if isinstance(credential, tuple) and credential:
        # A tuple of the request and the token.
        credential = credential[-1]
    if error.claimed:
        return f"{name}:{error.claimed}"
    named = identity or unverified_subject(credential)
    if named:
        return f"{name}:{_digest(named.encode('utf-8', 'surrogatepass'))[:_DIGITS]}"
    if isinstance(credential, bytes):
        return f"{name}:{_digest(credential)[:_DIGITS]}"
    raw = repr(credential) if isinstance(credential, (str, int, float)) else type(credential).__name__
    return f"{name}:?{_digest(raw.encode('utf-8', 'surrogatepass'))[:_BUCKET]}"


def unverified_subject(credential: object) -> str:
    """Return the issuer and the subject that a JWT claims.

    It is empty if there is no subject, or the credential is not a JWT.
    """
    if not isinstance(credential, str) or len(credential) > _LONGEST or credential.count(".") != _DOTS:
        return ""
    payload = credential.split(".")[1]
    try:
        claims = loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), max_depth=8)
    except ValueError:
        return ""
    if not isinstance(claims, dict):
        return ""
    subject = claims.get("sub") or claims.get("client_id") or claims.get("azp")
    return f"{claims.get('iss')}#{subject}" if isinstance(subject, str) else ""


def _digest(raw: bytes) -> str:
    return blake2b(raw, digest_size=8, person=b"attempted").hexdigest()
