"""A described app, and its description."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from described_app import PLANS, add_routes
from flask_secure_ml.openapi import build_document
from support import MakeApp

FORMATS = ["json", "oip", "npy", "msgpack", "csv"]


@pytest.fixture
def app(protected: MakeApp) -> Flask:
    return add_routes(
        protected(OPENAPI="protected", WIRE_FORMATS=FORMATS, CONTENT_ENCODINGS=["identity", "gzip"], PLANS=PLANS)
    )


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    return build_document(app)
