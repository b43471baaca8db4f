"""The options for the security headers of responses: a preset, and values that override it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from marshmallow import ValidationError

from .fields import Choice, Options, StrictField
from .schema import closest, option

Preset = Literal["api", "page"]
PRESETS: tuple[Preset, ...] = ("api", "page")
ADJUSTABLE = (
    "Cache-Control",
    "Content-Security-Policy",
    "Content-Security-Policy-Report-Only",
    "Cross-Origin-Embedder-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Origin-Agent-Cluster",
    "Permissions-Policy",
    "Referrer-Policy",
    "Reporting-Endpoints",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-Permitted-Cross-Domain-Policies",
    "X-Robots-Tag",
)
"""The headers that users may set here; others have their own settings, or are set by the view or the server."""

# RFC 9110 section 5.5, without obs-text.
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_CANONICAL = {name.lower(): name for name in ADJUSTABLE}


class HeaderValues(StrictField):
    """The values of headers by name; null for a header that is not sent."""

    def __init__(self) -> None:
        super().__init__('an object such as {"Content-Security-Policy": "default-src \'self\'"}')

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, Mapping):
            raise self.wrong(value)
        errors = {str(name): [error] for name, given in value.items() if (error := _error(name, given))}
        if errors:
            raise ValidationError(errors)
        found = {_CANONICAL[name.lower()]: given for name, given in value.items()}
        if len(found) < len(value):
            raise ValidationError("has a header twice, with different case")
        return tuple(found.items())


def _error(name: Any, value: Any) -> str | None:
    if not isinstance(name, str) or name.lower() not in _CANONICAL:
        guess = closest(name, ADJUSTABLE)
        return f"is not adjustable; did you mean {guess}?" if guess else f"is not one of {', '.join(ADJUSTABLE)}"
    if value is not None and (not isinstance(value, str) or not _VALUE.fullmatch(value)):
        return "must be one line of ASCII characters, or null to omit the header"
    return None


class HeaderArguments(TypedDict, total=False):
    """The arguments of :class:`HeaderOptions` as users write them."""

    preset: Preset
    values: Mapping[str, str | None]


@dataclass(frozen=True)
class HeaderOptions:
    """The security headers of a response, unless the view sets them."""

    preset: str = option(
        Choice(*PRESETS),
        "api",
        "``api`` for data, or ``page`` for HTML that loads scripts and styles from its own origin.",
    )
    values: tuple[tuple[str, str | None], ...] = option(
        HeaderValues(), (), "Values that replace those of the preset; null omits a header."
    )


class HeadersOption(Options):
    """The options of headers, or only the name of a preset."""

    def __init__(self, *, nullable: bool = False) -> None:
        super().__init__(HeaderOptions, minimum=1, nullable=nullable)
        self.takes = 'one of \'api\', \'page\', or an object such as {"preset": "page", "values": {}}'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and value in PRESETS:
            return HeaderOptions(preset=value)
        return super()._deserialize(value, attr, data, **kwargs)


API_HEADERS = HeaderOptions()
