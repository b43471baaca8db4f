"""An app behind a proxy, which returns the received request, and responses that the client selects."""

from __future__ import annotations

import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from flask import Flask, Response, redirect, request

app = Flask(__name__)
FORGED = {
    "Set-Cookie": "session=of-the-upstream",
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "public, max-age=86400",
    "Connection": "keep-alive, X-Hop",
    "Content-Security-Policy": "default-src *",
    "Server": "Old/1.0",
    "Strict-Transport-Security": "max-age=0",
    "WWW-Authenticate": "Basic",
    "X-Error-Code": "forged",
    "X-Hop": "1",
    "X-Request-ID": "forged",
}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@app.route("/echo", methods=METHODS)
@app.route("/files/<path:name>", methods=METHODS)
def echo(name: str = "") -> Any:
    """Return the request as received."""
    body = request.get_data()
    return {
        "method": request.method,
        "target": request.environ["RAW_URI"],
        "path": request.path,
        "headers": {name.lower(): value for name, value in request.headers},
        "length": len(body),
        "sha256": sha256(body).hexdigest(),
    }


@app.get("/admin")
def admin() -> str:
    """Return content that no client may get."""
    return "admin"


@app.get("/status/<int:code>")
def status(code: int) -> Response:
    """Return a status, with headers that a client should not get."""
    return Response("of the upstream", code, FORGED)


@app.get("/moved")
def moved() -> Any:
    """Redirect to the URL in ``to``."""
    return redirect(request.args["to"], 307)


@app.get("/large")
def large() -> Response:
    """Return 50 megabytes without a length."""
    return Response(b"x" * 1_000_000 for _ in range(50))


@app.get("/broken/<int:length>")
def broken(length: int) -> Response:
    """Declare a larger length than is sent."""

    def blocks() -> Iterator[bytes]:
        yield b"first"
        raise OSError

    return Response(blocks(), headers={"Content-Length": str(length)})


@app.get("/scores")
def scores() -> Any:
    """Return scores with many decimals."""
    return {"scores": [0.1234567, 0.8765433]}


@app.get("/slow")
def slow() -> str:
    """Respond after the timeout of the proxy."""
    time.sleep(3)
    return "late"
