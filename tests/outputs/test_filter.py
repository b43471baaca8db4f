"""Filtering of responses other than plain successes: errors, streams, files, redirects, empty ones."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from flask import Flask, Response, abort, jsonify, redirect, request, send_file

from answering import LEAK, Serve, assert_withheld
from flask_secure_ml import Exchange
from flask_secure_ml.errors import Forbidden
from flask_secure_ml.testing import MemorySink
from support import HTTPS, MakeApp, caller

SCORE = float(f"0.{LEAK}")
ROUND = {"scores": {"round": 1}}
PREDICTION = {"response": "answer_schemas:Prediction"}


class Rows:
    """A stream that holds a resource."""

    def __init__(self) -> None:
        self.sent = self.closed = 0

    def __iter__(self) -> Iterator[str]:
        self.sent += 1
        yield f"[{SCORE}]"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("options", [ROUND, PREDICTION], ids=["scores", "response"])
def test_streams_are_withheld_and_closed(options: dict[str, Any], serve: Serve) -> None:
    """A body that is not known before it is sent cannot be masked; its resources are released."""
    rows = Rows()
    assert_withheld(serve(lambda: Response(rows, mimetype="application/json"), **options))
    assert (rows.sent, rows.closed) == (0, 1)


@pytest.mark.parametrize("options", [ROUND, PREDICTION], ids=["scores", "response"])
def test_files_are_withheld(options: dict[str, Any], serve: Serve) -> None:
    """A file that the server would send by itself is not examined."""
    file = io.BytesIO(f"[{SCORE}]".encode())
    assert_withheld(serve(lambda: send_file(file, "application/json", download_name=f"{LEAK}.json"), **options))
    assert file.closed


def test_streams_and_files_without_options(serve: Serve) -> None:
    """They leave as they are."""
    assert serve(lambda: Response(iter(["a", "b"]))).data == b"ab"
    assert serve(lambda: send_file(io.BytesIO(b"ab"), "text/plain")).data == b"ab"
    assert serve(lambda: send_file(io.BytesIO(b"[NaN]"), "application/json"), scores={"nan": "null"}).data == b"[NaN]"


@pytest.mark.parametrize("options", [ROUND, PREDICTION], ids=["scores", "response"])
@pytest.mark.parametrize("status", [301, 303, 307, 308])
def test_a_redirect_keeps_its_address_only(options: dict[str, Any], status: int, serve: Serve) -> None:
    """Its body is for people without a browser, and could contain anything."""
    response = serve(lambda: redirect("/elsewhere", status), **options)
    assert (response.status_code, response.headers["Location"], response.data) == (status, "/elsewhere", b"")
    assert serve(lambda: redirect("/elsewhere", status)).data != b""


@pytest.mark.parametrize("options", [ROUND, PREDICTION], ids=["scores", "response"])
@pytest.mark.parametrize("status", [200, 204])
def test_empty_responses(options: dict[str, Any], status: int, serve: Serve) -> None:
    """They have no content, so they are sent."""
    response = serve(lambda: Response(status=status), **options)
    assert (response.status_code, response.data, response.headers.get("Content-Length")) == (
        status, b"", "0" if status == 200 else None,
    )  # fmt: skip


def test_a_stream_that_is_a_redirect(serve: Serve) -> None:
    """It loses its body like any other."""
    response = serve(lambda: Response(iter([str(SCORE)]), 302, {"Location": "/elsewhere"}), **ROUND)
    assert (response.status_code, response.data) == (302, b"")


@pytest.mark.parametrize("options", [ROUND, PREDICTION], ids=["scores", "response"])
@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda: Response(f"<p>{SCORE}", 409), id="page"),
        pytest.param(lambda: Response(iter([str(SCORE)]), 409), id="stream"),
        pytest.param(lambda: Response(f"[{SCORE}", 409, mimetype="application/json"), id="broken json"),
        pytest.param(lambda: abort(Response(f"<p>{SCORE}", 409)), id="abort with a response"),
        pytest.param(lambda: abort(409, str(SCORE)), id="abort"),
        pytest.param(lambda: ([SCORE, 2**70], 409), id="not to be shaped"),
    ],
)
def test_errors_that_cannot_be_shaped(options: dict[str, Any], view: Any, serve: Serve) -> None:
    """They become the problem document of their status, so that the client learns that much."""
    assert_withheld(serve(view, **options), 409, "conflict")


def test_errors_that_can_be_shaped(serve: Serve) -> None:
    """They are sent masked, because the app chooses the content of its errors."""
    for view in (
        lambda: ({"fault": "x", "y": SCORE}, 409),
        lambda: Response(json.dumps({"fault": "x", "y": SCORE}), 409, mimetype="application/json"),
    ):
        response = serve(view, **ROUND)
        assert (response.status_code, response.json) == (409, {"fault": "x", "y": 1.0})


@pytest.mark.parametrize("body", [{"label": str(LEAK)}, {"fault": str(LEAK)}], ids=["as declared", "other"])
def test_errors_beside_declared_responses(body: Any, serve: Serve) -> None:
    """The schema is of successes, so an error of the view is the problem document of its status."""
    assert_withheld(serve(lambda: (body, 409), **PREDICTION), 409, "conflict")
    assert_withheld(serve(lambda: (jsonify(body), 409), **PREDICTION), 409, "conflict")


def test_our_own_errors_stay(serve: Serve) -> None:
    """An error response is the same as without options."""

    def reject() -> None:
        raise Forbidden("private", headers=[("Retry-After", "7")], members={"errors": [0.123]})

    for options in (ROUND, PREDICTION):
        response = serve(reject, **options)
        assert (response.status_code, response.headers["Retry-After"], response.json["errors"]) == (403, "7", [0.123])  # type: ignore[index]


@pytest.mark.parametrize("options", [ROUND, PREDICTION], ids=["scores", "response"])
def test_error_handlers_of_the_app(options: dict[str, Any], protected: MakeApp) -> None:
    """A page of theirs is replaced by the document that we would have sent, with its headers."""
    app = Flask("model_app")
    app.add_url_rule("/answer", "answer", lambda: "never")
    app.register_error_handler(403, lambda error: (f"<p>{SCORE}", 403))
    app.register_error_handler(401, lambda error: (f"<p>{SCORE}", 401, {"Access-Control-Allow-Origin": "*"}))
    protected(app, POLICIES={"answer": options | {"scopes": ["admin"]}})
    client = app.test_client()
    response = client.get("/answer", base_url=HTTPS, headers=caller())
    assert_withheld(response, 403, "insufficient_scope")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    response = client.get("/answer", base_url=HTTPS)
    assert_withheld(response, 401, "not_authenticated")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["WWW-Authenticate"]


def test_unhandled_errors_stay_problems(serve: Serve) -> None:
    """An error of a view is reported as usual."""
    for options in (ROUND, PREDICTION):
        assert_withheld(serve(lambda: 1 / 0 and "", **options))


def test_a_hook_that_fails_after_the_view(protected: MakeApp) -> None:
    """The document that Flask then sends passes, though filters see it twice."""
    app = Flask("model_app")
    app.add_url_rule("/answer", "answer", lambda: {"y": SCORE})

    @app.after_request
    def fail(response: Response) -> Response:
        raise RuntimeError(str(SCORE))

    protected(app, POLICIES={"answer": ROUND})
    assert_withheld(app.test_client().get("/answer", base_url=HTTPS, headers=caller()))


def test_what_stays_of_a_withheld_response(serve: Serve, sink: MemorySink) -> None:
    """Headers not about the body are kept, for caches and CORS; the log has the status that was sent."""
    headers = {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": "https://example.com",
        "X-Scores": LEAK,
        "ETag": f'"{LEAK}"',
        "Set-Cookie": f"y={LEAK}",
        "Content-Language": "en",
    }
    response = serve(lambda: Response(str(SCORE), headers=headers), **ROUND)
    assert_withheld(response)
    assert (response.headers["Vary"], response.headers["Access-Control-Allow-Origin"]) == (
        "Origin",
        "https://example.com",
    )
    assert not {"ETag", "X-Scores", "Set-Cookie", "Content-Language"} & set(response.headers.keys())
    assert response.headers["X-Request-ID"] == response.get_json(force=True)["request_id"]
    (line,) = sink.records
    assert (line["status"], line["code"]) == (500, "internal_error")


def test_head_and_options(serve: Serve) -> None:
    """HEAD has the length of the masked body; OPTIONS, which Flask implements, stays empty."""
    full = serve(lambda: {"y": SCORE}, **ROUND)
    head = serve(lambda: {"y": SCORE}, method="HEAD", **ROUND)
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", full.headers["Content-Length"])
    for options in (ROUND, PREDICTION):
        assert serve(lambda: {"y": SCORE}, method="OPTIONS", **options).status_code == 200


def test_what_filters_of_the_user_add_is_shaped(protected: MakeApp) -> None:
    """Masking comes last, so that no part of the app can add a score behind it."""

    class Filter:
        def apply(self, response: Response, exchange: Exchange) -> None:
            response.set_data(f"[{SCORE}]")

    app = Flask("model_app")
    app.add_url_rule("/answer", "answer", lambda: {"label": "cat"})
    protected(app, parts={"filters": [Filter()]}, POLICIES={"answer": ROUND})
    assert app.test_client().get("/answer", base_url=HTTPS, headers=caller()).data == b"[1.0]\n"


def test_an_empty_response_says_nothing_of_another_one(serve: Serve) -> None:
    """The entity tag of the exact body would let a client test guesses of it."""
    response = serve(lambda: Response(b"", headers={"ETag": '"tag"', "Last-Modified": "x", "Digest": "y"}), **ROUND)
    assert response.status_code == 200
    assert not {"ETag", "Last-Modified", "Digest"} & set(response.headers.keys())


EXACT = Response(f"[{SCORE}]")
EXACT.add_etag()
STAMP = "Tue, 14 Nov 2023 00:00:00 GMT"
GUESSES = [
    {"If-None-Match": EXACT.headers["ETag"]},
    {"If-None-Match": '"other"'},
    {"If-Match": EXACT.headers["ETag"]},
    {"If-Match": '"other"'},
    {"If-Modified-Since": STAMP},
    {"If-Modified-Since": "Tue, 14 Nov 2000 00:00:00 GMT"},
    {"Range": "bytes=4-7"},
    {"Range": "bytes=4-7", "If-Range": '"other"'},
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_guess_is_compared_with_the_exact_response(protected: MakeApp, method: str) -> None:
    """Right or wrong, it gets the response that a request without it gets."""
    app = Flask("model_app")

    def view() -> Any:
        found = Response(f"[{SCORE}]", mimetype="application/json")
        found.add_etag()
        found.last_modified = datetime(2023, 11, 14, tzinfo=UTC)
        return found.make_conditional(request, accept_ranges=True, complete_length=len(f"[{SCORE}]"))

    app.add_url_rule("/answer", "answer", view)
    app.add_url_rule("/free", "free", view)
    protected(app, POLICIES={"answer": ROUND})
    client = app.test_client()
    plain = client.open("/answer", method=method, base_url=HTTPS, headers=caller())
    for guess in GUESSES:
        response = client.open("/answer", method=method, base_url=HTTPS, headers=caller() | guess)
        assert (response.status_code, response.data) == (200, plain.data)
        assert set(response.headers.keys()) == set(plain.headers.keys())
    free = client.open("/free", method=method, base_url=HTTPS, headers=caller() | GUESSES[0])
    assert free.status_code == 304


def test_plans_hold_for_every_route(protected: MakeApp) -> None:
    """A page is withheld from a caller whose plan has options, until its route is freed from them."""
    for policies, status in (({}, 500), ({"page": {"scores": False}}, 200)):
        app = Flask("model_app")
        app.add_url_rule("/page", "page", lambda: "<p>")
        protected(app, PLANS={"default": {"scores": {"round": 1}}}, POLICIES=policies)
        assert app.test_client().get("/page", base_url=HTTPS, headers=caller()).status_code == status


def test_jsonify_outside_a_protected_request(bare_app: Flask, protected: MakeApp) -> None:
    """Without a request, or without our exchange, there are no options."""
    protected(bare_app)
    with bare_app.app_context():
        assert bare_app.json.response(np.zeros(2)).status_code == 200
    with bare_app.test_request_context("/"):
        assert jsonify(1).get_data() == b"1\n"
