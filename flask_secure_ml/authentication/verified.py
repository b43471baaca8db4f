"""What a verified access token is, whichever way it was verified."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..exchange import Principal


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token whose signature (or introspection) and claims are all right.

    It is not enough to let its bearer in: its binding and its revocation are looked at for every request.

    :param principal: who it speaks for.
    :param expires: seconds since the epoch after which it must not be used without verifying it again.
    :param confirmation: its claim ``cnf`` (RFC 7800), whatever type it has; None when there is none.
    """

    principal: Principal
    expires: float = math.inf
    confirmation: Any = None


class TokenVerifier(Protocol):
    """Turns the text of an access token into a :class:`VerifiedToken`."""

    def accepts(self, token: str) -> bool:
        """Tell from its form whether a token is one for this verifier."""

    def verify(self, token: str) -> VerifiedToken:
        """Return what the token proves.

        :raises NotAuthenticated: it is invalid; the reason is private.
        :raises DependencyUnavailable: what is needed to tell is down.
        """


Claims = Mapping[str, Any]
