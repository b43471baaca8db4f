"""The challenges in ``WWW-Authenticate`` (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

Headers = list[tuple[str, str]]

OAUTH_SCHEMES = ("Bearer", "DPoP")
"""The schemes that define error codes."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD}) *= *(?:{_WORD}|"(?:[ !#-\[\]-~]|\\[ -~])*")')
_CHALLENGE = re.compile(
    rf"(?P<scheme>{_WORD})(?: +(?:(?P<token>[A-Za-z0-9._~+/-]+=*)"
    rf"|(?P<parameters>{_PARAMETER.pattern}(?: *, *{_PARAMETER.pattern})*)))?"
)


class Challenges:
    """The challenges of one app.

    :param realm: the realm of challenges that do not have their own.
    :param challenges: the challenges of the authenticators, in order; ``Bearer`` if there are none, because RFC 9110
        section 15.5.2 requires a challenge in every 401.
    :param parameters: additional parameters by scheme, such as ``algs="ES256"``; a challenge's own take precedence.
    :raises ValueError: one of the strings is not exactly one challenge (RFC 9110 section 11.6.1).
    """

    def __init__(self, realm: str, challenges: Iterable[str], parameters: Mapping[str, Sequence[str]]) -> None:
        given = tuple(dict.fromkeys(filter(None, challenges))) or ("Bearer",)
        self._complete = {each: _complete(each, realm, parameters) for each in given}
        self._ordered = {each: self._order(each) for each in ("", *given)}

    def offered(self, used: str = "") -> tuple[str, ...]:
        """Return every challenge without an error code, the one of the used authenticator first."""
        return self._ordered.get(used, self._ordered[""])

    def headers(self, used: str = "", error: str = "") -> Headers:
        """Return the header lines.

        :param used: the challenge of the authenticator whose credential was presented; empty if there was none.
        :param error: the code for that challenge, if its scheme defines codes.
        """
        first, *others = self.offered(used)
        if error and used in self._complete and _scheme(used) in OAUTH_SCHEMES:
            first = f'{first}, error="{error}"'
        return [("WWW-Authenticate", challenge) for challenge in (first, *others)]

    def malformed(self) -> Headers:
        """Return the header lines for a request with malformed or ambiguous credentials."""
        used = next((each for name in OAUTH_SCHEMES for each in self._complete if _scheme(each) == name), "")
        return self.headers(used, "invalid_request")

    def _order(self, used: str) -> tuple[str, ...]:
        ordered = sorted(self._complete, key=lambda each: each != used)
        return tuple(dict.fromkeys(self._complete[each] for each in ordered))


def _scheme(challenge: str) -> str:
    return challenge.partition(" ")[0]


def _complete(challenge: str, realm: str, parameters: Mapping[str, Sequence[str]]) -> str:
    """Return a challenge with a realm and the parameters of its scheme, without duplicates."""
    parts = _CHALLENGE.fullmatch(challenge)
    if parts is None:
        raise ValueError(f"{challenge!r} is not exactly one challenge (RFC 9110 section 11.6.1)")
    if parts["token"]:
        return challenge
    own = [each[0] for each in _PARAMETER.finditer(parts["parameters"] or "")]
    names = {_name(each) for each in own}
    if len(names) < len(own):
        raise ValueError(f"{challenge!r} has a duplicate parameter")
    first = [] if "realm" in names else [f'realm="{realm}"']
    last = [each for each in parameters.get(parts["scheme"], ()) if _name(each) not in names]
    return f"{parts['scheme']} {', '.join((*first, *own, *last))}"


def _name(parameter: str) -> str:
    return parameter.partition("=")[0].strip(" ").lower()
