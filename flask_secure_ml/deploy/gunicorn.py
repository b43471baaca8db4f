"""A gunicorn configuration: ``gunicorn -c python:flask_secure_ml.deploy.gunicorn "app:create_app()"``.

gunicorn runs this module as its configuration, so importing it has side effects. Only import it in another
configuration: ``from flask_secure_ml.deploy.gunicorn import *``, followed by your changes. Command-line options take
precedence. The environment variables ``SECURE_ML_SERVE_...`` are in
:mod:`flask_secure_ml.deploy.gunicorn_environment`.

* TLS follows Mozilla's intermediate profile, and a renewed certificate is used without a restart.
* Keys, revocations and key sets are loaded before a worker accepts its first request.
* Requests that gunicorn rejects itself get a problem document, and gunicorn's log messages are lines of JSON without
  parts of requests. The messages of an app that does not configure logging are lines of JSON too.
* Metrics of all workers are collected in ``PROMETHEUS_MULTIPROC_DIR``, or in a temporary directory that is
  removed when the server stops. The counters of a worker that ended are kept in a file that the next worker continues;
  its gauges are removed.
* The port of ``SECURE_ML_METRICS_LISTEN`` is bound once, before the first worker starts. Replaced and reloaded workers
  (``HUP``) share it, and so does the new server of an upgrade (``USR2``).
"""

from __future__ import annotations

import atexit
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flask_secure_ml.deploy import gunicorn_metrics as _metrics
from flask_secure_ml.deploy import gunicorn_workers as _workers
from flask_secure_ml.deploy.gunicorn_environment import settings as _settings
from flask_secure_ml.deploy.gunicorn_tls import TlsError as _TlsError
from flask_secure_ml.deploy.gunicorn_tls import served_context as _served_context
from flask_secure_ml.deploy.openssl import CIPHERS as _CIPHERS
from flask_secure_ml.errors import ConfigError as _ConfigError

_NAME = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "secure-ml-metrics-"
_own_directories: list[str] = []
_metrics_port = _metrics.MetricsPort()
_metrics_files = _metrics.MetricsFiles()

logger_class = "flask_secure_ml.deploy.gunicorn_logger.JsonLogger"
# The app writes the request log.
accesslog = None
errorlog = "-"

ciphers = ":".join(_CIPHERS)
# gunicorn reports the address and scheme of the connection itself. The app trusts the proxies in
# SECURE_ML_TRUSTED_PROXIES; a second list here would only be a source of conflicts.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
# It is on by default, and any process that can write to it can stop the server.
control_socket_disable = True


def _private_file(content: bytes) -> str:
    """Write a certificate or key to a private file, which is removed when the server stops."""
    _own_directories.append(tempfile.mkdtemp(prefix="secure-ml-tls-"))
    path = Path(_own_directories[-1], "pem")
    path.touch(0o600)
    path.write_bytes(content)
    return str(path)


def _remove_directories(owner: int = os.getpid()) -> None:
    """Remove the directories that this server created; has no effect in its workers."""
    if os.getpid() == owner:
        for directory in _own_directories:
            shutil.rmtree(directory, ignore_errors=True)


# Also needed if gunicorn calls no hook: for --check-config, or if it fails to start.
atexit.register(_remove_directories)


def _has_directory() -> bool:
    """Return True if a persistent directory for metrics is configured."""
    given = os.environ.get(_NAME, "")
    # After SIGUSR2, this is the successor of a server, which removes its own directory when it ends.
    return bool(given) and not ("GUNICORN_PID" in os.environ and Path(given).name.startswith(_PREFIX))


if find_spec("prometheus_client") is not None and not _has_directory():
    # prometheus_client reads the variable at import time, which is before any hook with --preload.
    os.environ[_NAME] = tempfile.mkdtemp(prefix=_PREFIX)
    _own_directories.append(os.environ[_NAME])

if find_spec("prometheus_client") is not None:
    _metrics_files.use()

try:
    globals().update(_settings(os.environ, _private_file))
except _ConfigError as error:
    sys.exit(str(error))


def ssl_context(config: Any, default_ssl_context_factory: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return the TLS context of this process."""
    return _served_context(config, default_ssl_context_factory)


def on_starting(server: Any) -> None:
    """Prepare the metrics, and stop with a message if the certificate cannot be used."""
    from gunicorn.sock import ssl_context as create

    if server.cfg.is_ssl:
        try:
            create(server.cfg)
        except _TlsError as error:
            server.log.error("%s", error)
            sys.exit(1)
    if directory := os.environ.get(_NAME):
        _metrics_files.remove_stale(directory)
    _metrics_port.bind(server)


def pre_exec(server: Any) -> None:
    """Pass the metrics socket to the new server (``USR2``)."""
    _metrics_port.pass_on(server)


def pre_fork(server: Any, worker: Any) -> None:
    """Choose the metrics files of a worker."""
    _metrics_files.choose(server, worker)


def post_fork(server: Any, worker: Any) -> None:
    """Prepare a worker process."""
    _metrics_files.adopt(worker)
    _workers.heed_early_signals(server, worker)
    _workers.omit_server_header()


def post_worker_init(worker: Any) -> None:
    """Load the dependencies of requests before the first one."""
    _workers.ignore_broken_connections(worker)
    _workers.finish_handshakes(worker)
    _workers.respond_with_problems(worker)
    _workers.load_certificate(worker)
    _metrics.agree(worker)
    _workers.load_app(worker.wsgi)


def child_exit(_server: Any, worker: Any) -> None:
    """Remove the gauges of a worker that ended."""
    if os.environ.get(_NAME):
        _metrics_files.release(worker)


def on_exit(_server: Any) -> None:
    """Remove the directories that this server created."""
    _remove_directories()
