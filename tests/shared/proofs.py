"""Shared code of the DPoP tests: requests as passed by a server, and a store that records calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Request
from werkzeug.test import EnvironBuilder

from flask_secure_ml.principal import Clock
from flask_secure_ml.stores.base import Changes, Cursor

TOKEN = "an.access.token"
NOW = 1_800_000_000


class Seen:
    """A store that only remembers keys by a clock, and records calls."""

    shared = True

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}
        self.calls: list[tuple[str, str, float]] = []

    def add(self, space: str, key: str, seconds: float) -> bool:
        self.calls.append((space, key, seconds))
        now = self._clock.now()
        if self._until.get((space, key), now) > now:
            return False
        self._until[space, key] = now + seconds
        return True

    def put(self, space: str, key: str, value: bytes, *, seconds: float | None = None, new: bool = False) -> bool:
        raise NotImplementedError

    def get(self, space: str, key: str) -> bytes | None:
        raise NotImplementedError

    def delete(self, space: str, key: str) -> bool:
        raise NotImplementedError

    def items(self, space: str) -> Mapping[str, bytes]:
        raise NotImplementedError

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        raise NotImplementedError


def request_of(proof: str | None, wanted: Mapping[str, Any] | None = None) -> Request:
    """Return a request with a proof; only its path is decoded, as by a server.

    :param wanted: ``method``, ``base``, ``path``, ``query`` and ``headers``, if they differ from the defaults.
    """
    given = wanted or {}
    environ = EnvironBuilder(method=given.get("method", "POST"), headers=given.get("headers", {})).get_environ()
    base = urlsplit(given.get("base", "https://localhost"))
    environ["wsgi.url_scheme"], environ["HTTP_HOST"] = base.scheme, base.netloc
    environ["SCRIPT_NAME"], environ["QUERY_STRING"] = base.path, given.get("query", "")
    environ["PATH_INFO"] = unquote_to_bytes(given.get("path", "/predict")).decode("latin-1")
    if proof is not None:
        environ["HTTP_DPOP"] = proof
    return Request(environ)
