"""Checks of configuration values: each takes a raw value and returns the typed one, or raises ValueError.

The message completes the sentence that begins with the key: ``SECURE_ML_REQUIRE_TLS must be true or false``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from limits import RateLimitItem, parse_many

from .secrets import Secret

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
Limits = tuple[RateLimitItem, ...]


@dataclass(frozen=True)
class Networks:
    """The addresses that are trusted; ``unix`` is the peer of a Unix socket."""

    unix: bool = False
    networks: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a caller may use over all routes: requests in a window, rows of input in a window."""

    requests: Limits = ()
    cost: Limits = ()


Plans = Mapping[str, Plan]


@dataclass(frozen=True)
class IssuerConfig:
    """One authorization server: who it is, for whom its tokens are, and where its public keys are."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    jwks_uri: str | None = None
    jwks_file: str | None = None
    insecure_http: bool = False


def closest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that looks most like a misspelt one."""
    return next(iter(get_close_matches(name, sorted(known), 1, 0.7)), None)


def boolean(value: Any) -> bool:
    """Accept true or false; a string such as ``"False"`` would be true by accident."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def integer(low: int, high: int | None = None) -> Callable[[Any], int]:
    """Return a check for an integer between two bounds, both allowed."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
            raise ValueError(f"must be a whole number from {low}{'' if high is None else f' to {high}'}, not {value!r}")
        return value

    return check


def one_of(*choices: str) -> Callable[[Any], str]:
    """Return a check for one of a few words."""

    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(map(repr, choices))}, not {value!r}")
        return str(value)

    return check


def text(value: Any) -> str:
    """Accept a string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be a text that is not empty, not {value!r}")
    return value


def token_text(value: Any) -> str:
    """Accept a text that is safe between the quotes of a header."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9 ._-]{1,64}", value):
        raise ValueError("must be 1 to 64 letters, digits, spaces or ._-")
    return value


def secret(value: Any) -> Secret:
    """Accept a reference to a secret; the value itself is never repeated in the message."""
    if not isinstance(value, str):
        raise ValueError('must be a reference such as "env:NAME" or "file:/path"')
    reference = Secret(value)
    reference.read()
    return reference


def networks(value: Any) -> Networks:
    """Accept a list of networks in CIDR notation, and ``unix``."""
    strings = _strings(value, '["10.0.3.0/24"]')
    return Networks("unix" in strings, tuple(_network(entry) for entry in strings if entry != "unix"))


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(entry)
    except ValueError as error:
        raise ValueError(f"has {entry!r}, which is not a network ({error})") from None
    if network.prefixlen < (8 if network.version == 4 else 7):  # noqa: PLR2004  10.0.0.0/8 and fc00::/7
        raise ValueError(f"has {entry!r}, which trusts too many; name the networks of your proxies")
    return network


def limits(value: Any) -> Limits:
    """Accept a list of limits such as ``600/minute``."""
    found: list[RateLimitItem] = []
    for entry in _strings(value, '["600/minute"]'):
        try:
            found += parse_many(entry)
        except ValueError:
            raise ValueError(f"has {entry!r}, which is not a limit such as '600/minute' or '10000/day'") from None
    return tuple(found)


def plans(value: Any) -> Plans:
    """Accept an object of plans, each with ``requests`` and ``cost``."""
    if not isinstance(value, Mapping):
        raise ValueError('must be an object such as {"default": {"requests": ["600/minute"]}}')
    return {str(name): _plan(str(name), terms) for name, terms in value.items()}


def _plan(name: str, terms: Any) -> Plan:
    if not isinstance(terms, Mapping) or not terms.keys() <= {"requests", "cost"}:
        raise ValueError(f"has a plan {name!r} that is not an object of 'requests' and 'cost'")
    try:
        return Plan(**{kind: limits(entries) for kind, entries in terms.items()})
    except ValueError as error:
        raise ValueError(f"has a plan {name!r} that {error}") from None


def issuers(value: Any) -> tuple[IssuerConfig, ...]:
    """Accept a list of issuer objects; every issuer once."""
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a list of objects with issuer, audience, algorithms and jwks_uri or jwks_file")
    found = tuple(_issuer(number, entry) for number, entry in enumerate(value))
    if len({each.issuer for each in found}) < len(found):
        raise ValueError("names an issuer twice")
    return found


def _issuer(number: int, entry: Any) -> IssuerConfig:
    where = f"[{number}]"
    known = {"issuer", "audience", "algorithms", "jwks_uri", "jwks_file", "insecure_http"}
    if not isinstance(entry, Mapping) or not {"issuer", "audience", "algorithms"} <= entry.keys() <= known:
        raise ValueError(f"{where} must be an object with issuer, audience, algorithms and jwks_uri or jwks_file")
    found = IssuerConfig(**{**entry, "algorithms": _algorithms(where, entry["algorithms"])})
    if any(
        not isinstance(entry[name], str) or not entry[name] for name in entry.keys() - {"algorithms", "insecure_http"}
    ):
        raise ValueError(f"{where} has a member that is not a text")
    if (found.jwks_uri is None) == (found.jwks_file is None):
        raise ValueError(f"{where} needs exactly one of jwks_uri and jwks_file")
    if "#" in found.issuer:
        raise ValueError(f"{where} issuer must not have a fragment (RFC 8414 section 2)")
    _check_uri(where, found)
    return found


def _algorithms(where: str, value: Any) -> tuple[str, ...]:
    names = tuple(_strings(value, '["RS256"]'))
    if not names or not set(names) <= ALGORITHMS:
        raise ValueError(f"{where} algorithms must be a list of {', '.join(sorted(ALGORITHMS))}")
    return names


def _check_uri(where: str, found: IssuerConfig) -> None:
    parts = urlsplit(found.jwks_uri or "https://file")
    loopback = parts.scheme == "http" and parts.hostname in LOOPBACK and boolean(found.insecure_http)
    if not parts.hostname or (parts.scheme != "https" and not loopback):
        raise ValueError(f"{where} jwks_uri must begin with https: (or be http: on loopback with insecure_http)")


def _strings(value: Any, example: str) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"must be a list such as {example}")
    return list(value)
