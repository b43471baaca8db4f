"""The term ``caps`` of a policy: how much a body of one route may have, where that is not what the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

CapTerms = tuple[tuple[str, int], ...]


class CapArguments(TypedDict, total=False):
    """Some caps by the names of their settings, in lower case and without the prefix."""

    max_json_depth: int
    max_json_members: int
    max_text_length: int
    max_elements: int
    max_decoded_bytes: int


def checked_caps(given: Any) -> CapTerms:
    """Return the caps in the order of their names.

    :raises ValueError: anything but an object of known caps, each a number from 1; the message completes a sentence
        that begins with the name of the term.
    """
    known = CapArguments.__annotations__.keys()
    if not isinstance(given, Mapping) or not given or not known >= given.keys():
        raise ValueError(f"must be an object with at least one of {', '.join(known)}")
    for name, cap in given.items():
        if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
            raise ValueError(f"has a {name} that is no whole number from 1")
    return tuple(sorted(given.items()))
