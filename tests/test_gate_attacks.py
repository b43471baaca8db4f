"""Attempts to bypass the guards or reach a protected route without a credential: no handler runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import EnvironBuilder, run_wsgi_app

from flask_secure_ml import public
from flask_secure_ml.testing import MemorySink
from support import MakeApp, caller

Start = Callable[..., Any]
Ran = list[str]

PATHS = (
    *(
        "/metrics",
        "/metrics/",
        "/metrics/x",
        "/metrics//",
        "/metrics/x/y",
        "/metrics/.",
        "/metrics/..",
        "/metrics/../x",
    ),
    *("//metrics", "///metrics/x", "/./metrics", "/x/../metrics", "/../metrics", "/metrics/../metrics", "/x//metrics"),
    *(
        "/metrics\0",
        "/metrics\0/x",
        "/metrics;a=1",
        "/metrics;/x",
        "/metrics.",
        "/metrics ",
        "/metrics\n",
        "/metrics\\x",
    ),
    *("/METRICS", "/metrics%2fx", "/%6detrics", "/metrics?x", "/metrics#x", "/metrics*", "/metrics/*"),
    *(
        "/metrics\xff",
        "/metrics/\xc3\xa9",
        "/\xe9/metrics",
        "/metrics/\xc0\xafx",
        "/nested/metrics",
        "/nested/x/metrics",
    ),
    *(
        "metrics",
        "metrics/x",
        "*",
        "",
        "/",
        "//",
        "http://evil/metrics",
        "/closed",
        "//closed",
        "/./closed",
        "/closed\0",
    ),
)
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "BREW", "")
HEADERS: tuple[dict[str, Any], ...] = (
    {"HTTP_X_HTTP_METHOD_OVERRIDE": "GET", "HTTP_X_ORIGINAL_URL": "/metrics", "HTTP_X_REWRITE_URL": "/metrics"},
    {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"},
    {"HTTP_UPGRADE": "h2c", "HTTP_HTTP2_SETTINGS": "AAMAAABkAAQAAP__"},
    {"HTTP_SCRIPT_NAME": "/metrics", "HTTP_PATH_INFO": "/metrics"},
    {"SCRIPT_NAME": "/metrics"},
    {"HTTP_FLASK_SECURE_ML_EXCHANGE": "x", "HTTP_WERKZEUG_PROXY_FIX_ORIG": "x", "HTTP_WSGI_WEBSOCKET": "x"},
    {"HTTP_HOST": "metrics"},
    {"HTTP_HOST": "a" * 300},
    {"SERVER_PROTOCOL": "HTTP/0.9"},
    {"CONTENT_LENGTH": "7", "HTTP_TRANSFER_ENCODING": "chunked"},
)


@pytest.fixture
def ran() -> Ran:
    return []


@pytest.fixture
def open_app(bare_app: Flask, protected: MakeApp, ran: Ran) -> Flask:
    """Return an app with mounts inside of mounts, a closed route, and public routes for every path and method."""

    def mounted(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        ran.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"mounted"]

    inner = DispatcherMiddleware(
        mounted, {"/metrics": mounted, "/x": DispatcherMiddleware(mounted, {"/metrics": mounted})}
    )
    bare_app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        bare_app.wsgi_app, {"/metrics": mounted, "/nested": inner}
    )
    app = protected(bare_app)
    methods = [method for method in METHODS if method and method != "OPTIONS"]
    for rule in ("/", "/metrics", "/<path:path>"):
        app.add_url_rule(rule, endpoint=rule, view_func=public(lambda path="": path), methods=methods)

    def closed() -> str:
        ran.append("closed")
        return ""

    app.add_url_rule("/closed", view_func=closed, methods=methods)
    return app


def attempts() -> Iterator[dict[str, Any]]:
    for path, method in product(PATHS, METHODS):
        yield {"PATH_INFO": path, "REQUEST_METHOD": method}
    for path, headers in product(PATHS, HEADERS):
        yield {"PATH_INFO": path} | headers


def test_no_spelling_runs_a_handler(open_app: Flask, sink: MemorySink, ran: Ran) -> None:
    """No path, method or header gets a stranger past the guards; none is an error, and each has its record."""
    tried = list(attempts())
    for attempt in tried:
        environ = EnvironBuilder("/", "https://localhost").get_environ() | attempt
        body, status, _ = run_wsgi_app(open_app, environ)
        assert (b"mounted" in b"".join(body), status < "5") == (False, True), attempt
    assert ran == []
    assert len(sink.records) == len(tried)


def test_the_same_with_a_credential(open_app: Flask, ran: Ran) -> None:
    """The handlers are where the attempts look for them."""
    for path in ("/metrics", "/nested/metrics", "/nested/x/metrics", "/closed"):
        open_app.test_client().get(path, base_url="https://localhost", headers=caller())
    assert ran == ["", "", "", "closed"]
