"""What rejected credentials cost, outside and within a block, and whether their time tells why they were rejected.

Within a method, the reasons must cost the same: which ids, issuers and key ids exist is not the sender's business.
Across methods they need not, because the sender knows what it sent; a 429 costs less than a 401 by what counts it,
which the status tells anyway.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from joserfc.jwk import Key

from flask_secure_ml.authentication.api_keys.key import checksum, id_part, new_key
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import make_api_key, make_token

from .apps import AUDIENCE, ISSUER, Contender, secured, signing_key
from .bodies import Sent
from .timing import Times, measure_each, response_of

APART = 0.05
"""The most by which the reasons of one method may differ."""

REPEATED = 3
NEVER, AT_ONCE = "1000000000/minute", "1/day"
METHODS: Mapping[str, tuple[str, ...]] = {
    "API key": ("unknown id", "wrong secret", "of a revoked key"),
    "token": ("bad signature", "unknown key id", "unknown issuer"),
}
"""The reasons of each method; the others are compared with the first."""


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the report."""
    key = signing_key(folder)
    outside, inside = _contenders(folder, key, NEVER), _contenders(folder, key, AT_ONCE)
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

    yield f"{'':<28}{'401 us':>8}{'429 us':>8}{'429 of 401':>12}{'401 of first':>14}{'429 of first':>14}"
    first = 0
    for method, reasons in METHODS.items():
        for place, reason in enumerate(reasons, start=first):
            yield (
                f"{f'{method}, {reason}':<28}{times.microseconds(place):>8.0f}{times.microseconds(count + place):>8.0f}"
                f"{ratio(count + place, place):>12.3f}{ratio(place, first):>14.3f}"
                f"{ratio(count + place, count + first):>14.3f}"
            )
        first += len(reasons)
    first = 0
    for method, reasons in METHODS.items():
        for status, start in ((401, first), (429, count + first)):
            apart = max(abs(ratio(start + each, start) - 1) for each in range(1, len(reasons)))
            asked = f"at most {APART:.0%}: {'met' if apart <= APART else 'MISSED'}"
            yield f"{method}, {status}: {apart:.1%} between the reasons ({asked})"
        first += len(reasons)
    token = len(METHODS["API key"])
    across = f"{ratio(token, 0):.3f} for 401, {ratio(count + token, count):.3f} for 429"
    yield f"a token costs as much of an API key, which its sender knows: {across}"


def _sent(status: int) -> Sent:
    return Sent("any body", b"{}", status=status)


def _contenders(folder: Path, key: Key, limit: str) -> list[Contender]:
    """Return one app with a credential that proves nothing for each reason, in their order."""
    app = secured(4, folder, SECURE_ML_FAILED_AUTH_LIMITS=[limit], SECURE_ML_FAILED_KEY_LIMITS=[NEVER])
    known, revoked = _wrong(make_api_key(app)), _wrong(make_api_key(app))
    keys = state_of(app).keys
    if keys is None:
        raise RuntimeError("API keys are not on")
    keys.revoke(id_part(revoked))
    authentic = _token(key, now=1)
    signature = authentic.rpartition(".")[2]
    forged = [
        f"{_token(key, **options).rpartition('.')[0]}.{signature}"
        for options in ({}, {"header": {"kid": "unknown"}}, {"issuer": "https://unknown.example"})
    ]
    # The app has seen a token of its issuer; one that expired is no guess, and is not counted.
    response_of(Contender("expired", app, _bearer(authentic)), _sent(401))
    sent = [*({"X-API-Key": each} for each in (new_key(), known, revoked)), *map(_bearer, forged)]
    names = [reason for reasons in METHODS.values() for reason in reasons]
    return [Contender(name, app, headers) for name, headers in zip(names, sent, strict=True)]


def _wrong(api_key: str) -> str:
    wrong = api_key[:17] + "0" * 43
    return wrong + checksum(wrong)


def _token(key: Key, **options: Any) -> str:
    given: dict[str, Any] = {"issuer": ISSUER, "now": int(time.time()) - 1} | options
    return make_token(key, audience=AUDIENCE, lifetime=3600, **given)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
