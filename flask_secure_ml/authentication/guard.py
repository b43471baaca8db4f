"""The protocols of authenticators, the credential in ``Authorization``, and the guard that calls each authenticator.

An authenticator has three outcomes: *not mine* (``find`` returns None), a :class:`Principal`, or an exception. A
credential that was found and fails is final; there is no fall-through to a weaker kind.
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
from .throttle import Throttle

log: logging.Logger = logging.getLogger(__name__)

_IN_QUERY = frozenset({"access_token", "api_key", "apikey", "x-api-key"})


class Authenticator(Protocol):
    """Finds and verifies one kind of credential."""

    @property
    def name(self) -> str:
        """A short name for logs."""

    @property
    def challenge(self) -> str:
        """The challenge in ``WWW-Authenticate``: a scheme such as ``Bearer``, or one with parameters; empty for none.

        The realm of the app is added unless it has one.
        """

    def find(self, request: Request, exchange: Exchange) -> object | None:
        """Return the credential of this kind, or None when the request carries none.

        :raises MalformedRequest: the credential breaks the syntax of its scheme.
        """

    def verify(self, credential: Any, exchange: Exchange) -> Principal:
        """Return the principal of the credential that ``find`` returned.

        :raises UnusableCredential: it is authentic, but expired, not valid yet, revoked or for another audience.
        :raises NotAuthenticated: it proves nothing, and may be a guess; the reason is private.
        :raises DependencyUnavailable: a dependency that is needed to verify it is down.
        """


class GuessableAuthenticator(Authenticator, Protocol):
    """An authenticator whose secrets people choose, so that they can be guessed: passwords, PINs.

    Its credentials are rejected before they are verified while their network or the identity that they claim is
    blocked, unless the two succeeded together within the last day.
    """

    @property
    def guessable(self) -> bool:
        """Whether its secrets can be guessed; True."""

    def identity(self, credential: Any) -> str:
        """Return whose credential ``find`` returned, as it claims, such as a user name; empty if it names nobody."""


class Revoker(Protocol):
    """Knows which credentials were revoked before they expired."""

    def check(self, principal: Principal) -> None:
        """Let a principal pass.

        :raises UnusableCredential: the principal, its token, or everything issued up to an instant was revoked.
        :raises DependencyUnavailable: the revocations are not known now.
        """


class AuthenticationGuard:
    """Writes ``exchange.principal`` for every route that is not public, or rejects the request.

    It also writes who is charged, and under which plan: limits and responses read both.

    :param plans: the plans of ``SECURE_ML_PLANS``.
    :param authenticators: called in this order.
    :param challenges: the challenges in ``WWW-Authenticate``.
    :param revoker: called for every verified credential, of whatever kind.
    :param throttle: counts the credentials that fail, and decides what is still tried.
    :param ambient: authenticators for what clients send by themselves, such as a session cookie or the certificate of
        the connection; called only when the request has no credential, and the first that finds one counts.
    :param poll: called for every request, also on public routes: keeps cached keys and revocations current.
    :raises ValueError: an authenticator is ``guessable`` and has no method ``identity``.
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
        """Find exactly one credential and verify it; on a public route none is looked for.

        A principal that an enclosing app has authenticated stays.

        :raises NotAuthenticated: there is no credential, or it is not valid.
        :raises MalformedRequest: it is malformed, or there are several (RFC 6750 section 2).
        :raises InternalError: it names a plan that is not configured; better rejected than unlimited.
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
            raise NotAuthenticated("no credential", headers=self._challenges.headers())
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
                self._throttle.failed(exchange, error, identity)
            # The error itself, because a class of the user's may take other arguments.
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
    """Call each ``find``; an unforeseen exception is due to the request, and must not become a 500."""
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
        raise ValueError(f"the authenticator {authenticator.name} is guessable and has no method identity()")
    return True


def _identity(authenticator: Any, credential: object, exchange: Exchange) -> str:
    """Return the claimed identity under the name of its authenticator; empty if it names nobody."""
    try:
        claimed = authenticator.identity(credential)
    except SecureMLError:
        raise
    except Exception as error:
        log.exception("the authenticator %s failed for request %s", authenticator.name, exchange.request_id)
        raise MalformedRequest(f"{authenticator.name} raised {type(error).__name__}") from None
    return f"{authenticator.name}:{claimed}" if claimed else ""


def _carries_any(request: Request) -> bool:
    """Return True if the request has a credential of some kind, even one that this app does not accept."""
    return bool(request.environ.get("HTTP_AUTHORIZATION") or request.environ.get("HTTP_X_API_KEY"))


def _verified(authenticator: Authenticator, credential: object, exchange: Exchange) -> Principal:
    """Call ``verify``; an unforeseen exception is due to the credential, and must not become a 500."""
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


# A comma, then a scheme and its credentials: how servers join two Authorization headers. The parameters of
# Digest do not match, because "name=value" has no space after the name.
_SECOND_CREDENTIAL = re.compile(r", *[!#$%&'*+.^_`|~0-9A-Za-z-]+ +[^ =]")
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def authorization(request: Request) -> tuple[str, str] | None:
    """Return the lower-case scheme and the credentials of the ``Authorization`` header (RFC 9110 section 11.6.2).

    :returns: None when the header is absent or empty.
    :raises MalformedRequest: control characters, bytes beyond ASCII, or two credentials.
    """
    header: str = request.environ.get("HTTP_AUTHORIZATION", "")
    if not header or not (header := header.strip(" ")):
        return None
    if not (header.isascii() and header.isprintable()):
        raise MalformedRequest("the Authorization header has characters that are not printable ASCII")
    if _SECOND_CREDENTIAL.search(header):
        raise MalformedRequest("two Authorization headers, or two credentials in one")
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), rest.strip(" ")


def single_value(request: Request, scheme: str) -> str | None:
    """Return the one value that follows a scheme in ``Authorization``, or None for another scheme or no header.

    :param scheme: in lower case.
    :raises MalformedRequest: no value, several values or a comma after the scheme (RFC 6750 section 3.1).
    """
    found = authorization(request)
    if found is None or found[0] != scheme:
        return None
    if not found[1] or " " in found[1] or "," in found[1]:
        raise MalformedRequest(f"the scheme {scheme} needs exactly one value after it")
    return found[1]


def token68(request: Request, scheme: str) -> str | None:
    """Return the token that follows a scheme, or None for another scheme or no header (RFC 6750 section 2.1).

    :param scheme: in lower case.
    :raises MalformedRequest: the value is not one b64token.
    """
    token = single_value(request, scheme)
    if token is not None and not _B64TOKEN.fullmatch(token):
        raise MalformedRequest(f"the value after {scheme} has characters that no token has")
    return token
