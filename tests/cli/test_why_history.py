"""``flask secure-ml why`` with both logs: earlier and later requests, repeated ids, and remedial commands."""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import click
import pytest
from click.testing import Result
from flask import Flask, Response

from flask_secure_ml import SecureML, current_exchange, protect, public
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.cli.why_in_words import commands_of
from flask_secure_ml.observe.audit.keys import make_keys
from flask_secure_ml.observe.trail import MOST_EVENTS, MOST_RECORDS, Request, Trail
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import FakeClock
from support import HTTPS, MakeApp, caller

Run = Callable[..., Result]
AN_ID = "0123456789abcdef"


class Site:
    """An app with both logs."""

    def __init__(self, folder: Path, make: MakeApp, clock: FakeClock, **settings: Any) -> None:
        self.clock = clock
        self.log, self.audit = folder / "request.log", folder / "audit"
        make_keys(self.audit, folder / "verification.key", "tests/why")
        chosen: dict[str, Any] = {
            "REQUEST_LOG": str(self.log),
            "AUDIT_LOG": str(self.audit),
            "TRUSTED_PROXIES": ["127.0.0.0/8"],
            "PLANS": {"default": {"requests": ["50/hour"]}},
            "FAILED_AUTH_LIMITS": ["40/minute"],
            "ANOMALIES": {"rejections": "event", "scanning": "event"},
        }
        self.app = make(**(chosen | settings), parts={"sink": None})

        @self.app.get("/predict")
        @protect
        def predict() -> str:
            current_exchange.used_model("digits", "3")
            return "ok"

        @self.app.get("/stream")
        @public
        def stream() -> Response:
            return Response(iter(["a", "b"]))

    def call(
        self, path: str = "/predict", name: str = "ada", address: str = "203.0.113.7", request_id: str = ""
    ) -> str:
        """Send a request by a trusted proxy; return its id."""
        headers = caller(name) | {"X-Forwarded-For": address} | ({"X-Request-ID": request_id} if request_id else {})
        place = {"REMOTE_ADDR": "127.0.0.1"}
        headers["X-Forwarded-Proto"] = "https"
        response = self.app.test_client().get(
            path, base_url=HTTPS, headers=headers, environ_overrides=place, buffered=True
        )
        self.clock.advance(1)
        return response.headers["X-Request-ID"]

    def why(self, *words: str) -> dict[str, list[str]]:
        """Return the sentences by their label."""
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        found: dict[str, list[str]] = {}
        for line in filter(None, result.output.splitlines()):
            assert line.isascii()
            assert line.isprintable()
            label, _, text = line.partition(":")
            found.setdefault(label, []).append(text.strip())
        return found

    def run(self, *words: str) -> Result:
        return self.app.test_cli_runner().invoke(secure_ml, ["why", *words])


@pytest.fixture
def site(tmp_path: Path, protected: MakeApp, clock: FakeClock) -> Iterator[Site]:
    made = Site(tmp_path, protected, clock)
    yield made
    audit = state_of(made.app).audit
    assert audit is not None
    audit.close()


def test_credential_stuffing(site: Site) -> None:
    """The position among the rejected requests, those before and after, and the block that ended them."""
    site.call(name="eve", address="203.0.113.8")
    ids = [site.call(name="bad") for _ in range(42)]
    site.call(name="ada")
    site.clock.advance(700)
    late = site.call(name="bad")
    found = site.why(ids[40])
    assert found["Who"] == ["an anonymous caller, from 203.0.113.7"]
    assert found["Result"][0].startswith("429 rate_limited after ")
    assert found["Why"] == ["203.0.113.7 presented too many invalid credentials: a bad caller"]
    assert found["Rule"] == ["any caller"]
    assert found["History"] == ["the 41st rejected request of this client in 10 minutes"]
    assert found["Before"] == ["40 requests, 40 rejected (40 not_authenticated) in the 10 minutes before"]
    assert found["After"] == ["2 requests, 1 rejected (1 rate_limited) in the 10 minutes after"]
    assert found["Others"] == ["valid credentials from the same network: test:ada (1)"]
    (block,) = [each for each in found["Event"] if " block: " in each]
    assert "network 203.0.113.7 blocked for 60 seconds" in block
    (anomaly,) = [each for each in found["Event"] if " anomaly rejections: " in each]
    assert "30 of 30" in anomaly or "reject" in anomaly
    # The block ends by itself, and the caller that was let in has no API key.
    assert "Action" not in found
    # The other caller is no part of it, and what is longer ago than the window is none either.
    assert site.why(late)["Before"] == ["no other request in the 10 minutes before"]
    assert site.why(late, "--minutes", "60")["Before"][0].startswith("43 requests, 42 rejected (40 not_")


