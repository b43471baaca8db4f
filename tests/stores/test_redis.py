"""The store on a server: short time-outs, TLS that verifies, and passwords that change."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from cryptography import x509

from certificates import issue
from flask_secure_ml.errors import DependencyUnavailable
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores import open_store
from flask_secure_ml.stores.redis import RedisStore
from flask_secure_ml.stores.redis_address import Passwords
from flask_secure_ml.stores.redis_client import SOCKET_TIMEOUT
from flask_secure_ml.stores.redis_connection import BoundedSocket, Deadline
from flask_secure_ml.stores.redis_nodes import PAUSE
from flask_secure_ml.stores.snapshot import Snapshot
from flask_secure_ml.testing import FakeClock
from servers import free_port, valkey
from support import version_of
from waits import HANG, assert_bounded

pytestmark = pytest.mark.usefixtures("no_jitter")
OLD, NEW = "the-old-password-of-the-server", "the-new-password-of-the-server"
ACTIONS = [
    pytest.param(lambda store: store.add("a", "k", 1), id="add"),
    pytest.param(lambda store: store.put("a", "k", b""), id="put"),
    pytest.param(lambda store: store.get("a", "k"), id="get"),
    pytest.param(lambda store: store.delete("a", "k"), id="delete"),
    pytest.param(lambda store: store.items("a"), id="items"),
    pytest.param(lambda store: store.changes("a", None), id="changes"),
]
FORK = """
import os, sys
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores import open_store
store = open_store(sys.argv[1], None, SystemClock())
store.put("a", "k", b"")
child = os.fork() == 0
failed = any(store.get("a", "k") != b"" or not store.put("a", str(number), b"") for number in range(200))
sys.exit(failed or (not child and os.wait()[1] != 0))
"""


@pytest.fixture
def store(address: str, clock: FakeClock) -> RedisStore:
    return RedisStore(address, None, clock)


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> SecretRing:
    """Two passwords, the newest first."""
    monkeypatch.setenv("NEW", NEW)
    monkeypatch.setenv("OLD", OLD)
    return SecretRing(Secret("env:NEW", 16), Secret("env:OLD", 16))


def set_password(admin: Any, password: str) -> None:
    admin.acl_setuser("default", enabled=True, reset_passwords=True, passwords=f"+{password}")
    admin.client_kill_filter(_type="normal", skipme=True)


def fails(store: Any) -> str:
    with pytest.raises(DependencyUnavailable) as caught:
        store.get("a", "k")
    return caught.value.reason


# --- what lies on the server -----------------------------------------------------------------------------


def test_server_forgets_by_itself(store: RedisStore, admin: Any) -> None:
    """A remembered key has an expiry; after it the key is new again."""
    assert store.add("a", "k", 60)
    assert 59_000 < admin.pttl("flask-secure-ml:{a}:seen:k") <= 60_000
    admin.pexpire("flask-secure-ml:{a}:seen:k", 0)
    assert store.add("a", "k", 0.0001)


def test_records_that_are_over_are_dropped(store: RedisStore, admin: Any, clock: FakeClock) -> None:
    """The next change takes them off the server, with all that was noted of them."""
    store.put("a", "over", b"1", seconds=5)
    clock.advance(6)
    version = version_of(store, "a")
    assert (dict(store.items("a")), version_of(store, "a")) == ({}, version)
    store.put("a", "stays", b"2")
    assert admin.hkeys("flask-secure-ml:{a}:records") == [b"stays"]
    assert admin.zrange("flask-secure-ml:{a}:keys", 0, -1) == [b"stays"]
    assert admin.zcard("flask-secure-ml:{a}:ends") == 0


def test_record_that_was_renewed_is_not_dropped(store: RedisStore, clock: FakeClock) -> None:
    """Its last end counts, also when it has none any more."""
    store.put("a", "k", b"1", seconds=5)
    store.put("a", "l", b"1", seconds=5)
    clock.advance(4)
    store.put("a", "k", b"2", seconds=5)
    store.put("a", "l", b"2")
    clock.advance(4)
    store.put("a", "m", b"3")
    assert dict(store.items("a")) == {"k": b"2", "l": b"2", "m": b"3"}


def test_server_that_lost_everything_is_noticed(store: RedisStore, admin: Any) -> None:
    """Its version is none that was there before, also after the same number of changes."""
    store.put("a", "k", b"1")
    seen = {version_of(store, "a")}
    admin.flushall()
    seen.add(version_of(store, "a"))
    store.put("a", "l", b"1")
    seen.add(version_of(store, "a"))
    assert len(seen) == 3


def test_failover_that_loses_a_change(store: RedisStore, admin: Any, clock: FakeClock) -> None:
    """Another change then has the number of the lost one, and a reader that saw that one is not misled."""
    names = [f"flask-secure-ml:{{a}}:{name}" for name in ("records", "keys", "changes")]
    store.put("a", "k", b"1")
    replica = {name: admin.dump(name) for name in names}
    store.put("a", "k", b"2")
    cursor = store.changes("a", None).cursor
    for name, content in replica.items():
        admin.restore(name, 0, content, replace=True)
    store.put("a", "l", b"3")
    found = store.changes("a", cursor)
    assert found.cursor.version.partition("-")[0] == cursor.version.partition("-")[0]
    assert found.whole
    assert dict(store.items("a")) == {"k": b"1", "l": b"3"}


# --- a server that does not respond -----------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_server_that_nobody_runs(action: Callable[[Any], object], caplog: pytest.LogCaptureFixture) -> None:
    """503 with Retry-After; neither the error nor the log nor the store shows the password of the address."""
    store = RedisStore(f"redis://:hunter2hunter2@127.0.0.1:{free_port()}", None, FakeClock())
    with pytest.raises(DependencyUnavailable) as caught:
        action(store)
    assert ("Retry-After", "1") in caught.value.extra_headers
    assert "ConnectionError" in caught.value.reason
    assert "hunter2" not in caught.value.reason + caplog.text + repr(store) + repr(vars(store))
    assert len(caplog.records) == 1


def test_server_that_failed_is_left_alone(tmp_path: Path, clock: FakeClock) -> None:
    """For a second; then it is called again."""
    port = free_port()
    store = RedisStore(f"redis://127.0.0.1:{port}/0?socket_timeout={HANG}", None, clock)
    assert "ConnectionError" in fails(store)
    with valkey(tmp_path, port):
        assert "a moment ago" in fails(store)
        clock.advance(PAUSE)
        assert store.get("a", "k") is None


def test_outage_has_two_lines(tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """One when the server goes down and one when it is back, for any caller, not one a second."""
    port = free_port()
    store = RedisStore(f"redis://127.0.0.1:{port}/0?socket_timeout={HANG}", None, clock)
    snapshot = Snapshot(store, "a", int, clock, dict[str, int])
    for _ in range(10):
        fails(store)
        with pytest.raises(DependencyUnavailable):
            snapshot.read()
        clock.advance(PAUSE)
    with valkey(tmp_path, port):
        assert snapshot.read() == {}
        assert store.get("a", "k") is None
    assert [each.getMessage() for each in caplog.records] == [
        f"the shared store is down: ConnectionError at 127.0.0.1:{port}",
        "the shared store is up again",
    ]


def test_server_that_hangs(tmp_path: Path, clock: FakeClock, socket_waits: list[float | None]) -> None:
    """A request waits for a quarter of a second, and the next ones not at all."""
    with valkey(tmp_path) as running:
        store = RedisStore(f"redis://127.0.0.1:{running.port}", None, clock)
        store.get("a", "k")
        os.kill(running._process.pid, signal.SIGSTOP)
        try:
            socket_waits.clear()
            began = time.monotonic()
            assert "TimeoutError" in fails(store)
            assert 0.2 < time.monotonic() - began < HANG
            assert_bounded(socket_waits, SOCKET_TIMEOUT)
            socket_waits.clear()
            assert "a moment ago" in fails(store)
            assert socket_waits == []
        finally:
            os.kill(running._process.pid, signal.SIGCONT)


@contextmanager
def strange_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Accept connections and leave each to a function in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def say_nothing(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while connection.recv(4096):
            pass


def trickle(connection: socket.socket) -> None:
    """Send a byte of a long response at a time, each soon enough for a time-out that is for one packet."""
    with connection, suppress(OSError):
        connection.sendall(b"$1000\r\n")
        while True:
            connection.sendall(b"x")
            Event().wait(0.05)


def stutter(connection: socket.socket) -> None:
    """Send each byte of good responses by itself, and each command's soon enough."""
    with connection, suppress(OSError):
        while connection.recv(4096):
            for byte in b"+OK\r\n":
                Event().wait(0.06)
                connection.sendall(bytes([byte]))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("serve", [say_nothing, trickle, stutter])
