"""Checks that contact the app's dependencies; each exchange has a time limit."""

from __future__ import annotations

from . import dependencies, surroundings

ONLINE = (*dependencies.CHECKS, *surroundings.CHECKS)
"""All online checks, in the order of the report."""
