"""The headers ``RateLimit-Policy`` and ``RateLimit``: the quotas of a caller, and what is left of them."""

from __future__ import annotations

import math

from ..exchange import Exchange
from .guard import Report
from .rules import Kind

_LEASES = Kind.LEASES


def limit_headers(exchange: Exchange) -> list[tuple[str, str]]:
    """Return both headers for a request that was charged, or rejected by a limit.

    They follow draft-ietf-httpapi-ratelimit-headers-10.
    """
    report: Report | None = exchange.limits
    if report is None or not report.tariff.header:
        return []
    return [("RateLimit-Policy", report.tariff.header), ("RateLimit", limit_header(report))]


def limit_header(report: Report) -> str:
    """Return the value of ``RateLimit``: what is left of each limit, and the seconds until it is restored."""
    items = []
    for charge, verdict in zip(report.outcome.charges, report.outcome.verdicts, strict=True):
        penalty = verdict.penalty
        for rule, (used, wait, reset, _) in zip(charge.rules.rules, verdict.counts, strict=True):
            left = rule.capacity - used + 1e-6
            if not penalty and not wait and rule.kind is not _LEASES:
                # The common case: nothing was rejected.
                items.append(f'"{rule.label}";r={int(left) if left > 0 else 0};t={int(reset + 0.9995)}')
                continue
            item = f'"{rule.label}";r={int(left) if left > 0 and not penalty else 0}'
            if rule.kind is not _LEASES:
                # Rounded up, except for less than half a millisecond.
                seconds = penalty or (wait if wait < math.inf else rule.seconds) or reset
                item += f";t={int(seconds + 0.9995)}"
            items.append(item)
    return ", ".join(items)
