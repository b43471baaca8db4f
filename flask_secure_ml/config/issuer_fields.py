"""Fields of one issuer in ``SECURE_ML_TOKEN_ISSUERS``: audiences, key sets, types of tokens, paths of claims, plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError

from ..policy.fields import Choices, StrictField, String, Strings

OTHER_TYPES = frozenset(
    {
        *("dpop+jwt", "logout+jwt", "id_token", "id+jwt", "secevent+jwt", "token-introspection+jwt", "rt+jwt"),
        *("oauth-authz-req+jwt", "client-authentication+jwt", "entity-statement+jwt", "wallet-attestation+jwt"),
    }
)
"""Values of the header ``typ`` that JWTs other than access tokens use."""

_LONGEST_PATH = 256


class Audience(StrictField):
    """One audience, or a list of them."""

    def __init__(self) -> None:
        super().__init__("a non-empty string, or a list of them")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str | tuple[str, ...]:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if not values or not all(isinstance(each, str) and each.strip() for each in values):
            raise self.wrong(value)
        return str(value) if isinstance(value, str) else tuple(dict.fromkeys(values))


class KeySet(StrictField):
    """A JWK Set (RFC 7517)."""

    def __init__(self) -> None:
        super().__init__('a JWK Set: an object with the list "keys"')

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not isinstance(value.get("keys"), (list, tuple)):
            raise self.wrong(value, secret=True)
        return value


class Relaxations(Choices):
    """Members that a token may omit or contain."""

    def joined(self, found: list[Any]) -> frozenset[str]:
        """Return the members."""
        return frozenset(found)


class HeaderTypes(Strings):
    """Values of the header ``typ``, in lower case and without ``application/``."""

    def __init__(self) -> None:
        super().__init__("JWT", _header_type, minimum=1)

    def joined(self, found: list[Any]) -> frozenset[str]:
        """Return the types."""
        return frozenset(found)


def media_type(kind: str) -> str:
    """Return a ``typ`` in canonical form (RFC 7515 section 4.1.9)."""
    return kind.lower().removeprefix("application/")


def _header_type(entry: str) -> str:
    kind = media_type(entry)
    if kind in OTHER_TYPES:
        raise ValidationError(f"{entry!r} is the type of another kind of token")
    return kind


class TokenTypes(Strings):
    """Values of ``token_type`` in lower case."""

    def __init__(self) -> None:
        super().__init__("access_token", _token_type, minimum=1)

    def joined(self, found: list[Any]) -> frozenset[str]:
        """Return the types."""
        return frozenset(found)


def _token_type(entry: str) -> str:
    kind = entry.lower()
    if "refresh" in kind or "id_token" in kind:
        raise ValidationError(f"{entry!r} is the type of another kind of token")
    return kind


class Paths(Strings):
    """Names of claims, or dotted paths into objects."""

    def __init__(self, example: str) -> None:
        super().__init__(example, _path, minimum=1)


class Path(String):
    """The name of one claim, or a dotted path into objects."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return _path(super()._deserialize(value, attr, data, **kwargs))


def _path(entry: str) -> str:
    if len(entry) > _LONGEST_PATH or not entry.isprintable() or not all(entry.split(".")):
        raise ValidationError("must be the name of a claim, or names separated by dots")
    return entry


class PlanMap(StrictField):
    """A mapping from the values of a claim to the names of plans."""

    def __init__(self) -> None:
        super().__init__('an object such as {"batch-client": "gold"}')

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, Mapping) or not value:
            raise self.wrong(value)
        if not all(isinstance(each, str) and each for pair in value.items() for each in pair):
            raise self.wrong(value)
        return tuple(value.items())
