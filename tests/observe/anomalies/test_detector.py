"""The detector: whose requests it scores, and its memory use."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from flask_secure_ml.observe.anomalies import SIGNALS, Anomaly, Detector, Episodes, Observation
from flask_secure_ml.observe.anomalies.detector import MOST_SCORED

REQUEST = Observation(0, "", "192.0.2.1", 404)


def scan(detector: Detector, seen: Observation, count: int = 10) -> list[tuple[str, str, str]]:
    found = [a for n in range(count) for a in detector.observe(replace(seen, target=n + 1))]
    return [(each.subject, each.kind, each.signal) for each in found]


def test_who_is_scored() -> None:
    """A principal, or the network of a request without one; each for itself."""
    detector = Detector(SIGNALS)
    assert scan(detector, replace(REQUEST, principal="api_key:ada"), 9) == []
    assert scan(detector, REQUEST) == [("192.0.2.1", "network", "scanning")]
    assert scan(detector, replace(REQUEST, principal="api_key:bob")) == [("api_key:bob", "principal", "scanning")]


def test_some_signals_are_of_networks_only() -> None:
    """A principal that once had wrong keys is none that tries some."""
    detector = Detector(SIGNALS)
    tried = [replace(REQUEST, status=401, attempted=f"k{n}") for n in range(10)]
    assert [a.signal for each in tried for a in detector.observe(each)] == ["credentials"]
    assert [a for each in tried for a in detector.observe(replace(each, principal="api_key:ada"))] == []


def test_the_idle_are_evicted() -> None:
    """Those that were idle for longest; and networks never evict a principal."""
    detector = Detector(SIGNALS, max_principals=2, max_networks=3)
    ada = replace(REQUEST, principal="api_key:ada")
    scan(detector, ada, 9)
    for n in range(1_000):
        detector.observe(replace(REQUEST, network=f"198.51.100.{n}"))
    assert len(detector) == 4
    detector.observe(replace(ada, principal="api_key:bob"))
    assert scan(detector, replace(ada, target=99))[0][0] == "api_key:ada"
    detector.observe(replace(ada, principal="api_key:eve"))
    assert len(detector) == 5
    assert scan(detector, replace(ada, principal="api_key:bob"), 9) == []


def test_the_active_ones() -> None:
    """The last of each kind, so that the scores of all are read in milliseconds, however many are known."""
    detector = Detector(SIGNALS)
    for n in range(MOST_SCORED + 50):
        detector.observe(replace(REQUEST, time=100, principal=f"api_key:{n}"))
    detector.observe(replace(REQUEST, time=100))
    detector.observe(replace(REQUEST, time=100, principal="api_key:7"))
    active = detector.recent(699)
    assert len(active) == MOST_SCORED + 1
    assert detector.subject("principal", "api_key:7") in active
    assert detector.subject("principal", "api_key:8") not in active
    assert detector.recent(700) == []


def test_an_episode() -> None:
    """Activity that continues within an hour is not a new anomaly, and half of the threshold is enough for it."""
    detector = Detector(SIGNALS)
    ada = replace(REQUEST, principal="api_key:ada")
    urls = [replace(ada, time=60 * n, target=n + 1) for n in range(100)]
    found = [each for seen in urls for each in detector.observe(seen)]
    assert [(each.time, each.again) for each in found[:3]] == [(540, False), (840, True), (1140, True)]
    later = [replace(each, time=each.time + 10_000, target=each.target + 1_000) for each in urls[:10]]
    assert [each.again for seen in later for each in detector.observe(seen)] == [False]


def claimed(network: str, n: int) -> Observation:
    return Observation(n, "", network, 401, attempted="api_key:ada")


def test_a_claimed_identity_is_not_the_principal() -> None:
    """Rejected credentials of a name from many networks are reported of the name; nothing is known of the principal."""
    detector = Detector(SIGNALS)
    seen = [claimed(f"192.0.2.{n}", n) for n in range(10)]
    found = [(each.signal, each.kind, each.subject) for one in seen for each in detector.observe(one)]
    assert found == [("targeted", "identity", "api_key:ada")]
    assert detector.readings("principal", "api_key:ada", 10) is None
    unnamed = [replace(one, attempted="bearer:?abc") for one in seen]
    assert [each.signal for one in unnamed for each in detector.observe(one)] == []


def test_identities_are_bounded() -> None:
    """Invented identities evict neither principals nor networks."""
    detector = Detector(SIGNALS, max_identities=3)
    detector.observe(replace(REQUEST, principal="api_key:ada"))
    for n in range(100):
        detector.observe(replace(REQUEST, status=401, attempted=f"api_key:{n}"))
    assert len(detector) == 5
    assert detector.readings("principal", "api_key:ada", 0) is not None


def usual_days(detector: Detector, names: list[str], days: int = 5) -> None:
    for day in range(days):
        for n in range(600):
            for name in names:
                detector.observe(Observation(day * 86_400 + 36_000 + 60 * n, name, "192.0.2.1", 200))


def burst(detector: Detector, name: str, begin: float, status: int = 200, count: int = 150) -> list[str]:
    seen = (Observation(begin + n, name, "192.0.2.1", status) for n in range(count))
    return [each.signal for one in seen for each in detector.observe(one)]


def test_a_retry_storm_of_many_is_an_outage() -> None:
    """They may send five times as much for an hour; others may not, and a single failing caller is not an outage."""
    names = [f"api_key:{n}" for n in range(4)]
    detector = Detector(SIGNALS)
    usual_days(detector, [*names, "api_key:eve"])
    begin = 5 * 86_400 + 36_000
    for n in range(20):
        for name in names:
            assert detector.observe(Observation(begin + n, name, "192.0.2.1", 503)) == []
    for name in names[:3]:
        assert burst(detector, name, begin + 60) == []
    assert "rate" in burst(detector, "api_key:eve", begin + 60)
    assert "rate" in burst(detector, names[3], begin + 60 + 3_700)
    alone = Detector(SIGNALS)
    usual_days(alone, names)
    assert burst(alone, names[0], begin, status=503) == []
    assert "rate" in burst(alone, names[0], begin + 200)


def test_one_report_for_an_episode() -> None:
    """Later signals are reported only with a stronger action; after a quiet hour a new episode begins."""
    episodes = Episodes(most=2)
    rate = Anomaly("rate", 0, "ada", "principal", "")
    assert episodes.begins(rate, 1)
    assert not episodes.begins(replace(rate, signal="rows", time=60), 1)
    assert episodes.begins(replace(rate, signal="bytes", time=120), 3)
    assert not episodes.begins(replace(rate, signal="networks", time=180), 2)
    assert not episodes.begins(replace(rate, time=3_700, again=True), 1)
    assert episodes.begins(replace(rate, time=9_000), 1)
    assert episodes.begins(replace(rate, kind="network"), 1)


@pytest.mark.slow
def test_memory() -> None:
    """A principal takes at most 9 KB, a network 8 and an identity 2, whatever they send."""
    detector = Detector(SIGNALS)
    seen = replace(REQUEST, rows=9, size=9)
    used = []
    tracemalloc.start()
    try:
        for kind in ("principal", "network", "identity"):
            before, _ = tracemalloc.get_traced_memory()
            for subject in range(50):
                for n in range(200):
                    now = replace(seen, time=3_000.0 * n, target=n + 1, network=f"n{n % 70}")
                    if kind == "principal":
                        detector.observe(replace(now, principal=f"p{subject}"))
                    elif kind == "network":
                        detector.observe(replace(now, network=f"s{subject}", attempted=f"a:?{n}"))
                    else:
                        detector.observe(replace(now, network="s1", attempted=f"a:{subject}"))
            taken, _ = tracemalloc.get_traced_memory()
            used.append((taken - before) / 50)
    finally:
        tracemalloc.stop()
    assert len(detector) == 150
    assert used[0] < 9_000
    assert used[1] < 8_000
    assert used[2] < 2_000
