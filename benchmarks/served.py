"""The apps for servers: each factory finds width and folder in the environment."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI
from flask import Flask

from . import apps, peer

COLUMNS, FOLDER = "BENCHMARK_COLUMNS", "BENCHMARK_FOLDER"


def bare_app() -> Flask:
    """Return the app as the data scientist wrote it."""
    return apps.bare().app


def secured_app() -> Flask:
    """Return the secured app, in clear text as the others are, so that no one's TLS is compared."""
    return apps.secured(_columns(), _folder(), SECURE_ML_REQUIRE_TLS=False)


def peer_app() -> FastAPI:
    """Return the peer."""
    return peer.make_app(_columns(), _folder())


def _columns() -> int:
    return int(os.environ[COLUMNS])


def _folder() -> Path:
    return Path(os.environ[FOLDER])
