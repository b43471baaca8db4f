"""Requests to an app with limits, and the app's leases."""

from __future__ import annotations

from typing import Any

from flask import Flask
from marshmallow import Schema, fields

from flask_secure_ml.state import state_of
from support import HTTPS, caller

Body = dict[str, Any]


class Prompt(Schema):
    prompt = fields.String()
    size = fields.Integer()


def post(app: Flask, path: str = "/x", body: Body | None = None, name: str = "ada", method: str = "POST") -> Any:
    client = app.test_client()
    with client.open(path, method=method, base_url=HTTPS, headers=caller(name), json=body or {"prompt": "x"}) as found:
        found.get_data()
    return found


def statuses(app: Flask, times: int, *arguments: Any, **options: Any) -> list[int]:
    return [post(app, *arguments, **options).status_code for _ in range(times)]


def leases_of(app: Flask) -> tuple[Any, Any, Any]:
    """Return the requests in flight in this process and in the store, if the store is in memory."""
    limiter = state_of(app).limiter
    held = limiter.leases._local.get()
    return held.leases, held.counts, getattr(limiter.counters, "_leases", {})


NOTHING: tuple[Any, Any, Any] = ({}, {}, {})
