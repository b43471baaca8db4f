"""The cookie session of the app as a credential, for its own pages: an HTML form cannot send a header.

Browsers also send cookies with requests that pages of other sites make. A request with a session is therefore rejected
unless ``Origin`` and ``Sec-Fetch-*``, which browsers set and scripts cannot, show that it does not come from another
origin. A request with an unsafe method must have one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from flask import Flask, Request
from flask.sessions import SecureCookieSessionInterface
from marshmallow import ValidationError
from werkzeug.datastructures import Headers

from ..config.session_login import SessionLogin
from ..errors import ConfigError, OriginNotAllowed, UnusableCredential
from ..exchange import Exchange
from ..pipeline import Stage
from ..policy.cors import NO_CORS, CorsOptions, is_own_origin
from ..policy.options import scope
from ..principal import Principal

KIND = "session"
"""The ``kind`` of the principals."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The safe methods (RFC 9110 section 9.2.1)."""

_LONGEST = 255


@dataclass(frozen=True)
class LoggedIn:
    """The values of a session, not validated."""

    user: object
    scopes: object


class Users(Protocol):
    """The users of a login extension, which may hold more state than the session."""

    def remembers(self, request: Request) -> bool:
        """Return True if the extension may restore the user of a session from another cookie."""

    def load(self) -> str | None:
        """Let the extension restore or end the session, and return the id of its user.

        :returns: None if the extension is not set up on the app; then the session alone is used.
        :raises UnusableCredential: the user does not exist, or may not log in.
        :raises DependencyUnavailable: the user cannot be loaded.
        """


class SessionAuthenticator:
    """Authenticates the user of the cookie session.

    :param login: the keys in the session.
    :param read: returns the session of the current request.
    :param cookie: the name of the session cookie, for the OpenAPI document.
    :param users: the users of a login extension that writes this session; the user is loaded for each request.
    """

    name = KIND
    challenge = ""

    def __init__(
        self, login: SessionLogin, read: Callable[[], Mapping[str, Any]], cookie: str, users: Users | None = None
    ) -> None:
        self._login = login
        self._read = read
        self._users = users
        self.security_scheme: Mapping[str, str] = {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie,
            "description": "The session of a user who is logged in; for pages of the same origin.",
        }

    def find(self, request: Request, exchange: Exchange) -> LoggedIn | None:
        """Return the user in the session, or None if nobody is logged in or the cookie is not authentic."""
        if not request.environ.get("HTTP_COOKIE"):
            return None
        found = self._logged_in()
        if found.user is None and not (self._users is not None and self._users.remembers(request)):
            return None
        return found

    def verify(self, credential: LoggedIn, exchange: Exchange) -> Principal:
        """Return the principal of the session.

        :raises UnusableCredential: the values in the session are not an id and scopes, or the user no longer exists.
        :raises DependencyUnavailable: the user cannot be loaded.
        """
        loaded = None
        if self._users is not None:
            loaded = self._users.load()
            # The extension may have restored or ended the session.
            credential = self._logged_in()
        subject = _subject(credential.user)
        if loaded is not None and loaded != subject:
            raise UnusableCredential("the loaded user differs from the user of the session")
        scopes = self._login.scopes | _scopes(credential.scopes)
        return Principal(KIND, subject, scopes=scopes, plan=self._login.plan)

    def _logged_in(self) -> LoggedIn:
        session, login = self._read(), self._login
        return LoggedIn(session.get(login.user), session.get(login.scopes_from) if login.scopes_from else None)


