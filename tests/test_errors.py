"""Every error is a problem document with a constant public text."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from flask import Flask
from werkzeug import exceptions as http

from flask_secure_ml import errors
from flask_secure_ml.errors import REQUEST_ID_KEY, ConfigError, DependencyUnavailable, SecureMLError, problem_response
from support import HTTPS, caller

LEAVES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, SecureMLError) and error is not SecureMLError
]


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_our_errors(error: type[SecureMLError]) -> None:
    """The body has the class's constants, never the reason; the class is Werkzeug's for its status."""
    raised = error("the private reason", headers=[("Retry-After", "7")], members={"errors": []})
    response = raised.get_response({REQUEST_ID_KEY: "r-1"})
    body: Any = response.json
    assert response.content_type == "application/problem+json"
    assert response.headers["Retry-After"] == "7"
    assert body["status"] == response.status_code == raised.code
    assert (body["code"], body["detail"], body["request_id"]) == (error.slug, error.detail, "r-1")
    assert response.headers.getlist("X-Error-Code") == [error.slug]
    assert body["errors"] == []
    assert "private" not in response.get_data(as_text=True)
    assert isinstance(raised, http.default_exceptions[raised.code or 0])


@pytest.mark.parametrize("status", sorted(http.default_exceptions), ids=str)
def test_errors_of_others(status: int) -> None:
    """Each error of Werkzeug keeps status and headers; of a text of the app, only that of a 4xx is for clients."""
    raised = http.default_exceptions[status]()
    raised.description = "/srv/secret"
    assert ("secret" in problem_response(raised).get_data(as_text=True)) == (status < 500)
    raised = http.default_exceptions[status]()
    response = problem_response(raised)
    body: Any = response.json
    assert response.status_code == body["status"] == status
    assert response.headers["X-Error-Code"] == body["code"]
    assert body["type"] == "about:blank"
    assert body["detail"] != raised.description
    assert body["code"].replace("_", "").isalnum()


@pytest.mark.parametrize(
    "raised",
    [
        http.SecurityError("Host 'secret' is not trusted."),
        http.BadRequestKeyError("secret"),
        http.BadRequest({"secret": 1}),  # type: ignore[arg-type]
        http.BadRequest(),
    ],
    ids=["host", "key", "no text", "none"],
)
def test_descriptions_that_are_no_text_of_the_app(raised: http.HTTPException) -> None:
    """They have the constant text: some quote the request."""
    body: Any = problem_response(raised).json
    assert body["detail"] == "The request is malformed."


def test_405_keeps_allow() -> None:
    """RFC 9110 section 15.5.6."""
    assert problem_response(http.MethodNotAllowed(["GET"])).headers["Allow"] == "GET"


def test_an_unknown_status() -> None:
    """A status without a phrase is still a problem document."""

    class Odd(http.HTTPException):
        code = 499

    assert problem_response(Odd()).json == {
        "type": "about:blank",
        "title": "Unknown Error",
        "status": 499,
        "detail": "Error.",
        "code": "error",
    }


def test_config_error_lists_every_problem() -> None:
    """All faults at once, a line each."""
    error = ConfigError(["A is wrong", "B is wrong"])
    assert error.problems == ("A is wrong", "B is wrong")
    assert str(error).splitlines()[1:] == ["  - A is wrong", "  - B is wrong"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param((), ["5"], id="none given"),
        pytest.param([("X-Other", "1")], ["5"], id="another header"),
        pytest.param([("Retry-After", "60")], ["60"], id="given"),
        pytest.param([("retry-after", "60")], ["60"], id="given in lower case"),
    ],
)
def test_outage_says_when_to_try_again(headers: list[tuple[str, str]], expected: list[str]) -> None:
    """Every 503 of ours has Retry-After, exactly once."""
    response = DependencyUnavailable("down", headers=headers).get_response()
    assert response.headers.getlist("Retry-After") == expected
    assert len(response.headers) == len({name.lower() for name, _ in headers} | {"retry-after"}) + 3


def test_view_that_reports_an_outage(app: Flask) -> None:
    """A view may raise it with nothing but its reason."""

    def view() -> str:
        raise DependencyUnavailable("the feature store is down")

    app.add_url_rule("/features", view_func=view)
    response = app.test_client().get("/features", base_url=HTTPS, headers=caller())
    assert (response.status_code, response.json["code"]) == (503, "dependency_unavailable")  # type: ignore[index]
    assert response.headers.getlist("Retry-After") == ["5"]
    assert b"feature store" not in response.data
