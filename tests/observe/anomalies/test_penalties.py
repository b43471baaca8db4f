"""Penalties: who is rejected and until when, in one process and with a shared store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.observe.anomalies import Anomaly, Penalties
from flask_secure_ml.observe.anomalies.penalties import DAY, SPACE
from flask_secure_ml.stores import SharedStore, open_store
from flask_secure_ml.testing import FakeClock

RATE = Anomaly("rate", 0, "ada", "principal", "")


def left(penalties: Penalties) -> float:
    return penalties.left("principal", "ada")


@pytest.mark.parametrize(("action", "seconds", "most"), [("throttle", 300, 3_600), ("block", 3_600, 86_400)])
def test_it_lasts_as_long_as_what_is_unusual(clock: FakeClock, action: str, seconds: int, most: int) -> None:
    """Each anomaly extends it; a repetition doubles it, and after a day it is forgotten."""
    penalties = Penalties(clock)
    penalties.add(RATE, action)
    for _ in range(5):
        clock.advance(seconds - 1)
        assert left(penalties) == 1
        penalties.add(replace(RATE, again=True), action)
        assert left(penalties) == seconds
    clock.advance(seconds)
    assert left(penalties) == 0
    found = []
    for _ in range(7):
        penalties.add(replace(RATE, again=True), action)
        found.append(left(penalties))
        clock.advance(left(penalties) + 1)
    assert found == [min(seconds * 2**n, most) for n in range(1, 8)]
    clock.advance(DAY)
    penalties.add(RATE, action)
    assert left(penalties) == seconds


@pytest.mark.parametrize("again", [False, True], ids=["begun meanwhile", "extended meanwhile"])
@pytest.mark.parametrize("action", ["throttle", "block"])
def test_a_clock_that_is_set_back(store: SharedStore, clock: FakeClock, action: str, again: bool) -> None:
    """A caller is not rejected for the time by which the clock was wrong, and a new penalty counts everywhere."""
    one, two = Penalties(clock, store), Penalties(clock, store)
    if again:
        one.add(RATE, action)
    clock.advance(30 * DAY)
    one.add(RATE, action)
    one.save()
    clock.advance(-30 * DAY)
    two.refresh()
    assert (left(one), left(two)) == (0, 0)
    two.add(RATE, "throttle")
    two.save()
    one.refresh()
    assert left(two) > 0
    assert left(one) == left(two)


def test_a_stronger_action(clock: FakeClock) -> None:
    """It replaces the action of a penalty, and its time counts; a weaker one does neither."""
    penalties = Penalties(clock)
    for action, expected in (
        ("throttle", ("throttle", 300)),
        ("block", ("block", 3600)),
        ("throttle", ("block", 3600)),
    ):
        penalties.add(replace(RATE, again=True), action)
        found = penalties.get("principal", "ada")
        assert found is not None
        assert (found.action, left(penalties)) == expected


def test_an_identity_has_none(clock: FakeClock) -> None:
    """Anyone who knows the name of a principal could cause anomalies of the identity."""
    penalties = Penalties(clock)
    assert penalties.add(replace(RATE, kind="identity"), "block") is None
    assert (len(penalties), left(penalties), penalties.left("identity", "ada")) == (0, 0, 0)


def test_they_are_bounded(clock: FakeClock) -> None:
    """The oldest are evicted, a weaker action does not shorten one, and networks never evict a principal."""
    penalties = Penalties(clock, max_principals=2, max_networks=3)
    penalties.add(RATE, "block")
    penalties.add(RATE, "throttle")
    for n in range(50):
        penalties.add(replace(RATE, kind="network", subject=str(n)), "throttle")
    assert len(penalties) == 4
    assert [penalties.left("network", name) for name in ("0", "49", "ada")] == [0, 300, 0]
    assert left(penalties) == 3_600


def test_what_is_cleared_stays_so(clock: FakeClock) -> None:
    """Ongoing anomalies for an hour; new ones are penalized at once, and earlier strikes are gone."""
    penalties = Penalties(clock)
    penalties.add(RATE, "throttle")
    assert penalties.clear("principal", "ada")
    assert left(penalties) == 0
    assert not penalties.clear("principal", "ada")
    before = replace(RATE, time=clock.now())
    clock.advance(60)
    now = replace(RATE, time=clock.now())
    assert penalties.add(before, "throttle") is None
    assert penalties.add(replace(now, again=True), "throttle") is None
    assert left(penalties) == 0
    penalties.add(now, "throttle")
    assert left(penalties) == 300
    assert penalties.clear("principal", "ada")
    clock.advance(3_700)
    penalties.add(replace(RATE, time=clock.now(), again=True), "throttle")
    assert left(penalties) == 300


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> SharedStore:
    return open_store(f"sqlite:{tmp_path / 'state.db'}", None, clock)


def test_all_processes_enforce_it(store: SharedStore, clock: FakeClock) -> None:
    """And one that starts later, and one that ends it."""
    first, second = Penalties(clock, store), Penalties(clock, store)
    assert len(second) == 0
    first.add(RATE, "block")
    assert left(first) == 3_600
    assert left(second) == 0
    first.save()
    clock.advance(1)
    assert left(second) == left(Penalties(clock, store)) == 3_599
    assert [(kind, name, each.signal) for kind, name, each in second.list()] == [("principal", "ada", "rate")]
    assert second.clear("principal", "ada")
    clock.advance(1)
    assert left(first) == left(second) == 0
    assert list(first.list()) == []
    # What went on in the first process does not bring it back.
    first.add(replace(RATE, again=True), "block")
    assert left(first) == 0


def test_the_longer_one_counts(store: SharedStore, clock: FakeClock) -> None:
    """Two processes find the same at about the same time."""
    first, second = Penalties(clock, store), Penalties(clock, store)
    first.add(RATE, "throttle")
    clock.advance(100)
    second.add(RATE, "throttle")
    second.save()
    first.save()
    clock.advance(1)
    assert left(first) == left(second) >= 299 - 100


class Down:
    """A store that can be switched off."""

    shared = True

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self.down = False

    def __getattr__(self, name: str) -> object:
        if self.down:
            raise DependencyUnavailable("down")
        return getattr(self._store, name)


def test_an_outage_of_the_store(store: SharedStore, clock: FakeClock) -> None:
    """Known penalties are enforced until they end, no error is raised, and new ones are stored later."""
    broken = Down(store)
    other, penalties = Penalties(clock, store), Penalties(clock, broken)  # type: ignore[arg-type]
    other.add(RATE, "block")
    other.save()
    assert left(penalties) == 3_600
    broken.down = True
    clock.advance(300)
    assert left(penalties) == 3_300
    penalties.add(replace(RATE, subject="bob"), "throttle")
    assert penalties.left("principal", "bob") == 300
    with pytest.raises(DependencyUnavailable):
        penalties.save()
    broken.down = False
    penalties.save()
    clock.advance(1)
    assert other.left("principal", "bob") == 299


@pytest.mark.parametrize("raw", [b"{}", b"[]", b"x", b'{"until": "x", "since": 1, "signal": "", "action": "block"}'])
def test_what_cannot_be_read(
    store: SharedStore, clock: FakeClock, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    """It is logged, and the other penalties apply."""
    penalties = Penalties(clock, store)
    penalties.add(RATE, "block")
    penalties.save()
    store.put(SPACE, "principal:eve", raw)
    clock.advance(1)
    assert left(penalties) == 3_599
    assert "cannot be read" in caplog.text
