"""``flask secure-ml openapi``."""

from __future__ import annotations

import json
import sys

import pytest

from described_app import add_routes
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.openapi import build_document
from support import MakeApp


def test_it_prints_the_description(protected: MakeApp) -> None:
    """Whether it is served or not, the whole document comes out as JSON."""
    app = add_routes(protected())
    done = app.test_cli_runner().invoke(secure_ml, ["openapi"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == json.loads(json.dumps(build_document(app)))


def test_the_package_is_missing(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says what to install."""
    app = protected()
    monkeypatch.setitem(sys.modules, "apispec.ext.marshmallow", None)
    done = app.test_cli_runner().invoke(secure_ml, ["openapi"])
    assert done.exit_code == 1
    assert "pip install 'flask-secure-ml[openapi]'" in done.output
