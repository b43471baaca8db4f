"""An app with one route that returns a value of the test, with options set in one of two ways."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from answering import Serve
from flask_secure_ml import protect
from support import HTTPS, MakeApp, caller


@pytest.fixture(params=["decorator", "configuration"])
def place(request: pytest.FixtureRequest) -> str:
    """Return where the options of the route are set."""
    return str(request.param)


@pytest.fixture
def serve(protected: MakeApp, place: str) -> Serve:
    """Ask a view under options; ``plan`` are the output options of the caller's plan."""

    def ask(view: Any, *, plan: Any = None, headers: Any = None, method: str = "GET", **options: Any) -> TestResponse:
        app = Flask("model_app")
        response = view if callable(view) else lambda: view
        settings: dict[str, Any] = {}
        if place == "configuration":
            settings["POLICIES"] = {"/answer": options}
        else:
            response = protect(**options)(response)
        if plan is not None:
            settings["PLANS"] = {"default": {"requests": [], "scores": plan}}
        app.add_url_rule("/answer", "answer", response)
        protected(app, **settings)
        client = app.test_client()
        return client.open("/answer", method=method, base_url=HTTPS, headers=caller() | (headers or {}))

    return ask
