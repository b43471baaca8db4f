"""Who is calling: the contract of an authenticator, and the guard that asks each of them.

An authenticator has three outcomes: *not mine* (``find`` returns None), a :class:`Principal`, or a raise. A
credential that was found and fails is final; there is no fall-through to a weaker kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from flask import Request

from ..errors import MalformedRequest, NonceRequired, NotAuthenticated, SecureMLError
from ..exchange import Exchange
from ..pipeline import Stage
from ..principal import Principal

log: logging.Logger = logging.getLogger(__name__)

OnFailure = Callable[[Exchange, str], None]
_IN_QUERY = frozenset({"access_token", "api_key", "apikey", "x-api-key"})


class Authenticator(Protocol):
    """Finds and verifies one kind of credential."""

    @property
    def name(self) -> str:
        """A short name for logs."""

    @property
    def challenge(self) -> str:
        """The authentication scheme that ``WWW-Authenticate`` offers, such as ``Bearer``; empty for none."""

    def find(self, request: Request, exchange: Exchange) -> object | None:
        """Return the credential of this kind, or None when the request carries none.

        :raises MalformedRequest: the credential breaks the syntax of its scheme.
        """

    def verify(self, credential: Any, exchange: Exchange) -> Principal:
        """Return who presented the credential that ``find`` returned.

        :raises NotAuthenticated: it is invalid, expired or revoked; the reason is private.
        :raises DependencyUnavailable: what is needed to tell is down.
        """


class Revoker(Protocol):
    """Knows what was withdrawn before its time."""

    def check(self, principal: Principal) -> None:
        """Let a principal pass.

        :raises NotAuthenticated: its token, itself or everything of its time was revoked.
        :raises DependencyUnavailable: that cannot be told now.
        """


class AuthenticationGuard:
    """Writes ``exchange.principal`` for every route that is not public, or refuses.

    :param authenticators: asked in this order.
    :param challenges: what ``WWW-Authenticate`` says.
    :param revoker: asked for every verified credential, of whatever kind.
    :param on_failure: called for each invalid credential with the id of the API key that was guessed at, or an empty
        text; it may raise to answer 429.
    :param ambient: an authenticator for what comes with the connection and not with the request, such as a client
        certificate; it is asked only when the request carries no credential.
    """

    name = "authenticate"
    stage = Stage.AUTHENTICATE

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        challenges: Challenges,
        revoker: Revoker,
        on_failure: OnFailure,
        ambient: Authenticator | None = None,
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._ambient = ambient
        self._challenges = challenges
        self._revoker = revoker
        self._on_failure = on_failure

    @property
    def authenticators(self) -> tuple[Authenticator, ...]:
        """Every way in, in the order in which they are asked."""
        return self._authenticators if self._ambient is None else (*self._authenticators, self._ambient)

    def check(self, request: Request, exchange: Exchange) -> None:
        """Find exactly one credential and verify it; on a public route none is looked at.

        A caller whom an app around this one knows stays who it is.

        :raises NotAuthenticated: none, or one that is not valid.
        :raises MalformedRequest: a malformed credential, or several (RFC 6750 section 2).
        """
        if exchange.principal is not None or (exchange.policy is not None and exchange.policy.public):
            return
        authenticator, credential = self._only_one(self._find(request, exchange), request)
        exchange.challenges = self._challenges.offered(authenticator.challenge)
        exchange.principal = self._verify(authenticator, credential, exchange)

    def _find(self, request: Request, exchange: Exchange) -> list[tuple[Authenticator, object]]:
        try:
            found = _asked(self._authenticators, request, exchange)
            if not found and self._ambient is not None and not _carries_any(request):
                found = _asked((self._ambient,), request, exchange)
        except MalformedRequest as error:
            raise self._malformed(error.reason) from None
        return found

    def _only_one(
        self, found: Sequence[tuple[Authenticator, object]], request: Request
    ) -> tuple[Authenticator, object]:
        if not found:
            # RFC 6750 section 3.1: without a credential the challenge carries no error code.
            raise NotAuthenticated("no credential", headers=self._challenges.headers())
        if len(found) > 1:
            raise self._malformed("two credentials: " + " and ".join(each.name for each, _ in found))
        if request.environ.get("QUERY_STRING") and any(name.lower() in _IN_QUERY for name in request.args):
            raise self._malformed("two credentials: one in a header and one in the query")
        return found[0]

    def _verify(self, authenticator: Authenticator, credential: object, exchange: Exchange) -> Principal:
        try:
            principal = _verified(authenticator, credential, exchange)
            self._revoker.check(principal)
        except NotAuthenticated as error:
            if not isinstance(error, NonceRequired):
                self._on_failure(exchange, error.claimed)
            headers = self._challenges.headers(authenticator.challenge, error.oauth_error)
            raise type(error)(error.reason, headers=headers) from error
        except MalformedRequest as error:
            raise self._malformed(error.reason) from None
        return principal

    def _malformed(self, reason: str) -> MalformedRequest:
        return MalformedRequest(reason, headers=self._challenges.malformed())


def _asked(
    authenticators: Sequence[Authenticator], request: Request, exchange: Exchange
) -> list[tuple[Authenticator, object]]:
    asked = [(each, _find(each, request, exchange)) for each in authenticators]
    return [(each, credential) for each, credential in asked if credential is not None]


def _find(authenticator: Authenticator, request: Request, exchange: Exchange) -> object | None:
    """Call ``find``; what it raises unforeseen is about what was sent, and must not become a 500."""
    try:
        return authenticator.find(request, exchange)
    except SecureMLError:
        raise
    except Exception as error:
        log.exception("the authenticator %s failed for request %s", authenticator.name, exchange.request_id)
        raise MalformedRequest(f"{authenticator.name} raised {type(error).__name__}") from None


def _carries_any(request: Request) -> bool:
    """Tell whether there is a credential of some kind, though of none that is on offer."""
    return bool(request.environ.get("HTTP_AUTHORIZATION") or request.environ.get("HTTP_X_API_KEY"))


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


Headers = list[tuple[str, str]]

OAUTH_SCHEMES = ("Bearer", "DPoP")
"""The schemes that define error codes."""


class Challenges:
    """The challenges of one app.

    :param realm: the realm of every challenge.
    :param schemes: what is on offer, in this order; without any, ``Bearer`` is, because RFC 9110 section 15.5.2 asks
        for a challenge in every 401.
    :param parameters: further parameters of a scheme, such as ``algs="ES256"``.
    """

    def __init__(self, realm: str, schemes: Sequence[str], parameters: Mapping[str, Sequence[str]]) -> None:
        offered = tuple(dict.fromkeys(scheme for scheme in schemes if scheme)) or ("Bearer",)
        self._base = {scheme: _base(scheme, realm, parameters.get(scheme, ())) for scheme in offered}
        self._ordered = {scheme: self._order(scheme) for scheme in ("", *offered)}

    def offered(self, used: str = "") -> tuple[str, ...]:
        """Return every challenge without an error code, that of the used scheme first."""
        return self._ordered.get(used, self._ordered[""])

    def headers(self, used: str = "", error: str = "") -> Headers:
        """Return the header lines.

        :param used: the scheme of the credential that was presented; empty when there was none.
        :param error: the code for that scheme, if it is one that defines codes.
        """
        first, *others = self.offered(used)
        if error and used in OAUTH_SCHEMES and used in self._base:
            first = f'{first}, error="{error}"'
        return [("WWW-Authenticate", challenge) for challenge in (first, *others)]

    def malformed(self) -> Headers:
        """Return the header lines for a request whose credentials cannot be told apart or read."""
        scheme = next((scheme for scheme in OAUTH_SCHEMES if scheme in self._base), "")
        return self.headers(scheme, "invalid_request")

    def _order(self, used: str) -> tuple[str, ...]:
        return tuple(self._base[scheme] for scheme in sorted(self._base, key=lambda scheme: scheme != used))


def _base(scheme: str, realm: str, parameters: Sequence[str]) -> str:
    return ", ".join([f'{scheme} realm="{realm}"', *parameters])
