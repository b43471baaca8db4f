"""Tests that configure logging, and leave it to others as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unchanged_loggers(*names: str) -> Iterator[None]:
    """Restore the root logger and those of these names."""
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    before = [(each.level, list(each.handlers), each.propagate) for each in loggers]
    try:
        yield
    finally:
        for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
            logger.level, logger.handlers, logger.propagate = level, handlers, propagate
            logger.setLevel(level)  # clears what loggers cache of levels
