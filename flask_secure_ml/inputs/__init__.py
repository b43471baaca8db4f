"""What a request may carry: its size, its format, and the fields of its schema."""

from .tensors import Tensor

__all__ = ["Tensor"]
