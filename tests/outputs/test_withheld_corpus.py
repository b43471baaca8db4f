"""Responses that must not be sent: each becomes a 500 without their content in body, headers or log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Response

from answering import CORPUS, LEAK, Serve, assert_withheld, cases
from flask_secure_ml.testing import MemorySink


def view(case: dict[str, Any]) -> Callable[[], Response]:
    """Return a view that returns the value of the case in a body of its own."""
    deep = case.get("deep", 0)
    body = ("[" * deep + case["body"] + "]" * deep).encode()

    def response() -> Response:
        kind = case.get("type", "application/json")
        return Response(body, case.get("status", 200), case.get("headers"), content_type=kind)

    return response


def assert_nothing_leaks(response: Any, sink: MemorySink, caplog: pytest.LogCaptureFixture) -> None:
    assert_withheld(response)
    (line,) = sink.records
    assert (line["status"], line["code"]) == (500, "internal_error")
    assert line["reason"].startswith("the response was replaced by an error response: ")
    assert LEAK not in str(line) + caplog.text
    assert line["reason"].removeprefix("the response was replaced by an error response: ") in caplog.text


@pytest.mark.parametrize("case", cases("scores"))
def test_scores(case: dict[str, Any], serve: Serve, sink: MemorySink, caplog: pytest.LogCaptureFixture) -> None:
    """Scores that cannot be masked are replaced by an error response, and the log has the reason without a value."""
    options = {"scores": case["scores"]} if "scores" in case else {}
    assert_nothing_leaks(serve(view(case), **options), sink, caplog)


@pytest.mark.parametrize("case", cases("fields"))
def test_fields(case: dict[str, Any], serve: Serve, sink: MemorySink, caplog: pytest.LogCaptureFixture) -> None:
    """A response that does not match its schema is replaced by an error response."""
    assert_nothing_leaks(serve(view(case), response="answer_schemas:Prediction"), sink, caplog)


@pytest.mark.parametrize("case", [*cases("scores"), *cases("fields")])
def test_without_options_they_leave(case: dict[str, Any], serve: Serve) -> None:
    """It is the options that withhold: without them all leave but JSON with NaN."""
    assert (serve(view(case)).status_code == 500) is ("NaN" in case["body"] or "Infinity" in case["body"])


def test_every_file_is_used() -> None:
    """A new file of cases needs its test."""
    assert {path.stem for path in CORPUS.glob("*.json")} == {"scores", "fields"}
