"""Loads the user of Flask-Login for each request, so that deleted and inactive users are rejected immediately."""

from __future__ import annotations

import logging

from flask import Flask, Request, g

from ..errors import DependencyUnavailable, UnusableCredential

log: logging.Logger = logging.getLogger(__name__)


class FlaskLoginUsers:
    """The users of an app's ``LoginManager``, if it has one.

    Flask-Login works as it does for its own pages: it enforces session protection, and restores a session from its
    remember-me cookie. It may be initialized after this extension, so it is looked up for each request.

    :param app: the app with the ``LoginManager``.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app

    def remembers(self, request: Request) -> bool:
        """Return True if the request has a remember-me cookie, valid or not."""
        cookie = request.cookies.get(self._app.config.get("REMEMBER_COOKIE_NAME", "remember_token"))
        # Flask-Login raises a TypeError for other types.
        return self._is_set_up() and cookie is not None and cookie.isascii()

    def load(self) -> str | None:
        """Load the user of the session or remember-me cookie with the ``user_loader``, and return its id.

        :returns: None if the app has no ``LoginManager``.
        :raises UnusableCredential: the user does not exist or is not active, or session protection ended the session.
        :raises DependencyUnavailable: the ``user_loader`` failed.
        """
        if not self._is_set_up():
            return None
        from flask_login import current_user

        # On Flask 3.1, two requests inside one outer app context share it, so remove the user of the other request.
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
