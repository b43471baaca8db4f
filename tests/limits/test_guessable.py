"""Secrets that people choose: rejected before they are tried, and never for their owner at its own place (K4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Request

from flask_secure_ml import Exchange, Principal, SecureML
from flask_secure_ml.errors import (
    ConfigError,
    DependencyUnavailable,
    NotAuthenticated,
    SecureMLError,
    UnusableCredential,
)
from flask_secure_ml.limits.blocks import DAY, HOUR, MAX_KNOWN, Blocks, Pairs
from flask_secure_ml.limits.engine import Limiter
from flask_secure_ml.limits.failure_throttle import MAX_WRONG, FailureThrottle
from flask_secure_ml.policy.limits import LimitList
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.testing import FakeClock
from limiters import limiter_of
from support import HTTPS, MakeApp, NameAuthenticator

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.1"
EVERYWHERE = [f"203.0.113.{number}" for number in range(1, 200)]


class Passwords:
    """``X-Password: name:password``, where the password of ``ada`` and ``eve`` is ``right``; eve's account expired."""

    name = "password"
    challenge = "Test"
    guessable = True

    def __init__(self) -> None:
        self.tried: list[str] = []

    def find(self, request: Request, exchange: Exchange) -> str | None:
        return request.headers.get("X-Password")

    def identity(self, credential: str) -> str:
        if credential == "broken":
            raise KeyError(credential)
        return credential.partition(":")[0]

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        self.tried.append(credential)
        name, _, password = credential.partition(":")
        if name not in {"ada", "eve"} or password != "right":
            raise NotAuthenticated("wrong password")
        if name == "eve":
            raise UnusableCredential("the account expired")
        return Principal("password", name)


@pytest.fixture
def passwords() -> Passwords:
    return Passwords()


@pytest.fixture
def app(protected: MakeApp, passwords: Passwords) -> Flask:
    app = protected(
        parts={"authenticators": [passwords, NameAuthenticator()]},
        FAILED_AUTH_LIMITS=["5/hour"],
        FAILED_KEY_LIMITS=["10/hour"],
    )
    app.add_url_rule("/x", endpoint="x", view_func=lambda: "ok")
    return app


@pytest.fixture
def ask(app: Flask) -> Callable[..., Any]:
    def ask(password: str, address: str = HOME, header: str = "X-Password") -> Any:
        overrides = {"REMOTE_ADDR": address}
        return app.test_client().get("/x", base_url=HTTPS, headers={header: password}, environ_overrides=overrides)

    return ask


@pytest.fixture
def log_in(ask: Callable[..., Any]) -> Callable[..., int]:
    return lambda *arguments: ask(*arguments).status_code


def test_a_blocked_network_cannot_try(log_in: Callable[..., int], passwords: Passwords) -> None:
    """Even the right password is not checked; credentials that cannot be guessed are accepted as before."""
    assert [log_in("ada:wrong") for _ in range(7)] == [401] * 5 + [429] * 2
    assert log_in("ada:right") == log_in("bob:right") == log_in("") == 429
    assert len(passwords.tried) == 6
    assert log_in("ada", HOME, "X-Test-Caller") == 200
    assert log_in("ada:right", ELSEWHERE) == 200


def test_a_blocked_identity_cannot_be_tried(ask: Callable[..., Any], passwords: Passwords) -> None:
    """Past the limit from all networks together; others can, and the response is that of a blocked network."""
    for name in ("ada", "nobody"):
        found = [ask(f"{name}:{number}", EVERYWHERE[number]).status_code for number in range(12)]
        assert found == [401] * 10 + [429] * 2, name
    passwords.tried.clear()
    rejected = [ask(f"{name}:right", ELSEWHERE) for name in ("ada", "nobody")]
    assert [each.json["code"] for each in rejected] == ["rate_limited"] * 2
    assert len({each.headers["Retry-After"] for each in rejected}) == 1
    assert passwords.tried == []
    assert ask("carol:x", ELSEWHERE).status_code == 401


def test_the_owner_passes_where_it_was_before(log_in: Callable[..., int], clock: FakeClock) -> None:
    """Others cannot lock it out there within a day, neither its network nor its name."""
    assert log_in("ada:right") == 200
    for number in range(12):
        log_in(f"ada:{number}", EVERYWHERE[number])
    for number in range(7):
        log_in(f"bob:{number}")
    assert log_in("ada:right", ELSEWHERE) == 429
    assert log_in("ada:right") == 200
    assert log_in("bob:right") == 429


def test_whoever_shares_its_place_cannot_guess_for_ever(log_in: Callable[..., int], passwords: Passwords) -> None:
    """Its name can be tried from there in a block too, but so many times in a day."""
    assert log_in("ada:right") == 200
    assert 200 not in {log_in(f"ada:{number}") for number in range(100)}
    assert len(passwords.tried) == 1 + MAX_WRONG
    assert log_in("ada:right") == 429


