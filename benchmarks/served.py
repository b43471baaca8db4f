"""App factories for the servers; they read the number of columns and the directory from the environment."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fastapi import FastAPI
from flask import Flask

from flask_secure_ml import protect, public

from . import apps, peer

COMPUTING = 0.5
COLUMNS, FOLDER = "BENCHMARK_COLUMNS", "BENCHMARK_FOLDER"


def bare_app() -> Flask:
    """Return the app without any protection."""
    return apps.bare().app


def secured_app() -> Flask:
    """Return the secured app in clear text like the others, so that TLS is not measured."""
    return apps.secured(_columns(), _folder(), SECURE_ML_REQUIRE_TLS=False)


def observed_app() -> Flask:
    """Return the secured app with all observability features."""
    return apps.secured(_columns(), _folder(), SECURE_ML_REQUIRE_TLS=False, **apps.everything(_folder()))


def computing_app(*, pool: bool = False) -> Flask:
    """Return the secured app over TLS with a probe, a large response, and a view that computes for half a second.

    :param pool: compute in gevent's thread pool.
    """
    app = apps.secured(_columns(), _folder(), SECURE_ML_PROBES={})

    @app.get("/large")
    @public
    def large() -> bytes:
        return bytes(20_000_000)

    @app.get("/compute")
    @protect
    def computing() -> dict[str, int]:
        if pool:
            from gevent import get_hub

            return {"count": get_hub().threadpool.apply(_compute)}
        return {"count": _compute()}

    return app


def _compute() -> int:
    # Pure Python, which holds the GIL.
    ends, count = time.thread_time() + COMPUTING, 0
    while time.thread_time() < ends:
        count += 1
    return count


def peer_app() -> FastAPI:
    """Return the peer app."""
    return peer.make_app(_columns(), _folder())


def _columns() -> int:
    return int(os.environ[COLUMNS])


def _folder() -> Path:
    return Path(os.environ[FOLDER])
