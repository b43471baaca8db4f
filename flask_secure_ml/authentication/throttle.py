"""The interface between authentication and the throttle for failed credentials."""

from __future__ import annotations

from typing import Protocol

from ..errors import NotAuthenticated
from ..exchange import Exchange


class Calls(Protocol):
    """Decides whether a credential that cannot be verified locally may cause a network request."""

    def may_fetch(self) -> bool:
        """Return True if an unknown ``kid`` may cause a fetch of the key set."""

    def introspect(self) -> None:
        """Allow one introspection of a token.

        :raises RateLimited: the network of the client is blocked, and has used its one call of this second.
        """


class Throttle(Protocol):
    """Counts failed credentials, and blocks clients that keep presenting them.

    A block does not reject valid credentials. Only credentials whose secrets people choose are rejected before they are
    verified.
    """

    def calls(self, exchange: Exchange) -> Calls:
        """Return the object that decides which network requests the credential of a request may cause."""

    def admit(self, exchange: Exchange, identity: str) -> None:
        """Allow the verification of a guessable credential.

        :param identity: the identity that it claims, or an empty string.
        :raises RateLimited: its network or this identity is blocked, and the identity has not authenticated from that
            network lately.
        """

    def succeeded(self, exchange: Exchange, identity: str) -> None:
        """Record that a guessable credential was valid."""

    def failed(self, exchange: Exchange, error: NotAuthenticated, identity: str = "") -> None:
        """Count a credential that is not authentic, unless its network is blocked.

        :param error: why it failed.
        :param identity: the claimed identity of a guessable credential.
        :raises RateLimited: the network is blocked, or is blocked from now on, or there were too many wrong secrets for
            the API key or the identity.
        """


class _Unlimited:
    def may_fetch(self) -> bool:
        return True

    def introspect(self) -> None:
        pass


UNLIMITED: Calls = _Unlimited()
"""Allows every call: for a verifier that is used without a throttle."""


def unlimited(_exchange: Exchange) -> Calls:
    """Return :data:`UNLIMITED`."""
    return UNLIMITED
