"""What an answer may carry: its format, the fields of its schema, and how precise its scores are."""

from .filter import ConditionGuard, OutputFilter
from .responses import Answers, ArrayJSONProvider, sole_chunk

__all__ = ["Answers", "ArrayJSONProvider", "ConditionGuard", "OutputFilter", "sole_chunk"]
