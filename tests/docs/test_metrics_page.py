"""The table of metrics is that of the code."""

from __future__ import annotations

import re

from flask_secure_ml.observe.metrics import Metrics
from flask_secure_ml.observe.metrics.facts import FAMILIES
from monitoring import METRICS_PAGE


def documented() -> dict[str, tuple[str, ...]]:
    """Return the labels of each metric in the table."""
    table = METRICS_PAGE.read_text(encoding="utf-8").partition(".. list-table::")[2].partition("\nHow many")[0]
    rows = re.findall(r"^   \* - ``(\w+)``\n     -(.*)\n     - \S", table, re.MULTILINE)
    return {name: tuple(re.findall(r"``(\w+)``", labels)) for name, labels in rows}


def defined() -> dict[str, tuple[str, ...]]:
    """Return the labels of each metric of an app."""
    found: dict[str, tuple[str, ...]] = {each.name: (each.label,) if each.label else () for each in FAMILIES}
    for collector in Metrics().registry._collector_to_names:
        (family,) = collector.describe() if hasattr(collector, "describe") else collector.collect()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = tuple(getattr(collector, "_labelnames", ()))
    return found


def test_the_table() -> None:
    """Has every metric with its labels, and no other."""
    assert len(defined()) > 10
    assert documented() == defined()
