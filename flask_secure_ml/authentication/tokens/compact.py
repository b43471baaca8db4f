"""The parts of a JWS in compact serialization (RFC 7515 section 3.1), for tokens and for proofs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, NoReturn

from ...strictjson import loads

Reject = Callable[[str], NoReturn]
"""Raises the caller's kind of error, with a reason for the log."""


def decoded(part: str, what: str, reject: Reject) -> bytes:
    """Return the decoded bytes of one part, which must be canonical base64url."""
    try:
        value = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        reject(f"the {what} is not base64url")
    # Other last characters decode to the same bytes, so one token would have several encodings.
    if base64.urlsafe_b64encode(value).rstrip(b"=") != part.encode():
        reject(f"the {what} is not canonical base64url")
    return value


def json_object(part: str, what: str, reject: Reject, max_depth: int = 32) -> dict[str, Any]:
    """Return the JSON object in one part; reject duplicate members and deep nesting."""
    try:
        value = loads(decoded(part, what, reject), max_depth=max_depth)
    except ValueError as error:
        reject(f"the {what} is not strict JSON: {error}")
    return value if isinstance(value, dict) else reject(f"the {what} is not a JSON object")
