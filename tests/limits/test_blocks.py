"""A blocked network: who is accepted, who gets 401 or 429, and the effects of 10,000 guesses (STANDARDS K3, K4)."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from joserfc.jwk import Key

from flask_secure_ml.authentication import guard
from flask_secure_ml.authentication.api_keys.key import checksum, new_key
from flask_secure_ml.authentication.api_keys.lifecycle import disable_key
from flask_secure_ml.authentication.tokens import introspection
from flask_secure_ml.authentication.tokens.connection import IssuerConnection
from flask_secure_ml.limits import blocks
from flask_secure_ml.limits.blocks import Blocks
from flask_secure_ml.limits.failure_throttle import FailureThrottle
from flask_secure_ml.limits.memory import MemoryCounters
from flask_secure_ml.refresh import Attempt
from flask_secure_ml.state import state_of
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.testing import FakeClock, MemorySink, make_api_key, make_key_set, make_signing_key, make_token
from support import HTTPS, RANDOM_SECRET, MakeApp

ISSUER, OPAQUE_ISSUER, AUDIENCE = "https://issuer.example", "https://opaque.example", "https://api.example"
ATTACKER, OTHER = "192.0.2.1", "192.0.2.2"
GUESSES = 10_000


class World:
    """An app with every kind of credential, and counters of outgoing calls caused by requests."""

    def __init__(self, app: Flask, clock: FakeClock, key: Key, caused: Counter[str]) -> None:
        self.app = app
        self.clock = clock
        self.key = key
        self.caused = caused
        self.published = [key]
        self.good = make_api_key(app)
        self.unusable = self._unusable()
        self.unproven = self._unproven()

    def token(self, key: Key | None = None, **options: Any) -> dict[str, str]:
        usual: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "now": self.clock.now()}
        return bearer(make_token(key or self.key, **{**usual, **options}))

    def _unusable(self) -> dict[str, dict[str, str]]:
        made = {name: make_api_key(self.app, lifetime=0 if name == "expired" else None) for name in UNUSABLE_KEYS}
        keys, state = state_of(self.app).keys, state_of(self.app)
        assert keys is not None
        keys.revoke(made["revoked"][4:16])
        disable_key(keys, made["disabled"][4:16])
        state.revocations.revoke_principal(f"api_key:{made['revoked principal'][4:16]}")
        state.revocations.revoke_token(ISSUER, "revoked")
        return {f"{name} key": {"X-API-Key": text} for name, text in made.items()} | {
            "expired token": self.token(claims={"iat": self.clock.now() - 900, "exp": self.clock.now() - 600}),
            "token of tomorrow": self.token(claims={"nbf": self.clock.now() + 200}),
            "token for another": self.token(audience="https://other.example"),
            "token without a subject": self.token(claims={"sub": ...}),
            "revoked token": self.token(claims={"jti": "revoked"}),
        }

    def _unproven(self) -> dict[str, dict[str, str]]:
        body = self.good[:17] + "0" * 43
        forged = make_signing_key("ES256", kid="published")
        return {
            "wrong secret": {"X-API-Key": body + checksum(body)},
            "wrong checksum": {"X-API-Key": self.good[:-6] + "000000"},
            "unknown id": {"X-API-Key": new_key()},
            "not a key": {"X-API-Key": "x"},
            "forged token": self.token(forged),
            "forged and expired": self.token(forged, claims={"exp": self.clock.now() - 600}),
            "unknown kid": self.token(header={"kid": "invented"}),
            "unknown issuer": self.token(issuer="https://elsewhere.example"),
            "no token": bearer("a.b.c"),
            "no certificate of ours": {"X-Test-Caller": "bad"},
            "inactive token": bearer("inactive"),
            "token that was forwarded": bearer("elsewhere"),
        }

    def ask(self, headers: Mapping[str, str], address: str = ATTACKER) -> Any:
        overrides = {"REMOTE_ADDR": address}
        return self.app.test_client().get("/x", base_url=HTTPS, headers=headers, environ_overrides=overrides)

    def status(self, headers: Mapping[str, str], address: str = ATTACKER) -> int:
        return int(self.ask(headers, address).status_code)

    def block(self, address: str = ATTACKER) -> None:
        """Block a network for a minute, and reset the counters."""
        while self.status({"X-API-Key": "x"}, address) == 401:
            pass
        self.caused.clear()


OPAQUE = ("inactive token", "token that was forwarded")
UNUSABLE_KEYS = ("revoked", "disabled", "expired", "revoked principal")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def caused(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the calls of the limit storage and of the shared store."""
    counts: Counter[str] = Counter()

    def watch(kind: type, name: str, label: str) -> None:
        original = getattr(kind, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            counts[label] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(kind, name, watched)

    for name in ("charge", "peek"):
        watch(MemoryCounters, name, "limits")
    for name in ("add", "put", "get", "delete"):
        watch(MemoryStore, name, f"store.{name}")
    return counts


@pytest.fixture
def world(
    protected: MakeApp, clock: FakeClock, caused: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    monkeypatch.setenv("INTROSPECTION", RANDOM_SECRET)
    made: list[World] = []

    def fetch(_self: IssuerConnection, _uri: str, _attempt: Attempt) -> bytes:
        caused["fetch"] += 1
        return make_key_set(*(made[0].published if made else [key])).encode()

    def introspect(uri: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        caused["introspection"] += 1
        active = b"token=good" in body or b"token=elsewhere" in body
        audience = "https://other.example" if b"token=elsewhere" in body else AUDIENCE
        return 200, json.dumps({"active": active, "sub": "ada", "aud": audience}).encode()

    monkeypatch.setattr(IssuerConnection, "key_set", fetch)
    monkeypatch.setattr(introspection, "bounded", lambda _: introspect)
    key = make_signing_key("ES256", kid="published")
    app = protected(
        API_KEYS=str(tmp_path / "keys"),
        API_KEY_PEPPER="env:PEPPER",
        TOKEN_ISSUERS=[
            {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks_uri": ISSUER + "/jwks"},
            {
                "issuer": OPAQUE_ISSUER,
                "audience": AUDIENCE,
                "introspection_uri": OPAQUE_ISSUER + "/introspect",
                "client_id": "api",
                "client_secret": "env:INTROSPECTION",
            },
        ],
        FAILED_AUTH_LIMITS=["30/minute"],
        PLANS={"default": {"requests": []}},
    )
    app.add_url_rule("/x", endpoint="x", view_func=lambda: "ok")
    made.append(World(app, clock, key, caused))
    return made[0]


def test_the_valid_pass(world: World) -> None:
    """Valid credentials of any kind are accepted during a block, whoever caused it."""
    valid = [{"X-API-Key": world.good}, world.token(), bearer("good"), {"X-Test-Caller": "ada"}]
    assert [world.status(each) for each in valid] == [200] * 4
    world.block()
    assert [world.status(each) for each in valid] == [200] * 4
    assert world.status({"X-API-Key": "x"}) == 429


def test_the_authentic_are_never_counted(world: World) -> None:
    """31 genuine tokens that expired blocked a company; clients renew on 401 only, so they get it in a block too."""
    for name, headers in world.unusable.items():
        assert [world.status(headers) for _ in range(40)] == [401] * 40, name
    assert world.status({"X-API-Key": "x"}) == 401
    world.block()
    for name, headers in world.unusable.items():
        assert world.status(headers) == 401, name
    assert world.caused["limits"] == 0


def test_each_unproven_one_is_counted(world: World) -> None:
    """Whatever its error, the 31st within a minute starts a block; an old date in a forgery has no effect."""
    for number, (name, headers) in enumerate(world.unproven.items()):
        network = f"198.51.100.{number}"
        assert [world.status(headers, network) for _ in range(32)] == [401] * 30 + [429] * 2, name


def test_what_says_nothing_is_not_counted(world: World) -> None:
    """A request without a credential gets 401, also in a block; one with two gets 400."""
    world.block()
    assert [world.status({}) for _ in range(40)] == [401] * 40
    assert world.status({"X-API-Key": "x", "Authorization": "Bearer x"}) == 400
    assert world.caused["limits"] == 0


def test_no_rejection_tells_a_reason(world: World, sink: MemorySink) -> None:
    """K3: one 401 for every reason, and in a block one 429 with one Retry-After; the log has each reason."""
    outside = [world.ask(each, OTHER) for each in (*world.unusable.values(), *world.unproven.values())]
    assert len({said(each) for each in outside}) == 1
    world.block()
    world.clock.advance(7)
    inside = {name: world.ask(each) for name, each in world.unproven.items() if name not in OPAQUE}
    assert {said(each) for each in inside.values()} == {(429, said(inside["not a key"])[1], "53")}
    assert said(world.ask(bearer("inactive"))) == said(inside["not a key"])
    reasons = {record["reason"] for record in sink.records[-len(inside) :]}
    assert f"{ATTACKER} is blocked: the signature does not verify" in reasons
    assert len(reasons) > 5


def said(response: Any) -> tuple[int, str, str | None]:
    document = {name: value for name, value in response.json.items() if name != "request_id"}
    return response.status_code, json.dumps(document), response.headers.get("Retry-After")


def test_verification_is_the_same_in_a_block(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """K1: the same calls in the same order for each credential, so timing does not reveal a block."""
    steps: list[str] = []
    verified = guard._verified

    def noted(*arguments: Any) -> Any:
        steps.append("verify")
        try:
            return verified(*arguments)
        finally:
            steps.append("verified")

    block_of = FailureThrottle.block_of

    def read(self: FailureThrottle, network: str) -> Any:
        steps.append("block")
        return block_of(self, network)

    monkeypatch.setattr(guard, "_verified", noted)
    monkeypatch.setattr(FailureThrottle, "block_of", read)
    local = ["wrong secret", "unknown id", "not a key", "forged token"]

    def steps_of(headers: Mapping[str, str]) -> list[str]:
        steps.clear()
        world.ask(headers)
        return [*steps]

    expected = ["verify", "verified", "block"]
    assert [steps_of(world.unproven[name]) for name in local] == [expected] * 4
    assert steps_of({"X-API-Key": world.good}) == expected[:2]
    world.block()
    assert [steps_of(world.unproven[name]) for name in local] == [expected] * 4
    assert steps_of({"X-API-Key": world.good}) == steps_of(world.unusable["expired key"]) == expected[:2]


@pytest.mark.slow
def test_ten_thousand_guesses_in_a_block(world: World) -> None:
    """J1: they cause no fetch, one introspection a second, no access of a store, and no longer block."""
    world.status(world.token(), OTHER)
    world.block()
    forged, guessed = world.unproven["forged token"], world.unproven["unknown kid"]["Authorization"].split(".")[1:]
    kinds: list[Callable[[int], dict[str, str]]] = [
        lambda _: {"X-API-Key": new_key()},
        lambda _: world.unproven["wrong secret"],
        lambda number: bearer(".".join([header_with(f"invented-{number}"), *guessed])),
        lambda _: forged,
        lambda number: bearer(f"invented-{number}"),
    ]
    statuses: Counter[int] = Counter()
    for number in range(GUESSES):
        statuses[status_in(world.app, kinds[number % len(kinds)](number))] += 1
        world.clock.advance(0.001)
    assert statuses == {429: GUESSES}
    assert world.caused.pop("introspection") <= 11
    assert world.caused == {}
    world.clock.advance(110)
    assert world.status({"X-API-Key": "x"}) == 401


def header_with(kid: str) -> str:
    header = json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": kid}).encode()
    return urlsafe_b64encode(header).rstrip(b"=").decode()


def status_in(app: Flask, headers: Mapping[str, str]) -> int:
    """Return the status without the cost of a test client."""
    found: list[int] = []
    environ = app.test_request_context("/x", base_url=HTTPS, headers=[*headers.items()]).request.environ
    environ["REMOTE_ADDR"] = ATTACKER
    app.wsgi_app(environ, lambda status, *_: found.append(int(status[:3])))  # type: ignore[arg-type]
    return found[0]


def test_opaque_tokens_of_a_blocked_network(world: World) -> None:
    """One uncached token per second is checked; the others get 429, and other networks are not affected."""
    world.block()
    first, second = world.ask(bearer("good1")), world.ask(bearer("good2"))
    assert (first.status_code, second.status_code, second.headers["Retry-After"]) == (200, 429, "1")
    assert world.status(bearer("good3"), OTHER) == 200
    world.clock.advance(1)
    assert world.status(bearer("good2")) == 200
    assert world.status(bearer("good1")) == 200
    assert world.caused["introspection"] == 3


def test_a_key_that_is_rotated(world: World) -> None:
    """C12: a moment after the regular fetch its first token passes, and so do callers of a blocked network then."""
    assert world.status(world.token()) == 200
    world.clock.advance(1)
    new = make_signing_key("ES256", kid="new")
    world.published = [world.key, new]
    world.block()
    assert world.status(world.token(new)) == 429
    assert world.status(world.token(new), OTHER) == 200
    assert world.status(world.token(new)) == 200
    assert world.caused["fetch"] == 1


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(blocks, "MAX_KNOWN", 3)
    return 3


def test_memory_is_bounded(clock: FakeClock, few: int) -> None:
    """The oldest block is evicted, and read from the storage again when it matters."""
    known = Blocks(clock)
    for number in range(100):
        assert known.put(f"network {number}", 60) is not None
    assert [known.get(f"network {number}") is not None for number in (96, 97, 98, 99)] == [False, True, True, True]
    assert len(known._known) == few


def test_a_block_is_kept_with_its_turn(clock: FakeClock) -> None:
    """Threads that find one block at the same time have one turn in a second between them."""
    known = Blocks(clock)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: turn_of(known), range(64)))
    assert found.count(True) == 1
    clock.advance(60)
    assert known.get("network") is None


def turn_of(known: Blocks) -> bool:
    block = known.put("network", 60)
    return block is not None and block.take_turn()
