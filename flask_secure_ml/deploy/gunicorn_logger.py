"""The logger of gunicorn, with lines of JSON; :mod:`flask_secure_ml.deploy.gunicorn` sets it."""

from __future__ import annotations

import logging
import re
from typing import Any

from gunicorn.glogging import Logger

from ..observe.request_log import JsonFormatter

_QUERY = re.compile(r"\?\S*")
_QUOTED = re.compile(r"b?['\"].*", re.DOTALL)
_INVALID = "Invalid request from ip="
_FAILED = "Error handling request"


class WithoutRequestData(JsonFormatter):
    """Leaves out what gunicorn quotes of a request: parts of one that it rejects, and the query of any other."""

    def message(self, record: logging.LogRecord) -> str:
        """Return the message without it."""
        message = super().message(record)
        if message.startswith(_INVALID):
            return _QUOTED.sub("[withheld]", message)
        return _QUERY.sub("", message) if message.startswith(_FAILED) else message


class JsonLogger(Logger):  # type: ignore[misc, unused-ignore]  # gunicorn has no types
    """gunicorn's logger; its error log has lines of JSON, wherever the options of gunicorn send it."""

    def setup(self, cfg: Any) -> None:
        """Set the logger up, also again when the configuration is reloaded.

        A formatter that ``--log-config`` or ``logconfig_dict`` sets stays.
        """
        super().setup(cfg)
        if cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json:
            return
        for handler in self.error_log.handlers:
            handler.setFormatter(WithoutRequestData())