def test_time_out_is_for_the_whole_command(
    serve: Callable[[socket.socket], None], action: Callable[[Any], object], socket_waits: list[float | None]
) -> None:
    """Whatever the server sends meanwhile, and however many commands connecting takes."""
    with strange_server(serve) as address:
        store = RedisStore(f"redis://:secret@{address}/3", None, FakeClock())
        began = time.monotonic()
        with pytest.raises(DependencyUnavailable) as caught:
            action(store)
        assert 0.2 < time.monotonic() - began < HANG
        assert_bounded(socket_waits, SOCKET_TIMEOUT)
        assert "TimeoutError" in caught.value.reason


class Slow:
    """A socket whose operations each take some time, or the whole timeout."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self.waits: list[float] = []

    def settimeout(self, seconds: float) -> None:
        self.waits.append(round(seconds, 6))

    def recv(self, _size: int) -> bytes:
        self._clock.advance(min(self._seconds, self.waits[-1]))
        if self._seconds > self.waits[-1]:
            raise TimeoutError
        return b"x"

    recv_into = sendall = recv


@pytest.mark.parametrize("operation", ["recv", "recv_into", "sendall"])
def test_each_wait_has_what_is_left(clock: FakeClock, operation: str) -> None:
    """A caller's own timeout covers all operations; without one, each has the usual timeout."""
    deadline = Deadline(0.25, clock.monotonic)
    slow = Slow(clock, 0.04)
    channel = BoundedSocket(slow, deadline)
    with deadline.within(0.1):
        for _ in range(2):
            getattr(channel, operation)(1)
        with pytest.raises(TimeoutError):
            getattr(channel, operation)(1)
        with pytest.raises(TimeoutError, match="timed out"):
            getattr(channel, operation)(1)
    assert slow.waits == [0.1, 0.06, 0.02]
    getattr(channel, operation)(1)
    assert slow.waits[3:] == [0.25]
    channel.settimeout(0)
    with suppress(TimeoutError):
        getattr(channel, operation)(1)
    assert slow.waits[4:] == [0]


