"""The metrics port: access, responses, and the sockets that it opens."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from itertools import chain, count

import pytest

from flask_secure_ml import ConfigError, SecureML
from flask_secure_ml.config.metrics import ListenAddress, listen_address
from flask_secure_ml.observe.metrics import SOCKET, MetricsListener, bind, inherited
from flask_secure_ml.observe.metrics.connections import MAX_HEAD, MAX_OPEN, PATIENCE
from flask_secure_ml.observe.metrics.exposition import Text
from flask_secure_ml.secrets import SecretRing, secret_ring
from flask_secure_ml.state import state_of
from servers import free_port
from support import HTTPS, OLDER_SECRET, RANDOM_SECRET, MakeApp, caller


@pytest.fixture
def address() -> ListenAddress:
    return listen_address(f"127.0.0.1:{free_port()}")


@pytest.fixture
def bound(address: ListenAddress, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that a parent has bound."""
    with bind(address) as found:
        monkeypatch.setenv(SOCKET, str(found.fileno()))
        yield found


def started(address: ListenAddress, token: SecretRing | None = None) -> MetricsListener:
    def render(accept: str) -> Text:
        if accept == "fail":
            raise ValueError("a secret of the app")
        return Text(f"accept {accept}".encode(), "text/plain")

    listener = MetricsListener(address, render, token)
    listener.start()
    return listener


def ask(
    address: ListenAddress, method: str = "GET", path: str = "/metrics", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = HTTPConnection("127.0.0.1", address.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read().decode()
    finally:
        connection.close()


def raw(address: ListenAddress, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", address.port), timeout=10) as channel:
        channel.sendall(data)
        channel.shutdown(socket.SHUT_WR)
        try:
            return b"".join(iter(lambda: channel.recv(65536), b""))
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/metrics", 200, "accept text/x"),
        ("GET", "/metrics?name[]=x", 200, "accept text/x"),
        ("HEAD", "/metrics", 200, ""),
        ("GET", "/", 404, ""),
        ("GET", "/metrics/", 404, ""),
        ("GET", "/metrics/x", 404, ""),
        ("GET", "/v1/predict", 404, ""),
        ("POST", "/metrics", 405, ""),
        ("TRACE", "/metrics", 405, ""),
    ],
)
def test_one_path(address: ListenAddress, bound: socket.socket, method: str, path: str, status: int, body: str) -> None:
    """Routes of the app are not served; no response contains a version or is stored."""
    started(address)
    found, headers, content = ask(address, method, path, Accept="text/x")
    assert (found, content) == (status, body)
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers
    assert headers.get("Allow") == ("GET, HEAD" if status == 405 else None)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /metrics\x00<script> HTTP/9.9\r\n\r\n",
        b"<script>\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: <script>\r\n" * 200 + b"\r\n",
        b"GET /metrics HTTP/1.1\r\n: <script>\r\n\r\n",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"<script>" * (MAX_HEAD // 8) + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n",
        b"",
    ],
)
def test_what_is_no_request(address: ListenAddress, bound: socket.socket, data: bytes) -> None:
    """It is not quoted, and the next scrape has its response."""
    started(address)
    assert b"<script>" not in raw(address, data)
    assert ask(address)[0] == 200


def test_a_slow_client(address: ListenAddress, bound: socket.socket) -> None:
    """It is cut off, whether its bytes arrive slowly or not at all."""
    # The first piece arrives in time, and then its time is over; the second client has none left.
    ticks = chain([0.0, 0.0, PATIENCE], count(100, PATIENCE))
    MetricsListener(address, lambda _: Text(b"", "text/plain"), monotonic=lambda: next(ticks)).start()
    with socket.create_connection(("127.0.0.1", address.port), timeout=10) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert slow.recv(10) == b""
    with socket.create_connection(("127.0.0.1", address.port), timeout=10) as silent:
        assert silent.recv(10) == b""


def connected(address: ListenAddress, count: int, data: bytes = b"") -> list[socket.socket]:
    channels = [socket.create_connection(("127.0.0.1", address.port), timeout=10) for _ in range(count)]
    for each in channels:
        each.sendall(data)
    return channels


