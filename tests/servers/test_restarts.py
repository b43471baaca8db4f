"""Servers that end, reload or lose a worker under load, and certificates that are renewed: no request is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509

from certificates import Certificate, authority, issue
from forks import run_forking
from load import load
from servers import PATIENCE, Served, accepts, free_port, wait_until
from tls_handshakes import connect

CONFIG = "python:flask_secure_ml.deploy.gunicorn"
ROOT = Path(__file__).parents[1] / "shared"
# Python 3.11 forgets to close a socket whose handshake is reset at a certain point.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

WORKERS = ["gevent", "gthread"]
CLIENTS = 6


class Running(Served):
    """A server whose process is at hand."""

    process: subprocess.Popen[bytes]

    def workers(self) -> list[int]:
        """Return the processes of the workers that were started and have not ended."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(each) for each in path.read_text().split()]


@contextmanager
def running(
    folder: Path, certificate: Certificate, worker: str, *options: str, trusted: Certificate | None = None
) -> Iterator[Running]:
    """Start a server, which the test ends.

    :param trusted: the certificate that clients trust; the server's own if None.
    """
    port = free_port()
    # What a server that is killed leaves behind is there.
    environ = (
        {"TMPDIR": str(folder)}
        | os.environ
        | {
            "SECURE_ML_SERVE_CERTIFICATE": str(certificate.certificate),
            "SECURE_ML_SERVE_PRIVATE_KEY": str(certificate.key),
            "SECURE_ML_SERVE_BIND": f"127.0.0.1:{port}",
            "SECURE_ML_SERVE_WORKER_CLASS": worker,
            "SECURE_ML_SERVE_WORKERS": "2",
            "FLASK_SECURE_ML_PLANS": json.dumps({"default": {"requests": ["1000000/hour"]}}),
        }
    )
    log = folder / "gunicorn.log"
    # As the command gunicorn does; what "python -m" runs cannot be started again by SIGUSR2.
    script = folder / "run_gunicorn.py"
    script.write_text("from gunicorn.app.wsgiapp import run\n\nrun()\n")
    command = [sys.executable, str(script), "-c", CONFIG, "--chdir", str(ROOT), *options, "slow_app:create_app()"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        found = Running(port, trusted or certificate, log)
        found.process = process
        yield found
    finally:
        process.kill()
        process.wait(PATIENCE)


def wait_until_served(served: Running) -> None:
    """Wait until each worker has responded: one that still starts would see what the test does next."""
    met: set[int] = set()

    def all_met() -> bool:
        met.add(json.loads(served.call("GET", "/wait/0")[2])["worker"])
        return met.issuperset(served.workers())

    wait_until(lambda: accepts(served.port), "the server does not listen")
    wait_until(all_met, "a worker does not respond")


def test_no_control_socket(tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn would open one in the home directory, when its workers have started."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with running(tmp_path, certificate, "gthread", "--log-level", "debug") as served:
        wait_until(lambda: "Control socket disabled" in served.log.read_text(), "it is not disabled")
        assert not (tmp_path / ".gunicorn").exists()


@pytest.mark.parametrize("worker", WORKERS)
def test_the_end_of_the_server(tmp_path: Path, certificate: Certificate, worker: str) -> None:
    """After SIGTERM, each request on a connection that was accepted gets its response, and the server ends."""
    with running(tmp_path, certificate, worker) as served:
        wait_until_served(served)
        with load(served.port, served.context, "/wait/300", CLIENTS) as clients:
            wait_until(lambda: clients.counts["ok"] > 2 * CLIENTS, "the load")
            served.process.terminate()
            assert served.process.wait(PATIENCE) == 0
        assert clients.lost() == []
        assert clients.counts["refused"]
        assert "SIGKILL" not in served.log.read_text()


@pytest.mark.parametrize("worker", WORKERS)
def test_a_connection_that_is_kept(tmp_path: Path, certificate: Certificate, worker: str) -> None:
    """A terminating worker serves the next request of a persistent connection, with Connection: close."""
    with running(tmp_path, certificate, worker) as served:
        wait_until_served(served)
        with connect(served.port, served.context) as channel:
            assert b"Connection: keep-alive" in request(channel)
            served.process.terminate()
            wait_until(lambda: b"Connection: close" in request(channel), "the connection is kept for ever")
        assert served.process.wait(PATIENCE) == 0


def request(channel: ssl.SSLSocket) -> bytes:
    """Return the response to a request, which must be complete."""
    channel.sendall(b"GET /wait/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while not received.endswith(b"}\n"):
        data = channel.recv(65_536)
        assert data, "the connection was closed"
        received += data
    return received


@pytest.mark.parametrize("worker", WORKERS)
def test_a_handshake_that_has_begun(tmp_path: Path, certificate: Certificate, worker: str) -> None:
    """A connection that was accepted is served, also when its handshake ends after the worker stopped to accept."""
    with running(tmp_path, certificate, worker) as served:
        wait_until_served(served)
        began = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(4)]
        assert served.call("GET", "/wait/0")[0] == 200
        served.process.terminate()
        if worker == "gevent":
            wait_until(lambda: not accepts(served.port), "the server still listens")
        for plain in began:
            with served.context.wrap_socket(plain, server_hostname="localhost") as channel:
                assert request(channel).startswith(b"HTTP/1.1 200 ")
        assert served.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("worker", WORKERS)
def test_a_reload(tmp_path: Path, certificate: Certificate, worker: str) -> None:
    """SIGHUP replaces the workers, and every client gets its response."""
    with running(tmp_path, certificate, worker) as served:
        wait_until_served(served)
        before = set(served.workers())
        with load(served.port, served.context, "/wait/20", CLIENTS) as clients:
            wait_until(lambda: clients.counts["ok"] > CLIENTS, "the load")
            served.process.send_signal(signal.SIGHUP)
            wait_until(lambda: len(served.workers()) == 2 and before.isdisjoint(served.workers()), "the new workers")
            done = clients.counts["ok"]
            wait_until(lambda: clients.counts["ok"] > done + 2 * CLIENTS, "the new workers do not respond")
        assert clients.counts.keys() == {"ok"}, clients.reasons
        assert served.call("GET", "/wait/0")[0] == 200


def test_a_successor(tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """After SIGUSR2, the new server does not lose its directory of metrics with the old one."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with running(tmp_path, certificate, "gthread") as served:
        wait_until_served(served)
        served.process.send_signal(signal.SIGUSR2)
        started = r'"process.pid":(\d+),"message":"Starting gunicorn'
        wait_until(lambda: len(re.findall(started, served.log.read_text())) == 2, "the new server")
        successor = int(re.findall(started, served.log.read_text())[1])
        try:
            wait_until(lambda: served.log.read_text().count("Booting worker") == 4, "the new workers")
            served.process.terminate()
            assert served.process.wait(PATIENCE) == 0
            assert served.call("GET", "/wait/0")[0] == 200
            assert len(list(temporary.glob("secure-ml-metrics-*"))) == 1
        finally:
            os.kill(successor, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{successor}").exists(), "the new server does not end")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_that_is_killed(tmp_path: Path, certificate: Certificate, worker: str) -> None:
    """It loses its current requests; the other worker continues, and a new one replaces it."""
    with running(tmp_path, certificate, worker) as served:
        wait_until_served(served)
        with load(served.port, served.context, "/wait/20", CLIENTS) as clients:
            wait_until(lambda: clients.counts["ok"] > CLIENTS, "the load")
            victim = served.workers()[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in served.workers() and len(served.workers()) == 2, "the new worker")
            done = clients.counts["ok"]
            wait_until(lambda: clients.counts["ok"] > done + 10 * CLIENTS, "the workers do not respond")
        # A client may note only now what became of its connection.
        assert len(clients.reasons) <= CLIENTS


@pytest.mark.parametrize("worker", WORKERS)
def test_a_renewed_certificate(tmp_path: Path, worker: str) -> None:
    """Under load, and after one that is written half and one of another key, the next handshake has it."""
    signer = authority()
    old, new = (issue("CN=localhost", signer, names=[x509.DNSName("localhost")], usages=()) for _ in range(2))
    files = old.write(tmp_path, "site")
    renewed = new.write(tmp_path, "renewed")
    trusted = signer.write(tmp_path, "ca")
    with running(tmp_path, files, worker, trusted=trusted) as served:
        wait_until_served(served)
        with load(served.port, served.context, "/wait/5", CLIENTS) as clients:
            wait_until(lambda: clients.counts["ok"] > CLIENTS, "the load")
            files.certificate.write_bytes(new.pem[:300])
            wait_until(lambda: "no PEM certificate and private key" in served.log.read_text(), "the line")
            files.certificate.write_bytes(new.pem)
            wait_until(lambda: "does not match the certificate" in served.log.read_text(), "the line")
            assert serial(served) == old.certificate.serial_number
            renewed.key.replace(files.key)
            wait_until(lambda: "is in use" in served.log.read_text(), "the line")
            done = clients.counts["ok"]
            wait_until(lambda: clients.counts["ok"] > done + 10 * CLIENTS, "the load")
            assert [serial(served) for _ in range(5)] == [new.certificate.serial_number] * 5
        assert clients.counts.keys() == {"ok"}, clients.reasons


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_that_starts_during_a_renewal(tmp_path: Path, worker: str) -> None:
    """It closes connections, and never responds in clear text, until the certificate is complete."""
    signer = authority()
    whole = issue("CN=localhost", signer, names=[x509.DNSName("localhost")], usages=())
    files = whole.write(tmp_path, "site")
    trusted = signer.write(tmp_path, "ca")
    with running(tmp_path, files, worker, "--workers", "1", trusted=trusted) as served:
        wait_until_served(served)
        (first,) = served.workers()
        files.certificate.write_bytes(whole.pem[:300])
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: "cannot be used" in served.log.read_text(), "the line of the new worker")
        if worker == "gthread":
            # Under gevent, it accepts no connection.
            with pytest.raises((ConnectionError, ssl.SSLEOFError)):
                connect(served.port, served.context)
        files.certificate.write_bytes(whole.pem)
        wait_until(lambda: responds(served), "the server does not respond again")


def responds(served: Running) -> bool:
    with suppress(ConnectionError, ssl.SSLEOFError, TimeoutError):
        return served.call("GET", "/wait/0")[0] == 200
    return False


def serial(served: Served) -> int:
    with connect(served.port, served.context) as channel:
        return x509.load_der_x509_certificate(channel.getpeercert(binary_form=True) or b"").serial_number


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
@pytest.mark.parametrize("worker", WORKERS)
def test_a_signal_just_after_the_start(
    tmp_path: Path, certificate: Certificate, worker: str, preload: tuple[str, ...]
) -> None:
    """A worker that gets SIGTERM before its own handlers are set ends, and another one takes its place."""
    with running(tmp_path, certificate, worker, *preload) as served:

        def booting() -> list[int]:
            return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", served.log.read_text())]

        wait_until(lambda: bool(booting()), "no worker starts")
        first = booting()[0]
        os.kill(first, signal.SIGTERM)
        wait_until(lambda: first not in served.workers(), "the worker has ignored the signal")
        wait_until_served(served)


def test_a_signal_that_the_copy_of_the_arbiter_got() -> None:
    """It is found in the queue, and one that comes later ends the process at once."""
    run_forking(
        """
import queue
from types import SimpleNamespace
from flask_secure_ml.deploy.gunicorn_workers import heed_early_signals

def early():
    arbiter = SimpleNamespace(SIG_QUEUE=queue.SimpleQueue())
    signal.signal(signal.SIGTERM, lambda number, frame: arbiter.SIG_QUEUE.put_nowait(number))
    os.kill(os.getpid(), signal.SIGTERM)
    end(arbiter)

def late():
    arbiter = SimpleNamespace(SIG_QUEUE=queue.SimpleQueue())
    arbiter.SIG_QUEUE.put_nowait(signal.SIGHUP)
    end(arbiter, lambda: os.kill(os.getpid(), signal.SIGTERM))

def end(arbiter, then=lambda: None):
    try:
        heed_early_signals(arbiter, SimpleNamespace(alive=True))
        then()
    except SystemExit as error:
        assert error.code == 0
    else:
        raise AssertionError("the signal is lost")

for work in (early, late):
    ended(fork(work))
"""
    )
