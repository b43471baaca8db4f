"""The figures of a report, computed from the records of a log in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..audit.reading import Filters, Skipped, scan
from ..audit.records import LARGEST, Members, second_from
from .bounded import Names, Newest, Percentiles, Top
from .timeline import Instants, Interval, Timeline

ACCEPTED, REJECTED, FAILED = "accepted", "rejected", "failed"
OUTCOMES = (ACCEPTED, REJECTED, FAILED)
_LEAST, _CLIENT_ERROR, _SERVER_ERROR, _GREATEST, _LIMITED = 100, 400, 500, 599, 429
# Records of this package do not contain longer strings.
_MOST, _MOST_WORDS = 256, 1024

ANOMALIES, BLOCKS, OUTAGES, LOST = "Anomalies", "Blocks", "Outages", "Lost records"
STARTS, STOPS, CREDENTIALS, SETTINGS, OTHERS = "Starts", "Stops", "Credentials", "Settings", "Other"
LANES = (ANOMALIES, BLOCKS, OUTAGES, LOST, STARTS, STOPS, CREDENTIALS, SETTINGS, OTHERS)
_LANE_OF = {
    "anomaly": ANOMALIES,
    "block": BLOCKS,
    "outage": OUTAGES,
    "limits": OUTAGES,
    "gap": LOST,
    "start": STARTS,
    "stop": STOPS,
    "configuration": SETTINGS,
    "revoked": CREDENTIALS,
    "revocation_undone": CREDENTIALS,
}
_LISTED = {ANOMALIES, BLOCKS, OUTAGES, CREDENTIALS, SETTINGS, OTHERS}
_OF_THE_FILE = {"segment", "stream_end"}
_OF_THE_PROCESS = {"start", "stop"}
# Parts of the reasons of 429 that are not about a limit of the plan or the route.
_OTHER_LIMITS = {
    " in flight": "requests in flight",
    " is blocked": "invalid credentials",
    "invalid credentials": "invalid credentials",
    "wrong secrets": "invalid credentials",
    "unusual usage": "unusual usage",
    "keeps exceeding a limit": "penalty",
}


class Caller(NamedTuple):
    """A client, a principal without a client, or the network of an anonymous caller."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(slots=True)
class Tally:
    """The requests of one endpoint, model or plan."""

    requests: int = 0
    rejected: int = 0
    failed: int = 0
    limited: int = 0
    rows: int = 0
    latency: Percentiles = field(default_factory=Percentiles)


@dataclass(frozen=True, slots=True)
class Event:
    """An event in a list."""

    time: str
    action: str
    what: str
    subject: str


@dataclass(slots=True)
class Worker:
    """A process that wrote a stream.

    :param is_command: whether it ran a command, which is not a worker.
    """

    stream: str
    started: str = ""
    stopped: str = ""
    last: str = ""
    pid: str = ""
    version: str = ""
    records: int = 0
    is_command: bool = False


