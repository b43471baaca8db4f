"""The deployed app with routes for testing how a proxy handles requests and responses."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask, Response, current_app, request

import deployed_app
from flask_secure_ml import protect, public
from flask_secure_ml.describing import described_only
from servers import wait_until

STREAMS = ["/v1/stream", "/v1/gated/<name>"]
"""The URL rules whose responses a proxy must forward without buffering."""

GATES = "PROXIED_GATES"
"""The environment variable with the directory in which a test opens gates by creating files."""


CACHED: Any = {"values": {"Cache-Control": "public, max-age=60"}}


def described(**settings: Any) -> Flask:
    """Return the app for generators, without secrets."""
    with described_only():
        return create_app(**settings)


def create_app(**settings: Any) -> Flask:
    """Return the app with its secrets; ``FLASK_SECURE_ML_*`` and ``settings`` override those of the deployed app."""
    app = deployed_app.serve_app(**settings)
    gates = Path(os.environ.get(GATES, "/nonexistent"))

    @app.route("/v1/seen", methods=["GET", "POST"])
    def seen() -> dict[str, Any]:
        return {
            "address": request.remote_addr,
            "scheme": request.scheme,
            "host": request.host,
            "headers": {name.lower(): value for name, value in request.headers},
            "bytes": len(request.get_data()),
            "query": request.query_string.decode("latin-1"),
            "worker": os.getpid(),
        }

    @app.get("/v1/gated/<name>")
    def gated(name: str) -> Response:
        def lines() -> Iterator[str]:
            yield "first\n"
            wait_until((gates / name).exists, "the gate stays closed")
            yield "last\n"

        return Response(lines(), mimetype="text/plain")

    @app.get("/v1/slow/<name>")
    def slow(name: str) -> dict[str, Any]:
        wait_until((gates / name).exists, "the gate stays closed")
        return {"slow": name}

    @app.route("/v1/crash/<name>", methods=["POST"])
    def crash(name: str) -> Response:
        with (gates / name).open("a") as log:
            log.write("run\n")
        os._exit(1)

    @app.get("/v1/rare")
    @protect(limits=["1/hour"])
    def rare() -> dict[str, Any]:
        return {"worker": os.getpid(), "name": current_app.name}

    @app.get("/v1/steered")
    def steered() -> Response:
        return Response(
            "steered", headers={"X-Accel-Redirect": "/.problem", "X-Envoy-Immediate-Health-Check-Fail": "1"}
        )

    @app.get("/v1/large/<int:millions>")
    def large(millions: int) -> bytes:
        return b"1" * (millions * 1_000_000)

    _add_cached(app)
    return app


def _add_cached(app: Flask) -> None:
    """Add routes whose responses a shared cache may keep."""
    made = itertools.count(1)

    @app.get("/v1/counted")
    @public(headers=CACHED)
    def counted() -> dict[str, Any]:
        return {"made": next(made), "worker": os.getpid()}

    @app.get("/v1/weights")
    @public(headers=CACHED)
    def weights() -> dict[str, Any]:
        return {"weights": np.array([0.25, 0.5])}

    @app.get("/v1/visitor")
    @public(headers=CACHED)
    def visitor() -> Response:
        response = Response(f"{os.getpid()} {next(made)}")
        response.set_cookie("visitor", response.get_data(as_text=True).replace(" ", "-"))
        return response

    @app.get("/v1/scarce")
    @public(limits=["1/hour"], headers=CACHED)
    def scarce() -> dict[str, Any]:
        return {"made": next(made)}
