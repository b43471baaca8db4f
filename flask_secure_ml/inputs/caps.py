"""How much of anything a body may have, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ..errors import PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Settings


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