def test_an_account_that_expired_is_no_guess(log_in: Callable[..., int]) -> None:
    """The right password gets 401 and is not counted; it makes no place known either."""
    assert [log_in("eve:right") for _ in range(20)] == [401] * 20
    assert [log_in("ada:wrong") for _ in range(7)] == [401] * 5 + [429] * 2
    assert log_in("eve:right") == 429


def test_who_claims_to_be_nobody(ask: Callable[..., Any], log_in: Callable[..., int]) -> None:
    """It counts by network only; a claim that cannot be parsed is malformed."""
    assert [log_in(":x", each) for each in EVERYWHERE[:20]] == [401] * 20
    broken = ask("broken")
    assert (broken.status_code, broken.headers["WWW-Authenticate"]) == (400, 'Test realm="model"')
    assert [log_in(":x") for _ in range(7)] == [401] * 5 + [429] * 2


def test_the_log_has_no_name(log_in: Callable[..., int], caplog: pytest.LogCaptureFixture) -> None:
    """A password that is typed into the name field is not logged."""
    for each in EVERYWHERE[:20]:
        log_in("hunter2:x", each)
    assert "more wrong secrets than 10 per 1 hour" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_guessable_one_must_say_whose_it_is() -> None:
    """Otherwise an identity could be guessed at from everywhere; found when the app starts."""

    class Nameless(NameAuthenticator):
        guessable = True

    with pytest.raises(ConfigError, match="the authenticator test is guessable but has no method identity"):
        SecureML(authenticators=[Nameless()]).init_app(Flask("x"))


# --- several workers, and the store ----------------------------------------------------------------------------


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def workers(clock: FakeClock, store: MemoryStore) -> list[FailureThrottle]:
    """Two workers that share both storages."""
    limiter: Limiter = limiter_of(clock)
    limits = LimitList()
    return [
        FailureThrottle(limiter, limits.deserialize(["2/day"]), limits.deserialize(["9/day"]), clock, store)
        for _ in range(2)
    ]


def exchange_from(client: str) -> Exchange:
    return Exchange("r1", 0.0, 0.0, client, client, secure=True)


def admitted(throttle: FailureThrottle, identity: str) -> int:
    return status(lambda: throttle.admit(exchange_from(HOME), identity))


def status(action: Callable[[], None]) -> int:
    try:
        action()
    except SecureMLError as error:
        return error.code or 0
    return 200


def test_workers_know_each_others_owners(
    workers: list[FailureThrottle], store: MemoryStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker asks the store about a pair once, and about all pairs of a block once a second."""
    first, second = workers
    first.succeeded(exchange_from(HOME), "ada")
    for _ in range(3):
        status(lambda: second.failed(exchange_from(HOME), NotAuthenticated("wrong")))
    asked: list[str] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda space, key: asked.append(key) or get(space, key))  # type: ignore[func-returns-value]
    assert admitted(second, "eve") == 429
    assert admitted(second, "ada") == 429
    clock.advance(1)
    assert admitted(second, "ada") == 200
    assert {admitted(second, f"eve{number}") for number in range(999)} == {429}
    assert admitted(second, "ada") == 200
    assert len(asked) == 2


@pytest.mark.parametrize(("later", "known"), [(DAY, True), (DAY + HOUR, False)])
def test_for_a_day(store: MemoryStore, clock: FakeClock, later: int, known: bool) -> None:
    """In the process that has it and in one that reads it."""
    pairs = Pairs(store, clock)
    pairs.put(HOME, "ada")
    clock.advance(later)
    block = Blocks(clock).put("x", 60)
    assert block is not None
    assert pairs.has(HOME, "ada", block) is known
    assert Pairs(store, clock).has(HOME, "ada", Blocks(clock).put("x", 60) or block) is known


def test_it_is_written_once_an_hour(store: MemoryStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests succeed."""
    written: list[str] = []
    monkeypatch.setattr(store, "put", lambda space, key, *_, **__: written.append(key))
    pairs = Pairs(store, clock)
    for _ in range(4):
        pairs.put(HOME, "ada")
        clock.advance(HOUR / 2)
    assert len(written) == 2


def test_a_store_that_is_down(store: MemoryStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is accepted where this process knows it, and treated as unknown elsewhere."""

    def down(*_: object, **__: object) -> None:
        raise DependencyUnavailable("down")

    for name in ("put", "get", "delete"):
        monkeypatch.setattr(store, name, down)
    pairs = Pairs(store, clock)
    block = Blocks(clock).put("x", 60)
    assert block is not None
    pairs.put(HOME, "ada")
    assert pairs.has(HOME, "ada", block)
    assert not pairs.has(HOME, "eve", block)
    pairs.drop(HOME, "ada")
    assert not pairs.knows(HOME, "ada")


def test_memory_of_pairs_is_bounded(store: MemoryStore, clock: FakeClock) -> None:
    """The oldest is evicted, and read from the store again when it matters."""
    pairs = Pairs(store, clock)
    for number in range(MAX_KNOWN + 5):
        pairs.put(HOME, str(number))
    assert len(pairs._known) == MAX_KNOWN
    assert [pairs.knows(HOME, each) for each in ("4", "5")] == [False, True]