def test_deadline_inside_another(clock: FakeClock) -> None:
    """The earlier one counts, also of the outer one."""
    deadline = Deadline(9.0, clock.monotonic)
    with deadline.within(0.25):
        with deadline.within(1.0):
            assert deadline.left() == pytest.approx(0.25)
        with deadline.within(0.05):
            assert deadline.left() == pytest.approx(0.05)
        clock.advance(0.2)
        assert deadline.left() == pytest.approx(0.05)
    assert deadline.left() == 9.0


def greet(connection: socket.socket) -> None:
    """Start a TLS handshake that never ends, one byte at a time."""
    with connection, suppress(OSError):
        connection.recv(4096)
        for byte in b"\x16\x03\x03\x10\x00\x02\x00\x0f\xfc\x03\x03" + b"a" * 4000:
            connection.sendall(bytes([byte]))
            Event().wait(0.05)


def test_time_out_of_tls(socket_waits: list[float | None]) -> None:
    """A stalled handshake counts too."""
    with strange_server(greet) as address:
        began = time.monotonic()
        assert "TimeoutError" in fails(RedisStore(f"rediss://{address}", None, FakeClock()))
        assert 0.2 < time.monotonic() - began < HANG
        assert_bounded(socket_waits, SOCKET_TIMEOUT)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("serve", [say_nothing, trickle])
def test_time_out_of_the_caller(
    serve: Callable[[socket.socket], None], scheme: str, socket_waits: list[float | None]
) -> None:
    """A caller may pass a shorter timeout, and is not rejected because of another recent failure."""
    with strange_server(serve) as address:
        store = RedisStore(f"{scheme}://{address}", None, FakeClock())
        for _ in range(2):
            socket_waits.clear()
            began = time.monotonic()
            with pytest.raises(DependencyUnavailable) as caught:
                store.changes("a", None, timeout=0.1)
            assert time.monotonic() - began < HANG
            assert_bounded(socket_waits, 0.1)
            assert "a moment ago" not in caught.value.reason
        assert "a moment ago" in fails(store)


