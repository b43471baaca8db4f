"""What authentication needs of a throttle: whether a credential may be tried, and what its failure means."""

from __future__ import annotations

from typing import Protocol

from ..errors import NotAuthenticated
from ..exchange import Exchange


class Calls(Protocol):
    """Decides whether a credential that cannot be verified locally may cause a call over the network."""

    def may_fetch(self) -> bool:
        """Return True if an unknown ``kid`` may cause a fetch of the key set."""

    def introspect(self) -> None:
        """Let a token be introspected.

        :raises RateLimited: the network of the client is blocked, and had its call of this second.
        """


class Throttle(Protocol):
    """Counts the credentials that fail, and blocks those that keep presenting them.

    Verification is the same with and without a block: a valid credential always passes. Only a credential whose secret
    people choose is rejected before it is verified.
    """

    def calls(self, exchange: Exchange) -> Calls:
        """Return what the credential of a request may cause."""

    def admit(self, exchange: Exchange, identity: str) -> None:
        """Let a guessable credential be verified.

        :param identity: whose credential it claims to be; empty if it names nobody.
        :raises RateLimited: its network or this identity is blocked, and the two have not succeeded together lately.
        """

    def succeeded(self, exchange: Exchange, identity: str) -> None:
        """Record that a guessable credential was valid."""

    def failed(self, exchange: Exchange, error: NotAuthenticated, identity: str = "") -> None:
        """Count a credential that proved nothing, unless its network is blocked.

        :param error: why it failed.
        :param identity: of a guessable credential.
        :raises RateLimited: the network is blocked already or from now on, or the API key or the identity had too many
            wrong secrets.
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
