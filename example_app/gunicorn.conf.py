"""gunicorn for the example: TLS 1.2 or newer on one IP address, short timeouts, no trust in forwarded headers.

Read from the environment: ``HOST``, ``PORT``, ``TLS_CERTIFICATE`` and ``TLS_PRIVATE_KEY`` (paths of PEM files).
"""

# ruff: noqa: N999 - the dot is in the name that gunicorn looks for
from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any

# Keys are loaded before the first request, and the metrics of all workers are added up.
from flask_secure_ml.deploy.gunicorn import child_exit, on_exit, post_worker_init  # noqa: F401 - gunicorn calls them

_host = os.environ.get("HOST", "127.0.0.1")

bind = f"[{_host}]:{os.environ.get('PORT', '8443')}" if ":" in _host else f"{_host}:{os.environ.get('PORT', '8443')}"
certfile = os.environ.get("TLS_CERTIFICATE", "server.pem")
keyfile = os.environ.get("TLS_PRIVATE_KEY", "server.key")

# Forward secrecy and authenticated encryption only; TLS 1.3 has its own list, which is safe as it is.
ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20"

# Greenlets: slow clients hold nothing but their own connection, whatever they send slowly or do not read, and a request
# costs the least. What computes for long must run in gevent's thread pool, because greenlets wait for each other.
worker_class = "gevent"
workers = 2
timeout = 30
graceful_timeout = 10
keepalive = 5

limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

# The address and scheme of a request are those of its own connection. The app trusts the proxies that
# SECURE_ML_TRUSTED_PROXIES names; a second list here could only disagree with it.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
control_socket_disable = True

# The app writes the request log; here only what goes wrong with the server itself is worth a line.
accesslog = None
errorlog = "-"
loglevel = "warning"


def ssl_context(config: Any, default_ssl_context_factory: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:  # noqa: ARG001 - gunicorn passes both
    """Return gunicorn's own context, with TLS 1.2 as the oldest version."""
    context = default_ssl_context_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context
