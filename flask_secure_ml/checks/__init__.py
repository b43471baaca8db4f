"""The doctor: checks of a setup, each with a stable id, a reason, and the line that fixes the finding."""

from __future__ import annotations

from .offline import OFFLINE
from .online import ONLINE
from .own import OWN_CHECKS
from .url import URL

CHECKS = (*OWN_CHECKS, *OFFLINE, *ONLINE, *URL)
"""All checks; the reference page is generated from them."""

__all__ = ["CHECKS", "OFFLINE", "ONLINE", "OWN_CHECKS", "URL"]
