"""The terms that make an answer say less than the model knows: by route in a policy, by caller in a plan.

Precise scores are what copies a model: extraction and membership inference need far fewer requests with them than
with a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

MOST_DECIMALS = 15
"""A double names about as many digits, so more would round nothing."""


class OutputArguments(TypedDict, total=False):
    """What users write of :class:`OutputTerms`."""

    round: int | None
    top_k: int | None
    label_only: bool
    nan: str | None


@dataclass(frozen=True)
class OutputTerms:
    """What happens to the scores of an answer, which are its numbers with a fraction part by type: its floats.

    :param round: the decimals that scores keep.
    :param top_k: how many of the scores along the last dimension of an array keep their value.
    :param label_only: scores are removed; integers, texts and booleans stay.
    :param nan: ``refuse`` withholds an answer with NaN or Infinity, which is also what happens without this term;
        ``null`` lets them pass, as null in JSON, which has no such numbers (RFC 8259 section 6).
    """

    round: int | None = None
    top_k: int | None = None
    label_only: bool = False
    nan: str | None = None

    @classmethod
    def build(cls, terms: Any) -> OutputTerms:
        """Make the terms from what users write, such as ``{"round": 3, "top_k": 2}``.

        :raises ValueError: anything else; the message completes a sentence that begins with the name of the setting.
        """
        if not isinstance(terms, Mapping) or not terms:
            raise ValueError('must be an object such as {"round": 3, "top_k": 2}, with at least one term')
        unknown = sorted(map(str, terms.keys() - cls.__dataclass_fields__.keys()))
        if unknown:
            raise ValueError(f"has no term {unknown[0]!r}; the terms are round, top_k, label_only and nan")
        return cls(
            round=_whole("round", terms.get("round"), 0, MOST_DECIMALS),
            top_k=_whole("top_k", terms.get("top_k"), 1),
            label_only=_flag(terms.get("label_only", False)),
            nan=_nan(terms.get("nan")),
        )

    @property
    def shapes(self) -> bool:
        """Whether any term changes scores."""
        return self.round is not None or self.top_k is not None or self.label_only

    @property
    def allows_nan(self) -> bool:
        """Whether NaN and Infinity may pass. They have no rank, so never beside ``top_k``."""
        return self.nan == "null" and self.top_k is None

    def stricter(self, other: OutputTerms) -> OutputTerms:
        """Return terms that are as strict as both, term by term."""
        return OutputTerms(
            round=_least(self.round, other.round),
            top_k=_least(self.top_k, other.top_k),
            label_only=self.label_only or other.label_only,
            nan="refuse" if "refuse" in (self.nan, other.nan) else self.nan or other.nan,
        )


NO_TERMS = OutputTerms()


def _whole(name: str, value: Any, low: int, high: int | None = None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        limits = f"{low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"must have a whole number for {name}, {limits}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must have true or false for label_only")
    return value


def _nan(value: Any) -> str | None:
    if value not in (None, "refuse", "null"):
        raise ValueError("must have 'refuse' or 'null' for nan")
    found: str | None = value
    return found


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
