"""An introspection endpoint without a network, and a verifier of opaque tokens that uses it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from flask_secure_ml.authentication.tokens.introspection import Introspector
from flask_secure_ml.config.issuers import IssuerConfig
from flask_secure_ml.errors import SecureMLError
from flask_secure_ml.fetch import FetchError
from flask_secure_ml.principal import Clock
from flask_secure_ml.secrets import Secret, SecretRing
from support import RANDOM_SECRET

ISSUER = "https://issuer.example"
AUDIENCE = "https://api.example"
TOKEN = "opaque-0123456789abcdef"
NOW = 1_800_000_000
USUAL: Mapping[str, Any] = {
    "active": True,
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "alice",
    "client_id": "tests",
    "iat": NOW,
    "exp": NOW + 300,
    "jti": "t1",
    "scope": "predict explain",
    "token_type": "Bearer",
}


class Endpoint:
    """A fake transport that returns prepared responses and records requests."""

    def __init__(self) -> None:
        self.status = 200
        self.body = json.dumps(USUAL).encode()
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.down = False
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, uri: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.bodies.append(body)
        self.headers.append(headers)
        self.meanwhile()
        if self.down:
            raise FetchError("TimeoutError while fetching it")
        return self.status, self.body

    def say(self, *drop: str, **members: Any) -> None:
        self.body = json.dumps({k: v for k, v in {**USUAL, **members}.items() if k not in drop}).encode()

    @property
    def asked(self) -> int:
        return len(self.bodies)


def make_introspector(
    clock: Clock, endpoint: Any, *, leeway: float = 30, max_age: float = 60, **members: Any
) -> Introspector:
    """Return an introspector; ``members`` are members of its issuer."""
    usual: dict[str, Any] = {
        "introspection_uri": ISSUER + "/introspect",
        "client_id": "api",
        "client_secret": SecretRing(Secret(RANDOM_SECRET)),
    }
    config = IssuerConfig(ISSUER, AUDIENCE, **{**usual, **members})
    return Introspector(config, clock, leeway=leeway, max_age=max_age, send=endpoint)


def status_of(introspector: Introspector, token: str = TOKEN) -> int:
    """Return the status of the response to a caller with this token."""
    try:
        introspector.verify(token)
    except SecureMLError as error:
        return error.code or 0
    return 200
