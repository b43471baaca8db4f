"""The signals, one module each; a new one is added to ``SIGNALS``."""

from __future__ import annotations

from .base import Signal
from .credentials import Credentials
from .networks import Networks
from .rate import Rate
from .regularity import Regularity
from .rejections import Rejections
from .rows import Rows
from .scanning import Scanning
from .silence import Silence
from .volume import Volume

SIGNALS: tuple[type[Signal], ...] = (
    Rate,
    Rejections,
    Scanning,
    Credentials,
    Networks,
    Rows,
    Volume,
    Regularity,
    Silence,
)

__all__ = ["SIGNALS", "Signal"]
