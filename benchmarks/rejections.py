"""What rejected credentials cost, outside and within a block, and whether their time tells which API keys exist.

An unknown id and a wrong secret must cost the same. A forged token costs its signature more, which its sender knows. A
401 costs more than a 429 by what counts it, which the status tells anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flask_secure_ml.authentication.api_keys.key import checksum, new_key
from flask_secure_ml.testing import make_api_key, make_signing_key

from .apps import Contender, bearer, secured, signing_key
from .bodies import Sent
from .timing import Times, measure_each, response_of

APART = 0.05
"""The most by which an unknown id and a wrong secret may differ."""

REPEATED = 3
NEVER, AT_ONCE = "1000000000/minute", "1/day"


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the report."""
    signing_key(folder)
    outside, inside = _contenders(folder, NEVER), _contenders(folder, AT_ONCE)
    # The second credential begins the block.
    response_of(inside[0], _sent(401))
    response_of(inside[0], _sent(429))
    calls = [*((each, _sent(401)) for each in outside), *((each, _sent(429)) for each in inside)]
    # There and back, because the first of a round finds other caches than the last.
    many = [measure_each([*calls, *reversed(calls)]) for _ in range(REPEATED)]
    times = Times([each for one in many for each in one.rounds])
    count = len(outside)

    def ratio(place: int, to: int) -> float:
        return (times.ratio(place, to) + times.ratio(-1 - place, -1 - to)) / 2

    yield f"{'':<16}{'401 us':>10}{'429 us':>10}{'429 of 401':>12}{'401 of first':>14}{'429 of first':>14}"
    for place, each in enumerate(outside):
        yield (
            f"{each.name:<16}{times.microseconds(place):>10.0f}{times.microseconds(count + place):>10.0f}"
            f"{ratio(count + place, place):>12.3f}{ratio(place, 0):>14.3f}{ratio(count + place, count):>14.3f}"
        )
    for status, first in ((401, 0), (429, count)):
        apart = abs(ratio(first + 1, first) - 1)
        asked = f"at most {APART:.0%}: {'met' if apart <= APART else 'MISSED'}"
        yield f"{status}: {apart:.1%} between the first two ({asked})"


def _sent(status: int) -> Sent:
    return Sent("any body", b"{}", status=status)


def _contenders(folder: Path, limit: str) -> list[Contender]:
    """Return one app with a credential of each kind that proves nothing."""
    app = secured(4, folder, SECURE_ML_FAILED_AUTH_LIMITS=[limit], SECURE_ML_FAILED_KEY_LIMITS=[NEVER])
    wrong = make_api_key(app)[:17] + "0" * 43
    return [
        Contender("unknown id", app, {"X-API-Key": new_key()}),
        Contender("wrong secret", app, {"X-API-Key": wrong + checksum(wrong)}),
        Contender("forged token", app, bearer(make_signing_key("RS256", "benchmark"))),
    ]
