"""The options for the security headers of responses: a preset, and values that replace its own."""

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
"""The headers that users may set; the others are of settings of their own, of the view, or of the server."""

# RFC 9110 section 5.5, without what only raw bytes can express.
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_CANONICAL = {name.lower(): name for name in ADJUSTABLE}


class HeaderValues(StrictField):
    """The values of headers by their names; null for a header that is not sent."""

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
            raise ValidationError("has a header twice, in other letters")
        return tuple(found.items())


def _error(name: Any, value: Any) -> str | None:
    if not isinstance(name, str) or name.lower() not in _CANONICAL:
        guess = closest(name, ADJUSTABLE)
        return f"is not adjustable; did you mean {guess}?" if guess else f"is not one of {', '.join(ADJUSTABLE)}"
    if value is not None and (not isinstance(value, str) or not _VALUE.fullmatch(value)):
        return "must be one line of ASCII characters, or null, which leaves the header out"
    return None


class HeaderArguments(TypedDict, total=False):
    """What users write of :class:`HeaderOptions`."""

    preset: Preset
    values: Mapping[str, str | None]


@dataclass(frozen=True)
class HeaderOptions:
    """Which security headers a response has, where the view sets none of that name."""

    preset: str = option(
        Choice(*PRESETS),
        "api",
        "``api`` for data, or ``page`` for HTML that loads scripts and styles of its own origin.",
    )
    values: tuple[tuple[str, str | None], ...] = option(
        HeaderValues(), (), "Values in place of those of the preset; null leaves a header out."
    )


class HeadersOption(Options):
    """The options of headers, or the name of a preset alone."""

    def __init__(self, *, nullable: bool = False) -> None:
        super().__init__(HeaderOptions, minimum=1, nullable=nullable)
        self.takes = 'one of \'api\', \'page\', or an object such as {"preset": "page", "values": {}}'

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and value in PRESETS:
            return HeaderOptions(preset=value)
        return super()._deserialize(value, attr, data, **kwargs)


API_HEADERS = HeaderOptions()