def test_time_that_is_over(store: RedisStore) -> None:
    """No operation starts without time, and the connection remains usable."""
    assert store.changes("a", None, timeout=HANG).whole
    with pytest.raises(DependencyUnavailable):
        store.changes("a", None, timeout=0)
    assert store.changes("a", None, timeout=HANG).whole


def test_time_out_of_the_address(address: str, clock: FakeClock, socket_waits: list[float | None]) -> None:
    """``?socket_timeout=`` is for the whole command too."""
    with strange_server(trickle) as slow:
        store = RedisStore(f"redis://{slow}?socket_timeout=0.1", None, clock)
        began = time.monotonic()
        assert "TimeoutError" in fails(store)
        assert time.monotonic() - began < HANG
        assert_bounded(socket_waits, 0.1)
    socket_waits.clear()
    assert RedisStore(address, None, clock).add("a", "k", 60)
    assert_bounded(socket_waits, HANG)
    assert max(each or 0 for each in socket_waits) > SOCKET_TIMEOUT


def test_usual_time_out(address: str, clock: FakeClock, socket_waits: list[float | None]) -> None:
    """A quarter of a second, for a command that needs less too."""
    with suppress(DependencyUnavailable):
        RedisStore(address.partition("?")[0], None, clock).add("a", "k", 60)
    assert_bounded(socket_waits, SOCKET_TIMEOUT)


def test_large_responses(store: RedisStore) -> None:
    """A response in many packets arrives completely."""
    value = os.urandom(3_000_000)
    store.put("a", "k", value)
    assert store.get("a", "k") == value


def test_connections_that_were_closed_meanwhile(store: RedisStore, admin: Any) -> None:
    """After a restart of the server no request fails for the connections of before."""
    assert store.put("a", "k", b"1")
    admin.client_kill_filter(_type="normal", skipme=True)
    assert store.get("a", "k") == b"1"


def test_fork(address: str) -> None:
    """A child does not read the responses of its parent."""
    command = [sys.executable, "-c", FORK, address]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


# --- passwords -------------------------------------------------------------------------------------------


def test_password_in_the_address(address: str, admin: Any, clock: FakeClock) -> None:
    """It may be in the URI, escaped."""
    set_password(admin, "a/b@c:d")
    assert open_store(address.replace("//", "//:a%2Fb%40c%3Ad@"), None, clock).add("a", "k", 60)
    assert "AuthenticationError" in fails(open_store(address.replace("//", "//:wrong@"), None, clock))
    assert "AuthenticationError" in fails(open_store(address, None, clock))


def test_password_of_the_setting(address: str, admin: Any, clock: FakeClock, ring: SecretRing) -> None:
    """SECURE_ML_STORE_PASSWORD takes the place of one in the address."""
    set_password(admin, NEW)
    assert open_store(address, ring, clock).add("a", "k", 60)
    assert open_store(address.replace("//", "//:wrong@"), ring, clock).add("a", "l", 60)


def test_user_of_the_address(address: str, admin: Any, clock: FakeClock, ring: SecretRing) -> None:
    """A user of the server's access control list, with access to our keys only."""
    commands = ["+set", "+hget", "+hmget", "+hset", "+hdel", "+zadd", "+zrem", "+zrangebylex", "+zrangebyscore"]
    commands += ["+xadd", "+xrange", "+xrevrange", "+eval", "+evalsha", "+script|load"]
    admin.acl_setuser("model", enabled=True, passwords=f"+{NEW}", keys=["flask-secure-ml:*"], commands=commands)
    admin.acl_setuser("default", enabled=True, reset_passwords=True, passwords="+nobody-knows-this")
    store = open_store(address.replace("//", "//model@"), ring, clock)
    assert store.add("a", "k", 60)
    store.put("a", "k", b"1", seconds=1)
    store.put("a", "l", b"1")
    clock.advance(2)
    assert (dict(store.items("a")), bool(version_of(store, "a")), store.delete("a", "l")) == ({"l": b"1"}, True, True)


def test_rotation_of_the_password(address: str, admin: Any, clock: FakeClock, ring: SecretRing) -> None:
    """The server changes from the old one to the new one, and back, and no request fails."""
    store = open_store(address, ring, clock)
    for password in (OLD, NEW, OLD, OLD, NEW):
        set_password(admin, password)
        assert store.put("a", "k", password.encode())


