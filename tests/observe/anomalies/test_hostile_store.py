"""Invalid records in a shared store: they stop no process from scoring, and fail no request."""

from __future__ import annotations

import copy
import json
import logging
import math
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.observe.anomalies import SIGNALS, Anomaly, Detector, Observation, load
from flask_secure_ml.observe.anomalies.codec import VERSION, packed, unpacked
from flask_secure_ml.observe.anomalies.penalties import SPACE, Penalties
from flask_secure_ml.observe.anomalies.sharing import STATE, SUMMARIES, Sharing, part_of, state_of
from flask_secure_ml.state import state_of as state_of_app
from flask_secure_ml.stores import SharedStore, open_store
from flask_secure_ml.testing import FakeClock
from support import HTTPS, MakeApp, caller

CORPUS = Path(__file__).parents[2] / "corpus" / "anomalies"
SUMMARY, PENALTY = (json.loads((CORPUS / f"{name}.json").read_bytes()) for name in ("summaries", "penalties"))
ADA = Observation(0, "api_key:ada", "192.0.2.1", 200)
PART = part_of("principal", ADA.principal)
NESTED = "[" * 100_000
HOSTILE: tuple[Any, ...] = (
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    -1e308,
    10**400,
    10**30,
    -5,
    1.5,
    True,
    None,
    "",
    "AAAA",
    "/w==",
    [],
    {},
)


def make() -> Detector:
    return Detector(SIGNALS)


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> SharedStore:
    return open_store(f"sqlite:{tmp_path / 'state.db'}", None, clock)


def process(store: SharedStore, clock: FakeClock) -> Sharing:
    return Sharing(store, clock, make, threading.Lock(), lambda _: None)


def scanned(detector: Detector, clock: FakeClock) -> str:
    readings = detector.readings("principal", ADA.principal, clock.now())
    return "" if readings is None else readings["scanning"].value.rpartition(" ")[2]


@pytest.mark.parametrize("name", [*SUMMARY, "nested too deep"])
def test_a_summary(name: str, store: SharedStore, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """An invalid summary is logged and skipped; those of other processes are counted, even at startup."""
    running, honest = process(store, clock), process(store, clock)
    running.sync()
    raw = zlib.compress(SUMMARY.get(name, NESTED).encode())
    store.put(SUMMARIES, "evil-1", raw, seconds=300)
    honest.observe(replace(ADA, time=clock.now(), status=404, target=7))
    honest.sync()
    store.put(SUMMARIES, "evil-2", raw, seconds=300)
    for _ in range(2):
        running.sync()
    assert scanned(running.detector, clock) == "1"
    assert scanned(load(store, make).detector, clock) == "1"
    assert "a summary of another process cannot be read" in caplog.text


BOMBS = {
    "empty lists": b"[" + b"[]," * 5_000_000 + b"[]]",
    "numbers": b"[" + b"0," * 7_000_000 + b"0]",
    "objects": b'[{"a":' * 2_000_000,
    "spaces": b" " * 17_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb(name: str) -> None:
    """A few compressed kilobytes cannot expand to hundreds of megabytes of objects."""
    raw = zlib.compress(BOMBS[name], 9)
    assert len(raw) < 40_000
    with pytest.raises(ValueError, match="too"):
        unpacked(raw)


def paths(state: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(state, dict):
        for name, value in state.items():
            yield from paths(value, (*path, name))
    elif path:
        yield path


def usual() -> Any:
    """Return the state of a caller after 90 days of requests."""
    detector = make()
    for n in range(4_000):
        seen = replace(ADA, time=1e9 + 2_000 * n, network=f"192.0.2.{n % 9}", status=(200, 404, 422, 401)[n % 4])
        detector.observe(replace(seen, target=n % 7, rows=3 + n % 5, size=500))
    return state_of(detector.subject("principal", ADA.principal))


USUAL = usual()


@pytest.mark.slow
@pytest.mark.parametrize("path", [*paths(USUAL)], ids=".".join)
def test_a_state(path: tuple[str, ...], store: SharedStore, caplog: pytest.LogCaptureFixture) -> None:
    """With any invalid value in its state, a caller can still be scored, read and stored."""
    caplog.set_level(logging.ERROR)
    begin = 1e9 + 2_000 * 4_000
    for value in HOSTILE:
        state = copy.deepcopy(USUAL)
        within = state
        for name in path[:-1]:
            within = within[name]
        within[path[-1]] = value
        record = {"version": VERSION, "applied": {}, "subjects": [["principal", ADA.principal, state]]}
        store.put(STATE, str(PART), packed(record))
        detector = load(store, make).detector
        for n in range(120):
            detector.observe(replace(ADA, time=begin + 1_800 * n, status=(200, 404)[n % 2], target=n, rows=9, size=9))
        subject = detector.subject("principal", ADA.principal)
        assert len(dict(subject.scores(begin))) == len(subject.signals)
        assert detector.readings("principal", ADA.principal, begin) is not None
        packed(state_of(subject))


def test_constants_are_not_read(store: SharedStore) -> None:
    """The limits of a process are not part of the stored state."""
    assert not {"minimum", "_most", "_window"} & {path[-1] for path in paths(USUAL["signals"]["scanning"])}
    assert "minimum" not in USUAL["signals"]["rate"]["_history"]


@pytest.mark.parametrize("name", ["applied", "version", "subjects"])
@pytest.mark.parametrize("value", [*HOSTILE, {"evil": math.inf}, {"evil": []}, [[]], [["principal", "x", 7]]], ids=repr)
def test_a_part(name: str, value: Any, store: SharedStore) -> None:
    """A record of the wrong form is ignored, and the others are read."""
    honest = {"version": VERSION, "applied": {}, "subjects": [["principal", ADA.principal, USUAL]]}
    store.put(STATE, str(PART), packed(honest))
    store.put(STATE, str((PART + 1) % 256), packed(honest | {name: value}))
    assert load(store, make).detector.knows("principal", ADA.principal)


@pytest.mark.parametrize("name", [*PENALTY, "nested too deep"])
def test_a_penalty(
    name: str, protected: MakeApp, tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid penalty rejects no caller, each reader logs it once, and other penalties are enforced."""
    app = protected(STORE_URI=f"sqlite:{tmp_path / 'state.db'}", ANOMALIES={"rate": "block"})
    anomalies = state_of_app(app).anomalies
    assert anomalies is not None
    assert anomalies.store is not None
    anomalies.store.put(SPACE, "principal:test:ada", PENALTY.get(name, NESTED).encode())
    other = Penalties(clock, anomalies.store)
    other.add(Anomaly("rate", clock.now(), "test:eve", "principal", "many requests"), "block")
    other.save()
    client = app.test_client()
    for _ in range(3):
        assert client.get("/", base_url=HTTPS, headers=caller("ada")).status_code == 404
        assert client.get("/", base_url=HTTPS, headers=caller("eve")).status_code == 429
    assert caplog.text.count("a penalty in the store cannot be read") == 2
