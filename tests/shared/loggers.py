"""Restoring the logging configuration after tests that change it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flask.logging import default_handler


@contextmanager
def unchanged_loggers(*names: str) -> Iterator[None]:
    """Restore the root logger, the loggers with these names, and the handlers of last resort after the block."""
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    before = [(each.level, list(each.handlers), each.propagate, each.disabled) for each in loggers]
    last, formatter, stream = logging.lastResort, default_handler.formatter, default_handler.stream
    try:
        yield
    finally:
        logging.lastResort = last
        default_handler.setFormatter(formatter)
        default_handler.setStream(stream)
        for logger, (level, handlers, propagate, disabled) in zip(loggers, before, strict=True):
            logger.level, logger.handlers, logger.propagate, logger.disabled = level, handlers, propagate, disabled
            logger.setLevel(level)  # clears what loggers cache of levels