@pytest.mark.parametrize("data", [b"", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\nAccept: all\r\n\r\n"])
def test_clients_that_wait(address: ListenAddress, bound: socket.socket, data: bytes) -> None:
    """A scrape gets its response despite clients that send nothing, send a part or do not read; few stay connected."""

    def render(accept: str) -> Text:
        return Text(b"x" * (20_000_000 if accept == "all" else 1), "text/plain")

    # Their time never ends.
    MetricsListener(address, render, monotonic=lambda: 0.0).start()
    channels = connected(address, MAX_OPEN + 8, data)
    try:
        assert ask(address)[2] == "x"
        # The oldest were ended for those after them.
        for each in channels[:8]:
            with suppress(ConnectionResetError):
                assert len(b"".join(iter(lambda: each.recv(1 << 20), b""))) < 20_000_000  # noqa: B023
        assert ask(address)[2] == "x"
    finally:
        for each in channels:
            each.close()


def test_an_error_of_the_app(address: ListenAddress, bound: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """It is a constant response and a line in the log, and the next scrape works."""
    started(address)
    status, _, body = ask(address, Accept="fail")
    assert (status, body) == (500, "")
    assert "the metrics cannot be collected" in caplog.text
    assert ask(address)[0] == 200


@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        (f"Bearer {RANDOM_SECRET}", 200),
        (f"bearer  {OLDER_SECRET}", 200),
        (f"Bearer {RANDOM_SECRET}x", 401),
        (f"Basic {RANDOM_SECRET}", 401),
        (RANDOM_SECRET, 401),
        ("Bearer ", 401),
        ("Bearer \xff\xfe", 401),
        ("", 401),
    ],
)
def test_the_token(
    address: ListenAddress,
    bound: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    credentials: str,
    status: int,
) -> None:
    """One of the secrets as a bearer token; the reason for a rejection is not revealed."""
    monkeypatch.setenv("NEW", RANDOM_SECRET)
    monkeypatch.setenv("OLD", OLDER_SECRET)
    started(address, secret_ring(["env:NEW", "env:OLD"]))
    found, headers, body = ask(address, Authorization=credentials)
    assert (found, headers.get("WWW-Authenticate")) == (status, None if status == 200 else "Bearer")
    assert bool(body) == (status == 200)


def test_a_token_that_cannot_be_read(
    address: ListenAddress, bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No client can read the metrics then."""
    monkeypatch.setenv("NEW", RANDOM_SECRET)
    ring = secret_ring("env:NEW")
    started(address, ring)
    assert ask(address, Authorization=f"Bearer {RANDOM_SECRET}")[0] == 200
    monkeypatch.delenv("NEW")
    assert ask(address, Authorization=f"Bearer {RANDOM_SECRET}")[0] == 401


def test_a_port_that_is_taken(address: ListenAddress) -> None:
    """It is an error that names the setting, the address and the reason, in a process that binds it itself."""
    with bind(address), pytest.raises(ConfigError, match=rf"METRICS_LISTEN: {address} .*in use"):
        started(address)


def test_a_process_without_a_parent(address: ListenAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """It binds the port itself, once."""
    monkeypatch.delenv(SOCKET, raising=False)
    started(address).start()
    assert ask(address)[0] == 200


@pytest.mark.parametrize("number", ["", "x", "-1", "999999", "0", "9" * 30, "9" * 5000, "other"])
def test_a_parent_without_this_port(address: ListenAddress, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    """Its workers do not bind it, and take no socket that is none, does not listen, or listens elsewhere."""
    with bind(listen_address(f"127.0.0.1:{free_port()}")) as other:
        monkeypatch.setenv(SOCKET, str(other.fileno()) if number == "other" else number)
        assert inherited(address) is None
        with pytest.raises(ConfigError, match="FLASK_SECURE_ML_METRICS_LISTEN"):
            started(address)
        # It is not closed either.
        assert os.fstat(other.fileno())


def test_ipv6() -> None:
    """Its address is in brackets."""
    address = listen_address(f"[::1]:{free_port()}")
    try:
        bind(address).close()
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    assert str(address).startswith("[::1]:")


def test_an_app(protected: MakeApp, address: ListenAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serves its metrics at the port from its start, or else from its first request, and nowhere else."""
    monkeypatch.delenv(SOCKET, raising=False)
    app = protected(METRICS_LISTEN=str(address))
    response = app.test_client().get("/metrics", base_url=HTTPS, headers=caller("prometheus", "metrics"))
    assert response.status_code == 404
    _, headers, body = ask(address)
    assert 'secure_ml_requests_total{endpoint="unknown",method="GET",status="404"} 1.0' in body
    assert headers["Content-Type"].startswith("text/plain")


def test_loading_an_app(protected: MakeApp, address: ListenAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts the port, and raises an error if that is not possible."""
    monkeypatch.delenv(SOCKET, raising=False)
    app = protected(METRICS_LISTEN=str(address))
    assert state_of(app).metrics is not None
    with bind(address), pytest.raises(ConfigError, match="in use"):
        SecureML.load(app)


def test_the_token_of_an_app(protected: MakeApp, address: ListenAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """SECURE_ML_METRICS_TOKEN is required there."""
    monkeypatch.delenv(SOCKET, raising=False)
    monkeypatch.setenv("TOKEN", RANDOM_SECRET)
    SecureML.load(protected(METRICS_LISTEN=str(address), METRICS_TOKEN="env:TOKEN"))
    assert ask(address)[0] == 401
    assert ask(address, Authorization=f"Bearer {RANDOM_SECRET}")[0] == 200
