"""The protocols of authenticators, the parser of ``Authorization``, and the guard that calls the authenticators.

An authenticator has three outcomes: *not mine* (``find`` returns None), a :class:`Principal`, or an exception. If a
credential is found and fails, the request is rejected; there is no fallback to a weaker kind.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from flask import Request

from ..config.plans import Plans
from ..errors import InternalError, MalformedRequest, NotAuthenticated, SecureMLError, UnusableCredential
from ..exchange import Exchange
from ..pipeline import Stage
from ..principal import Principal, network_of
from .challenges import Challenges
from .claimed import claimed_identity
from .throttle import Throttle

log: logging.Logger = logging.getLogger(__name__)

_IN_QUERY = frozenset({"access_token", "api_key", "apikey", "x-api-key"})
_SCHEMES = frozenset({"apikey", "basic", "bearer", "digest", "dpop", "negotiate", "token"})


class Authenticator(Protocol):
    """Finds and verifies one kind of credential."""

    @property
    def name(self) -> str:
        """A short name for logs."""

    @property
    def challenge(self) -> str:
        """The challenge in ``WWW-Authenticate``: a scheme such as ``Bearer``, with or without parameters, or empty.

        The realm of the app is added unless it has one.
        """

    def find(self, request: Request, exchange: Exchange) -> object | None:
        """Return the credential of this kind, or None if the request has none.

        :raises MalformedRequest: the credential violates the syntax of its scheme.
        """

    def verify(self, credential: Any, exchange: Exchange) -> Principal:
        """Return the principal of the credential that ``find`` returned.

        :raises UnusableCredential: it is authentic, but expired, not valid yet, revoked or for another audience.
        :raises NotAuthenticated: it is not authentic, and may be a guess; the reason is private.
        :raises DependencyUnavailable: a dependency that is needed to verify it is down.
        """


class GuessableAuthenticator(Authenticator, Protocol):
    """An authenticator whose secrets people choose and others can guess: passwords, PINs.

    While the network or the claimed identity is blocked, its credentials are rejected before they are verified, unless
    that identity authenticated from that network within the last day.
    """

    @property
    def guessable(self) -> bool:
        """Whether its secrets can be guessed: True."""

    def identity(self, credential: Any) -> str:
        """Return the identity that a credential claims, such as a user name.

        It is empty if the credential, which ``find`` returned, claims none.
        """


class Revoker(Protocol):
    """Checks whether a credential was revoked before its expiry."""

    def check(self, principal: Principal) -> None:
        """Check that a principal is not revoked.

        :raises UnusableCredential: the principal, its token, or everything issued up to some time was revoked.
        :raises DependencyUnavailable: the revocations cannot be read.
        """


class AuthenticationGuard:
    """Sets ``exchange.principal`` for every route that is not public, or rejects the request.

    It also sets ``exchange.caller``, who is charged, and ``exchange.plan``; limits and responses use both.

    :param plans: the plans of ``SECURE_ML_PLANS``.
    :param authenticators: called in this order.
    :param challenges: the challenges in ``WWW-Authenticate``.
    :param revoker: called for every verified credential of any kind.
    :param throttle: counts failed credentials, and decides which are still verified.
    :param ambient: authenticators for credentials that clients send implicitly, such as a session cookie or the
        certificate of the connection; called only if the request has no other credential. The first one found is used.
    :param poll: called for every request, also on public routes; refreshes cached keys and revocations.
    :raises ValueError: an authenticator is ``guessable`` but has no method ``identity``.
    """

    name = "authenticate"
    stage = Stage.AUTHENTICATE

    def __init__(
        self,
        plans: Plans,
        authenticators: Sequence[Authenticator],
        challenges: Challenges,
        revoker: Revoker,
        throttle: Throttle,
        ambient: Sequence[Authenticator] = (),
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        self._plans = plans
        self._authenticators = tuple(authenticators)
        self._ambient = tuple(ambient)
        self._challenges = challenges
        self._revoker = revoker
        self._throttle = throttle
        self._poll = poll
        self._guessable = tuple(each for each in self.authenticators if _is_guessable(each))

    @property
    def authenticators(self) -> tuple[Authenticator, ...]:
        """Every authenticator, in the order in which they are called."""
        return (*self._authenticators, *self._ambient)

    def check(self, request: Request, exchange: Exchange) -> None:
        """Find exactly one credential and verify it, unless the route is public.

        If an enclosing app has already authenticated the request, its principal is kept.

        :raises NotAuthenticated: there is no credential, or it is not valid.
        :raises MalformedRequest: it is malformed, or there are several (RFC 6750 section 2).
        :raises InternalError: its plan is not configured; a request without limits must not be served.
        """
        self._poll()
        principal = exchange.principal
        if principal is None and not (exchange.policy is not None and exchange.policy.public):
            authenticator, credential = self._only_one(self._find(request, exchange), request)
            exchange.credential = authenticator.name
            exchange.challenges = self._challenges.offered(authenticator.challenge)
            exchange.principal = principal = self._verify(authenticator, credential, exchange)
        exchange.caller = f"address:{network_of(exchange.client)}" if principal is None else principal.id
        plan = "default" if principal is None else principal.plan
        if plan not in self._plans:
            raise InternalError(f"the plan {plan!r} of {exchange.caller} is not in SECURE_ML_PLANS")
        exchange.plan = self._plans[plan]

    def _find(self, request: Request, exchange: Exchange) -> list[tuple[Authenticator, object]]:
        try:
            found = _find_all(self._authenticators, request, exchange)
            if not found and self._ambient and not _carries_any(request):
                found = next(filter(None, (_find_all((each,), request, exchange) for each in self._ambient)), [])
        except MalformedRequest as error:
            raise self._malformed(error.reason) from None
        return found

    def _only_one(
        self, found: Sequence[tuple[Authenticator, object]], request: Request
    ) -> tuple[Authenticator, object]:
        if not found:
            # RFC 6750 section 3.1: without a credential the challenge carries no error code.
            raise NotAuthenticated(_missing(request), headers=self._challenges.headers())
        if len(found) > 1:
            raise self._malformed("two credentials: " + " and ".join(each.name for each, _ in found))
        if request.environ.get("QUERY_STRING") and any(name.lower() in _IN_QUERY for name in request.args):
            raise self._malformed("two credentials: one in a header and one in the query")
        return found[0]

    def _verify(self, authenticator: Authenticator, credential: object, exchange: Exchange) -> Principal:
        identity = ""
        try:
            if authenticator in self._guessable:
                identity = _identity(authenticator, credential, exchange)
                self._throttle.admit(exchange, identity)
            principal = _verified(authenticator, credential, exchange)
            self._revoker.check(principal)
        except NotAuthenticated as error:
            if not isinstance(error, UnusableCredential):
                exchange.attempted = claimed_identity(authenticator, credential, error, identity)
                self._throttle.failed(exchange, error, identity)
            # Set on the error itself, because the constructor of a user-defined class may take other arguments.
            error.extra_headers = tuple(self._challenges.headers(authenticator.challenge, error.oauth_error))
            error.members = {}
            raise
        except MalformedRequest as error:
            raise self._malformed(error.reason) from None
        if identity:
            self._throttle.succeeded(exchange, identity)
        return principal

    def _malformed(self, reason: str) -> MalformedRequest:
        return MalformedRequest(reason, headers=self._challenges.malformed())


def _find_all(
    authenticators: Sequence[Authenticator], request: Request, exchange: Exchange
) -> list[tuple[Authenticator, object]]:
    """Call each ``find``; turn unexpected exceptions into a MalformedRequest, not a 500."""
    found: list[tuple[Authenticator, object]] = []
    for each in authenticators:
        try:
            credential = each.find(request, exchange)
        except SecureMLError:
            raise
        except Exception as error:
            log.exception("the authenticator %s failed for request %s", each.name, exchange.request_id)
            raise MalformedRequest(f"{each.name} raised {type(error).__name__}") from None
        if credential is not None:
            found.append((each, credential))
    return found


def _is_guessable(authenticator: Authenticator) -> bool:
    if not getattr(authenticator, "guessable", False):
        return False
    if not callable(getattr(authenticator, "identity", None)):
        raise ValueError(f"the authenticator {authenticator.name} is guessable but has no method identity()")
    return True


def _identity(authenticator: Any, credential: object, exchange: Exchange) -> str:
    """Return the claimed identity, prefixed with the name of its authenticator; empty if none is claimed."""
    try:
        claimed = authenticator.identity(credential)
    except SecureMLError:
        raise
    except Exception as error:
        log.exception("the authenticator %s failed for request %s", authenticator.name, exchange.request_id)
        raise MalformedRequest(f"{authenticator.name} raised {type(error).__name__}") from None
    return f"{authenticator.name}:{claimed}" if claimed else ""


def _carries_any(request: Request) -> bool:
    """Return True if the request has any credential, even one that this app does not accept."""
    return bool(request.environ.get("HTTP_AUTHORIZATION") or request.environ.get("HTTP_X_API_KEY"))


def _missing(request: Request) -> str:
    """Return the private reason for rejecting a request without an accepted credential.

    It names other credentials in the request, but never their values.
    """
    unread = []
    if header := request.environ.get("HTTP_AUTHORIZATION", ""):
        # If a client omits the scheme, the first word is the secret itself.
        scheme = header.partition(" ")[0].lower()
        unread.append(f"Authorization with {f'the scheme {scheme}' if scheme in _SCHEMES else 'another scheme'}")
    if request.environ.get("HTTP_X_API_KEY"):
        unread.append("X-API-Key")
    if request.environ.get("QUERY_STRING") and any(name.lower() in _IN_QUERY for name in request.args):
        unread.append("a credential in the query")
    if unread:
        return f"no credential; ignored: {', '.join(unread)}"
    if request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.environ:
        return "no credential; this is a CORS preflight, but SECURE_ML_CORS is not set"
    return "no credential"


def _verified(authenticator: Authenticator, credential: object, exchange: Exchange) -> Principal:
    """Call ``verify``; turn unexpected exceptions into a NotAuthenticated, not a 500."""
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


# A comma, then a scheme and its credentials: servers join two Authorization headers like this. The parameters of
# Digest do not match, because "name=value" has no space after the name.
_SECOND_CREDENTIAL = re.compile(r", *[!#$%&'*+.^_`|~0-9A-Za-z-]+ +[^ =]")
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def authorization(request: Request) -> tuple[str, str] | None:
    """Return the lower-case scheme and the credentials of the ``Authorization`` header (RFC 9110 section 11.6.2).

    :returns: None if the header is absent or empty.
    :raises MalformedRequest: it has control characters, non-ASCII bytes, or two credentials.
    """
    header: str = request.environ.get("HTTP_AUTHORIZATION", "")
    if not header or not (header := header.strip(" ")):
        return None
    if not (header.isascii() and header.isprintable()):
        raise MalformedRequest("the Authorization header has characters other than printable ASCII")
    if _SECOND_CREDENTIAL.search(header):
        raise MalformedRequest("two Authorization headers, or two credentials in one")
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), rest.strip(" ")


def single_value(request: Request, scheme: str) -> str | None:
    """Return the value after a scheme in ``Authorization``, or None for another scheme or no header.

    :param scheme: in lower case.
    :raises MalformedRequest: the scheme has no value, several values or a comma (RFC 6750 section 3.1).
    """
    found = authorization(request)
    if found is None or found[0] != scheme:
        return None
    if not found[1] or " " in found[1] or "," in found[1]:
        raise MalformedRequest(f"the scheme {scheme} requires exactly one value")
    return found[1]


def token68(request: Request, scheme: str) -> str | None:
    """Return the token after a scheme, or None for another scheme or no header (RFC 6750 section 2.1).

    :param scheme: in lower case.
    :raises MalformedRequest: the value is not one b64token.
    """
    token = single_value(request, scheme)
    if token is not None and not _B64TOKEN.fullmatch(token):
        raise MalformedRequest(f"the value after {scheme} has characters that are not allowed in a token")
    return token
