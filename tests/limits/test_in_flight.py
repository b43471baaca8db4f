"""Requests in flight are released when they end, however they end; a client never waits for its own leases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from werkzeug.test import create_environ

from flask_secure_ml import current_exchange, protect
from limited import NOTHING, Prompt, leases_of, post
from support import HTTPS, MakeApp, caller


class Killed(BaseException):
    """The exception that gevent raises in a killed greenlet."""


class Fails:
    """A filter and a recorder that raises."""

    def __init__(self, error: type[BaseException], times: int) -> None:
        self._error = error
        self._left = times

    def _fail(self) -> None:
        self._left -= 1
        if self._left >= 0:
            raise self._error

    def apply(self, response: Any, exchange: Any) -> None:
        self._fail()

    def record(self, exchange: Any) -> None:
        self._fail()


@pytest.mark.parametrize("error", [ValueError, Killed, SystemExit])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", ["filters", "recorders", "view", "body", "teardown", "after"])
@pytest.mark.parametrize("route", [True, False])
def test_whatever_is_raised_releases(
    protected: MakeApp, error: type[BaseException], times: int, kind: str, route: bool
) -> None:
    """Errors of the app, a filter, a recorder or a body, however often."""
    fails = Fails(error, times)
    parts = {kind: [fails]} if kind in {"filters", "recorders"} else {}
    app = protected(PLANS={"default": {"in_flight": 1}}, parts=parts)
    app.config["PROPAGATE_EXCEPTIONS"] = False

    def view() -> Any:
        if kind == "view":
            fails._fail()

        def parts() -> Iterator[str]:
            yield "a"
            if kind == "body":
                fails._fail()

        return Response(parts()) if kind == "body" else "ok"

    if kind == "teardown":
        app.teardown_request(lambda _: fails._fail())
    if kind == "after":

        @app.after_request
        def after(response: Response) -> Response:
            fails._fail()
            return response

    app.add_url_rule("/x", "x", protect(in_flight=1 if route else None)(view), methods=["POST"])
    for _ in range(3):
        with suppress(ValueError, Killed, SystemExit):
            post(app)
        assert leases_of(app) == NOTHING
    assert post(app).status_code == 200


class Refuses:
    """A server that refuses to start a response so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    def __call__(self, *_: Any) -> Any:
        self._left -= 1
        if self._left >= 0:
            raise ConnectionError
        return lambda _data: None


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_server_that_refuses_to_start_a_response(protected: MakeApp, times: int) -> None:
    """No lease is left, although no response was sent."""
    app = protected(PLANS={"default": {"in_flight": 1}})
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/x", "x", protect()(lambda: "ok"), methods=["POST"])
    environ = create_environ("/x", HTTPS, method="POST", headers=caller())
    with suppress(ConnectionError):
        list(app.wsgi_app(environ, Refuses(times)))
    assert leases_of(app) == NOTHING
    assert post(app).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_methods_that_have_no_body(protected: MakeApp, method: str) -> None:
    """Each counts, and holds no lease afterwards."""
    app = protected(PLANS={"default": {"requests": ["3/minute"], "in_flight": 1}})
    app.add_url_rule("/x", "x", protect()(lambda: Response(iter(["a", "b"]))))
    client = app.test_client()
    found = []
    for _ in range(5):
        with client.open("/x", method=method, base_url=HTTPS, headers=caller()) as response:
            found.append(response.status_code)
    assert found == [200] * 3 + [429] * 2
    assert leases_of(app) == NOTHING


@pytest.mark.parametrize("cost", [None, 1])
@pytest.mark.parametrize("itself", [False, True])
def test_a_request_that_a_view_makes(protected: MakeApp, tmp_path: Path, cost: int | None, itself: bool) -> None:
    """It is part of the outer request in flight, is not counted separately, and does not release its lease."""
    options = {"PLANS": {"default": {"in_flight": 1}}, "STORE_URI": f"sqlite:{tmp_path}/s.db"}
    app = protected(Flask("outer"), **options)
    inner = app if itself else protected(Flask("inner"), **options)
    body = None if cost is None else Prompt
    inner.add_url_rule("/in", "in", protect(body=body, cost=cost)(lambda payload=None: "in"), methods=["POST"])
    beside: list[int] = []

    def view() -> Any:
        found = Response.from_app(inner, dict(request.environ, PATH_INFO="/in"))
        beside.append(post(inner, "/in").status_code)
        return found

    app.add_url_rule("/x", "x", protect()(view), methods=["POST"])
    assert [post(app).data for _ in range(3)] == [b"in"] * 3
    assert beside == [429] * 3
    assert leases_of(app)[:2] == leases_of(inner)[:2] == ({}, {})


@pytest.mark.parametrize("closing", ["charge", "fail"])
def test_a_client_that_sends_one_request_after_another(protected: MakeApp, closing: str) -> None:
    """It gets in as soon as it has read a stream: the server sends the end of it before it closes the body."""
    app = protected(PLANS={"default": {"in_flight": 1, "quotas": ["100/day"]}})

    def view(payload: Any) -> Response:
        exchange = current_exchange._get_current_object()  # type: ignore[attr-defined]
        response = Response(iter(["a", "b"]))
        if payload["prompt"] == "last":
            return response

        @response.call_on_close
        def closed() -> None:
            exchange.charge(40)
            if closing == "fail":
                raise ZeroDivisionError

        return response

    app.add_url_rule("/x", "x", protect(body=Prompt, cost=1)(view), methods=["POST"])
    for _ in range(2):
        environ = create_environ("/x", HTTPS, method="POST", headers=caller(), json={"prompt": "x"})
        body: Any = app.wsgi_app(environ, lambda *_: lambda _data: None)
        assert next(iter(body)) == b"a"
        assert leases_of(app) != NOTHING
        assert list(body) == [b"b"]
        assert leases_of(app) == NOTHING
        with nullcontext() if closing == "charge" else pytest.raises(ZeroDivisionError):
            body.close()
        body.close()
    assert "r=19;" in post(app, body={"prompt": "last"}).headers["RateLimit"]
