"""API keys for tests with a key store but no app, such as tests of servers whose app runs in another process."""

from __future__ import annotations

from collections.abc import Iterable

from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.api_keys.key import KeyStore
from flask_secure_ml.authentication.api_keys.lifecycle import issue_key
from flask_secure_ml.principal import Clock, SystemClock
from flask_secure_ml.secrets import Secret, SecretRing


def stored_key(
    store: KeyStore,
    pepper: SecretRing,
    clock: Clock,
    *,
    client: str = "tests",
    scopes: Iterable[str] = ("predict",),
    plan: str = "default",
    lifetime: float | None = None,
    endpoints: Iterable[str] | None = None,
) -> str:
    """Store a new key and return it."""
    now = clock.now()
    expires = None if lifetime is None else now + lifetime
    return issue_key(
        store, pepper, client=client, scopes=scopes, now=now, plan=plan, expires=expires, endpoints=endpoints
    )[0]


def key_in_file(
    path: str, *, scopes: Iterable[str] = ("predict",), plan: str = "default", lifetime: float | None = None
) -> str:
    """Store a new key in a key file, with the pepper in the environment variable ``PEPPER``, and return it."""
    pepper = SecretRing(Secret("env:PEPPER"))
    return stored_key(FileKeyStore(path), pepper, SystemClock(), scopes=scopes, plan=plan, lifetime=lifetime)
