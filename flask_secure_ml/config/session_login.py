"""Which values of the cookie session say who is logged in (``SECURE_ML_SESSION_LOGIN``)."""

from __future__ import annotations

from dataclasses import dataclass

from ..policy.fields import Options, String, Strings
from ..policy.options import scope
from ..policy.schema import option


@dataclass(frozen=True)
class SessionLogin:
    """The keys of the session that the login view of the app writes, and what its users may do."""

    user: str = option(String(), help_text="The key of the session that holds the id of the user: ``user_id``.")
    scopes: frozenset[str] = option(
        Strings("predict", scope, unordered=True), frozenset(), "What every user who is logged in may do."
    )
    scopes_from: str = option(
        String(), "", "The key of the session that holds the scopes of this user, a list of strings."
    )
    plan: str = option(String(), "default", "The plan in ``SECURE_ML_PLANS`` that limits each user.")


class SessionLoginSetting(Options):
    """The options of the cookie session as an authentication method."""

    def __init__(self) -> None:
        super().__init__(SessionLogin)
        self.takes = 'an object such as {"user": "user_id", "scopes": ["predict"]}'