def test_password_that_changes_in_its_place(address: str, admin: Any, clock: FakeClock, tmp_path: Path) -> None:
    """It is read for each connection: a file with a new one needs no restart."""
    path = tmp_path / "password"
    path.write_text(OLD + "\n")
    set_password(admin, OLD)
    store = open_store(address, SecretRing(Secret(f"file:{path}", 16)), clock)
    assert store.add("a", "k", 60)
    set_password(admin, NEW)
    assert "AuthenticationError" in fails(store)
    path.write_text(NEW)
    clock.advance(PAUSE)
    assert store.add("a", "l", 60)


def test_wrong_passwords(
    address: str, admin: Any, clock: FakeClock, ring: SecretRing, caplog: pytest.LogCaptureFixture
) -> None:
    """503 if none is accepted; none is revealed. The right one works after the pause."""
    set_password(admin, "another-password-of-the-server")
    store = open_store(address, ring, clock)
    shown = fails(store) + fails(store) + repr(vars(store)) + repr(vars(store._client)) + caplog.text  # type: ignore[attr-defined]
    assert "AuthenticationError" in shown
    assert NEW not in shown
    assert OLD not in shown
    set_password(admin, NEW)
    clock.advance(PAUSE)
    assert store.get("a", "k") is None


def test_password_that_cannot_be_read(
    address: str, clock: FakeClock, ring: SecretRing, monkeypatch: pytest.MonkeyPatch, admin: Any
) -> None:
    """503 that names the reference; a connection is never used without authentication."""
    set_password(admin, NEW)
    store = open_store(address, ring, clock)
    monkeypatch.delenv("NEW")
    assert "SECURE_ML_STORE_PASSWORD: environment variable NEW is not set" in fails(store)
    monkeypatch.setenv("NEW", NEW)
    clock.advance(PAUSE)
    assert store.get("a", "k") is None


def test_password_that_is_no_text(address: str, clock: FakeClock, tmp_path: Path) -> None:
    """503 without a byte of it."""
    (tmp_path / "password").write_bytes(b"\xff" * 20)
    store = open_store(address, SecretRing(Secret(f"file:{tmp_path}/password", 16)), clock)
    assert fails(store).endswith("SECURE_ML_STORE_PASSWORD is not UTF-8")


def test_password_reaches_the_store_from_the_configuration(
    address: str, admin: Any, protected: Callable[..., Any], ring: SecretRing
) -> None:
    """SECURE_ML_STORE_PASSWORD takes a list of references."""
    set_password(admin, OLD)
    app = protected(STORE_URI=address, STORE_PASSWORD=["env:NEW", "env:OLD"])
    assert app.extensions["secure_ml"].store.add("a", "k", 60)


def test_threads_go_on_to_the_next_password_once(ring: SecretRing) -> None:
    """Two that are rejected with the same one do not skip the one after it."""
    passwords = Passwords("", ring)
    passwords.next_after(0)
    passwords.next_after(0)
    assert passwords.get_credentials() == (OLD,)
    passwords.next_after(1)
    assert passwords.get_credentials() == (NEW,)


# --- TLS -------------------------------------------------------------------------------------------------


@contextmanager
def tls_before(port: int, folder: Path) -> Iterator[int]:
    """Put TLS with a certificate for localhost before a server that has none."""
    itself = x509.BasicConstraints(ca=True, path_length=None)
    files = issue("CN=localhost", names=[x509.DNSName("localhost")], usages=(), extensions=[itself]).write(
        folder, "server"
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, port), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=_serve, args=(plain, context, port), daemon=True).start()


def _serve(plain: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port)) as behind,
        plain,
        context.wrap_socket(plain, server_side=True) as channel,
    ):
        # One question and one response at a time is all that the client does.
        while question := channel.recv(65536):
            behind.sendall(question)
            channel.sendall(behind.recv(65536))


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls(server: Any, admin: Any, tmp_path: Path, scheme: str) -> None:
    """The server's certificate must lead to a known authority and be for the name in the address."""
    with tls_before(server.port, tmp_path) as port:
        known = f"ssl_ca_certs={tmp_path}/server.pem&socket_timeout={HANG}"
        store = open_store(f"{scheme}://localhost:{port}/0?{known}", None, SystemClock())
        assert store.add("a", "k", 60)
        for address in (f"localhost:{port}/0", f"127.0.0.1:{port}/0?{known}"):
            assert "ConnectionError" in fails(open_store(f"{scheme}://{address}", None, FakeClock()))
