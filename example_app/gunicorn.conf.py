"""gunicorn configuration of the example: the configuration of the package, on one IP address.

Environment variables: ``HOST``, ``PORT``, and ``SECURE_ML_SERVE_...`` (``docs/howto/serve.rst``).
"""

# ruff: noqa: N999 - gunicorn looks for a file with this name
from __future__ import annotations

import os

from flask_secure_ml.deploy.gunicorn import *  # noqa: F403 - gunicorn reads the names

_host = os.environ.get("HOST", "127.0.0.1")
_port = os.environ.get("PORT", "8443")

bind = [f"[{_host}]:{_port}" if ":" in _host else f"{_host}:{_port}"]
# Ctrl-C should not wait long.
graceful_timeout = 10
loglevel = "warning"
