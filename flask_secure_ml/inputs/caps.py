"""How much of anything a body may have, in one record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from operator import mul
from typing import TYPE_CHECKING

from ..cap_terms import CapTerms
from ..errors import PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Settings

_FIELDS = {
    "max_json_depth": "max_depth",
    "max_json_members": "max_members",
    "max_text_length": "max_text",
    "max_elements": "max_elements",
    "max_decoded_bytes": "max_decoded",
}


@dataclass(frozen=True)
class Caps:
    """The caps of one app; each is the largest value that passes.

    :param max_bytes: of a body, as it is sent and after its content encoding is undone.
    :param max_depth: how deep arrays and objects nest.
    :param max_members: of one object.
    :param max_text: the bytes of one text, as it is written.
    :param max_elements: values that hold no other value, in all, and as many arrays and objects.
    :param max_decoded: the bytes of the arrays that a body declares.
    """

    max_bytes: int
    max_depth: int
    max_members: int
    max_text: int
    max_elements: int
    max_decoded: int

    @classmethod
    def of(cls, settings: Settings) -> Caps:
        """Return the caps that are configured."""
        return cls(
            settings.max_body_bytes,
            settings.max_json_depth,
            settings.max_json_members,
            settings.max_text_length,
            settings.max_elements,
            settings.max_decoded_bytes,
        )

    def changed(self, terms: CapTerms) -> Caps:
        """Return the caps of a route that says some of them itself."""
        return replace(self, **{_FIELDS[name]: cap for name, cap in terms})

    def check_declared(self, shape: Sequence[int], itemsize: int) -> None:
        """Check what a shape claims, by arithmetic on unbounded integers, before anything is allocated.

        A length of 0 counts as 1, so that it cannot hide others that no array can have.

        :raises PayloadTooLarge: 413.
        """
        if (
            max(shape, default=1) > self.max_decoded
            or prod(max(each, 1) for each in shape) * itemsize > self.max_decoded
        ):
            raise PayloadTooLarge(f"an array of {len(shape)} dimensions is over the cap of {self.max_decoded} bytes")

    def check_lists(self, shape: Sequence[int]) -> None:
        """Check how many lists, and values in them, an array of a shape makes, before they are made.

        A shape of few or no values can mean very many lists: ``(10**8, 0)`` is as many empty ones.

        :raises PayloadTooLarge: 413.
        """
        *lists, values = accumulate(shape, mul, initial=1)
        if max(sum(lists), values) > self.max_elements:
            raise PayloadTooLarge(
                f"an array of {len(shape)} dimensions is more than {self.max_elements} lists or values"
            )
