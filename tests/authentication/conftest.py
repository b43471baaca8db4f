"""A guard over both kinds of credential, and a way to ask it without an app."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Request
from joserfc.jwk import Key
from werkzeug.test import EnvironBuilder

from flask_secure_ml.authentication.api_keys.authenticator import ApiKeyAuthenticator
from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.challenges import Challenges
from flask_secure_ml.authentication.guard import AuthenticationGuard, Authenticator
from flask_secure_ml.authentication.revocation import Revocations
from flask_secure_ml.authentication.throttle import UNLIMITED, Calls
from flask_secure_ml.authentication.tokens.authenticator import AccessTokens, BearerAuthenticator
from flask_secure_ml.authentication.tokens.jwt import JwtVerifier, TrustedIssuer
from flask_secure_ml.authentication.tokens.sources import FileKeys
from flask_secure_ml.config.issuers import ASYMMETRIC, IssuerConfig
from flask_secure_ml.config.plans import Plan
from flask_secure_ml.errors import NotAuthenticated, SecureMLError
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.policy.policy import Policy
from flask_secure_ml.principal import Principal
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.testing import FakeClock, make_key_set, make_signing_key, make_token
from support import RANDOM_SECRET

ISSUER = "https://issuer.example"
OTHER_ISSUER = "https://other.example"
AUDIENCE = "https://api.example"


@dataclass(frozen=True)
class Answer:
    """The decision of the guard."""

    status: int
    challenges: tuple[str, ...]
    principal: Principal | None
    exchange: Exchange
    reason: str = ""
    body: bytes = b""
    retry_after: str | None = None


def new_exchange(*, public: bool = False) -> Exchange:
    exchange = Exchange("r1", 0.0, 0.0, "192.0.2.1", "192.0.2.1", secure=True)
    exchange.policy = Policy(public=public)
    return exchange


def new_request(headers: Mapping[str, str] | None = None, url: str = "/") -> Request:
    environ = EnvironBuilder(path=url, base_url="https://localhost").get_environ()
    for name, value in (headers or {}).items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return Request(environ)


def ask_guard(
    guard: AuthenticationGuard, headers: Mapping[str, str] | None = None, *, url: str = "/", public: bool = False
) -> Answer:
    exchange = new_exchange(public=public)
    try:
        guard.check(new_request(headers, url), exchange)
    except SecureMLError as error:
        response = error.get_response()
        challenges = tuple(response.headers.getlist("WWW-Authenticate"))
        retry_after = response.headers.get("Retry-After")
        return Answer(
            response.status_code, challenges, exchange.principal, exchange, error.reason, response.data, retry_after
        )
    return Answer(200, exchange.challenges, exchange.principal, exchange)


@pytest.fixture
def exchange() -> Exchange:
    return new_exchange()


@pytest.fixture
def request_with() -> Callable[..., Request]:
    return new_request


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_800_000_000)


@pytest.fixture(scope="session")
def signing_keys() -> Mapping[str, Key]:
    """One private key for each algorithm, named after it."""
    return {name: make_signing_key(name, kid=name) for name in sorted(ASYMMETRIC)}


@pytest.fixture(scope="session")
def other_key() -> Key:
    """The key of the second issuer, under the name that the first issuer uses too."""
    return make_signing_key("RS256", kid="RS256")


@pytest.fixture
def pepper(monkeypatch: pytest.MonkeyPatch) -> SecretRing:
    monkeypatch.setenv("TEST_PEPPER", RANDOM_SECRET)
    return SecretRing(Secret("env:TEST_PEPPER"))


@pytest.fixture
def store(tmp_path: Path) -> FileKeyStore:
    return FileKeyStore(tmp_path / "keys.json")


@pytest.fixture
def api_keys(store: FileKeyStore, pepper: SecretRing, clock: FakeClock) -> ApiKeyAuthenticator:
    return ApiKeyAuthenticator(store, pepper, clock)


@pytest.fixture
def jwt(tmp_path: Path, signing_keys: Mapping[str, Key], other_key: Key, clock: FakeClock) -> JwtVerifier:
    trusted: dict[str, TrustedIssuer] = {}
    for name, keys, algorithms in (
        (ISSUER, list(signing_keys.values()), tuple(sorted(ASYMMETRIC))),
        (OTHER_ISSUER, [other_key], ("RS256",)),
    ):
        path = tmp_path / f"{len(trusted)}.jwks"
        path.write_text(make_key_set(*keys))
        trusted[name] = TrustedIssuer(
            IssuerConfig(name, AUDIENCE, algorithms, jwks_file=str(path)), FileKeys(str(path), algorithms)
        )
    return JwtVerifier(trusted, clock, leeway=30)


class Counting:
    """A throttle that only records calls."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.admitted: list[str] = []
        self.succeeded_as: list[str] = []

    def calls(self, exchange: Exchange) -> Calls:
        return UNLIMITED

    def admit(self, exchange: Exchange, identity: str) -> None:
        self.admitted.append(identity)

    def succeeded(self, exchange: Exchange, identity: str) -> None:
        self.succeeded_as.append(identity)

    def failed(self, exchange: Exchange, error: NotAuthenticated, identity: str = "") -> None:
        self.failures.append(error.claimed or identity)


@pytest.fixture
def throttle() -> Counting:
    return Counting()


@pytest.fixture
def failures(throttle: Counting) -> list[str]:
    """The id or identity that was guessed at, for each failure that was counted."""
    return throttle.failures


@pytest.fixture
def revocations(clock: FakeClock) -> Revocations:
    return Revocations(MemoryStore(clock), clock)


@pytest.fixture
def plans() -> dict[str, Plan]:
    return {"default": Plan(), "gold": Plan()}


@pytest.fixture
def make_guard(
    throttle: Counting, revocations: Revocations, plans: dict[str, Plan]
) -> Callable[..., AuthenticationGuard]:
    """Build a guard over some authenticators; keyword arguments are those of the guard and its challenges."""

    def make(*authenticators: Authenticator, ambient: Sequence[Authenticator] = (), **parameters: Any) -> Any:
        challenges = Challenges("model", [each.challenge for each in authenticators], parameters)
        return AuthenticationGuard(
            plans,
            authenticators,
            challenges,
            revocations,
            throttle,
            ambient,
        )

    return make


@pytest.fixture
def ask(
    jwt: JwtVerifier, api_keys: ApiKeyAuthenticator, make_guard: Callable[..., AuthenticationGuard]
) -> Callable[..., Answer]:
    guard = make_guard(BearerAuthenticator(AccessTokens([jwt])), api_keys)
    return lambda headers=None, **options: ask_guard(guard, headers, **options)


@pytest.fixture
def ask_with(make_guard: Callable[..., AuthenticationGuard]) -> Callable[..., Answer]:
    """Ask a guard over one authenticator of the test's own."""

    def ask_one(authenticator: Any, headers: Mapping[str, str] | None = None) -> Answer:
        return ask_guard(make_guard(authenticator), headers)

    return ask_one


@pytest.fixture
def token(signing_keys: Mapping[str, Key], clock: FakeClock) -> Callable[..., str]:
    """Make a token of the first issuer; keyword arguments override."""

    def make(algorithm: str = "RS256", **options: Any) -> str:
        usual: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "now": clock.now()}
        return make_token(signing_keys[algorithm], **{**usual, **options})

    return make
