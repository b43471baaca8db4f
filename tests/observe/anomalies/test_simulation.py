"""Simulated weeks of ordinary traffic and attacks, in a short form of ``benchmarks/anomalies.py``."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).parents[3] / "benchmarks" / "traffic.py"
SEEDS = "t"
CLIENTS = 2
MOST = 1
"""False alarms in these client-days. There are none; a single one can be chance."""


@pytest.fixture(scope="module")
def traffic() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("simulated_traffic", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def outcome(traffic: Any) -> Any:
    # Four weeks, with the outage and the attacks on Wednesdays as in the long form, and an hour of each attack.
    traffic.DAYS, traffic.OUTAGE_DAY, traffic.ATTACK_DAY, traffic.ATTACK_HOURS = 27, 16, 23, 1
    return traffic.run(CLIENTS, SEEDS, traffic.World())


def test_false_alarms(outcome: Any) -> None:
    """There are hardly any, retry storms, weekly jobs and new clients included."""
    assert outcome.client_days > 150
    assert len(outcome.false_alarms) <= MOST, Counter((kind, each.signal) for kind, each in outcome.false_alarms)


@pytest.mark.parametrize(
    ("attack", "missed"),
    [
        ("scraping", 1),
        ("bulk rows", 1),
        ("bulk bytes", 1),
        ("scanning", 0),
        ("stuffing", 0),
        ("bot", 0),
        ("fuzzing", 0),
    ],
)
def test_an_attack(traffic: Any, outcome: Any, attack: str, missed: int) -> None:
    """It is found within ten minutes or a hundred requests, of nearly every client."""
    delays = outcome.delays[attack]
    assert len(delays) == CLIENTS * (len(traffic.KINDS) - 1)
    assert sum(not traffic.in_time(each) for each in delays) <= missed, delays


def test_a_shared_key(outcome: Any) -> None:
    """It is found within the hour, after some of its forty networks."""
    assert sum(each is not None for each in outcome.delays["shared key"]) >= 11
