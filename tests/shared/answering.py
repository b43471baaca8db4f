"""Shared code of the tests of responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

Serve = Callable[..., TestResponse]
"""Requests a view with options; see the fixture ``serve``."""

LEAK = "987654321"
"""Digits of the score or text that must not be sent."""

CORPUS = Path(__file__).parents[1] / "corpus" / "outputs"


def cases(name: str) -> list[Any]:
    """Return the cases of a file of the corpus."""
    return [pytest.param(case, id=case["id"]) for case in json.loads((CORPUS / f"{name}.json").read_text("utf-8"))]


def assert_withheld(response: TestResponse, status: int = 500, code: str = "internal_error") -> None:
    """Check that a response is the problem document of a status, without content of the view."""
    body: Any = response.get_json(force=True)
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert response.content_type == "application/problem+json"
    assert LEAK not in response.get_data(as_text=True)
    assert LEAK not in str(response.headers)
    assert int(response.headers["Content-Length"]) == len(response.get_data())
