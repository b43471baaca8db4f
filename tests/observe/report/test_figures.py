"""The figures of a report equal those that are counted from the lines of the log in the plainest way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_logs import Site
from flask_secure_ml.observe.audit.reading import Filters
from flask_secure_ml.observe.audit.stream import STREAMS
from flask_secure_ml.observe.report.bounded import ACCURACY, OTHER, Percentiles
from flask_secure_ml.observe.report.figures import LANES, Caller, Figures
from flask_secure_ml.testing import FakeClock
from report_logs import begin_writer, figures_from, figures_of, lines_of_site, outcome, site_with

DAY = 86_400.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_with(tmp_path_factory.mktemp("site"), FakeClock(), 3000, DAY)


@pytest.fixture(scope="module")
def figures(site: Site) -> Figures:
    return figures_of(site)


@pytest.fixture(scope="module")
def records(site: Site) -> list[dict[str, Any]]:
    return list(lines_of_site(site))


@pytest.fixture(scope="module")
def requests(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in records if each["action"] == "request"]


def caller_of(record: dict[str, Any]) -> Caller:
    if "client" in record:
        return Caller("client", record["client"])
    return Caller("network", record["network"])


def assert_percentiles(found: Percentiles, values: list[int]) -> None:
    assert found.count == len(values)
    values = sorted(values)
    for share in (0.5, 0.95, 0.99):
        exact = values[math.ceil(share * len(values)) - 1]
        estimate = found.at(share)
        assert estimate is not None
        assert abs(estimate - exact) <= ACCURACY * exact


def test_totals(figures: Figures, records: list[dict[str, Any]], requests: list[dict[str, Any]]) -> None:
    """Records, requests, outcomes, rows and percentiles."""
    assert (figures.records, figures.requests) == (len(records), len(requests))
    assert len(requests) == 3000
    assert figures.outcomes == Counter(map(outcome, requests))
    accepted = [each for each in requests if each["status"] < 400]
    assert figures.rows == sum(each["rows"] for each in accepted)
    assert_percentiles(figures.latency, [each["duration_us"] for each in accepted])
    assert figures.codes == Counter((each["code"], each["status"]) for each in requests if each["code"])
    assert (figures.skipped.lines, figures.skipped.torn, figures.lost) == (0, 0, 0)


@pytest.mark.slow
def test_intervals(figures: Figures, records: list[dict[str, Any]], requests: list[dict[str, Any]]) -> None:
    """Each count of each quarter of an hour, by the strings of the timestamps."""
    assert figures.timeline.width == 900

    def quarter(record: dict[str, Any]) -> str:
        return f"{record['time'][:14]}{int(record['time'][14:16]) // 15 * 15:02d}"

    from flask_secure_ml.observe.report.timeline import written

    kinds: dict[str, tuple[Callable[[dict[str, Any]], Any], list[dict[str, Any]]]] = {
        "outcomes": (outcome, requests),
        "codes": (lambda each: each["code"], [each for each in requests if each["code"]]),
        "models": (lambda each: each["model"], [each for each in requests if "model" in each]),
    }
    for name, (key, wanted) in kinds.items():
        exact = Counter((quarter(each), key(each)) for each in wanted)
        found = {
            (written(second).replace(" ", "T"), inner): count
            for second, interval in figures.timeline
            for inner, count in getattr(interval, name).items()
        }
        assert found == exact, name
    for second, interval in figures.timeline:
        values = [
            each["duration_us"]
            for each in requests
            if each["status"] < 400 and quarter(each) == written(second).replace(" ", "T")
        ]
        assert interval.latency.count == len(values)
        if values:
            assert_percentiles(interval.latency, values)


def test_clients(figures: Figures, requests: list[dict[str, Any]]) -> None:
    """Requests, rejections, rows and limits of each client; anonymous callers are networks."""
    asked = Counter(map(caller_of, requests))
    rejected = Counter(caller_of(each) for each in requests if 400 <= each["status"] < 500)
    rows: Counter[Caller] = Counter()
    for each in requests:
        if each["status"] < 400:
            rows[caller_of(each)] += each["rows"]
    for top, exact in ((figures.by_requests, asked), (figures.by_rejections, rejected), (figures.by_rows, rows)):
        assert len(top) == len(exact)
        assert {key: top.bounds(key) for key in exact} == {key: (count, count) for key, count in exact.items()}
        assert top.greatest(1)[0] == exact.most_common(1)[0][0]
    limited = Counter(caller_of(each) for each in requests if each["status"] == 429)
    limit = "600 requests in 60 s"
    assert {key: figures.by_limit.bounds((key, limit))[0] for key in limited} == limited
    assert len(figures.by_limit) == len(limited)


@pytest.mark.parametrize("kind", ["endpoint", "model", "plan"])
def test_tallies(figures: Figures, requests: list[dict[str, Any]], kind: str) -> None:
    """The same numbers by endpoint, by model and by plan."""
    tallies = getattr(figures, f"{kind}s")
    assert set(tallies) == {each[kind] for each in requests if kind in each}
    for name, tally in tallies.items():
        mine = [each for each in requests if each.get(kind) == name]
        outcomes = Counter(map(outcome, mine))
        assert (tally.requests, tally.rejected, tally.failed) == (len(mine), outcomes["rejected"], outcomes["failed"])
        assert tally.limited == sum(each["status"] == 429 for each in mine)
        assert tally.rows == sum(each["rows"] for each in mine if each["status"] < 400)
        assert_percentiles(tally.latency, [each["duration_us"] for each in mine if each["status"] < 400])


def test_events(figures: Figures, records: list[dict[str, Any]]) -> None:
    """Anomalies, blocks, outages, workers and all others, and the newest of each."""
    actions = Counter(each["action"] for each in records)
    expected = dict.fromkeys(LANES, 0) | {
        "Anomalies": actions["anomaly"],
        "Blocks": actions["block"],
        "Outages": actions["outage"],
        "Starts": 2,
        "Stops": 1,
        "Credentials": actions["key_created"] + actions["revoked"],
        "Other": actions["model_replaced"],
    }
    assert figures.events == expected
    assert actions["anomaly"] > 10
    assert figures.signals == Counter(each["signal"] for each in records if each["action"] == "anomaly")
    exact = sorted((each["time"] for each in records if each["action"] == "anomaly"), reverse=True)[:10]
    assert [each.time for each in figures.listed["Anomalies"]] == exact
    created = next(iter(figures.listed["Credentials"]))
    assert created.subject == "ada"


def test_workers(figures: Figures, records: list[dict[str, Any]]) -> None:
    """One of two has a stop record; both have the records that their streams have."""
    assert (figures.streams, figures.running) == (2, 1)
    assert figures.origin == "tests/audit"
    found = {each.stream: (each.records, bool(each.stopped), each.version) for each in figures.workers}
    counts = Counter(each["stream"] for each in records)
    stopped = {each["stream"] for each in records if each["action"] == "stop"}
    assert found == {stream: (count, stream in stopped, "0.1.0") for stream, count in counts.items()}


@pytest.mark.parametrize(
    ("since", "until"), [("2027-01-15T12", ""), ("", "2027-01-15T20:30"), ("2027-01-15T12", "2027-01-15T13")]
)
def test_a_part_of_the_time(site: Site, records: list[dict[str, Any]], since: str, until: str) -> None:
    """Only records between the two instants, and only workers with records there."""
    figures = figures_of(site, since, until)
    wanted = [each for each in records if (not since or each["time"] >= since) and (not until or each["time"] < until)]
    assert 0 < len(wanted) < len(records)
    assert figures.records == len(wanted)
    assert figures.outcomes == dict.fromkeys(figures.outcomes, 0) | Counter(
        outcome(each) for each in wanted if each["action"] == "request"
    )
    empty = figures_of(site, "2030", "2031")
    assert (empty.records, empty.streams) == (0, 0)


def test_a_range_that_ends_before_it_begins() -> None:
    """It is a mistake, not an empty report."""
    with pytest.raises(ValueError, match="must be later than --since"):
        Figures(Filters({}, "2026-05-02", "2026-05-01"))


def test_broken_lines_are_counted(tmp_path: Path, clock: FakeClock) -> None:
    """A torn last line, lines that are not records, and one that is too long."""
    site = Site(tmp_path, clock)
    for _ in range(2):
        begin_writer(site).append({"action": "request", "status": 200})
    one, other = sorted((site.folder / STREAMS).glob("*.jsonl"))
    one.write_bytes(one.read_bytes()[:-20])
    other.write_bytes(other.read_bytes() + b"no record\n\n" + b"x" * 70_000 + b"\n{")
    figures = figures_of(site)
    assert (figures.requests, figures.skipped.torn) == (1, 2)
    assert figures.skipped.lines == 4


def test_records_that_were_lost(tmp_path: Path, clock: FakeClock) -> None:
    """Their number is reported by records."""
    site = Site(tmp_path, clock)
    writer = begin_writer(site)
    writer.lost = 7
    writer.append({"action": "request", "status": 200})
    figures = figures_of(site)
    assert (figures.lost, figures.events["Lost records"]) == (7, 1)


def test_progress(site: Site) -> None:
    """It ends at the size of all files."""
    read: list[int] = []
    Figures(Filters()).read(site.folder, read.append)
    assert sum(read) == sum(path.stat().st_size for path in (site.folder / STREAMS).iterdir())


WRONG: list[dict[str, Any]] = [
    {"status": "200"},
    {"status": None},
    {"status": 10**15},
    {"status": -200},
    {"status": [200]},
    {"rows": -5},
    {"rows": 2**70},
    {"rows": 1.5},
    {"duration_us": "fast"},
    {"duration_us": -1},
    {"duration_us": 2**60},
    {"client": ["a"], "principal": {"b": 1}},
    {"code": 7, "status": 400},
    {"endpoint": {"x": []}},
    {"model": 3},
    {"plan": False},
    {"reason": 9, "status": 429},
    {"action": None},
    {"action": ["request"]},
    {"action": "anomaly", "signal": 3, "subject": [], "explanation": {}},
    {"action": "gap", "lost": "many"},
    {"action": "start", "pid": "x", "version": 3, "origin": []},
    {"action": "configuration", "changed": {"a": [1]}},
    {"action": "key_", "x": [[[1]]]},
]


@pytest.mark.parametrize("record", WRONG, ids=str)
def test_members_of_any_type(record: dict[str, Any]) -> None:
    """A log that was tampered with has anything in it: it is counted, and nothing fails."""
    figures = figures_from(record, {})
    assert figures.records == 2
    assert figures.rows == 0
    assert figures.outcomes["accepted"] >= 1
    assert figures.latency.count == 0


@pytest.mark.parametrize("time", [None, 7, "", "yesterday", "2026-05-01", ["2026-05-01T12:00:00.000000Z"]])
def test_records_without_a_time(time: object) -> None:
    """They cannot be put anywhere, and are counted as lines that are no records."""
    figures = figures_from({"time": time}, {})
    assert (figures.records, figures.skipped.lines) == (1, 1)


@pytest.mark.slow
def test_memory_is_bounded() -> None:
    """Invented names do not fill memory: excess names are grouped, and long ones are truncated."""
    figures = figures_from(
        *(
            {
                "client": f"{number:06d}" + "x" * 5000,
                "code": f"c{number}",
                "status": 400 + number % 200,
                "endpoint": f"e{number}",
                "model": f"m{number}",
                "plan": f"p{number}",
            }
            for number in range(20_000)
        ),
        *({"action": "anomaly", "signal": f"s{number}", "explanation": "x" * 5000} for number in range(500)),
    )
    assert figures.requests == 20_000
    assert len(figures.by_requests) <= 8192
    assert max(len(str(each)) for each in figures.by_requests.greatest(10)) < 300
    for tallies in (figures.endpoints, figures.models, figures.plans, figures.signals):
        assert len(tallies) == 65
        assert OTHER in tallies
    assert len({code for code, _ in figures.codes}) == 65
    (interval,) = [each for _, each in figures.timeline if each.codes]
    assert len(interval.codes) == len(interval.models) == 65
    assert all(len(each.what) <= 1024 for each in figures.listed["Anomalies"])


def test_what_is_accepted() -> None:
    """Redirects and switched protocols are; what was never sent is not."""
    figures = figures_from(*({"status": each} for each in (101, 204, 304, 404, 429, 500, 503, 0)))
    assert figures.outcomes == {"accepted": 3, "rejected": 2, "failed": 3}


def test_the_end_of_a_stream_is_no_request() -> None:
    """A streamed response has two records and is one request."""
    figures = figures_from(
        {"duration_us": 5000}, {"action": "stream_end", "duration_us": 9_000_000}, {"action": "segment"}
    )
    assert (figures.requests, figures.latency.count, sum(figures.events.values())) == (1, 1, 0)


def test_a_command_is_no_worker() -> None:
    """It writes a stream for its one event, which is counted."""
    figures = figures_from(
        {"action": "start", "command": True, "pid": 1}, {"action": "key_created", "key": "a"}, {"action": "stop"}
    )
    assert (figures.streams, figures.running, list(figures.workers)) == (0, 0, [])
    assert {lane: number for lane, number in figures.events.items() if number} == {"Credentials": 1}


@pytest.mark.parametrize(
    ("reason", "limit"),
    [
        (
            "api_key:a is over 600 requests in 60 s, 9 rows in 1 s; penalty 3 for requests before Retry-After",
            "600 requests in 60 s, 9 rows in 1 s",
        ),
        ("api_key:a has 4 requests in flight", "requests in flight"),
        ("api_key:a keeps exceeding a limit; penalty 3 for requests before Retry-After", "penalty"),
        ("192.0.2.1 is blocked: no API key has the id x", "invalid credentials"),
        ("192.0.2.1 presented too many invalid credentials: no API key has the id x", "invalid credentials"),
        ("too many wrong secrets for the API key x: wrong secret", "invalid credentials"),
        ("unusual usage (scanning); rejected for 3600 s", "unusual usage"),
        ("something else", "rate_limited"),
    ],
)
def test_which_limit(reason: str, limit: str) -> None:
    """As the reason has it, without who was over it and the penalty."""
    figures = figures_from({"status": 429, "code": "rate_limited", "client": "a", "reason": reason})
    assert figures.by_limit.greatest(1) == [(Caller("client", "a"), limit)]
