"""A minimal protected app, for servers."""

from __future__ import annotations

from flask import Flask

from flask_secure_ml import SecureML

app: Flask = Flask("plain_site")
SecureML(app)
