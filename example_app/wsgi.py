"""The app for a WSGI server: ``gunicorn --config example_app/gunicorn.conf.py example_app.wsgi:app``."""

from __future__ import annotations

from .app import create_app, secure_ml

app = create_app()
secure_ml.check(app)
