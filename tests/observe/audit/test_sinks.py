"""Checkpoints reach every kind of sink, off the request path, and wait for one that is down."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from audit_logs import Site, append
from flask_secure_ml.config.audit import sink_address
from flask_secure_ml.observe.audit.keys import load_verification_key
from flask_secure_ml.observe.audit.sinks import WAITING, Delivery, one_line, open_sink
from flask_secure_ml.observe.audit.verify_index import outside_checkpoints
from flask_secure_ml.testing import FakeClock

NOTE = "tests/audit\n4\nAAAA=\n\n\u2014 tests/audit AAAA\n"
SYSLOG = re.compile(r"<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ flask-secure-ml \d+ checkpoint - \ufeff(.*)")


def test_file(tmp_path: Path) -> None:
    """Is appended to."""
    sink = open_sink(sink_address(f"file:{tmp_path}/out"))
    sink.send(NOTE)
    sink.send(NOTE)
    assert (tmp_path / "out").read_text() == f"{NOTE}\n" * 2


def test_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """Is written at once."""
    open_sink(sink_address("stdout")).send(NOTE)
    assert capsys.readouterr().out == f"{NOTE}\n"


def test_syslog_over_udp() -> None:
    """RFC 5424 in one datagram (RFC 5426)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        open_sink(sink_address(f"syslog+udp://127.0.0.1:{server.getsockname()[1]}")).send(NOTE)
        found = SYSLOG.fullmatch(server.recv(65536).decode())
    assert found is not None
    assert found[1] == one_line(NOTE)


def test_syslog_over_tcp() -> None:
    """RFC 5424 with the length before it (RFC 6587)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_sink(sink_address(f"syslog+tcp://127.0.0.1:{server.getsockname()[1]}")).send(NOTE)
        channel, _ = server.accept()
        with channel:
            channel.settimeout(10)
            length, _, message = b"".join(iter(lambda: channel.recv(65536), b"")).partition(b" ")
    assert int(length) == len(message)
    assert SYSLOG.fullmatch(message.decode())


def test_syslog_over_a_unix_socket(tmp_path: Path) -> None:
    """RFC 5424 in one datagram."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"{tmp_path}/log")
        server.settimeout(10)
        open_sink(sink_address(f"syslog+unix:{tmp_path}/log")).send(NOTE)
        assert SYSLOG.fullmatch(server.recv(65536).decode())


@pytest.fixture
def witness() -> Iterator[tuple[str, list[bytes], list[int]]]:
    """Yield the URL of a server, the bodies that it got, and the statuses that it responds with, the last for ever."""
    bodies: list[bytes] = []
    statuses = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/checkpoints", bodies, statuses
        server.shutdown()


def test_https(witness: tuple[str, list[bytes], list[int]]) -> None:
    """The checkpoint is posted; a response that is no success is a failure."""
    url, bodies, statuses = witness
    sink = open_sink(sink_address(url))
    sink.send(NOTE)
    statuses[:] = [500]
    with pytest.raises(OSError, match="status 500"):
        sink.send(NOTE)
    assert bodies == [NOTE.encode()] * 2


def test_https_to_a_private_network() -> None:
    """Only where the setting says so; by the rules of every outgoing request."""
    with pytest.raises(OSError, match="no IP address that may be connected to"):
        open_sink(sink_address("https://10.255.255.1/x")).send(NOTE)
    assert sink_address("https+private://10.255.255.1/x").private_network


def test_a_sink_that_is_down(
    witness: tuple[str, list[bytes], list[int]], tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    """Others get theirs; what waits is bounded, and is sent when it is back; the outage is two lines in the log."""
    url, bodies, statuses = witness
    statuses[:] = [500]
    delivery = Delivery([sink_address(url), sink_address(f"file:{tmp_path}/out")], clock.monotonic)
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
