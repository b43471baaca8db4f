"""Strange values everywhere a client can put one: rejected or responded to, never a 500."""

from __future__ import annotations

import random

import pytest
from flask import Flask, request
from werkzeug.test import EnvironBuilder, run_wsgi_app

from flask_secure_ml import public
from support import caller

STRANGE = [
    *("", "\x00", "\xff\xfe", "\xed\xa0\x80", "a" * 9000, "\r\nX: y", "\xe9", "'\"<>", "%", "%zz", "-1", "+5", "1e9"),
    *("[::1", "[::1]:99999", "a:b:c", "chunked", "gzip, identity", "bytes=0-", 'W/"', "*/*;q=x"),
    *("application/json; charset=", "application/json;;=", "multipart/form-data; boundary="),
]
PLACES = [
    *("QUERY_STRING", "PATH_INFO", "SCRIPT_NAME", "REQUEST_METHOD", "REMOTE_ADDR", "CONTENT_TYPE", "CONTENT_LENGTH"),
    *("HTTP_HOST", "HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_X_TEST_CALLER", "HTTP_ACCEPT"),
    *("HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_ENCODING", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST"),
    *("HTTP_RANGE", "HTTP_IF_NONE_MATCH", "HTTP_EXPECT", "HTTP_X_REQUEST_ID", "HTTP_DATE"),
]


@pytest.mark.parametrize("path", ["/open", "/closed", "/nowhere"])
def test_no_request_is_a_500(app: Flask, path: str) -> None:
    """A thousand requests, each with up to four strange values at places drawn by a fixed seed."""
    app.add_url_rule("/open", endpoint="open", view_func=public(_reads_everything), methods=["GET", "POST"])
    app.add_url_rule("/closed", endpoint="closed", view_func=_reads_everything, methods=["GET", "POST"])
    draw = random.Random(path)
    for number in range(1000):
        builder = EnvironBuilder(path, "https://localhost", method=draw.choice(["GET", "POST"]), data=b"[" * 100)
        environ = builder.get_environ() | {"REMOTE_ADDR": f"192.0.2.{number % 250}"}
        if draw.random() < 0.5:
            environ["HTTP_X_TEST_CALLER"] = caller(f"ada{number}")["X-Test-Caller"]
        environ |= {place: draw.choice(STRANGE) for place in draw.sample(PLACES, draw.randint(1, 4))}
        body, status, _ = run_wsgi_app(app, environ, buffered=True)
        assert int(status.split()[0]) < 500, (environ, list(body))


def _reads_everything() -> str:
    request.args.get("a")
    request.cookies.get("b")
    request.get_json(silent=True)
    return "ok"