@pytest.mark.parametrize(
    ("action", "members", "words"),
    [
        ("limits_cleared", {"user": "root"}, "limits_cleared: by root"),
        ("key_rotated", {"key": "a", "replaced_by": "b", "user": "root"}, "key_rotated: a, replaced by b, by root"),
        (
            "anomaly",
            {"signal": "rows", "explanation": "40 times", "penalty": "block"},
            "anomaly rows: 40 times, rejected by block",
        ),
    ],
)
def test_what_was_done_with_a_caller(site: Site, action: str, members: dict[str, str], words: str) -> None:
    """By which penalty, and by whom."""
    request_id = site.call()
    SecureML.audit_event(site.app, action, members | {"subject": "test:ada"})
    (event,) = site.why(request_id)["Event"]
    assert event.partition(" ")[2] == words


def test_a_principal(site: Site) -> None:
    """Counted by its id, whatever its network; the model and the limit are there."""
    ids = [site.call(address=f"203.0.113.{number}") for number in range(52)]
    found = site.why(ids[50])
    assert found["Who"] == ["test:ada, plan default, from 203.0.113.50"]
    assert found["Limit"] == ["requests-3600s, 0 left"]
    assert found["History"] == ["the 1st rejected request of this client in 10 minutes"]
    assert found["Before"] == ["50 requests, 0 rejected in the 10 minutes before"]
    assert found["After"] == ["1 request, 1 rejected (1 rate_limited) in the 10 minutes after"]
    assert [each.split("  ")[0] for each in found["Action"]] == [
        "flask secure-ml limits clear test:ada",
        "flask secure-ml revocations principal test:ada",
    ]
    assert site.why(ids[0])["Model"] == ["digits@3"]
    assert "History" not in site.why(ids[0])


@pytest.mark.parametrize("kept", ["log", "audit"])
def test_one_log_is_enough(site: Site, kept: str) -> None:
    """Data of the missing log are omitted, and the rest is shown."""
    ids = [site.call(name="bad", address="2001:db8::1:2") for _ in range(3)]
    if kept == "log":
        site.app.config["SECURE_ML_AUDIT_LOG"] = "off"
        for path in (site.audit / "streams").iterdir():
            path.unlink()
    else:
        site.log.unlink()
    found = site.why(ids[2])
    assert found["History"] == ["the 3rd rejected request of this client in 10 minutes"]
    assert found["Why"] == ["a bad caller"]
    assert found["Result"][0].startswith("401 not_authenticated after ")
    assert ("Rule" in found) is (kept == "audit")
    assert "2001:db8::" in found["Who"][0]


def test_an_ipv6_network(site: Site) -> None:
    """One subscriber has a /64, so its addresses are one client."""
    ids = [site.call(name="bad", address=f"2001:db8::{number}") for number in range(1, 4)]
    site.call(name="bad", address="2001:db8:0:1::1")
    assert site.why(ids[2])["History"] == ["the 3rd rejected request of this client in 10 minutes"]
    assert site.why(ids[2])["After"] == ["no other request in the 10 minutes after"]


