"""The options of cross-origin resource sharing (CORS), and which origins they allow."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import ClassVar, TypedDict

from marshmallow import ValidationError

from .fields import Boolean, Choices, Integer, Strings
from .schema import Check, Problem, option

ANY_ORIGIN = "*"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DAY = 86_400

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?",
    re.ASCII | re.IGNORECASE,
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OF_WEBSOCKETS = {"ws": "http", "wss": "https"}
_LAST_PORT = 65_535
# A host name has at most 253 characters.
_LONGEST = 300
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'+.^_`|~-]+")
_EXAMPLE = "https://app.example.com"


def canonical_origin(value: str) -> str | None:
    """Return an origin in the form that browsers send (RFC 6454 section 6.2).

    It is None if the value is not an origin, such as ``null``.
    """
    match = _ORIGIN.fullmatch(value) if len(value) <= _LONGEST else None
    if match is None:
        return None
    scheme, host, port = match["scheme"].lower(), match["host"].lower(), int(match["port"] or 0)
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1]).compressed}]"
        except AddressValueError:
            return None
    if port > _LAST_PORT:
        return None
    return f"{scheme}://{host}" + (f":{port}" if port and port != _DEFAULT_PORTS.get(scheme) else "")


def is_own_origin(origin: str, scheme: str, host: str) -> bool:
    """Return True if an origin has the scheme, host and port of a request, as a trusted proxy reports them."""
    found = canonical_origin(origin)
    return found is not None and found == canonical_origin(f"{_OF_WEBSOCKETS.get(scheme, scheme)}://{host}")


def _origin(entry: str) -> str:
    if entry == ANY_ORIGIN:
        return entry
    found = canonical_origin(entry)
    if found is None:
        raise ValidationError(
            f"{entry!r} is not an origin; write it as '{_EXAMPLE}', without a path, a user, a pattern or a dot at its "
            "end, and international names as 'xn--...'"
        )
    return found


def _field_name(entry: str) -> str:
    if not _FIELD_NAME.fullmatch(entry):
        raise ValidationError(f"{entry!r} is not the name of a header; browsers require exact names")
    return entry


class CorsArguments(TypedDict, total=False):
    """The arguments of :class:`CorsOptions` as users write them."""

    origins: Collection[str]
    methods: Sequence[str]
    headers: Sequence[str]
    expose: Sequence[str]
    max_age: int
    credentials: bool


def check_any_origin(options: CorsOptions) -> Iterator[Problem]:
    """Yield a problem if ``*`` is allowed together with other origins, or with credentials."""
    if ANY_ORIGIN not in options.origins:
        return
    if len(options.origins) > 1:
        yield ("origins",), "has both '*', which means every origin, and other origins; keep one of the two"
    if options.credentials:
        yield ("credentials",), "requires exact origins: with '*', every site could act as its visitors"


@dataclass(frozen=True)
class CorsOptions:
    """Which pages of other origins may call a route from a browser."""

    cross_checks: ClassVar[tuple[Check, ...]] = (check_any_origin,)

    origins: frozenset[str] = option(
        Strings(_EXAMPLE, _origin, unordered=True),
        help_text="The exact origins; an empty list for none, ``*`` alone for all.",
    )
    methods: tuple[str, ...] = option(
        Choices(*METHODS), ("GET", "HEAD", "POST"), "The methods that a page may use: GET, HEAD and POST by default."
    )
    headers: tuple[str, ...] = option(
        Strings("Authorization", _field_name),
        ("Authorization", "Content-Type", "DPoP", "X-API-Key"),
        "The request headers that a page may set: Authorization, Content-Type, DPoP and X-API-Key by default.",
    )
    expose: tuple[str, ...] = option(
        Strings("X-Model-Version", _field_name),
        (),
        "Response headers that a page may read, in addition to those of this extension.",
    )
    max_age: int = option(
        Integer(0, DAY, unit="seconds"),
        600,
        "Seconds for which browsers may cache a preflight response: 600 by default.",
    )
    credentials: bool = option(
        Boolean(),
        False,
        "Whether browsers send cookies and client certificates; not needed for access tokens and API keys.",
    )

    def allowed(self, origin: str | None) -> str | None:
        """Return the origin as it is listed if it is allowed, or None."""
        if origin is None:
            return None
        found = origin if origin in self.origins else canonical_origin(origin)
        return found if found in self.origins else None

    @property
    def any_origin(self) -> bool:
        """Return True if every origin is allowed."""
        return ANY_ORIGIN in self.origins


NO_CORS = CorsOptions(frozenset())
