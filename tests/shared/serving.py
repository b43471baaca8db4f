"""gunicorn with the configuration of the package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from certificates import Certificate
from servers import Served, gunicorn

CONFIG = ("-c", "python:flask_secure_ml.deploy.gunicorn")


@contextmanager
def serving(
    folder: Path, certificate: Certificate, environ: dict[str, str] | None = None, **variables: Any
) -> Iterator[Served]:
    """Serve the slow app with variables of ``SECURE_ML_SERVE_``, which also contain its certificate."""
    chosen = {"CERTIFICATE": str(certificate.certificate), "PRIVATE_KEY": str(certificate.key), "WORKERS": "2"}
    given = {f"SECURE_ML_SERVE_{name}": str(value) for name, value in (chosen | variables).items() if value != ""}
    with gunicorn(
        folder, None, {**os.environ, **given, **(environ or {})}, *CONFIG, app="slow_app:create_app()"
    ) as found:
        yield Served(found.port, certificate, found.log)
