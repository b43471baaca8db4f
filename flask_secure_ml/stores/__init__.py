"""State that workers and machines share: one protocol, three places."""

from .base import SharedStore

__all__ = ["SharedStore"]
