"""Which media type a client accepts (RFC 9110 section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Request

_ANYTHING = frozenset({None, "", "*/*", "application/json", "application/json, */*"})


def accepted(request: Request, possible: Sequence[str]) -> str | None:
    """Return the best of the possible media types, the first of equals; None when none is accepted.

    Parameters of a media range other than ``q`` are not looked at: ``application/json;charset=utf-8`` means JSON.
    """
    header = request.environ.get("HTTP_ACCEPT")
    if header in _ANYTHING and possible[0] == "application/json":
        return possible[0]
    ranges = [(name.partition(";")[0].strip().lower(), quality) for name, quality in request.accept_mimetypes]
    if not ranges:
        return possible[0]
    best = max(possible, key=lambda name: _quality(name, ranges))
    return best if _quality(best, ranges) > 0 else None


def _quality(name: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that the media type is in."""
    for wanted in (name, name.partition("/")[0] + "/*", "*/*"):
        found = [quality for accepted_name, quality in ranges if accepted_name == wanted]
        if found:
            return max(found)
    return 0.0
