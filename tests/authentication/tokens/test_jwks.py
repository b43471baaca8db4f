"""The cache of a published key set: when it fetches, and its behaviour when fetching fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from joserfc.jwk import Key

from flask_secure_ml.authentication.tokens.jwks import HttpKeys
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.fetch import TIMEOUT, FetchError
from flask_secure_ml.refresh import Attempt
from flask_secure_ml.testing import FakeClock, make_key_set, make_signing_key

ALGORITHMS = ("RS256", "ES256")


class Server:
    """A fake transport with prepared responses, which counts requests."""

    def __init__(self, body: str) -> None:
        self.body: str | None = body
        self.fetches = 0

    def get(self, uri: str, attempt: Attempt) -> bytes:
        self.fetches += 1
        if self.body is None:
            raise FetchError("down")
        return self.body.encode()


@pytest.fixture
def server(signing_keys: Mapping[str, Key]) -> Server:
    return Server(make_key_set(signing_keys["RS256"]))


@pytest.fixture
def keys(server: Server, clock: FakeClock) -> HttpKeys:
    return HttpKeys("https://issuer.example/jwks", ALGORITHMS, clock, max_age=300, cooldown=60, get=server.get)


def test_nothing_is_fetched_before_the_first_token(keys: HttpKeys, server: Server) -> None:
    """An app starts while its issuer is down."""
    assert server.fetches == 0


def test_as_6_set_is_kept_for_max_age(keys: HttpKeys, server: Server, clock: FakeClock) -> None:
    """AS-6: one fetch serves until max_age is over."""
    for _ in range(3):
        assert keys.find("RS256", "RS256") is not None
        clock.advance(99)
    assert server.fetches == 1
    clock.advance(3)
    assert keys.find("RS256", "RS256") is not None
    assert server.fetches == 2


def test_j1_as_6_flood_of_unknown_kids(keys: HttpKeys, server: Server, clock: FakeClock) -> None:
    """J1: any number of unknown kids causes one fetch in a cooldown."""
    assert keys.find("RS256", "RS256") is not None
    clock.advance(60)
    for number in range(500):
        assert keys.find(f"random-{number}", "RS256") is None
    assert server.fetches == 2


def test_c12_new_key_is_found_at_once(
    keys: HttpKeys, server: Server, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """C12: a key that the issuer adds a moment after a regular fetch is found by its first token, and by all others."""
    assert keys.find("RS256", "RS256") is not None
    server.body = make_key_set(signing_keys["RS256"], signing_keys["ES256"])
    clock.advance(1)
    assert all(keys.find("ES256", "ES256") for _ in range(3))
    assert server.fetches == 2


def test_c12_new_key_is_found_after_the_cooldown(
    keys: HttpKeys, server: Server, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """C12: where an unknown kid caused a fetch before, one is found once the cooldown is over."""
    assert keys.find("RS256", "RS256") is not None
    clock.advance(1)
    assert keys.find("ES256", "ES256") is None
    server.body = make_key_set(signing_keys["RS256"], signing_keys["ES256"])
    clock.advance(59)
    assert keys.find("ES256", "ES256") is None
    clock.advance(1)
    assert keys.find("ES256", "ES256") is not None


def test_j1_a_set_that_was_just_fetched_is_current(keys: HttpKeys, server: Server, clock: FakeClock) -> None:
    """J1: for a second no unknown kid causes another fetch, and the turn stays for a later one."""
    assert keys.find("ES256", "ES256") is None
    clock.advance(0.9)
    assert keys.find("ES256", "ES256") is None
    assert server.fetches == 1
    clock.advance(0.1)
    assert keys.find("ES256", "ES256") is None
    assert server.fetches == 2


def test_j1_unknown_kids_at_the_same_time(keys: HttpKeys, server: Server, clock: FakeClock) -> None:
    """J1: of threads that find the cooldown over, one fetches."""
    assert keys.find("RS256", "RS256") is not None
    clock.advance(1)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: keys.find(f"random-{number}", "RS256"), range(64))) == {None}
    assert server.fetches == 2


def test_j2_an_unknown_kid_while_the_issuer_is_down(
    keys: HttpKeys, server: Server, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """J2: it is unknown, and the keys that are known stay so; a failed fetch ends no cooldown early."""
    assert keys.find("RS256", "RS256") is not None
    clock.advance(1)
    server.body = None
    for _ in range(3):
        assert keys.find("ES256", "ES256") is None
        assert keys.find("RS256", "RS256") is not None
    assert server.fetches == 2
    server.body = make_key_set(signing_keys["RS256"], signing_keys["ES256"])
    clock.advance(90)
    assert keys.find("ES256", "ES256") is not None


class Blocked:
    """The network of the client is blocked."""

    def may_fetch(self) -> bool:
        return False

    def introspect(self) -> None:
        raise AssertionError("not a token to introspect")


def test_j1_a_blocked_network_causes_no_fetch(keys: HttpKeys, server: Server, clock: FakeClock) -> None:
    """J1: not for an unknown kid; a due fetch is made for any caller, and others keep their turn."""
    assert keys.find("RS256", "RS256", Blocked()) is not None
    clock.advance(60)
    for number in range(500):
        assert keys.find(f"random-{number}", "RS256", Blocked()) is None
    assert server.fetches == 1
    assert keys.find("random", "RS256") is None
    assert server.fetches == 2


def test_c12_removed_key_is_gone_after_max_age(
    keys: HttpKeys, server: Server, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """C12: a key that the issuer removes does not verify for longer than max_age."""
    assert keys.find("RS256", "RS256") is not None
    server.body = make_key_set(signing_keys["ES256"])
    clock.advance(300)
    assert keys.find("RS256", "RS256") is None


@pytest.mark.parametrize("algorithm", ["ES256", "PS256"])
def test_a4_wrong_algorithm_causes_no_fetch(keys: HttpKeys, server: Server, clock: FakeClock, algorithm: str) -> None:
    """A4: a known kid with another algorithm is a lie, and a fresh set could not make it true."""
    assert keys.find("RS256", "RS256") is not None
    clock.advance(60)
    assert keys.find("RS256", algorithm) is None
    assert server.fetches == 1


@pytest.mark.parametrize("body", [None, "<html>", '{"keys": 1}', ""], ids=["down", "html", "no list", "empty"])
def test_j2_last_good_set_serves_for_a_day(keys: HttpKeys, server: Server, clock: FakeClock, body: str | None) -> None:
    """J2: when the issuer is down or talks nonsense, the last good set serves for 24 hours; then 503."""
    assert keys.find("RS256", "RS256") is not None
    server.body = body
    clock.advance(86_399)
    assert keys.find("RS256", "RS256") is not None
    clock.advance(1)
    with pytest.raises(DependencyUnavailable):
        keys.find("RS256", "RS256")


@pytest.mark.parametrize("body", [None, "<html>", '{"keys": []}'], ids=["down", "html", "no keys"])
def test_j2_no_usable_set(keys: HttpKeys, server: Server, clock: FakeClock, body: str | None) -> None:
    """J2: without any usable set the response is 503 with Retry-After, and one fetch in a cooldown."""
    server.body = body
    for _ in range(10):
        with pytest.raises(DependencyUnavailable) as caught:
            keys.find("RS256", "RS256")
    assert caught.value.extra_headers == (("Retry-After", "60"),)
    assert server.fetches == 1


@pytest.mark.parametrize(("jitter", "seconds"), [(min, 60), (max, 90)], ids=["shortest", "longest"])
def test_j2_recovers_after_the_cooldown(
    keys: HttpKeys, server: Server, clock: FakeClock, jitter: Callable[..., float], seconds: int
) -> None:
    """J2: the issuer is called again after the cooldown, which is up to a half longer after a failure."""
    keys._keys._uniform = jitter
    good, server.body = server.body, None
    with pytest.raises(DependencyUnavailable):
        keys.find("RS256", "RS256")
    server.body = good
    clock.advance(seconds - 0.001)
    with pytest.raises(DependencyUnavailable):
        keys.find("RS256", "RS256")
    assert server.fetches == 1
    clock.advance(0.001)
    assert keys.find("RS256", "RS256") is not None


def test_withdrawn_keys_are_not_served(keys: HttpKeys, server: Server, clock: FakeClock) -> None:
    """An issuer that withdraws all its keys is believed: the last good set is for outages only."""
    assert keys.find("RS256", "RS256") is not None
    server.body = '{"keys": []}'
    clock.advance(300)
    with pytest.raises(DependencyUnavailable):
        keys.find("RS256", "RS256")


class SlowServer(Server):
    """Responds when a test releases it."""

    def __init__(self, body: str) -> None:
        super().__init__(body)
        self.asked = threading.Event()
        self.go = threading.Event()

    def get(self, uri: str, attempt: Attempt) -> bytes:
        self.asked.set()
        self.go.wait(10)
        return super().get(uri, attempt)


def test_as_6_one_thread_fetches_and_the_others_go_on(clock: FakeClock, signing_keys: Mapping[str, Key]) -> None:
    """AS-6: while one thread waits for the issuer, the others use the set there is."""
    slow = SlowServer(make_key_set(signing_keys["RS256"]))
    slow.go.set()
    keys = HttpKeys("https://x", ALGORITHMS, clock, get=slow.get)
    assert keys.find("RS256", "RS256") is not None
    slow.go.clear()
    slow.asked.clear()
    clock.advance(300)
    waiting = threading.Thread(target=keys.find, args=("RS256", "RS256"))
    waiting.start()
    assert slow.asked.wait(10)
    begun = time.monotonic()
    assert keys.find("RS256", "RS256") is not None
    assert time.monotonic() - begun < TIMEOUT
    slow.go.set()
    waiting.join(10)
    assert slow.fetches == 2


def test_j1_first_fetch_is_shared(clock: FakeClock, signing_keys: Mapping[str, Key]) -> None:
    """J1: threads that arrive during the first fetch wait for it and do not fetch."""
    slow = SlowServer(make_key_set(signing_keys["RS256"]))
    keys = HttpKeys("https://x", ALGORITHMS, clock, get=slow.get)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(keys.find("RS256", "RS256"))) for _ in range(8)]
    for each in threads:
        each.start()
    assert slow.asked.wait(10)
    slow.go.set()
    for each in threads:
        each.join(10)
    assert len(found) == 8
    assert None not in found
    assert slow.fetches == 1


def test_j3_as_5_published_secret_is_no_key(server: Server, clock: FakeClock, signing_keys: Mapping[str, Key]) -> None:
    """J3, AS-5, JB-8: a fetched set never provides an HMAC key, whatever algorithms the issuer has."""
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "alg": "HS256", "kid": "s"}
    server.body = json.dumps({"keys": [secret, *json.loads(make_key_set(signing_keys["RS256"]))["keys"]]})
    keys = HttpKeys("https://x", ("RS256", "HS256"), clock, get=server.get)
    assert keys.candidates("RS256", "RS256")
    assert keys.candidates("s", "HS256") == keys.candidates(None, "HS256") == ()


def test_as_6_fetched_again_and_unchanged(
    keys: HttpKeys, server: Server, clock: FakeClock, signing_keys: Mapping[str, Key]
) -> None:
    """AS-6: a key that a fresh copy still has is equal to the one before; a changed one of that name is not."""
    before = keys.find("RS256", "RS256")
    clock.advance(300)
    assert keys.find("RS256", "RS256") == before
    server.body = make_key_set(make_signing_key("RS256", kid="RS256"))
    clock.advance(300)
    assert keys.find("RS256", "RS256") != before
    assert server.fetches == 3


def test_j3_an_ignored_key_is_logged_once_for_each_set(
    keys: HttpKeys,
    server: Server,
    clock: FakeClock,
    signing_keys: Mapping[str, Key],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """J3: not at each fetch, and again if the set has changed."""
    document = json.loads(make_key_set(signing_keys["RS256"]))
    document["keys"].append({"kty": "oct", "k": "AAAA", "kid": "secret"})
    for expected in (1, 1, 2):
        server.body = json.dumps(document, indent=expected)
        assert keys.find("RS256", "RS256") is not None
        assert len([each for each in caplog.messages if each.startswith("ignoring signing key 2 ")]) == expected
        clock.advance(301)
    assert server.fetches == 3
