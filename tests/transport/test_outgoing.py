"""The response between the app and the server: every form that PEP 3333 allows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, run_wsgi_app

from flask_secure_ml import SecureML
from flask_secure_ml.testing import FakeClock, MemorySink
from support import MakeApp, NameAuthenticator, caller

Start = Callable[..., Callable[[bytes], object]]
WsgiApp = Callable[[dict[str, Any], Start], Iterable[bytes]]
OK = "200 OK", [("Content-Type", "text/plain")]


class Body:
    """A body that knows whether it was closed, and may break."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1


def returning(body: Iterable[bytes]) -> WsgiApp:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response(*OK)
        return body

    return app


def generating(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response(*OK)
    yield b"one "
    yield b"two"


def generating_nothing(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response(*OK)
    yield from ()


def writing(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    write = start_response(*OK)
    write(b"one ")
    write(b"two")
    return []


def writing_and_returning(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response(*OK)(b"one ")
    return [b"two"]


def correcting(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("500 Internal Server Error", [])
    start_response(*OK, (LookupError, LookupError(), None))
    return [b"one two"]


FORMS = {
    "list": returning([b"one ", b"two"]),
    "iterable": returning(Body(b"one ", b"two")),
    "generator": generating,
    "write": writing,
    "write and return": writing_and_returning,
    "exc_info": correcting,
}


@pytest.fixture
def around(clock: FakeClock, sink: MemorySink) -> Callable[[WsgiApp], Flask]:
    """Make a protected Flask app whose WSGI application is replaced."""

    def make(wsgi_app: WsgiApp, **parts: Any) -> Flask:
        app = Flask("model_app")
        app.wsgi_app = wsgi_app  # type: ignore[method-assign, assignment]
        SecureML(app, authenticators=[NameAuthenticator()], clock=clock, sink=sink)
        return app

    return make


def call(app: Flask, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    environ = EnvironBuilder(
        "/x", "https://localhost", method=method, headers=Headers(caller() | headers)
    ).get_environ()
    body, status, found = run_wsgi_app(app, environ)
    try:
        return int(status[:3]), dict(found), b"".join(body)
    finally:
        close = getattr(body, "close", lambda: None)
        close()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_passes(around: Callable[[WsgiApp], Flask], sink: MemorySink, form: str) -> None:
    """The response is the app's own with harmless headers, and it is recorded before it starts."""
    app = around(FORMS[form])
    status, headers, body = call(app)
    assert (status, body, headers["Content-Type"]) == (200, b"one two", "text/plain")
    assert headers["X-Request-ID"] == sink.records[0]["request_id"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Strict-Transport-Security"].startswith("max-age=31536000")
    assert "Content-Security-Policy" not in headers
    assert [record["status"] for record in sink.records if "event" not in record] == [200]


@pytest.mark.parametrize("form", FORMS)
def test_no_form_runs_for_a_stranger(around: Callable[[WsgiApp], Flask], form: str) -> None:
    """A generator must not even be started."""
    ran: list[str] = []

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        ran.append(form)
        return FORMS[form](environ, start_response)

    assert call(around(app), **{"X-Test-Caller": "bad"})[0] == 401
    assert ran == []


def test_a_body_without_a_chunk(around: Callable[[WsgiApp], Flask]) -> None:
    """A generator that yields nothing has still started its response."""
    assert call(around(generating_nothing))[::2] == (200, b"")


def test_the_body_is_closed_once(around: Callable[[WsgiApp], Flask]) -> None:
    """The server closes the iterable of the app, through all middleware."""
    body = Body(b"x")
    assert call(around(returning(body)))[2] == b"x"
    assert body.closed == 1


def test_a_stream_that_breaks(around: Callable[[WsgiApp], Flask], sink: MemorySink) -> None:
    """The error reaches the server, which breaks the connection; the second line has its type."""
    body = Body(b"x", error=OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        call(around(returning(body)))
    assert body.closed == 1
    assert [(record.get("event"), record["reason"]) for record in sink.records] == [
        (None, None),
        ("stream_end", "unhandled OSError"),
    ]


def never_starting(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    return [b"secret"]


def never_starting_lazily(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    yield b"secret"


def starting_twice(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response(*OK)
    start_response(*OK)
    return [b"secret"]


def raising(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    raise LookupError("secret")


def raising_after_start(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response(*OK)
    raise LookupError("secret")


def lost() -> Iterator[bytes]:
    raise LookupError("secret")


def raising_lazily(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    start_response(*OK)
    yield from lost()


def with_a_broken_status(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    start_response("fine", [])
    return [b"secret"]


@pytest.mark.parametrize(
    "wsgi_app",
    [
        never_starting,
        never_starting_lazily,
        starting_twice,
        raising,
        raising_after_start,
        raising_lazily,
        with_a_broken_status,
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_app_that_fails(
    around: Callable[[WsgiApp], Flask], sink: MemorySink, wsgi_app: WsgiApp, method: str
) -> None:
    """The client gets the constant 500, and the log the reason."""
    status, headers, body = call(around(wsgi_app), method)
    assert (status, b"secret" in body, headers["Content-Type"]) == (500, False, "application/problem+json")
    assert bool(body) is (method == "GET")
    (record,) = [record for record in sink.records if "event" not in record]
    assert (record["status"], record["code"]) == (500, "internal_error")
    assert record["reason"].startswith("unhandled ")


def test_an_app_that_fails_after_its_first_part(around: Callable[[WsgiApp], Flask], sink: MemorySink) -> None:
    """With something sent, only the server can end the connection."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response(*OK)(b"one")
        raise LookupError("secret")

    with pytest.raises(LookupError):
        call(around(app))
    assert [(record.get("event"), record["reason"]) for record in sink.records] == [
        (None, None),
        ("stream_end", "unhandled LookupError"),
    ]


def test_a_stream_after_a_written_part(around: Callable[[WsgiApp], Flask], sink: MemorySink) -> None:
    """An iterable returned after a write is a normal stream."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response(*OK)(b"one")
        return Body(b"two", error=OSError("disk"))

    with pytest.raises(OSError, match="disk"):
        call(around(app))
    assert [record["reason"] for record in sink.records] == [None, "unhandled OSError"]


@pytest.mark.parametrize("form", ["late", "eager", "written"])
def test_the_body_of_a_replaced_response_is_closed(
    around: Callable[[WsgiApp], Flask], sink: MemorySink, form: str
) -> None:
    """Resources of the body are released, and its own error has no effect."""
    body = Body(b"secret")

    class Failing(Body):
        def close(self) -> None:
            body.close()
            raise OSError("close")

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        if form == "late":
            return Failing(b"secret")
        write = start_response("fine" if form == "eager" else "200 OK", [])
        if form == "written":
            environ["flask_secure_ml.exchange"].answerable = False
            write(b"secret")
        return Failing(b"secret")

    status, _, sent = call(around(app))
    assert (status, b"secret" in sent, body.closed) == (500, False, 1)
    assert [record["status"] for record in sink.records] == [500]


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00b", "a\x7fb", "\u20ac"])
@pytest.mark.parametrize("where", ["status", "name", "value"])
def test_what_no_server_sends(around: Callable[[WsgiApp], Flask], sink: MemorySink, value: str, where: str) -> None:
    """A header with a forbidden character is an error of the app, found before the server has part of the response."""
    status = f"200 {value}" if where == "status" else "200 OK"
    header = (value, "x") if where == "name" else ("X-Name", value if where == "value" else "x")
    started: list[str] = []

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response(status, [header])
        return [b"secret"]

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append(status)

    environ = EnvironBuilder("/x", "https://localhost", headers=Headers(caller())).get_environ()
    assert b"secret" not in b"".join(around(app)(environ, start))
    assert (started, [record["status"] for record in sink.records]) == (["500 INTERNAL SERVER ERROR"], [500])


def test_a_server_that_does_not_accept_a_response(around: Callable[[WsgiApp], Flask], sink: MemorySink) -> None:
    """The replacement has ``exc_info``, as PEP 3333 requires, and only the accepted response is recorded."""
    started: list[tuple[str, bool]] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((status[:3], exc_info is not None))
        if status.startswith("200"):
            raise ValueError("a hop-by-hop header")

    environ = EnvironBuilder("/x", "https://localhost", headers=Headers(caller())).get_environ()
    body = around(returning([b"secret"]))(environ, start)
    assert b"secret" not in b"".join(body)
    assert started == [("200", False), ("500", True)]
    assert [record["status"] for record in sink.records] == [500]


def test_a_late_response_that_the_server_stops(around: Callable[[WsgiApp], Flask], sink: MemorySink) -> None:
    """Also before its first part."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        yield sys.exit(1)

    with pytest.raises(SystemExit):
        call(around(app))
    assert [(record["status"], record["reason"]) for record in sink.records] == [(500, "unhandled SystemExit")]


def test_start_response_after_the_first_part(around: Callable[[WsgiApp], Flask]) -> None:
    """The server decides, which raises the error again."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response(*OK)(b"one")
        start_response("500 Internal Server Error", [], (LookupError, LookupError("late"), None))
        return []

    with pytest.raises(LookupError, match="late"):
        call(around(app))


def test_server_names_are_hidden(around: Callable[[WsgiApp], Flask]) -> None:
    """Versions of a mounted app are hidden too, and its other headers are kept."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Server", "x/1"), ("X-Powered-By", "y/2"), ("X-Content-Type-Options", "own")])
        return [b""]

    headers = call(around(app))[1]
    assert headers.keys().isdisjoint({"Server", "X-Powered-By"})
    assert headers["X-Content-Type-Options"] == "own"


@pytest.mark.parametrize("form", ["list", "iterable", "write", "write and return", "exc_info"])
def test_a_response_before_the_guards_is_replaced(
    protected: MakeApp, sink: MemorySink, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """Code that gets around the hooks of a plain app cannot get its response out, in whatever form it comes."""
    app = protected()
    # A plain app at init_app, and something else from then on.
    app.full_dispatch_request = lambda: FORMS[form]  # type: ignore[method-assign, assignment, return-value]
    status, headers, body = call(app)
    assert (status, headers["Content-Type"]) == (500, "application/problem+json")
    assert b"one" not in body
    assert "other code responded first" in caplog.text
    assert [record["code"] for record in sink.records] == ["internal_error"]


def test_cleared_hooks(protected: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """An app whose hook lists were cleared serves nothing, including its errors."""
    app = protected()
    app.add_url_rule("/x", view_func=lambda: "secret")
    app.before_request_funcs.clear()
    app.url_value_preprocessors.clear()
    app.after_request_funcs.clear()
    assert call(app)[0] == 500
    assert "other code responded first" in caplog.text
    assert call(app, "DELETE")[0] == 500


def test_cleared_filters(protected: MakeApp, sink: MemorySink) -> None:
    """A response that no filter has seen does not leave, although every guard admitted the request."""
    app = protected()
    app.add_url_rule("/x", view_func=lambda: "secret")
    app.after_request_funcs.clear()
    status, headers, body = call(app)
    assert (status, headers["Cache-Control"], b"secret" in body) == (500, "no-store", False)
    assert [record["reason"] for record in sink.records] == ["the filters did not run"]
