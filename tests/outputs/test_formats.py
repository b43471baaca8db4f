"""Which media type a client accepts."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from flask_secure_ml.outputs.formats import accepted

JSON, NPY = "application/json", "application/x-npy"
BOTH = (JSON, NPY)


def asking(header: str | None) -> Request:
    environ = EnvironBuilder().get_environ()
    return Request(environ if header is None else environ | {"HTTP_ACCEPT": header})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(None, JSON, id="nothing said"),
        pytest.param("", JSON, id="empty"),
        pytest.param("*/*", JSON, id="anything"),
        pytest.param("application/*", JSON, id="any application"),
        pytest.param("application/json", JSON, id="json"),
        pytest.param("Application/JSON;charset=utf-8", JSON, id="json with a parameter"),
        pytest.param("application/x-npy", NPY, id="npy"),
        pytest.param("application/x-npy, application/json", JSON, id="both alike"),
        pytest.param("application/x-npy, application/json;q=0.5", NPY, id="npy rather"),
        pytest.param("application/x-npy;q=0.1, */*;q=0.5", JSON, id="anything rather"),
        pytest.param("*/*, application/json;q=0.1", NPY, id="anything but json"),
        pytest.param("*/*, application/json;q=0", NPY, id="no json"),
        pytest.param("text/html,application/xhtml+xml,*/*;q=0.8", JSON, id="browser"),
        pytest.param("text/html", None, id="html"),
        pytest.param("text/*", None, id="any text"),
        pytest.param("application/json;q=0", None, id="json refused"),
        pytest.param("*/*;q=0", None, id="nothing"),
        pytest.param("application/problem+json", None, id="other json"),
        pytest.param("application/json;q=oops", JSON, id="no number"),
    ],
)
def test_the_best_of_two(header: str | None, expected: str | None) -> None:
    """The most specific range counts for a type, and of types that are accepted alike the first is taken."""
    assert accepted(asking(header), BOTH) == expected


def test_what_is_accepted_and_cannot_be() -> None:
    """A format that this response cannot have is none."""
    assert accepted(asking(NPY), (JSON,)) is None
