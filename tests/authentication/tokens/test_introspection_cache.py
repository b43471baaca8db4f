"""Opaque tokens: how long a response of the endpoint is believed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from flask_secure_ml.authentication.tokens import introspection
from flask_secure_ml.authentication.tokens.introspection import Introspector
from flask_secure_ml.errors import NotAuthenticated
from flask_secure_ml.refresh import SingleFlight
from flask_secure_ml.testing import FakeClock
from introspection_endpoint import NOW, TOKEN, Endpoint, make_introspector, status_of
from servers import wait_until


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def make(clock: FakeClock, endpoint: Endpoint) -> Callable[..., Introspector]:
    return partial(make_introspector, clock, endpoint)


def test_good_response_is_used_again(make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock) -> None:
    """IN-4: for max_age seconds, and for this token only."""
    introspector = make(max_age=60)
    first = introspector.verify(TOKEN)
    assert first.expires == NOW + 60
    clock.advance(59.9)
    assert introspector.verify(TOKEN) is first
    assert endpoint.asked == 1
    introspector.verify(TOKEN + "x")
    assert endpoint.asked == 2
    endpoint.say(active=False)
    clock.advance(0.2)
    assert status_of(introspector) == 401


def test_good_response_never_outlives_the_token(
    make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock
) -> None:
    """IN-4, J4: after exp the endpoint is called, whatever max_age and leeway are."""
    endpoint.say(exp=NOW + 20)
    introspector = make(max_age=3_600, leeway=30)
    assert introspector.verify(TOKEN).expires == NOW + 20
    clock.advance(19)
    introspector.verify(TOKEN)
    assert endpoint.asked == 1
    clock.advance(1)
    introspector.verify(TOKEN)
    assert endpoint.asked == 2


def test_clock_that_is_set_forward(make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock) -> None:
    """IN-4: exp is wall-clock time, and also applies if no second has passed."""
    stopped = FakeClock(NOW)
    clock.monotonic = stopped.monotonic  # type: ignore[method-assign]
    introspector = make(max_age=3_600)
    introspector.verify(TOKEN)
    clock.advance(301)
    assert status_of(introspector) == 200
    assert endpoint.asked == 2


def test_clock_that_is_set_back(make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock) -> None:
    """IN-4: max_age is seconds that pass, so a clock that is set back does not stretch it."""
    stopped = FakeClock(NOW)
    clock.now = stopped.now  # type: ignore[method-assign]
    introspector = make(max_age=60)
    introspector.verify(TOKEN)
    clock.advance(60)
    introspector.verify(TOKEN)
    assert endpoint.asked == 2


def test_rejected_token_is_rejected_again(
    make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock
) -> None:
    """IN-4: for five seconds, with the same reason and without asking."""
    endpoint.say(aud="https://other.example")
    introspector = make()
    reasons = []
    for _ in range(2):
        with pytest.raises(NotAuthenticated) as caught:
            introspector.verify(TOKEN)
        reasons.append(caught.value.reason)
    assert reasons[0] == reasons[1] == "the token is for another audience"
    assert endpoint.asked == 1
    endpoint.say()
    clock.advance(5)
    assert status_of(introspector) == 200


def test_zero_asks_every_time(make: Callable[..., Introspector], endpoint: Endpoint) -> None:
    """SECURE_ML_INTROSPECTION_CACHE_SECONDS = 0: no response is cached, positive or negative."""
    introspector = make(max_age=0)
    assert [status_of(introspector) for _ in range(2)] == [200, 200]
    endpoint.say(active=False)
    assert [status_of(introspector) for _ in range(2)] == [401, 401]
    assert endpoint.asked == 4


@pytest.mark.usefixtures("no_jitter")
def test_failure_is_no_response(make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock) -> None:
    """IN-6: a failure is not cached as a rejection."""
    introspector = make()
    endpoint.down = True
    assert status_of(introspector) == 503
    endpoint.down = False
    clock.advance(5)
    assert status_of(introspector) == 200


def test_good_responses_serve_while_the_endpoint_is_down(
    make: Callable[..., Introspector], endpoint: Endpoint, clock: FakeClock
) -> None:
    """IN-6: a known token is accepted for max_age, an unknown one gets 503."""
    introspector = make(max_age=60)
    introspector.verify(TOKEN)
    endpoint.down = True
    assert status_of(introspector, "other") == 503
    assert status_of(introspector) == 200
    clock.advance(60)
    assert status_of(introspector) == 503


def test_invented_tokens_do_not_push_good_ones_out(
    make: Callable[..., Introspector], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of rejected tokens does not evict the responses of others."""
    monkeypatch.setattr(introspection, "MAX_CACHED", 3)
    introspector = make()
    introspector.verify(TOKEN)
    endpoint.say(active=False)
    assert {status_of(introspector, f"invented{number}") for number in range(10)} == {401}
    assert status_of(introspector) == 200
    assert endpoint.asked == 11


def test_memory_is_bounded(
    make: Callable[..., Introspector], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of the good responses makes room."""
    monkeypatch.setattr(introspection, "MAX_CACHED", 2)
    introspector = make()
    for token in ("a", "b", "c", "c", "b", "a"):
        introspector.verify(token)
    assert endpoint.asked == 4


def test_threads_with_one_token_ask_once(
    make: Callable[..., Introspector], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread asks about a token, the others wait for its response."""
    introspector = make()
    came: list[int] = []
    run = SingleFlight.run

    def counted(*arguments: Any) -> Any:
        came.append(1)
        return run(*arguments)

    monkeypatch.setattr(SingleFlight, "run", counted)
    endpoint.meanwhile = lambda: wait_until(lambda: len(came) == 8, "the other threads")
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(status_of, introspector) for _ in range(8)]
        assert [each.result(30) for each in found] == [200] * 8
    assert endpoint.asked == 1