class SessionOriginGuard:
    """Rejects a request with a session that a page of another origin may have made.

    This is not part of the authenticator: middleware beneath the guards can change the method of a request, which is
    then authorized, but not authenticated, again.

    :param cors: the CORS options for routes whose policy has none. An origin that they allow with ``credentials`` may
        use the session.
    """

    name = "session_origin"
    stage = Stage.AUTHORIZE

    def __init__(self, cors: CorsOptions | None) -> None:
        self._cors = NO_CORS if cors is None else cors

    def check(self, request: Request, exchange: Exchange) -> None:
        """Accept requests without a session, and those from allowed origins.

        :raises OriginNotAllowed: the request has a session and may come from another origin.
        """
        principal = exchange.principal
        if principal is None or principal.kind != KIND or (exchange.policy is not None and exchange.policy.public):
            return
        reason = self._foreign(request, exchange)
        if reason:
            raise OriginNotAllowed(f"cookie session: {reason}")

    def _foreign(self, request: Request, exchange: Exchange) -> str:
        """Return why the request may come from a page of another origin, or an empty string if it cannot."""
        origin = request.environ.get("HTTP_ORIGIN")
        if origin is None:
            return _foreign_without_origin(request)
        if is_own_origin(origin, request.scheme, request.host) or self._allows(origin, exchange):
            return ""
        return "the Origin differs from the origin of the app"

    def _allows(self, origin: str, exchange: Exchange) -> bool:
        policy = exchange.policy
        options = self._cors if policy is None or policy.cors is None else policy.cors
        return options.credentials and options.allowed(origin) is not None


def _foreign_without_origin(request: Request) -> str:
    environ = request.environ
    if _is_websocket(environ):
        return "a WebSocket handshake without Origin"
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site == "same-origin":
        return ""
    if request.method not in SAFE_METHODS:
        return "an unsafe method without Origin, and Sec-Fetch-Site is not same-origin"
    # Links from other sites are allowed; requests that their pages make by embedding or fetching are not.
    if site in {None, "none"} or _is_top_level(environ):
        return ""
    return "a page of another origin embeds or fetches the resource"


def _is_websocket(environ: Mapping[str, Any]) -> bool:
    return "websocket" in environ.get("HTTP_UPGRADE", "").lower() or "wsgi.websocket" in environ


def _is_top_level(environ: Mapping[str, Any]) -> bool:
    return (environ.get("HTTP_SEC_FETCH_MODE"), environ.get("HTTP_SEC_FETCH_DEST")) == ("navigate", "document")


def _subject(user: object) -> str:
    # Database keys; a bool is an int in Python.
    if isinstance(user, (int, UUID)) and not isinstance(user, bool):
        user = str(user)
    if not isinstance(user, str) or not 0 < len(user) <= _LONGEST or not user.isprintable():
        raise UnusableCredential("the user in the session is not a number, a UUID or a short printable string")
    return user


def _scopes(found: object) -> frozenset[str]:
    if found is None:
        return frozenset()
    if not isinstance(found, (list, tuple, set, frozenset)) or not all(isinstance(each, str) for each in found):
        raise UnusableCredential("the scopes in the session are not a list of strings")
    try:
        return frozenset(map(scope, found))
    except ValidationError:
        raise UnusableCredential("the session contains an invalid scope") from None


def require_secret_key(app: Flask) -> None:
    """Check that the app has a key to sign the session.

    :raises ConfigError: it has none, so there is no session.
    """
    if isinstance(app.session_interface, SecureCookieSessionInterface) and not app.secret_key:
        raise ConfigError(
            ["SECURE_ML_SESSION_LOGIN: requires SECRET_KEY, which signs the session; set it before init_app is called"]
        )


class SessionVary:
    """Adds ``Vary: Cookie`` to every response that may depend on the session.

    These are the responses of routes that are not public.
    """

    def completed(self, exchange: Exchange, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers to send."""
        found = Headers(list(headers))
        self._add(found, exchange)
        return found.to_wsgi_list()

    def _add(self, headers: Headers, exchange: Exchange) -> None:
        if exchange.policy is not None and exchange.policy.public and exchange.principal is None:
            return
        present = [name.strip() for value in headers.getlist("Vary") for name in value.split(",") if name.strip()]
        if not {"*", "cookie"} & {name.lower() for name in present}:
            headers.set("Vary", ", ".join([*present, "Cookie"]))
