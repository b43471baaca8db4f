"""``RateLimit-Policy`` and ``RateLimit``: what a caller may use, and what is left."""

from __future__ import annotations

import math

from flask import Response

from ..exchange import Exchange
from .counters import Count
from .guard import Report
from .rules import Kind, Rule


class LimitHeaders:
    """Sends both headers with each response to a request that was charged, or rejected by a limit.

    They are those of draft-ietf-httpapi-ratelimit-headers-10.
    """

    def apply(self, response: Response, exchange: Exchange) -> None:
        """Set the headers."""
        report: Report | None = exchange.limits
        if report is not None and report.tariff.header:
            response.headers["RateLimit-Policy"] = report.tariff.header
            response.headers["RateLimit"] = limit_header(report)


def limit_header(report: Report) -> str:
    """Return the value of ``RateLimit``: the rest of each limit, and the seconds until it is restored."""
    items = []
    for charge, verdict in zip(report.outcome.charges, report.outcome.verdicts, strict=True):
        for rule, count in zip(charge.rules.rules, verdict.counts, strict=True):
            items.append(_item(rule, count, verdict.penalty))
    return ", ".join(items)


def _item(rule: Rule, count: Count, penalty: float) -> str:
    left = 0 if penalty else max(0, math.floor(rule.capacity - count.used + 1e-6))
    if rule.kind is Kind.LEASES:
        return f'"{rule.label}";r={left}'
    wait = penalty or (count.wait if count.wait < math.inf else rule.seconds) or count.reset
    return f'"{rule.label}";r={left};t={math.ceil(round(wait, 3))}'