def test_a_repeated_id(site: Site) -> None:
    """A trusted proxy assigns one id to several requests: each is shown with its own record."""
    site.call(request_id=AN_ID)
    site.clock.advance(60)
    site.call(name="bad", request_id=AN_ID)
    site.clock.advance(60)
    site.call("/nowhere", request_id=AN_ID)
    found = site.why(AN_ID)
    assert found["Note"] == ["3 requests have this id, set by a trusted proxy or a view"]
    assert [each.split(" ")[0] for each in found["Result"]] == ["200", "401", "404"]
    stories = json.loads(site.run(AN_ID, "--json").output)["requests"]
    assert [(each["log"]["status"], each["audit"]["status"]) for each in stories] == [
        (200, 200),
        (401, 401),
        (404, 404),
    ]
    assert [each["rejections"] for each in stories] == [None, 1, 1]


def test_a_stream_and_a_repeated_id(site: Site) -> None:
    """The end of a stream is shown with the stream."""
    site.call(request_id=AN_ID)
    site.call("/stream", request_id=AN_ID)
    first, second = json.loads(site.run(AN_ID, "--json").output)["requests"]
    assert (first["stream_ends"], len(second["stream_ends"])) == ([], 2)
    (line,) = site.why(AN_ID)["Stream"]
    assert line.startswith("ended normally, ")


def test_rotated_and_compressed(site: Site) -> None:
    """The history is that of all files."""
    for number in (3, 2, 1):
        site.call(name="bad")
        site.log.with_name(f"request.log.{number}.gz").write_bytes(gzip.compress(site.log.read_bytes()))
        site.log.write_bytes(b"")
    request_id = site.call(name="bad")
    assert site.why(request_id)["History"] == ["the 4th rejected request of this client in 10 minutes"]


def test_in_neither(site: Site) -> None:
    """The sentence names both logs."""
    site.call()
    result = site.run("no-such-id")
    assert result.exit_code == 1
    assert result.output == f"Error: request no-such-id is not in {site.log} or the audit log {site.audit}\n"


def test_a_log_that_cannot_be_read_beside_one_that_can(site: Site) -> None:
    """The readable part is shown, with a warning."""
    request_id = site.call(name="bad")
    site.log.with_name("request.log.1.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    result = site.run(request_id)
    assert result.exit_code == 0
    assert "Warning: " in result.output
    assert "request.log.1.gz could not be read (its compression is damaged" in result.output
    assert "History: the 1st rejected request" in result.output


def commands(request: Request) -> list[str]:
    return [command for command, _ in commands_of(request)]


CALLERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"principal": "api_key:4fGh2kLm9QrS", "code": "insufficient_scope"}, ["keys revoke 4fGh2kLm9QrS"]),
    ({"principal": "api_key:-rf", "code": "x"}, ["keys revoke -- -rf"]),
    (
        {"principal": "https://as.example#ada", "credential": "a-jti", "code": "abnormal_usage", "action": "request"},
        [
            "anomalies clear 'https://as.example#ada'",
            "revocations token --issuer=https://as.example a-jti",
            "revocations principal 'https://as.example#ada'",
        ],
    ),
    ({"principal": "mtls:CN=a; rm -rf /", "code": None}, ["revocations principal 'mtls:CN=a; rm -rf /'"]),
    ({"client": "203.0.113.7", "code": "not_found"}, []),
    ({"network": "203.0.113.7", "action": "request", "claimed": "4fGh2kLm9QrS"}, ["keys show 4fGh2kLm9QrS"]),
    ({"client": "2001:db8::1", "code": "abnormal_usage"}, ["anomalies clear 2001:db8::"]),
    (
        {"client": "203.0.113.7", "code": "rate_limited", "reason": "address:203.0.113.7 is over 5 requests in 60 s"},
        ["limits clear address:203.0.113.7"],
    ),
    ({"client": "203.0.113.7", "code": "rate_limited", "reason": "203.0.113.7 is blocked: wrong secret"}, []),
]


@pytest.mark.parametrize(("members", "expected"), CALLERS)
def test_commands(members: dict[str, Any], expected: list[str]) -> None:
    """Each is one command with one argument, whatever the name of the caller contains."""
    request = Request(None, members) if "action" in members else Request(members)
    assert commands(request) == [f"flask secure-ml {each}" for each in expected]


