"""The record of one setting, from which the reference page is generated: a fact about a setting stands only there."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from limits import RateLimitItem, parse_many

from ..policy.matching import canonical
from ..policy.options import NO_TERMS, ScoreOptions


def setting(default: Any, check: Callable[[Any], Any], help_text: str, *, secret: bool = False) -> Any:
    """Return a dataclass field with the default, the check and the help of a setting."""
    metadata = {"check": check, "help": " ".join(help_text.split())}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: check(default), metadata=metadata | {"shown": default})
    return field(default=default, repr=not secret, metadata=metadata | {"shown": default})


Limits = tuple[RateLimitItem, ...]


@dataclass(frozen=True)
class Networks:
    """The addresses that are trusted; ``unix`` is the peer of a Unix socket."""

    unix: bool = False
    networks: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a caller may use over all routes: requests in a window, rows of input in a window, scores of answers."""

    requests: Limits = ()
    quotas: Limits = ()
    scores: ScoreOptions = NO_TERMS


Plans = Mapping[str, Plan]


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


def https_uri(value: Any) -> str:
    """Accept an absolute ``https:`` URI without query, fragment and user."""
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ValueError(f"must be an https: URI such as 'https://models.example.com', not {value!r}")
    if parts.query or parts.fragment or not value.isascii() or not value.isprintable() or set(value) & set(' "\\'):
        raise ValueError("must have no query, no fragment and only ASCII characters without spaces and quotes")
    return str(value)


def some_of(*choices: str) -> Callable[[Any], tuple[str, ...]]:
    """Return a check for a list of a few words, at least one."""

    def check(value: Any) -> tuple[str, ...]:
        words = _strings(value, f'["{choices[0]}"]')
        if not words or not set(words) <= set(choices):
            raise ValueError(f"must be a list of {', '.join(map(repr, choices))}, not {value!r}")
        return tuple(dict.fromkeys(words))

    return check


def store_uri(value: Any) -> str:
    """Accept where shared state lives: this process, a SQLite file, or a Redis or Valkey server."""
    schemes = ("memory", "sqlite", "redis", "rediss", "valkey", "valkeys", "unix")
    scheme, _, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
    if scheme not in schemes or (scheme != "memory" and not rest.strip("/")):
        # The value may hold a password, so it is not repeated.
        raise ValueError("must be 'memory:', 'sqlite:/path/to/file' or a redis: or valkey: address")
    return str(value)


def token_text(value: Any) -> str:
    """Accept a text that is safe between the quotes of a header."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9 ._-]{1,64}", value):
        raise ValueError("must be 1 to 64 letters, digits, spaces or ._-")
    return value


def mount_paths(value: Any) -> tuple[str, ...]:
    """Accept a list of paths without a slash at the end."""
    paths = _strings(value, '["/metrics"]')
    for path in paths:
        if not path.startswith("/") or path.endswith(("/", "*")) or path != canonical(path):
            raise ValueError(
                f"has {path!r}, which is not a path such as '/metrics', without a slash or star at its end"
            )
    return tuple(dict.fromkeys(paths))


def middleware_names(value: Any) -> tuple[str, ...]:
    """Accept a list of import names of middleware."""
    names = tuple(name.replace(":", ".") for name in _strings(value, '["whitenoise.base.WhiteNoise"]'))
    for name in names:
        if name.endswith(".ProxyFix"):
            raise ValueError("must not name ProxyFix, which believes strangers there; use SECURE_ML_TRUSTED_PROXIES")
        if not re.fullmatch(r"[\w<>]+(\.[\w<>]+)+", name):
            raise ValueError(f"has {name!r}, which is not an import name such as 'whitenoise.base.WhiteNoise'")
    return names


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
    """Accept an object of plans, each with ``requests``, ``quotas`` and ``scores``."""
    if not isinstance(value, Mapping):
        raise ValueError('must be an object such as {"default": {"requests": ["600/minute"]}}')
    return {str(name): _plan(str(name), terms) for name, terms in value.items()}


def _plan(name: str, terms: Any) -> Plan:
    if not isinstance(terms, Mapping) or not terms.keys() <= {"requests", "quotas", "scores"}:
        raise ValueError(f"has a plan {name!r} that is not an object of 'requests', 'quotas' and 'scores'")
    try:
        return Plan(**{kind: _plan_term(kind, entries) for kind, entries in terms.items()})
    except ValueError as error:
        raise ValueError(f"has a plan {name!r} that {error}") from None


def _plan_term(kind: str, entries: Any) -> Any:
    if kind != "scores":
        return limits(entries)
    try:
        return ScoreOptions.build(entries)
    except ValueError as error:
        raise ValueError(f"has scores that {error}") from None


def _strings(value: Any, example: str) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"must be a list such as {example}")
    return list(value)
