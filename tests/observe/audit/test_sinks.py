"""Checkpoints reach every kind of sink, off the request path, and wait for one that is down."""

from __future__ import annotations

import logging
import os
import re
import resource
import socket
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path

import pytest

from audit_logs import Site, append
from flask_secure_ml.config.audit import sink_address
from flask_secure_ml.observe.audit.keys import load_verification_key
from flask_secure_ml.observe.audit.sinks import WAITING, Delivery, one_line, open_sink
from flask_secure_ml.observe.audit.verify_index import outside_checkpoints
from flask_secure_ml.testing import FakeClock
from http_servers import QuietHandler, in_thread

NOTE = "tests/audit\n4\nAAAA=\n\n\u2014 tests/audit AAAA\n"
SYSLOG = re.compile(r"<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ flask-secure-ml \d+ checkpoint - \ufeff(.*)")


def test_file(tmp_path: Path, clock: FakeClock) -> None:
    """Is appended to."""
    sink = open_sink(sink_address(f"file:{tmp_path}/out"), clock)
    sink.send(NOTE)
    sink.send(NOTE)
    assert (tmp_path / "out").read_text() == f"{NOTE}\n" * 2


def test_a_file_that_may_not_grow(tmp_path: Path, clock: FakeClock) -> None:
    """It has no part of a checkpoint that was not accepted, as on a full disk."""
    sink = open_sink(sink_address(f"file:{tmp_path}/out"), clock)
    sink.send(NOTE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "out").stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            sink.send(NOTE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "out").read_text() == f"{NOTE}\n"
    sink.send(NOTE)
    assert (tmp_path / "out").read_text() == f"{NOTE}\n" * 2


def test_a_pipe_without_a_reader(tmp_path: Path, clock: FakeClock) -> None:
    """It does not block the other sinks; the checkpoint arrives when there is a reader."""
    os.mkfifo(tmp_path / "pipe")
    sink = open_sink(sink_address(f"file:{tmp_path}/pipe"), clock)
    with pytest.raises(OSError, match="No such device"):
        sink.send(NOTE)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    sink.send(NOTE)
    assert os.read(reader, 65_536).decode() == f"{NOTE}\n"
    os.close(reader)


def test_stdout(capsys: pytest.CaptureFixture[str], clock: FakeClock) -> None:
    """Is written at once."""
    open_sink(sink_address("stdout"), clock).send(NOTE)
    assert capsys.readouterr().out == f"{NOTE}\n"


def test_syslog_over_udp(clock: FakeClock) -> None:
    """RFC 5424 in one datagram (RFC 5426)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        open_sink(sink_address(f"syslog+udp://127.0.0.1:{server.getsockname()[1]}"), clock).send(NOTE)
        found = SYSLOG.fullmatch(server.recv(65536).decode())
    assert found is not None
    assert found[1] == one_line(NOTE)


def test_syslog_over_tcp(clock: FakeClock) -> None:
    """RFC 5424 with the length before it (RFC 6587)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_sink(sink_address(f"syslog+tcp://127.0.0.1:{server.getsockname()[1]}"), clock).send(NOTE)
        channel, _ = server.accept()
        with channel:
            channel.settimeout(10)
            length, _, message = b"".join(iter(lambda: channel.recv(65536), b"")).partition(b" ")
    assert int(length) == len(message)
    assert SYSLOG.fullmatch(message.decode())


def test_syslog_over_a_unix_socket(tmp_path: Path, clock: FakeClock) -> None:
    """RFC 5424 in one datagram."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"{tmp_path}/log")
        server.settimeout(10)
        open_sink(sink_address(f"syslog+unix:{tmp_path}/log"), clock).send(NOTE)
        assert SYSLOG.fullmatch(server.recv(65536).decode())


@pytest.fixture
def witness() -> Iterator[tuple[str, list[bytes], list[int]]]:
    """Yield the URL of a server, the bodies that it got, and the statuses that it responds with, the last for ever."""
    bodies: list[bytes] = []
    statuses = [200]

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.respond(statuses.pop(0) if len(statuses) > 1 else statuses[0])

    with in_thread(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/checkpoints", bodies, statuses


def test_https(witness: tuple[str, list[bytes], list[int]], clock: FakeClock) -> None:
    """The checkpoint is posted; an unsuccessful response is a failure."""
    url, bodies, statuses = witness
    sink = open_sink(sink_address(url), clock)
    sink.send(NOTE)
    statuses[:] = [500]
    with pytest.raises(OSError, match="status 500"):
        sink.send(NOTE)
    assert bodies == [NOTE.encode()] * 2


def test_https_to_a_private_network(clock: FakeClock) -> None:
    """Only where the setting says so; by the rules of every outgoing request."""
    with pytest.raises(OSError, match="no allowed IP address"):
        open_sink(sink_address("https://10.255.255.1/x"), clock).send(NOTE)
    assert sink_address("https+private://10.255.255.1/x").private_network


def test_a_sink_that_is_down(
    witness: tuple[str, list[bytes], list[int]], tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    """Others get theirs; the queue is bounded, and is sent when it is back; the outage has two log lines."""
    url, bodies, statuses = witness
    statuses[:] = [500]
    delivery = Delivery([sink_address(url), sink_address(f"file:{tmp_path}/out")], clock)
    for number in range(WAITING + 5):
        delivery.send(f"note {number}")
    assert (tmp_path / "out").read_text().count("note") == WAITING + 5
    bodies.clear()
    statuses[:] = [200]
    with caplog.at_level(logging.WARNING):
        delivery.send("last")
    assert bodies == [*(f"note {number}".encode() for number in range(6, WAITING + 5)), b"last"]
    assert [each.getMessage() for each in caplog.records] == [
        "the sink https of audit checkpoints is down: its server responded with status 500",
        "the sink https of audit checkpoints works again",
    ]


def test_a_slow_sink(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is sent in parts, so that the next heartbeats of the process are not missing."""
    sent: list[str] = []

    class Slow:
        down = True

        def send(self, note: str) -> None:
            if self.down:
                raise OSError("its server is down")
            clock.advance(1.9)
            sent.append(note)

    monkeypatch.setattr("flask_secure_ml.observe.audit.sinks.open_sink", lambda _address, _clock: Slow())
    delivery = Delivery([sink_address("https://a.example"), sink_address("https://b.example")], clock)
    for number in range(50):
        delivery.send(f"note {number}")
    monkeypatch.setattr(Slow, "down", False)
    rounds = 0
    while len(sent) < 2 * (50 + rounds):
        began = clock.monotonic()
        delivery.send(f"note {50 + rounds}")
        rounds += 1
        assert clock.monotonic() - began < 2 * 12
    assert sorted(set(sent)) == sorted(f"note {number}" for number in range(50 + rounds))


def test_what_a_sink_has_verifies(tmp_path: Path, clock: FakeClock) -> None:
    """From the app to the witness and back."""
    site = Site(tmp_path, clock)
    writer = site.writer()
    append([writer], 3, clock)
    writer.checkpoint()
    key = load_verification_key(site.key_file)
    (found,) = outside_checkpoints(site.outside.read_text(), key)
    assert found is not None
    assert found.size == 1
    assert site.verify().covered == 1
