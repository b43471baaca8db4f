"""The trail of a request in the request log and the audit log, and the activity of the same client around it.

The logs are read line by line, and a line is parsed only if it contains the search bytes. Only the lines of the
request, sums and a few events are kept in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ..principal import network_of
from .audit.reading import opened as open_segment
from .audit.records import lines_of, parse, split_line
from .audit.stream import segment_files
from .request_log.reading import records_with

Members = dict[str, Any]
Progress = Callable[[int], object]
OpenLog = Callable[[], AbstractContextManager[IO[bytes]]]

MOST_RECORDS = 200
"""Maximum number of lines of one id that are kept; further ones are counted."""

MOST_EVENTS = 20
_ERRORS = 400
_SERVER_ERRORS = 500
_API_KEY = "api_key:"
_UNKNOWN = "unknown"
_BETWEEN_LOGS = 5.0
"""Maximum number of seconds between the two records of one response."""


@dataclass(frozen=True)
class Subject:
    """The subject whose requests are counted: a principal, or the network of an anonymous caller."""

    name: str
    is_principal: bool

    def made(self, record: Members) -> bool:
        """Return True if a line is a request of this subject."""
        if self.is_principal:
            return record.get("principal") == self.name
        return _network(record) == self.name


@dataclass
class Sum:
    """Requests within a part of the window.

    :param rejected: the number of requests with a 4xx.
    :param failed: the number of requests with a 5xx.
    :param codes: the number of both by error code, or by status without a code.
    """

    requests: int = 0
    rejected: int = 0
    failed: int = 0
    codes: Counter[str] = field(default_factory=Counter)

    def add(self, record: Members) -> None:
        """Count a request."""
        self.requests += 1
        self.rejected += is_rejected(record)
        self.failed += is_failed(record)
        if is_rejected(record) or is_failed(record):
            self.codes[str(record.get("code") or record.get("status"))] += 1


@dataclass
class Around:
    """The activity of the same subject around a request.

    :param before: the requests before this one.
    :param callers: the valid credentials of the same network, for a request without one.
    :param events: events of both logs, in chronological order.
    """

    before: Sum = field(default_factory=Sum)
    after: Sum = field(default_factory=Sum)
    callers: Counter[str] = field(default_factory=Counter)
    events: list[Members] = field(default_factory=list)


@dataclass
class Request:
    """One response in both logs.

    :param log: the line of the request log.
    :param audit: the record of the audit log.
    :param ends: the ends of its stream.
    """

    log: Members | None = None
    audit: Members | None = None
    ends: list[Members] = field(default_factory=list)

    def member(self, name: str, of_audit: str = "") -> Any:
        """Return a member of the line or, if it is missing there, of the record.

        :param of_audit: its name in the record, if it differs.
        """
        found = (self.log or {}).get(name)
        return (self.audit or {}).get(of_audit or name) if found is None else found

    @property
    def main(self) -> Members:
        """The line, or the record if there is no line."""
        return self.log or self.audit or {}

    @property
    def time(self) -> float | None:
        """The start of the response, in seconds since the epoch."""
        return instant_of(self.audit) if self.log is None else _response_of(self.log)

    @property
    def subject(self) -> Subject | None:
        """The subject of the request; None for a Unix socket."""
        principal = self.main.get("principal")
        if isinstance(principal, str) and principal:
            return Subject(principal, is_principal=True)
        network = _network(self.main)
        return Subject(network, is_principal=False) if network else None


@dataclass
class Found:
    """The results for an id, which a trusted proxy may give to several requests.

    :param messages: messages of the app's log with this id.
    :param left_out: the number of lines that are not kept.
    """

    requests: list[Request] = field(default_factory=list)
    messages: list[Members] = field(default_factory=list)
    left_out: int = 0


class Trail:
    """Reads both logs.

    :param logs: opens each file of the request log, by its name.
    :param audit: the directory of the audit log; None without one.
    :param progress: called with the number of bytes read.
    """

    def __init__(self, logs: Mapping[str, OpenLog], audit: Path | None, progress: Progress) -> None:
        self._logs = logs
        self._audit = audit
        self._progress = progress
        self.problems: dict[str, str] = {}
        """Files that could not be read, with the reason."""

    def find(self, request_id: str) -> Found:
        """Return the lines and records of a request."""
        found, ends = Found(), list[Members]()
        log, audit = list[Members](), list[Members]()
        for records, source in ((log, self._lines), (audit, self._records)):
            for record in source(needle_of(request_id, ascii_only=source == self._lines)):
                if record.get("request_id") != request_id:
                    continue
                if len(log) + len(audit) + len(ends) + len(found.messages) >= MOST_RECORDS:
                    found.left_out += 1
                elif "logger" in record:
                    found.messages.append(record)
                elif "stream_end" in (record.get("event"), record.get("action")):
                    ends.append(record)
                elif "status" in record:
                    records.append(record)
        found.requests = _joined(log, audit)
        for end in ends:
            _attach(end, found.requests)
        return found

    def around(self, request: Request, window: float) -> Around | None:
        """Return the activity of the same subject around a request; None if time or subject is unknown."""
        subject, at = request.subject, instant_of(request.main)
        if subject is None or at is None:
            return None
        found = Around()
        # Both logs contain the same requests, so only the log of the line is read for sums.
        for is_counted, source in ((request.log is not None, self._lines), (request.log is None, self._records)):
            for record in source(_needle(subject, ascii_only=source == self._lines)):
                time = instant_of(record)
                if time is None or abs(time - at) > window:
                    continue
                if not _is_request(record):
                    _add_event(found, record)
                elif is_counted and not _is_same(record, request.main):
                    _count(found, record, subject, is_before=time <= at)
        found.events.sort(key=lambda event: str(event.get("time")))
        return found

    def _lines(self, needle: bytes) -> Iterator[Members]:
        """Yield the parsed lines of the request log with these bytes."""
        for name, opened in self._logs.items():
            try:
                with opened() as file:
                    yield from records_with(file, needle, self._progress)
            except OSError as error:
                self.problems[name] = error.strerror or str(error)

    def _records(self, needle: bytes) -> Iterator[Members]:
        """Yield the records of the audit log with these bytes."""
        if self._audit is None:
            return
        try:
            for _, _, path in segment_files(self._audit):
                with open_segment(path) as file:
                    yield from self._of_file(file, needle)
        except OSError as error:
            self.problems[str(error.filename or self._audit)] = error.strerror or str(error)

    def _of_file(self, file: Any, needle: bytes) -> Iterator[Members]:
        for line in lines_of(file, self._progress):
            if needle in line:
                try:
                    yield parse(split_line(line)[1])
                except ValueError:
                    # An incomplete or invalid record: "audit verify" reports it.
                    continue


def is_rejected(record: Members) -> bool:
    """Return True if a record has a 4xx status."""
    status = record.get("status")
    return isinstance(status, int) and _ERRORS <= status < _SERVER_ERRORS


def is_failed(record: Members) -> bool:
    """Return True if a record has a 5xx status."""
    status = record.get("status")
    return isinstance(status, int) and status >= _SERVER_ERRORS


def needle_of(value: str, *, ascii_only: bool) -> bytes:
    """Return the encoding of a string within a line: ASCII in the request log, UTF-8 in the audit log."""
    return json.dumps(value, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogatepass")


def instant_of(record: Members | None) -> float | None:
    """Return the time of a line in seconds since the epoch, or None."""
    try:
        found = datetime.fromisoformat((record or {})["time"])
        return found.timestamp() if found.tzinfo else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _response_of(line: Members) -> float | None:
    """Return the start time of the response in a line of the request log."""
    began, milliseconds = instant_of(line), line.get("ms")
    return began if began is None or not isinstance(milliseconds, (int, float)) else began + milliseconds / 1000


def _network(record: Members) -> str:
    # In the audit log, "client" is the name of a key's client.
    found = record.get("network" if "action" in record else "client")
    network = network_of(found) if isinstance(found, str) else _UNKNOWN
    return "" if network == _UNKNOWN else network


def _needle(subject: Subject, *, ascii_only: bool) -> bytes:
    if subject.is_principal:
        # Records of actions on a key contain only its id.
        return needle_of(subject.name.removeprefix(_API_KEY), ascii_only=ascii_only)
    # IPv6 addresses have several notations, so every line is parsed.
    return b"" if ":" in subject.name else subject.name.encode()


def _joined(log: list[Members], audit: list[Members]) -> list[Request]:
    """Return a request for each line, joined with its record, and for each remaining record."""
    left = list(audit)
    requests = []
    for line in log:
        at = _response_of(line)
        same = [each for each in left if each.get("status") == line.get("status") and _apart(each, at) < _BETWEEN_LOGS]
        record = min(same, key=lambda each: _apart(each, at), default=None)
        if record is not None:
            left.remove(record)
        requests.append(Request(line, record))
    requests += [Request(None, record) for record in left]
    return sorted(requests, key=lambda each: each.time or 0.0)


def _apart(record: Members, at: float | None) -> float:
    time = instant_of(record)
    return 0.0 if time is None or at is None else abs(time - at)


def _attach(end: Members, requests: list[Request]) -> None:
    """Add the end of a stream to the last earlier request of its endpoint."""
    time = instant_of(end) or 0.0
    of_route = [each for each in requests if each.member("endpoint") == end.get("endpoint")]
    earlier = [each for each in of_route if (instant_of(each.main) or 0.0) <= time]
    if found := (earlier or of_route)[-1:]:
        found[0].ends.append(end)


def _is_request(record: Members) -> bool:
    return "status" in record and "logger" not in record


def _is_same(record: Members, main: Members) -> bool:
    names = ("request_id", "time", "status", "endpoint")
    return all(record.get(name) == main.get(name) for name in names)


def _count(found: Around, record: Members, subject: Subject, *, is_before: bool) -> None:
    if "stream_end" in (record.get("event"), record.get("action")) or not subject.made(record):
        return
    (found.before if is_before else found.after).add(record)
    principal = record.get("principal")
    if not subject.is_principal and isinstance(principal, str):
        found.callers[principal] += 1


def _add_event(found: Around, record: Members) -> None:
    """Add an event: an audit record that is not a request, or a message of this package."""
    is_ours = "action" in record or str(record.get("logger")).startswith("flask_secure_ml")
    if is_ours and len(found.events) < MOST_EVENTS:
        found.events.append(record)
