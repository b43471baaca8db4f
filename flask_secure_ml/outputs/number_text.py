"""Numbers that leave as texts: a field with ``as_string``, and the decimals of an answer that is written unshaped."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from ..errors import InternalError
from .scores import ShapingError


class NumberText(str):
    """The text of a score; orjson and :mod:`json` write it as any other text."""

    __slots__ = ()

    def rounded(self, decimals: int) -> NumberText:
        """Return the text of the rounded number, half to even.

        :raises ShapingError: it is the text of no number.
        """
        try:
            # Adding zero turns -0 into 0, as for other scores.
            return NumberText(round(Decimal(self), decimals) + 0)
        except InvalidOperation:
            raise ShapingError("a number as a text is none, or cannot be rounded") from None


def with_floats(value: Any) -> Any:
    """Return a value with floats for its decimals, which Flask would write as texts, and texts are labels.

    Dataclasses become dicts on the way; everything else that JSON has no form for stays for the writer.

    :raises InternalError: a key is a float: it, too, would be written as a text.
    """
    if isinstance(value, Decimal):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        if any(isinstance(name, float) for name in value):
            raise InternalError("scores that are keys cannot be shaped")
        return {name: with_floats(each) for name, each in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OV":
        value = value.tolist()
    return [with_floats(each) for each in value] if isinstance(value, (list, tuple)) else value
