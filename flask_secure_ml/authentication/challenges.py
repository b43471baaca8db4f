"""``WWW-Authenticate``: what an unauthenticated caller is told, exactly as RFC 6750 and RFC 9449 ask.

Every scheme on offer gets a challenge of its own header line, the one that was used first. Only that one carries an
error code, and only when a credential was presented (RFC 6750 section 3.1, RFC 9449 section 7.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Headers = list[tuple[str, str]]

OAUTH_SCHEMES = ("Bearer", "DPoP")
"""The schemes that define error codes."""


class Challenges:
    """The challenges of one app.

    :param realm: the realm of every challenge.
    :param schemes: what is on offer, in this order; without any, ``Bearer`` is, because RFC 9110 section 15.5.2 asks
        for a challenge in every 401.
    :param parameters: further parameters of a scheme, such as ``algs="ES256"``.
    """

    def __init__(self, realm: str, schemes: Sequence[str], parameters: Mapping[str, Sequence[str]]) -> None:
        offered = tuple(dict.fromkeys(scheme for scheme in schemes if scheme)) or ("Bearer",)
        self._base = {scheme: _base(scheme, realm, parameters.get(scheme, ())) for scheme in offered}
        self._ordered = {scheme: self._order(scheme) for scheme in ("", *offered)}

    def offered(self, used: str = "") -> tuple[str, ...]:
        """Return every challenge without an error code, that of the used scheme first."""
        return self._ordered.get(used, self._ordered[""])

    def headers(self, used: str = "", error: str = "") -> Headers:
        """Return the header lines.

        :param used: the scheme of the credential that was presented; empty when there was none.
        :param error: the code for that scheme, if it is one that defines codes.
        """
        first, *others = self.offered(used)
        if error and used in OAUTH_SCHEMES and used in self._base:
            first = f'{first}, error="{error}"'
        return [("WWW-Authenticate", challenge) for challenge in (first, *others)]

    def malformed(self) -> Headers:
        """Return the header lines for a request whose credentials cannot be told apart or read."""
        scheme = next((scheme for scheme in OAUTH_SCHEMES if scheme in self._base), "")
        return self.headers(scheme, "invalid_request")

    def _order(self, used: str) -> tuple[str, ...]:
        return tuple(self._base[scheme] for scheme in sorted(self._base, key=lambda scheme: scheme != used))


def _base(scheme: str, realm: str, parameters: Sequence[str]) -> str:
    return ", ".join([f'{scheme} realm="{realm}"', *parameters])