@pytest.mark.parametrize(
    "command", sorted({each for members, _ in CALLERS for each in commands(Request(members, members))})
)
def test_commands_exist(command: str) -> None:
    """Their words are parsed as the shell hands them over."""
    _, _, group, name, *words = shlex.split(command)
    found = secure_ml.get_command(click.Context(secure_ml), group)
    assert isinstance(found, click.Group)
    made = found.get_command(click.Context(secure_ml), name)
    if made is None and (group, name) == ("anomalies", "clear"):
        pytest.skip("there is no such command yet")
    assert made is not None
    made.make_context(name, words)


def trail_of(*lines: dict[str, Any] | bytes, progress: Callable[[int], object] = lambda _bytes: None) -> Trail:
    data = b"".join(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in lines)

    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        yield BytesIO(data)

    return Trail({"log": opened}, None, progress)


def line(second: int, **members: Any) -> dict[str, Any]:
    return {"time": f"2026-03-01T12:00:{second:02}.000+00:00", "request_id": AN_ID, "client": "192.0.2.1"} | members


def test_bounded() -> None:
    """However many lines have one id, and however many events there are."""
    lines = [line(1, status=401, ms=1) for _ in range(MOST_RECORDS + 7)]
    messages = [line(1, logger="flask_secure_ml.x", request_id=str(each), message="192.0.2.1") for each in range(50)]
    read: list[int] = []
    trail = trail_of(*lines, *messages, progress=read.append)
    found = trail.find(AN_ID)
    assert (len(found.requests), found.left_out) == (MOST_RECORDS, 7)
    around = trail.around(found.requests[0], 60)
    assert around is not None
    assert len(around.events) == MOST_EVENTS
    assert sum(read) == 2 * sum(len(json.dumps(each)) + 1 for each in (*lines, *messages))


HOSTILE: list[dict[str, Any] | bytes] = [
    line(1, status="200"),
    line(1, status=401, time=None, client=None, ms="soon", pointers=7, principal=["x"]),
    line(1, status=True, time="2026-03-01T12:00:00", code={}, reason=[], ms=None),
    {"request_id": AN_ID, "status": 10**30, "time": "9999-99-99T00:00:00+00:00"},
    {"request_id": AN_ID, "logger": None, "message": {"a": 1}},
    {"request_id": AN_ID, "event": "stream_end", "time": 7, "reason": {}},
    {"request_id": AN_ID, "event": ["stream_end"], "action": {"a": []}},
    line(1, event={"name": "stream_end"}),
    b'{"request_id":"' + AN_ID.encode() + b'",' + b'"a":[' * 5_000 + b"\n",
    b'{"request_id":"' + AN_ID.encode() + b'","status":' + b"9" * 5_000 + b"}\n",
    b"{" + AN_ID.encode() + b"\xff\xfe\n",
]


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_hostile_lines(site: Site, index: int) -> None:
    """With any other content in the file, there is no traceback and the request is shown."""
    site.call(name="bad", request_id=AN_ID)
    each = HOSTILE[index]
    with site.log.open("ab") as file:
        file.write(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n")
    found = site.why(AN_ID)
    assert any(result.startswith("401 not_authenticated") for result in found["Result"])
    assert site.run(AN_ID, "--json").exit_code == 0


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"), (23, "23rd")],
)
def test_ordinals(protected: MakeApp, tmp_path: Path, count: int, expected: str) -> None:
    """As they are written."""
    lines = [line(1, status=404, request_id=f"r{number}") for number in range(count - 1)]
    log = tmp_path / "log"
    log.write_text("\n".join(map(json.dumps, [*lines, line(2, status=404)])))
    app: Flask = protected()
    result = app.test_cli_runner().invoke(secure_ml, ["why", AN_ID, "--log", str(log)])
    assert f"the {expected} rejected request" in result.output
