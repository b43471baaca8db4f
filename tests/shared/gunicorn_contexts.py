"""The TLS contexts that gunicorn creates with the configuration of the package."""

from __future__ import annotations

import ssl
from typing import Any

from gunicorn.config import Config
from gunicorn.sock import ssl_context as create_context

from certificates import Certificate
from flask_secure_ml.deploy.gunicorn_tls import served_context
from flask_secure_ml.deploy.openssl import CIPHERS


def configuration(pair: Certificate, **settings: Any) -> Config:
    """Return gunicorn's configuration with the files of a certificate."""
    config = Config()
    chosen = {
        "certfile": str(pair.certificate),
        "keyfile": str(pair.key),
        "ciphers": ":".join(CIPHERS),
        "ssl_context": served_context,
    }
    for name, value in (chosen | settings).items():
        config.set(name, value)
    return config


def server(pair: Certificate, **settings: Any) -> ssl.SSLContext:
    """Return the context of gunicorn, from its own function."""
    context = create_context(configuration(pair, **settings))
    assert isinstance(context, ssl.SSLContext)
    return context


def client(*trusted: Certificate) -> ssl.SSLContext:
    """Return the context of a client that also trusts these certificates."""
    context = ssl.create_default_context()
    for each in trusted:
        context.load_verify_locations(each.certificate)
    return context
