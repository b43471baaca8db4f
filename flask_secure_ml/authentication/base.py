"""Who is calling: the contract of an authenticator, and the guard that asks each of them.

An authenticator has three outcomes: *not mine* (``find`` returns None), a :class:`Principal`, or a raise. A
credential that was found and fails is final; there is no fall-through to a weaker kind.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from flask import Request

from ..errors import MalformedRequest, NotAuthenticated, SecureMLError
from ..exchange import Exchange, Principal
from ..pipeline import Stage

log = logging.getLogger(__name__)

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
# A comma, then a scheme and its credentials: how servers join two Authorization headers. The parameters of
# Digest do not match, because "name=value" has no space after the name.
_SECOND_CREDENTIAL = re.compile(r", *[!#$%&'*+.^_`|~0-9A-Za-z-]+ +[^ =]")


class Authenticator(Protocol):
    """Finds and verifies one kind of credential."""

    @property
    def name(self) -> str:
        """A short name for logs."""

    @property
    def challenge(self) -> str:
        """The authentication scheme that ``WWW-Authenticate`` offers, such as ``Bearer``."""

    def find(self, request: Request, exchange: Exchange) -> object | None:
        """Return the credential of this kind, or None when the request carries none.

        :raises MalformedRequest: the credential breaks the syntax of its scheme.
        """

    def verify(self, credential: Any, exchange: Exchange) -> Principal:
        """Return who presented the credential that ``find`` returned.

        :raises NotAuthenticated: it is invalid, expired or revoked; the reason is private.
        :raises DependencyUnavailable: what is needed to tell is down.
        """


def authorization(request: Request) -> tuple[str, str] | None:
    """Return the lower-case scheme and the credentials of the ``Authorization`` header (RFC 9110 section 11.6.2).

    :returns: None when the header is absent or empty.
    :raises MalformedRequest: control characters, bytes beyond ASCII, or two credentials.
    """
    header: str = request.environ.get("HTTP_AUTHORIZATION", "").strip(" ")
    if not header:
        return None
    if _UNPRINTABLE.search(header):
        raise MalformedRequest("the Authorization header has characters that are not printable ASCII")
    if _SECOND_CREDENTIAL.search(header):
        raise MalformedRequest("two Authorization headers, or two credentials in one")
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), rest.strip(" ")


def single_word(request: Request, scheme: str) -> str | None:
    """Return the one word that follows a scheme in ``Authorization``, or None for another scheme or no header.

    :param scheme: in lower case.
    :raises MalformedRequest: nothing, several words or a comma after the scheme (RFC 6750 section 3.1).
    """
    found = authorization(request)
    if found is None or found[0] != scheme:
        return None
    if not found[1] or " " in found[1] or "," in found[1]:
        raise MalformedRequest(f"the scheme {scheme} needs exactly one word after it")
    return found[1]


class AuthenticationGuard:
    """Writes ``exchange.principal`` for every route that is not public, or refuses.

    :param authenticators: asked in this order; their schemes are offered in this order.
    :param realm: what ``WWW-Authenticate`` names.
    :param on_failure: called for each invalid credential, so that guessing can be throttled.
    """

    name = "authenticate"
    stage = Stage.AUTHENTICATE

    def __init__(
        self, authenticators: Sequence[Authenticator], realm: str, on_failure: Callable[[Exchange], None]
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._schemes = tuple(dict.fromkeys(each.challenge for each in authenticators))
        self._realm = realm
        self._on_failure = on_failure
        self._offered = {scheme: self._challenges(scheme) for scheme in self._schemes}

    def check(self, request: Request, exchange: Exchange) -> None:
        """Find exactly one credential and verify it; on a public route none is looked at.

        :raises NotAuthenticated: none, or one that is not valid.
        :raises MalformedRequest: a malformed credential, or several (RFC 6750 section 2).
        """
        if exchange.policy is not None and exchange.policy.public:
            return
        authenticator, credential = self._only_one(self._find(request, exchange), request)
        exchange.challenges = self._offered[authenticator.challenge]
        exchange.principal = self._verify(authenticator, credential, exchange)

    def _find(self, request: Request, exchange: Exchange) -> list[tuple[Authenticator, object]]:
        try:
            asked = [(each, each.find(request, exchange)) for each in self._authenticators]
        except MalformedRequest as error:
            raise self._malformed(error.reason) from None
        return [(each, credential) for each, credential in asked if credential is not None]

    def _only_one(
        self, found: Sequence[tuple[Authenticator, object]], request: Request
    ) -> tuple[Authenticator, object]:
        if not found:
            # RFC 6750 section 3.1: without a credential the challenge carries no error code.
            raise NotAuthenticated("no credential", headers=_headers(self._challenges()))
        if len(found) > 1:
            raise self._malformed("two credentials: " + " and ".join(each.name for each, _ in found))
        if request.environ.get("QUERY_STRING") and "access_token" in request.args:
            raise self._malformed("two credentials: one in a header and one in the query")
        return found[0]

    def _verify(self, authenticator: Authenticator, credential: object, exchange: Exchange) -> Principal:
        try:
            return _verified(authenticator, credential, exchange)
        except NotAuthenticated as error:
            self._on_failure(exchange)
            headers = _headers(self._challenges(authenticator.challenge, "invalid_token"))
            raise NotAuthenticated(error.reason, headers=headers) from error
        except MalformedRequest as error:
            raise self._malformed(error.reason) from None

    def _malformed(self, reason: str) -> MalformedRequest:
        return MalformedRequest(reason, headers=_headers(self._challenges("Bearer", "invalid_request")))

    def _challenges(self, used: str = "", error: str = "") -> tuple[str, ...]:
        """Return a challenge for each scheme on offer, the used one first; only Bearer defines error codes."""
        schemes = sorted(self._schemes, key=lambda scheme: scheme != used)
        return tuple(self._challenge(scheme, error if scheme == used == "Bearer" else "") for scheme in schemes)

    def _challenge(self, scheme: str, error: str) -> str:
        return f'{scheme} realm="{self._realm}"' + (f', error="{error}"' if error else "")


def _headers(challenges: Sequence[str]) -> list[tuple[str, str]]:
    return [("WWW-Authenticate", challenge) for challenge in challenges]


def _verified(authenticator: Authenticator, credential: object, exchange: Exchange) -> Principal:
    """Call ``verify``; whatever it raises unforeseen, a strange credential must not become a 500."""
    try:
        principal: object = authenticator.verify(credential, exchange)
    except SecureMLError:
        raise
    except Exception as error:
        log.exception("the authenticator %s failed for request %s", authenticator.name, exchange.request_id)
        raise NotAuthenticated(f"{authenticator.name} raised {type(error).__name__}") from None
    if not isinstance(principal, Principal):
        raise NotAuthenticated(f"{authenticator.name} returned no principal")
    return principal
