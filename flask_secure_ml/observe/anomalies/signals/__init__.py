"""The signals, one module each; add new ones to ``SIGNALS``."""

from __future__ import annotations

from .base import Reading, Signal
from .credentials import Credentials, Targeted
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
    Targeted,
    Networks,
    Rows,
    Volume,
    Regularity,
    Silence,
)

__all__ = ["SIGNALS", "Reading", "Signal"]
