"""A client that waits for as long as ``Retry-After`` says gets in, by the clock of the app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.test import TestResponse

from flask_secure_ml import SecureML
from flask_secure_ml.limits.failure_throttle import LONGEST, SHORTEST
from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, NameAuthenticator, caller

STRATEGIES = ("fixed-window", "sliding-window-counter", "gcra")

START = 1_800_000_000.0
"""A full minute, hour and day."""

HISTORIES: dict[str, list[int]] = {
    "a burst": [0] * 5,
    "a burst late in a minute": [50, 0, 0, 0, 0],
    "a burst in each minute": [0, 0, 0, 0, 0, 65, 0, 0, 0, 0],
    "spread": [10] * 5,
    "spread over minutes": [25] * 5,
    "steady": [12] * 15,
}
"""The seconds before each request, for a limit of five a minute."""

SIZES: dict[str, list[int]] = {
    "one row each": [1] * 10,
    "all at once": [10],
    "half": [5, 5],
    "uneven": [7, 2, 1],
    "more than is left": [1, 8],
}
"""The rows of each request, for a quota of ten a minute."""


class Rows(Schema):
    rows = fields.List(fields.Integer(), required=True)


class Guessable(NameAuthenticator):
    """The authenticator of the tests, for secrets that people choose."""

    guessable = True

    def identity(self, credential: object) -> str:
        return str(credential)


def limited(strategy: str, clock: FakeClock, *, guessable: bool = False, **settings: Any) -> Flask:
    app = Flask("limited")
    app.config |= {"RATELIMIT_STRATEGY": strategy} | {f"SECURE_ML_{name}": each for name, each in settings.items()}
    app.add_url_rule("/x", "x", lambda: "ok")
    app.add_url_rule("/rows", "rows", lambda: "ok", methods=["POST"])
    authenticator = Guessable() if guessable else NameAuthenticator()
    SecureML(app, authenticators=[authenticator], clock=clock, sink=MemorySink())
    return app


def get(app: Flask, name: str = "ada") -> TestResponse:
    return app.test_client().get("/x", base_url=HTTPS, headers=caller(name))


def post(app: Flask, rows: int) -> TestResponse:
    body = {"rows": [1] * rows}
    return app.test_client().post("/rows", base_url=HTTPS, headers=caller(), json=body)


def wait(response: TestResponse, clock: FakeClock) -> int:
    """Wait as a 429 says, in whole seconds, at least 1."""
    assert response.status_code == 429
    seconds = response.headers["Retry-After"]
    assert seconds.isdigit()
    assert int(seconds) >= 1
    clock.advance(int(seconds))
    return int(seconds)


def until_rejected(app: Flask) -> TestResponse:
    return next(response for response in _endless(app) if response.status_code != 200)


def _endless(app: Flask) -> Iterator[TestResponse]:
    for _ in range(1000):
        yield get(app)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["1/minute", "3/minute", "10/minute", "2/second", "1/day"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_limit(strategy: str, limit: str) -> None:
    """A caller that has used it up is accepted after one wait, repeatedly."""
    clock = FakeClock(START + 17.25)
    app = limited(strategy, clock, PLANS={"default": {"requests": [limit]}})
    for _ in range(20):
        wait(until_rejected(app), clock)
        assert get(app).status_code == 200


@pytest.mark.parametrize("gaps", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_limit_after_a_history(strategy: str, gaps: list[int]) -> None:
    """However the requests before were spread."""
    clock = FakeClock(START)
    app = limited(strategy, clock, PLANS={"default": {"requests": ["5/minute"]}})
    for gap in gaps:
        clock.advance(gap)
        get(app)
    for _ in range(6):
        wait(until_rejected(app), clock)
        assert get(app).status_code == 200


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_limits(strategy: str) -> None:
    """The wait is for all of them together."""
    clock = FakeClock(START)
    app = limited(strategy, clock, PLANS={"default": {"requests": ["2/minute", "4/hour"]}})
    for _ in range(12):
        wait(until_rejected(app), clock)
        assert get(app).status_code == 200


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_quota(strategy: str, sizes: list[int]) -> None:
    """In rows: the same body gets in after one wait, whatever its size."""
    clock = FakeClock(START)
    app = limited(
        strategy,
        clock,
        PLANS={"default": {"requests": [], "quotas": ["10/minute"]}},
        POLICIES={"/rows": {"body": f"{__name__}:Rows", "cost": "rows"}},
    )
    for _ in range(4):
        for rows in sizes:
            if (response := post(app, rows)).status_code == 429:
                wait(response, clock)
                assert post(app, rows).status_code == 200
            clock.advance(1)


# --- invalid credentials ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_block(strategy: str) -> None:
    """The right secret is tried again after one wait, and not a second earlier; each block is twice as long."""
    clock = FakeClock(START)
    app = limited(strategy, clock, guessable=True, FAILED_AUTH_LIMITS=["2/minute"], FAILED_KEY_LIMITS=["1000/minute"])
    lengths = []
    for number in range(8):
        while (response := get(app, "bad")).status_code == 401:
            pass
        lengths.append(wait(response, clock))
        clock.advance(-1)
        # Of somebody who was never here: a network from which a secret was right before is exempt.
        assert get(app, f"user{number}").status_code == 429
        clock.advance(1)
        assert get(app, f"user{number}").status_code == 200
    assert lengths == [min(SHORTEST << number, LONGEST) for number in range(8)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_identity_with_too_many_wrong_secrets(strategy: str) -> None:
    """The right secret is tried again after one wait."""
    clock = FakeClock(START)
    app = limited(strategy, clock, guessable=True, FAILED_AUTH_LIMITS=["1000/minute"], FAILED_KEY_LIMITS=["3/hour"])
    for _ in range(4):
        assert get(app, "bad").status_code in {401, 429}
    wait(get(app, "bad"), clock)
    assert get(app, "bad").status_code == 401
