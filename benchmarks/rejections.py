"""Cost of rejected credentials, with and without a block, and whether timing reveals the reason for a rejection.

Within one method, all reasons must cost the same, so that timing does not reveal which ids, issuers and key ids exist.
Methods may differ, because the sender knows which one it used. A 429 may cost less than a 401, because the status
reveals the difference anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from joserfc.jwk import Key

from flask_secure_ml.authentication.api_keys.key import checksum, id_part, new_key
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import make_api_key

from .apps import Contender, access_token, bearer, secured, signing_key
from .bodies import Sent
from .timing import Times, measure_each, response_of

APART = 0.05
"""The maximum relative difference between the reasons of one method."""

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
    # The second credential starts the block.
    response_of(inside[0], _sent(401))
    response_of(inside[0], _sent(429))
    calls = [*((each, _sent(401)) for each in outside), *((each, _sent(429)) for each in inside)]
    # In both orders, because the first call of a round finds other cache contents than the last.
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
    yield f"ratio of token to API key (the sender knows the method): {across}"


def _sent(status: int) -> Sent:
    return Sent("any body", b"{}", status=status)


def _contenders(folder: Path, key: Key, limit: str) -> list[Contender]:
    """Return an app with an invalid credential for each reason, in order."""
    app = secured(4, folder, SECURE_ML_FAILED_AUTH_LIMITS=[limit], SECURE_ML_FAILED_KEY_LIMITS=[NEVER])
    known, revoked = _wrong(make_api_key(app)), _wrong(make_api_key(app))
    keys = state_of(app).keys
    if keys is None:
        raise RuntimeError("API keys are not on")
    keys.revoke(id_part(revoked))
    authentic = access_token(key, now=1)
    signature = authentic.rpartition(".")[2]
    forged = [
        f"{access_token(key, **options).rpartition('.')[0]}.{signature}"
        for options in ({}, {"header": {"kid": "unknown"}}, {"issuer": "https://unknown.example"})
    ]
    # Make the app fetch the keys of its issuer. An expired token is not a guess, so it is not counted.
    response_of(Contender("expired", app, bearer(authentic)), _sent(401))
    sent = [*({"X-API-Key": each} for each in (new_key(), known, revoked)), *map(bearer, forged)]
    names = [reason for reasons in METHODS.values() for reason in reasons]
    return [Contender(name, app, headers) for name, headers in zip(names, sent, strict=True)]


def _wrong(api_key: str) -> str:
    wrong = api_key[:17] + "0" * 43
    return wrong + checksum(wrong)
