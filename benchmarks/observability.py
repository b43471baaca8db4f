"""Cost of observability: a line of the request log alone, and a whole request with everything on."""

from __future__ import annotations

import cProfile
import logging
import os
import pstats
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask

from flask_secure_ml.exchange import EXCHANGE_KEY, Exchange
from flask_secure_ml.observe.audit.log import AuditLog
from flask_secure_ml.observe.request_log import RequestLog, open_log
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.state import state_of

from .apps import Contender, api_key, bare, everything, secured, signing_key
from .bodies import SHORT, Sent, as_json, numbers
from .timing import call_of, measure, response_of, verdict

MOST_OF_BARE = 2.9
MOST_CALLS = 1_000
MOST_OF_A_LINE = 8.0
MOST_THROUGH_LOGGING = 16.0

ROUNDS, LINES = 15, 2_000
LOGGER = "benchmarks.requests"
_COLUMNS = 4
_PARTS = {
    "the request log": {},
    "and metrics": ("SECURE_ML_METRICS",),
    "and anomalies": ("SECURE_ML_ANOMALIES",),
    "and the audit log": ("SECURE_ML_AUDIT_LOG",),
}


def report(folder: Path) -> Iterator[str]:
    """Measure and yield the lines of the report."""
    yield from _lines(folder)
    yield ""
    yield from _requests(folder)


def _lines(folder: Path) -> Iterator[str]:
    """Measure a line to a file and one through :mod:`logging`, including its thread; they alternate."""
    exchange = exchange_of_a_prediction(folder)
    file, through = _log(str(folder / "lines.log")), _log(f"logging:{LOGGER}")
    with _logger(folder) as handler:
        rounds = [[_line(file, exchange), _line(through, exchange, handler)] for _ in range(ROUNDS)]
    limits = {"to a file": MOST_OF_A_LINE, "through logging": MOST_THROUGH_LOGGING}
    for (name, most), found in zip(limits.items(), zip(*rounds, strict=True), strict=True):
        microseconds = statistics.median(found) * 1e6
        met = "met" if microseconds <= most else "MISSED"
        yield f"{f'a line {name}':<28}{microseconds:>10.2f} us of processor time  at most {most:.0f}: {met}"


class _Counting(logging.FileHandler):
    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self.count += 1


def _line(log: RequestLog, exchange: Exchange, handler: _Counting | None = None) -> float:
    """Return the processor time of a line, including that of the handler."""
    last = LINES if handler is None else handler.count + LINES
    started = time.process_time()
    for _ in range(LINES):
        log.record(exchange)
    while handler is not None and handler.count < last:
        time.sleep(0.001)
    return (time.process_time() - started) / LINES


def _log(where: str) -> RequestLog:
    log = open_log(where, None, SystemClock())
    if log is None:
        raise RuntimeError("there is no log")
    return log


@contextmanager
def _logger(folder: Path) -> Iterator[_Counting]:
    """Attach a handler that writes to a file, for the duration of the block."""
    logger, handler = logging.getLogger(LOGGER), _Counting(folder / "handled.log")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        handler.close()


def _requests(folder: Path) -> Iterator[str]:
    sent = Sent("JSON", as_json(numbers(1, _COLUMNS, SHORT)))
    contenders = [bare(), *observed(folder)]
    times = measure(contenders, sent)
    yield f"{'1x4, API key, in memory':<28}{'CPU us':>10}{'of bare':>10}{'calls':>8}  target"
    for place, each in enumerate(contenders):
        most = MOST_OF_BARE if place == len(contenders) - 1 else None
        calls = calls_of(each, sent)
        asked = verdict(times.ratio(place), most)
        if most is not None:
            asked += f", {MOST_CALLS:,} calls {'met' if calls <= MOST_CALLS else 'MISSED'}"
        if (audit := audit_of(each.app)) is not None:
            # Before the directory is deleted.
            audit.close()
        found = f"{times.microseconds(place):>10,.0f}{times.ratio(place):>10.2f}{calls:>8}"
        yield f"{each.name:<28}{found}  {asked}".rstrip()


def observed(folder: Path) -> Iterator[Contender]:
    """Yield the secured app with one more observability feature each time; the last one has all."""
    signing_key(folder)
    settings = everything(folder)
    chosen = {"SECURE_ML_REQUEST_LOG": settings["SECURE_ML_REQUEST_LOG"]}
    for name, further in _PARTS.items():
        chosen |= {each: settings[each] for each in further}
        yield _contender(name, secured(_COLUMNS, folder, **chosen))
    yield _contender("everything on", secured(_COLUMNS, folder, **settings))


def calls_of(contender: Contender, sent: Sent) -> int:
    """Return the number of function calls of one request, including C functions."""
    call = call_of(contender, sent)
    call.seconds(50)
    profile = cProfile.Profile()
    profile.enable()
    call.seconds(1)
    profile.disable()
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def exchange_of_a_prediction(folder: Path) -> Exchange:
    """Return the exchange of one request, as the recorders see it."""
    signing_key(folder)
    app = secured(_COLUMNS, folder, SECURE_ML_REQUEST_LOG=os.devnull)
    found: list[Exchange] = []
    inner = app.wsgi_app

    def noting(environ: dict[str, Any], start: Any) -> Any:
        response = inner(environ, start)
        found.append(environ[EXCHANGE_KEY])
        return response

    outside = Flask("outside")
    outside.wsgi_app = noting  # type: ignore[assignment,method-assign]
    response_of(Contender("secured", outside, api_key(app)), Sent("JSON", as_json(numbers(1, _COLUMNS, SHORT))))
    return found[0]


def audit_of(app: Flask) -> AuditLog | None:
    """Return the audit log of an app; None for the bare app, which has no state."""
    return state_of(app).audit if "secure_ml" in app.extensions else None


def _contender(name: str, app: Flask) -> Contender:
    return Contender(name, app, api_key(app))
