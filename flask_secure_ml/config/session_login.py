"""The keys of the cookie session that identify the logged-in user (``SECURE_ML_SESSION_LOGIN``)."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.fields import Options, String, Strings
from ..policy.options import scope
from ..policy.schema import option

FLASK_LOGIN_KEY = "_user_id"
"""The session key of Flask-Login's user id."""


@dataclass(frozen=True)
class SessionLogin:
    """The session keys that the app's login view sets, and the rights of its users."""

    user: str = option(
        String(),
        help_text="The session key of the user's id: ``user_id``; for Flask-Login, ``_user_id``.",
    )
    scopes: frozenset[str] = option(
        Strings("predict", scope, unordered=True), frozenset(), "The scopes of every logged-in user."
    )
    scopes_from: str = option(String(), "", "The session key of the user's scopes, a list of strings.")
    plan: str = option(String(), "default", "The plan in ``SECURE_ML_PLANS`` that limits each user.")

    @property
    def of_flask_login(self) -> bool:
        """Return True if Flask-Login stores the user."""
        return self.user == FLASK_LOGIN_KEY


class SessionLoginSetting(Options):
    """The options of the cookie session as an authentication method."""

    def __init__(self) -> None:
        super().__init__(SessionLogin)
        self.takes = 'an object such as {"user": "user_id", "scopes": ["predict"]}'