class Figures:
    """The figures; numbers are exact unless they have bounds.

    :param filters: the records to count: those between ``since`` and ``until``.
    :raises ValueError: ``since`` or ``until`` is not a time, or the period is empty.
    """

    def __init__(self, filters: Filters) -> None:
        since, until = second_from(filters.since), second_from(filters.until)
        if since is not None and until is not None and since >= until:
            raise ValueError("--until must be later than --since")
        self.filters = filters
        self.timeline = Timeline(since, until)
        self.skipped = Skipped()
        self.records = self.requests = self.rows = self.lost = 0
        self.scanned = 0
        """Number of records that were read, including filtered ones."""
        self.outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.latency = Percentiles()
        self.by_requests: Top[Caller] = Top()
        self.by_rejections: Top[Caller] = Top()
        self.by_rows: Top[Caller] = Top()
        self.by_limit: Top[tuple[Caller, str]] = Top()
        self.codes: dict[tuple[str, int], int] = {}
        self.endpoints: dict[str, Tally] = {}
        self.models: dict[str, Tally] = {}
        self.plans: dict[str, Tally] = {}
        self.events: dict[str, int] = dict.fromkeys(LANES, 0)
        self.signals: dict[str, int] = {}
        self.listed: dict[str, Newest] = {lane: Newest() for lane in _LISTED}
        self.workers = Newest()
        self.streams = self.running = 0
        self.origin = self.version = ""
        self._names = {kind: Names() for kind in ("code", "endpoint", "model", "plan", "signal")}
        self._instants = Instants()

    def read(self, folder: Path, progress: Callable[[int], object] = lambda _: None) -> None:
        """Count the records of a log.

        :param progress: called with the number of additional bytes read.
        :raises OSError: a file cannot be read.
        """
        for stream, records in scan(folder, self.skipped, progress):
            self.read_stream(stream, records)

    def read_stream(self, stream: str, records: Iterator[Members]) -> None:
        """Count the records of one stream."""
        worker = Worker(stream)
        for record in records:
            self.scanned += 1
            time = _string(record.get("time"))
            try:
                second = self._instants.second_of(time)
            except ValueError:
                self.skipped.lines += 1
                continue
            self._note_worker(worker, record, time)
            if self.filters.match(record):
                worker.records += 1
                self._count(record, time, self.timeline.at(second), worker)
        if worker.records and not worker.is_command:
            self.streams += 1
            self.running += not worker.stopped
            self.workers.add(worker.started or worker.last, worker)

    def _note_worker(self, worker: Worker, record: Members, time: str) -> None:
        worker.last = time
        action = record.get("action")
        if action == "start":
            worker.started, worker.pid = time, str(_integer(record.get("pid")))
            worker.version = _string(record.get("version"))
            worker.is_command = record.get("command") is True
            self.origin = _string(record.get("origin")) or self.origin
        elif action == "stop":
            worker.stopped = time

    def _count(self, record: Members, time: str, interval: Interval, worker: Worker) -> None:
        self.records += 1
        action = _string(record.get("action"))
        if action == "request":
            self._count_request(record, interval)
        elif action not in _OF_THE_FILE and not (worker.is_command and action in _OF_THE_PROCESS):
            self._count_event(record, action, time, interval)

    def _count_request(self, record: Members, interval: Interval) -> None:
        status, rows = _integer(record.get("status")), _integer(record.get("rows"))
        if not _LEAST <= status <= _GREATEST:
            status = 0
        outcome = _outcome(status)
        self.requests += 1
        self.outcomes[outcome] += 1
        interval.outcomes[outcome] = interval.outcomes.get(outcome, 0) + 1
        caller = _caller(record)
        self.by_requests.add(caller)
        tallies = [self._tally("endpoint", self.endpoints, _string(record.get("endpoint")) or "unknown URL")]
        if plan := _string(record.get("plan")):
            tallies.append(self._tally("plan", self.plans, plan))
        if model := _string(record.get("model")):
            tallies.append(self._tally("model", self.models, model))
            name = self._names["model"].get(model)
            interval.models[name] = interval.models.get(name, 0) + 1
        duration = record.get("duration_us")
        if outcome is ACCEPTED:
            # Only accepted requests have a cost and a latency of the model; rejections would hide a slow model.
            self.rows += rows
            if rows:
                self.by_rows.add(caller, rows)
            if isinstance(duration, int) and 0 <= duration <= LARGEST:
                self.latency.add(duration)
                interval.latency.add(duration)
                for tally in tallies:
                    tally.latency.add(duration)
        else:
            self._count_error(record, status, caller, interval)
        for tally in tallies:
            tally.requests += 1
            if outcome is ACCEPTED:
                tally.rows += rows
            tally.rejected += outcome is REJECTED
            tally.failed += outcome is FAILED
            tally.limited += status == _LIMITED

    def _count_error(self, record: Members, status: int, caller: Caller, interval: Interval) -> None:
        code = self._names["code"].get(_string(record.get("code")) or f"status {status}")
        self.codes[code, status] = self.codes.get((code, status), 0) + 1
        interval.codes[code] = interval.codes.get(code, 0) + 1
        if _outcome(status) is REJECTED:
            self.by_rejections.add(caller)
        if status == _LIMITED:
            self.by_limit.add((caller, _limit_in(_string(record.get("reason")), code)))

    def _count_event(self, record: Members, action: str, time: str, interval: Interval) -> None:
        lane = _LANE_OF.get(action) or (CREDENTIALS if action.startswith("key_") else OTHERS)
        self.events[lane] += 1
        interval.events[lane] = interval.events.get(lane, 0) + 1
        if lane == ANOMALIES:
            signal = self._names["signal"].get(_string(record.get("signal")) or "unnamed")
            self.signals[signal] = self.signals.get(signal, 0) + 1
        elif lane == LOST:
            self.lost += _integer(record.get("lost"))
        if lane in _LISTED:
            self.listed[lane].add(time, _event(record, action, time))

    def _tally(self, kind: str, tallies: dict[str, Tally], name: str) -> Tally:
        return tallies.setdefault(self._names[kind].get(name), Tally())


_HIDDEN = {"action", "explanation", "message", "penalty", "prev", "seq", "signal", "stream", "subject", "time", "user"}


def _event(record: Members, action: str, time: str) -> Event:
    what = _string(record.get("explanation") or record.get("message"), _MOST_WORDS)
    if not what:
        pairs = ((name, value) for name, value in record.items() if name not in _HIDDEN and value is not None)
        what = ", ".join(f"{name}: {_words(value)}" for name, value in pairs)[:_MOST_WORDS]
    if penalty := _string(record.get("penalty")):
        what = f"{what}; rejected ({penalty})"
    subject = _string(record.get("subject")) or _string(record.get("user"))
    return Event(time, _string(record.get("signal")) or action, what, subject)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _outcome(status: int) -> str:
    """Return the outcome of a request; a response that was never sent has no status."""
    if not status or status >= _SERVER_ERROR:
        return FAILED
    return REJECTED if status >= _CLIENT_ERROR else ACCEPTED


def _caller(record: Members) -> Caller:
    if client := _string(record.get("client")):
        return Caller("client", client)
    if principal := _string(record.get("principal")):
        return Caller("principal", principal)
    return Caller("network", _string(record.get("network")) or "unknown")


def _limit_in(reason: str, code: str) -> str:
    """Return the exceeded limit, without the caller and the penalty."""
    limit = reason.partition(" is over ")[2].partition(";")[0]
    return limit or next((name for part, name in _OTHER_LIMITS.items() if part in reason), code)


def _string(value: Any, most: int = _MOST) -> str:
    return "" if value is None else str(value)[:most]


def _integer(value: Any) -> int:
    """Return a count of a record; a log that was tampered with may contain any value."""
    return value if isinstance(value, int) and 0 <= value <= LARGEST else 0
