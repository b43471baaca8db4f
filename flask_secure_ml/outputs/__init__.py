"""What an answer may carry: its format, the fields of its schema, and how precise its scores are."""

from .answers import Answers, sole_chunk
from .conditions import ConditionGuard
from .filter import OutputFilter
from .provider import ArrayJSONProvider

__all__ = ["Answers", "ArrayJSONProvider", "ConditionGuard", "OutputFilter", "sole_chunk"]
