"""The user of Flask-Login, loaded for each request, so that one who was deleted or deactivated is out at once."""

from __future__ import annotations

import logging

from flask import Flask, Request, g

from ..errors import DependencyUnavailable, UnusableCredential

log: logging.Logger = logging.getLogger(__name__)


class FlaskLoginUsers:
    """The users of the ``LoginManager`` of an app, where it has one.

    Flask-Login does what it does for its own pages: its session protection holds, and it restores a session from its
    remember-me cookie. It may be set up after this extension, so it is looked up for each request.

    :param app: the app with the ``LoginManager``.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app

    def remembers(self, request: Request) -> bool:
        """Return True if there is a remember-me cookie, authentic or not."""
        cookie = request.cookies.get(self._app.config.get("REMEMBER_COOKIE_NAME", "remember_token"))
        # Flask-Login raises a TypeError for others.
        return self._is_set_up() and cookie is not None and cookie.isascii()

    def load(self) -> str | None:
        """Load the user of the session or of the remember-me cookie by the ``user_loader``, and return its id.

        :returns: None if the app has no ``LoginManager``.
        :raises UnusableCredential: there is no such user, it is not active, or session protection ended the session.
        :raises DependencyUnavailable: the ``user_loader`` failed.
        """
        if not self._is_set_up():
            return None
        from flask_login import current_user

        # Two requests inside one outer app context share it on Flask 3.1; a user of the other one is not loaded again.
        g.pop("_login_user", None)
        try:
            user_id, is_active = current_user.get_id(), current_user.is_active
            is_active = is_active() if callable(is_active) else is_active
        except Exception as error:
            log.exception("the user_loader of Flask-Login failed")
            raise DependencyUnavailable(f"the user_loader raised {type(error).__name__}") from None
        if user_id is None:
            raise UnusableCredential("Flask-Login has no user for this session")
        if not is_active:
            raise UnusableCredential("the user is not active")
        return str(user_id)

    def _is_set_up(self) -> bool:
        return getattr(self._app, "login_manager", None) is not None
