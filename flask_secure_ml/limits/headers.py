"""``RateLimit-Policy`` and ``RateLimit``: what a caller may use, and what is left."""

from __future__ import annotations

import math

from ..exchange import Exchange
from .guard import Report
from .rules import Kind


def limit_headers(exchange: Exchange) -> list[tuple[str, str]]:
    """Return both headers for a request that was charged, or rejected by a limit.

    They are those of draft-ietf-httpapi-ratelimit-headers-10.
    """
    report: Report | None = exchange.limits
    if report is None or not report.tariff.header:
        return []
    return [("RateLimit-Policy", report.tariff.header), ("RateLimit", limit_header(report))]


def limit_header(report: Report) -> str:
    """Return the value of ``RateLimit``: the rest of each limit, and the seconds until it is restored."""
    items = []
    for charge, verdict in zip(report.outcome.charges, report.outcome.verdicts, strict=True):
        penalty = verdict.penalty
        for rule, (used, wait, reset, _) in zip(charge.rules.rules, verdict.counts, strict=True):
            left = rule.capacity - used + 1e-6
            item = f'"{rule.label}";r={int(left) if left > 0 and not penalty else 0}'
            if rule.kind is not Kind.LEASES:
                # Rounded up, but for what is less than a millisecond.
                seconds = penalty or (wait if wait < math.inf else rule.seconds) or reset
                item += f";t={int(seconds + 0.9995)}"
            items.append(item)
    return ", ".join(items)
