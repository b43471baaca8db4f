"""Which values of the cookie session say who is logged in (``SECURE_ML_SESSION_LOGIN``)."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.fields import Options, String, Strings
from ..policy.options import scope
from ..policy.schema import option

FLASK_LOGIN_KEY = "_user_id"
"""The key of the session in which Flask-Login stores the id of its user."""


@dataclass(frozen=True)
class SessionLogin:
    """The keys of the session that the login view of the app writes, and what its users may do."""

    user: str = option(
        String(),
        help_text="The key of the session that holds the id of the user: ``user_id``; for Flask-Login, ``_user_id``.",
    )
    scopes: frozenset[str] = option(
        Strings("predict", scope, unordered=True), frozenset(), "What every user who is logged in may do."
    )
    scopes_from: str = option(
        String(), "", "The key of the session that holds the scopes of this user, a list of strings."
    )
    plan: str = option(String(), "default", "The plan in ``SECURE_ML_PLANS`` that limits each user.")

    @property
    def of_flask_login(self) -> bool:
        """Return True if the user is the one of Flask-Login."""
        return self.user == FLASK_LOGIN_KEY


class SessionLoginSetting(Options):
    """The options of the cookie session as an authentication method."""

    def __init__(self) -> None:
        super().__init__(SessionLogin)
        self.takes = 'an object such as {"user": "user_id", "scopes": ["predict"]}'
