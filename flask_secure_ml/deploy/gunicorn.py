"""A configuration of gunicorn: ``gunicorn -c python:flask_secure_ml.deploy.gunicorn "app:create_app()"``.

gunicorn runs this module as its configuration, so it has effects when it is imported, and nothing but another
configuration imports it. Options on the command line come first.

* Keys, revocations and key sets are loaded before a worker accepts its first request.
* gunicorn's own messages are lines of JSON, without what they would quote of requests.
* Metrics of all workers are collected in ``PROMETHEUS_MULTIPROC_DIR``; where it is not set, in a directory that is
  removed when the server stops. What a worker counted stays when it ends; its gauges are removed.
"""

from __future__ import annotations

import os
import shutil
import ssl
import tempfile
from importlib.util import find_spec
from typing import Any

_NAME = "PROMETHEUS_MULTIPROC_DIR"
_own_directory: str | None = None

logger_class = "flask_secure_ml.deploy.gunicorn_logger.JsonLogger"

if find_spec("prometheus_client") is not None and not os.environ.get(_NAME):
    # prometheus_client reads it when it is imported, with --preload before any hook runs.
    os.environ[_NAME] = _own_directory = tempfile.mkdtemp(prefix="secure-ml-metrics-")


def post_worker_init(worker: Any) -> None:
    """Load what requests need, before the first one.

    Under gevent, a failed TLS handshake is no error: otherwise each stranger who connects writes a traceback.
    """
    if "gevent" in type(worker).__module__:
        from gevent import get_hub

        hub = get_hub()
        hub.NOT_ERROR = (*hub.NOT_ERROR, ssl.SSLError, ConnectionError)

    from flask import Flask

    from flask_secure_ml import SecureML
    from flask_secure_ml.state import EXTENSION

    # An app inside other middleware loads with its first request.
    if isinstance(worker.wsgi, Flask) and EXTENSION in worker.wsgi.extensions:
        SecureML.load(worker.wsgi)


def child_exit(_server: Any, worker: Any) -> None:
    """Remove the gauges of a worker that ended."""
    if os.environ.get(_NAME):
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)


def on_exit(_server: Any) -> None:
    """Remove the directory of the metrics, if this server created it."""
    if _own_directory is not None:
        shutil.rmtree(_own_directory, ignore_errors=True)
