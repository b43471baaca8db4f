"""Fields of settings: networks, URIs, paths and secrets; and the function that declares a setting."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError

from ..policy.fields import StrictField, String, Strings
from ..policy.paths import canonical
from ..policy.schema import AnyField, closest
from ..secrets import NO_LITERAL, SecretRing


def setting(kind: AnyField, default: Any, help_text: str, *, secret: bool = False) -> Any:
    """Return the dataclass field of one setting: its validator, its default as users write it, and its help.

    :param secret: the value may contain a password, so the repr of the settings omits it.
    """
    kind.allow_none = default is None
    return field(
        default_factory=lambda: None if default is None else kind.deserialize(default),
        repr=not secret,
        metadata={"field": kind, "default": default, "help": " ".join(help_text.split())},
    )


@dataclass(frozen=True)
class Networks:
    """The trusted networks; ``unix`` is the peer of a Unix socket."""

    unix: bool = False
    networks: tuple[IPv4Network | IPv6Network, ...] = ()


class NetworkList(Strings):
    """A list of networks in CIDR notation, and ``unix``."""

    def __init__(self) -> None:
        super().__init__("10.0.3.0/24", _network)
        self.takes = 'a list of networks such as ["10.0.3.0/24"]'

    def joined(self, found: list[Any]) -> Networks:
        """Return the networks."""
        return Networks("unix" in found, tuple(each for each in found if each != "unix"))


def _network(entry: str) -> IPv4Network | IPv6Network | str:
    if entry == "unix":
        return entry
    try:
        network = ip_network(entry)
    except ValueError as error:
        raise ValidationError(f"{entry!r} is not a network ({error}); write '10.0.3.0/24'") from None
    if network.prefixlen < (8 if network.version == 4 else 7):  # noqa: PLR2004  10.0.0.0/8 and fc00::/7
        raise ValidationError(f"{entry!r} is too broad; name the networks of your proxies")
    return network


class HttpsUri(StrictField):
    """An absolute ``https:`` URI without query, fragment and user."""

    def __init__(self) -> None:
        super().__init__("an https: URI such as 'https://models.example.com'")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            parts = urlsplit(value) if isinstance(value, str) else None
        except ValueError:
            parts = None
        if parts is None or parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise self.wrong(value)
        if parts.query or parts.fragment or not value.isascii() or not value.isprintable() or set(value) & set(' "\\'):
            raise ValidationError("must have no query, no fragment and only ASCII characters without spaces and quotes")
        return str(value)


_SERVERS = ("redis", "rediss", "valkey", "valkeys")
STORE_SCHEMES = frozenset(
    {
        "memory",
        "sqlite",
        "unix",
        *_SERVERS,
        *(f"{each}+{kind}" for each in _SERVERS for kind in ("sentinel", "cluster", "unix")),
    }
)
"""URI schemes of stores."""


class StoreUri(StrictField):
    """The URI of shared state: process memory, a SQLite file, or a Redis or Valkey server, Sentinel or cluster."""

    def __init__(self) -> None:
        super().__init__("'memory:', 'sqlite:/path/to/file' or a redis: or valkey: URL")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        scheme, _, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
        if scheme not in STORE_SCHEMES or (scheme != "memory" and not rest.strip("/")):
            # The message does not repeat the value, which may contain a password.
            raise ValidationError(f"must be {self.takes}")
        return str(value)


class UrlPath(String):
    """A path of the app, without variables.

    :param example: for the message.
    """

    def __init__(self, example: str) -> None:
        super().__init__(f"a path such as {example!r}", re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+"))


class Location(String):
    """One of a few words, or a path. Another bare word is rejected as a probable typo.

    :param prefix: if given, a name with this prefix is also accepted.
    """

    def __init__(self, *words: str, prefix: str = "") -> None:
        named = (f"'{prefix}NAME'",) if prefix else ()
        super().__init__(" or ".join((*map(repr, words), *named, "the path of a file")))
        self.words = words
        self.prefix = prefix

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        found = super()._deserialize(value, attr, data, **kwargs)
        if self.prefix and found.startswith(self.prefix):
            if not found.removeprefix(self.prefix).strip():
                raise ValidationError(f"requires a name after {self.prefix!r}")
            return found
        if found not in self.words and not {"/", "."} & set(found):
            guess = closest(found.lower(), self.words)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise ValidationError(f"must be {self.takes}, such as './{found}', not {found!r}{hint}")
        return found


class MountPaths(Strings):
    """A list of paths without a trailing slash."""

    def __init__(self) -> None:
        super().__init__("/metrics", _mount_path)

    def joined(self, found: list[Any]) -> tuple[str, ...]:
        """Return the paths without duplicates."""
        return tuple(dict.fromkeys(found))


def _mount_path(path: str) -> str:
    if not path.startswith("/") or path.endswith(("/", "*")) or path != canonical(path):
        raise ValidationError(f"{path!r} is not a path such as '/metrics', without a trailing slash or asterisk")
    return path


def middleware_name(entry: str) -> str:
    """Return the import name of a middleware, in dotted form.

    :raises ValidationError: it is not an import name, or it names ProxyFix.
    """
    name = entry.replace(":", ".")
    if name.endswith(".ProxyFix"):
        raise ValidationError("must not name ProxyFix, which would trust every peer; use SECURE_ML_TRUSTED_PROXIES")
    if not re.fullmatch(r"[\w<>]+(\.[\w<>]+)+", name):
        raise ValidationError(f"{entry!r} is not an import name such as 'whitenoise.base.WhiteNoise'")
    return name


_literals_allowed: ContextVar[bool] = ContextVar("flask_secure_ml_literals_allowed", default=True)


@contextmanager
def literal_secrets(*, allowed: bool) -> Iterator[None]:
    """Allow or forbid literal secrets while a configuration is loaded in this block."""
    token = _literals_allowed.set(allowed)
    try:
        yield
    finally:
        _literals_allowed.reset(token)


class SecretReference(StrictField):
    """A reference to a secret, or a list of references; messages never contain the value.

    :param ring: creates the secret ring, and raises ValueError for a reference that cannot be used.
    """

    def __init__(self, ring: Callable[[Any], SecretRing]) -> None:
        super().__init__('a reference such as "env:NAME" or "file:/path", or a list of them, newest first')
        self.ring = ring

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> SecretRing:
        try:
            ring = self.ring(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        if ring.literal and not _literals_allowed.get():
            raise ValidationError(f"{NO_LITERAL}; literal secrets are for debug and testing only")
        return ring
