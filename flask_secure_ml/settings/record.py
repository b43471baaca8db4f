"""The record of one setting, from which the reference page is generated: a fact about a setting stands only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any


def setting(default: Any, check: Callable[[Any], Any], help_text: str, *, secret: bool = False) -> Any:
    """Return a dataclass field with the default, the check and the help of a setting."""
    metadata = {"check": check, "help": " ".join(help_text.split())}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: check(default), metadata=metadata | {"shown": default})
    return field(default=default, repr=not secret, metadata=metadata | {"shown": default})
