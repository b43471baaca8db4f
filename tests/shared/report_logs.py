"""Audit logs for reports, and an independent count of their figures in plain Python."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from audit_logs import EVERY, Site
from flask_secure_ml.observe.audit.reading import Filters
from flask_secure_ml.observe.audit.stream import STREAMS
from flask_secure_ml.observe.audit.writer import Writer
from flask_secure_ml.observe.report.figures import Figures
from flask_secure_ml.testing import FakeClock

HOSTILE = Path(__file__).parents[1] / "corpus" / "report" / "hostile.json"
ERRORS = (("not_authenticated", 401), ("rate_limited", 429), ("quota_exceeded", 429), ("internal_error", 500))
CLIENTS = ("batch", "mobile app", "partner.example.com", "qa")


def hostile() -> dict[str, str]:
    found: dict[str, str] = json.loads(HOSTILE.read_text("utf-8"))
    return found


def request(number: int, dice: random.Random) -> dict[str, Any]:
    """Return a request as recorded by the app; most are accepted."""
    client = CLIENTS[min(len(CLIENTS) - 1, int(dice.expovariate(1.0)))]
    record: dict[str, Any] = {
        "action": "request",
        "client": client,
        "code": None,
        "duration_us": int(dice.lognormvariate(9, 1)),
        "endpoint": dice.choice(["predict", "explain"]),
        "method": "POST",
        "model": "digits@3" if number % 3 else "digits@4",
        "network": f"10.0.0.{number % 9}",
        "plan": "gold" if client == "batch" else "default",
        "principal": f"api_key:{client[:2]}",
        "request_id": f"r{number}",
        "rows": 1 + number % 7,
        "status": 200,
    }
    if dice.random() < 0.3:
        code, status = dice.choice(ERRORS)
        record.update(code=code, status=status)
        if status == 429:
            record["reason"] = (
                f"api_key:{client[:2]} is over 600 requests in 60 s; penalty 2 for requests before Retry-After"
            )
        if status == 401:
            for name in ("client", "principal", "plan", "model"):
                del record[name]
    return record


EVENTS: tuple[dict[str, Any], ...] = (
    {"action": "anomaly", "signal": "surge", "subject": "api_key:ba", "explanation": "900 requests in this hour"},
    {"action": "anomaly", "signal": "probing", "subject": "10.0.0.3", "explanation": "40 rejections in this hour"},
    {"action": "block", "message": "network 203.0.113.7 blocked for 60 seconds"},
    {"action": "outage", "message": "the store is down: connection refused"},
    {"action": "outage", "message": "the store is back"},
    {
        "action": "key_created",
        "client": "qa",
        "key": "4fGh2kLm9QrS",
        "plan": "default",
        "scopes": ["predict"],
        "user": "ada",
    },
    {"action": "revoked", "revocation": "principal", "user": "ada", "what": "api_key:ba"},
    {"action": "model_replaced", "model": "digits", "version": "4"},
)


def write_log(
    site: Site, count: int, seconds: float, *, each: Callable[[int, random.Random], dict[str, Any]] = request
) -> None:
    """Write a log of two processes with ``count`` requests within ``seconds``, and occasional events."""
    dice = random.Random(count)
    writers = [site.writer(), site.writer()]
    last = site.clock.now()
    for number in range(count):
        writer = writers[number % 2]
        if number % 50 == 25:
            writer.append(dict(EVENTS[number // 50 % len(EVENTS)]))
        writer.append(each(number, dice))
        site.clock.advance(seconds / count)
        if site.clock.now() - last >= EVERY:
            last = site.clock.now()
            for writer in writers:
                writer.checkpoint()
    writers[0].close()
    writers[1].checkpoint()


def site_with(base: Path, clock: FakeClock, count: int, seconds: float, **options: Any) -> Site:
    site = Site(base, clock, facts={"origin": "tests/audit", "version": "0.1.0"})
    write_log(site, count, seconds, **options)
    return site


def lines_of_site(site: Site) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, read without code of the package."""
    for path in sorted((site.folder / STREAMS).glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            yield json.loads(line)["record"]


def figures_of(site: Site, since: str = "", until: str = "") -> Figures:
    figures = Figures(Filters({}, since, until))
    figures.read(site.folder)
    return figures


def figures_from(*records: Mapping[str, Any]) -> Figures:
    """Return the figures of records without a file; missing members are those of an accepted request."""
    figures = Figures(Filters())
    usual = {"action": "request", "status": 200, "time": "2026-05-01T12:00:00.000000Z"}
    figures.read_stream("s", iter([{**usual, **each} for each in records]))
    return figures


def outcome(record: Mapping[str, Any]) -> str:
    return {2: "accepted", 4: "rejected", 5: "failed"}[record["status"] // 100]


def counted(records: Iterator[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], Any]) -> Counter[Any]:
    return Counter(map(key, records))


def begin_writer(site: Site) -> Writer:
    writer = site.writer()
    writer.append(None)
    return writer
