"""Shared code of the tests: a caller that is authenticated by one header."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Request

from flask_secure_ml import Exchange, Principal
from flask_secure_ml.errors import NotAuthenticated
from flask_secure_ml.stores import SharedStore

HTTPS = "https://localhost"
RANDOM_SECRET = "9c1f5ae07b42d86e3f9d0b7c5a1846e2f3d97b60c8a5e412"
"""The form of a random secret."""

OLDER_SECRET = "47d0e1b8a96c3f52708be4d19f6a2c05b3d8e7f1460a9c2d"
MakeApp = Callable[..., Flask]


class NameAuthenticator:
    """Accepts ``X-Test-Caller: name scope scope``; the name ``bad`` is an invalid credential."""

    name = "test"
    challenge = "Test"

    def __init__(self, plan: str = "default") -> None:
        self.plan = plan

    def find(self, request: Request, exchange: Exchange) -> object | None:
        return request.headers.get("X-Test-Caller")

    def verify(self, credential: object, exchange: Exchange) -> Principal:
        name, *scopes = str(credential).split()
        if name == "bad":
            raise NotAuthenticated("a bad caller")
        return Principal("test", name, scopes=frozenset(scopes), plan=self.plan)


def caller(name: str = "ada", *scopes: str) -> dict[str, str]:
    """Return the headers of an authenticated caller."""
    return {"X-Test-Caller": " ".join((name, *scopes))}


def version_of(store: SharedStore, space: str) -> str:
    """Return the version of a space after its last change."""
    return store.changes(space, None).cursor.version
