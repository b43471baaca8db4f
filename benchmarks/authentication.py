"""Cost of authentication alone: an API key, a known token, a new token, and a flood of invented key ids."""

from __future__ import annotations

import base64
import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from flask import Request
from joserfc import jwt
from joserfc.jwk import Key, RSAKey
from werkzeug.test import EnvironBuilder

from flask_secure_ml.authentication.api_keys.lifecycle import issue_key
from flask_secure_ml.authentication.setup import Authentication, build_authentication
from flask_secure_ml.config import Settings
from flask_secure_ml.errors import NotAuthenticated
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.limits.failure_throttle import FailureThrottle
from flask_secure_ml.limits.setup import build_limiter
from flask_secure_ml.policy.policy import Policy
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.testing import make_key_set, make_signing_key

from .apps import AUDIENCE, ISSUER, access_token, bearer
from .timing import medians

CALLS = 1000
FLOOD = 100_000


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the report."""
    key = make_signing_key("RS256", "benchmark")
    (folder / "jwks.json").write_text(make_key_set(key))
    calls = [_api_key(folder), _token(folder, key, 10_000), _token(folder, key, 0), _joserfc(key)]
    times = medians(calls, CALLS)
    names = ("API key", "known JWT", "JWT seen first (RS256)", "joserfc's bare decode")
    for name, microseconds in zip(names, times, strict=True):
        yield f"{name:<28}{microseconds:>8.1f} us{microseconds / times[3]:>8.2f} of joserfc's decode"
    yield from _flood(key)


def _api_key(folder: Path) -> Callable[[], Any]:
    os.environ["BENCHMARK_PEPPER"] = "benchmark-pepper-of-forty-characters-long"
    settings = {"API_KEYS": str(folder / "auth-keys.json"), "API_KEY_PEPPER": "env:BENCHMARK_PEPPER"}
    authentication, loaded = _build(**settings)
    if authentication.keys is None or loaded.api_key_pepper is None:
        raise RuntimeError("API keys are not on")
    key, _ = issue_key(authentication.keys, loaded.api_key_pepper, client="b", scopes=["predict"], now=time.time())
    return _asking(authentication, {"X-API-Key": key})


def _token(folder: Path, key: Key, cache: int) -> Callable[[], Any]:
    issuer = {"jwks_file": str(folder / "jwks.json")}
    authentication, _ = _build(TOKEN_ISSUERS=[_issuer(**issuer)], TOKEN_CACHE_SIZE=cache)
    return _asking(authentication, bearer(access_token(key)))


def _joserfc(key: Key) -> Callable[[], Any]:
    token, public = access_token(key), RSAKey.import_key(key.as_dict(private=False))
    return lambda: jwt.decode(token, public, algorithms=["RS256"])


def _flood(key: Key) -> Iterator[str]:
    """Send well-formed tokens with invented key ids and invalid signatures, and yield the result."""
    with _key_server(make_key_set(key)) as server:
        uri = f"http://127.0.0.1:{server.server_port}/jwks"
        authentication, _ = _build(TOKEN_ISSUERS=[_issuer(jwks_uri=uri, insecure_http=True)])
        _asking(authentication, bearer(access_token(key)))()
        token = access_token(key)
        rejected, grown, seconds = _rejections(authentication, token)
        yield (
            f"{rejected:,} invented key ids in {seconds:.1f} s, fetches of keys after the first: {server.fetches - 1}, "
            f"{grown / 1024:+.0f} KiB of memory"
        )


def _rejections(authentication: Authentication, token: str) -> tuple[int, int, float]:
    _, payload, signature = token.split(".")
    rejected, started = 0, time.perf_counter()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(FLOOD):
        header = _base64url(json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": f"invented-{number}"}))
        try:
            _asking(authentication, {"Authorization": f"Bearer {header}.{payload}.{signature}"})()
        except NotAuthenticated:
            rejected += 1
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return rejected, grown, time.perf_counter() - started


class _KeyServer(ThreadingHTTPServer):
    document = b""
    fetches = 0


class _Handler(BaseHTTPRequestHandler):
    server: _KeyServer

    def do_GET(self) -> None:
        self.server.fetches += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(self.server.document)

    def log_message(self, *args: object) -> None:
        """Suppress the log."""


@contextmanager
def _key_server(document: str) -> Iterator[_KeyServer]:
    with _KeyServer(("127.0.0.1", 0), _Handler) as server:
        server.document = document.encode()
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _build(**values: Any) -> tuple[Authentication, Settings]:
    settings = Settings.load({f"SECURE_ML_{name}": value for name, value in values.items()})
    clock = SystemClock()
    store = MemoryStore(clock)
    throttle = FailureThrottle(build_limiter({}, Settings.load({}), clock), (), (), clock, store)
    return build_authentication(settings, clock, store, [], throttle), settings


def _asking(authentication: Authentication, headers: dict[str, str]) -> Callable[[], Any]:
    environ = EnvironBuilder("/predict", "https://localhost", headers=headers.items()).get_environ()
    request, policy = Request(environ), Policy()

    def ask() -> None:
        exchange = Exchange("r", 0.0, 0.0, "127.0.0.1", "127.0.0.1", secure=True)
        exchange.policy = policy
        authentication.guard.check(request, exchange)

    return ask


def _issuer(**members: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256"], **members}


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
