"""Converting schema errors to the ``errors`` of a problem document, with JSON pointers and a limited number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from ..errors import ValidationFailed

MAX_ERRORS = 20
# Names of unknown fields come from the client, and messages from the schema's author.
_MAX_NAME = 64
_MAX_MESSAGE = 200
# The key under which marshmallow keeps the errors of a whole object.
_WHOLE = "_schema"


def validation_failed(error: ValidationError) -> ValidationFailed:
    """Return the error for a body that does not match its schema.

    Its member ``errors`` has at most 20 objects, each with a JSON pointer (RFC 6901) and a message. It never quotes
    values from the client, only unknown names, truncated to 64 characters.
    """
    found = list(islice(_walk(error.messages, ""), MAX_ERRORS))
    problems = [{"pointer": pointer, "message": message} for pointer, message in found]
    return ValidationFailed(f"the schema found {_count(found)}", members={"errors": problems})


def _count(found: list[tuple[str, str]]) -> str:
    if len(found) == 1:
        return "1 error"
    return f"{len(found)} errors{' or more' if len(found) == MAX_ERRORS else ''}"


def _walk(messages: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            yield from _walk(inner, pointer if name == _WHOLE else f"{pointer}/{_token(name)}")
    elif isinstance(messages, (list, tuple)):
        for inner in messages:
            yield from _walk(inner, pointer)
    else:
        yield pointer, _cut(str(messages), _MAX_MESSAGE)


def _token(name: Any) -> str:
    return pointer_token(_cut(str(name), _MAX_NAME))


def pointer_token(name: str) -> str:
    """Return a name as a reference token of a JSON pointer (RFC 6901 section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def _cut(value: str, size: int) -> str:
    return value if len(value) <= size else value[: size - 1] + "\N{HORIZONTAL ELLIPSIS}"


Shape = tuple[int, ...]
Message = Callable[[Shape], str]

_HEAD = 1_000


def at(positions: Iterable[int], shape: Shape, message: Message) -> ValidationError:
    """Return an error with a message at the first of these flat positions in an array of this shape."""
    if not shape:
        return ValidationError(message(()))
    found: dict[int, Any] = {}
    flat = np.fromiter(islice(positions, MAX_ERRORS), np.intp)
    for position in zip(*(each.tolist() for each in np.unravel_index(flat, shape)), strict=True):
        inner = found
        for index in position[:-1]:
            inner = inner.setdefault(index, {})
        inner[position[-1]] = [message(position)]
    return ValidationError(found)


def at_each(wrong: NDArray[np.bool_], message: Message) -> ValidationError:
    """Return an error with a message at the first positions that are true."""
    flat = wrong.reshape(-1)
    # Search a part first: the array may have millions of items.
    head = np.flatnonzero(flat[:_HEAD])
    return at(head if len(head) >= MAX_ERRORS else np.flatnonzero(flat), wrong.shape, message)


def number_text(bound: float) -> str:
    """Return a number as a string, without a trailing ``.0``."""
    return str(bound) if type(bound) is int else str(float(bound)).removesuffix(".0")
