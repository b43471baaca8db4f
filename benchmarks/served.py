"""The apps for servers: each factory finds width and folder in the environment."""

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
    """Return the app as the data scientist wrote it."""
    return apps.bare().app


def secured_app() -> Flask:
    """Return the secured app, in clear text as the others are, so that no one's TLS is compared."""
    return apps.secured(_columns(), _folder(), SECURE_ML_REQUIRE_TLS=False)


def computing_app(*, pool: bool = False) -> Flask:
    """Return the secured app over TLS with a probe, a large response, and a view that computes for half a second.

    :param pool: whether it computes in the thread pool of gevent.
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
    # In Python itself, which no other thread of the process can do meanwhile.
    ends, count = time.thread_time() + COMPUTING, 0
    while time.thread_time() < ends:
        count += 1
    return count


def peer_app() -> FastAPI:
    """Return the peer."""
    return peer.make_app(_columns(), _folder())


def _columns() -> int:
    return int(os.environ[COLUMNS])


def _folder() -> Path:
    return Path(os.environ[FOLDER])
