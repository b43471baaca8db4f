"""The detector: whom it scores, and in how much memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

from flask_secure_ml.observe.anomalies import SIGNALS, Detector, Observation

REQUEST = Observation(0, "", "192.0.2.1", 404, None)


def scan(detector: Detector, seen: Observation, count: int = 10) -> list[tuple[str, bool, str]]:
    found = [a for n in range(count) for a in detector.observe(replace(seen, path=f"/{n}"))]
    return [(each.subject, each.is_principal, each.signal) for each in found]


def test_who_is_scored() -> None:
    """A principal, or the network of a request without one; each for itself."""
    detector = Detector(SIGNALS)
    assert scan(detector, replace(REQUEST, principal="api_key:ada"), 9) == []
    assert scan(detector, REQUEST) == [("192.0.2.1", False, "scanning")]
    assert scan(detector, replace(REQUEST, principal="api_key:bob")) == [("api_key:bob", True, "scanning")]


def test_some_signals_are_of_networks_only() -> None:
    """A principal that once had wrong keys is none that tries some."""
    detector = Detector(SIGNALS)
    tried = [replace(REQUEST, endpoint="x", status=401, claimed=f"k{n}") for n in range(10)]
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
    assert scan(detector, replace(ada, path="/last"))[0][0] == "api_key:ada"
    detector.observe(replace(ada, principal="api_key:eve"))
    assert len(detector) == 5
    assert scan(detector, replace(ada, principal="api_key:bob"), 9) == []


def test_memory() -> None:
    """A subject takes at most 8 KB, whatever it sends, so all take at most 160 MB."""
    detector = Detector(SIGNALS)
    seen = replace(REQUEST, rows=9, size=9)
    tracemalloc.start()
    try:
        for subject in range(100):
            for n in range(200):
                time = 1_000.0 * (n // 100) + n
                now = replace(seen, time=time, principal=f"p{subject}", path=f"/{n}", network=f"n{n}")
                detector.observe(now)
                detector.observe(replace(now, principal="", network=f"n{subject}", claimed=f"k{n}"))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(detector) == 200
    assert taken / len(detector) < 8_000
