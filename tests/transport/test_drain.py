"""How connections end: gunicorn's own request and response objects over socket pairs, on a clock that is moved."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.wsgi import FileWrapper, create
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.principal import SystemClock
from flask_secure_ml.testing import FakeClock
from flask_secure_ml.transport.drain import MAX_BYTES, Drain, Share, read_within_bounds, share_of
from flask_secure_ml.transport.request_body import SMALL_BODY, RequestBody
from flask_secure_ml.transport.response_bodies import Closing
from forks import run_forking

KIB = 1024
App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class PacedSocket:
    """A socket whose client sends some bytes at intervals, on a clock that only this object advances."""

    def __init__(self, clock: FakeClock, sends: Iterable[tuple[float, int]], *, broken: bool = False) -> None:
        self.clock = clock
        self.sends = iter(sends)
        self.broken = broken
        self.wait, self.size = next(self.sends, (0.0, 0))
        self.timeout: float | None = None
        self.received = 0
        self.events: list[object] = []

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, value: float | None, /) -> None:
        assert value is None or value > 0
        self.timeout = value

    def shutdown(self, how: int, /) -> None:
        self.events.append(how)

    def recv(self, size: int, /) -> bytes:
        self.events.append("recv")
        assert self.timeout is not None
        if self.broken:
            raise ConnectionResetError
        if self.wait > self.timeout:
            self.wait -= self.timeout
            self.clock.advance(self.timeout)
            raise TimeoutError
        self.clock.advance(self.wait)
        taken = min(size, self.size)
        self.received += taken
        self.wait, self.size = (0.0, self.size - taken) if taken < self.size else next(self.sends, (0.0, 0))
        return b"x" * taken


def forever(wait: float, size: int) -> Iterator[tuple[float, int]]:
    while True:
        yield wait, size


class WantedShare(Share):
    """A share for which another thread waits, or not."""

    def __init__(self, *, wanted: bool) -> None:
        super().__init__(4)
        self._wanted = wanted

    @property
    def wanted(self) -> bool:
        return self._wanted


def drained(
    sends: Iterable[tuple[float, int]], limit: int = 1000 * MAX_BYTES, grace: float = 1.0, *, wanted: bool = False
) -> tuple[float, int]:
    """Return after how many seconds reading ended, and how many bytes were read."""
    clock = FakeClock(0.0)
    connection = PacedSocket(clock, sends)
    read_within_bounds(connection, limit, grace, clock, WantedShare(wanted=wanted))
    return clock.monotonic(), connection.received


@pytest.mark.parametrize(
    ("sends", "grace", "seconds"),
    [
        pytest.param(forever(1000.0, 1), 1.0, 1.0, id="nothing comes"),
        pytest.param(forever(1000.0, 1), 0.0, 0.25, id="nothing comes, no grace"),
        pytest.param(forever(0.2, 1), 1.0, 1.0, id="a byte every 0.2 s"),
        pytest.param(forever(0.25, 256 * KIB - 1), 1.0, 1.25, id="a byte too few in each interval"),
        pytest.param(forever(0.125, 128 * KIB), 1.0, 5.0, id="just enough in each interval"),
        pytest.param([*[(0.05, KIB * KIB)] * 40, (1000.0, 1)], 1.0, 2.5, id="fast for 2 s, then nothing"),
        pytest.param([(0.9, 1), (0.1, 0)], 1.0, 1.0, id="the client closes"),
    ],
)
def test_bounds_in_time(sends: Iterable[tuple[float, int]], grace: float, seconds: float) -> None:
    """A client is read for 5 s, and after the grace only while it sends 256 KiB in 250 ms."""
    assert drained(sends, grace=grace)[0] == pytest.approx(seconds, abs=0.26)


@pytest.mark.parametrize(
    ("sends", "seconds"),
    [
        pytest.param(forever(1000.0, 1), 0.25, id="nothing comes"),
        pytest.param(forever(0.2, 1), 0.25, id="a byte every 0.2 s"),
        pytest.param(forever(0.05, 64 * KIB), 5.0, id="fast enough"),
    ],
)
def test_a_slow_client_gives_way(sends: Iterable[tuple[float, int]], seconds: float) -> None:
    """While another thread waits for its turn, only a client that sends fast enough is read on."""
    assert drained(sends, wanted=True)[0] == pytest.approx(seconds, abs=0.26)


def test_who_waits_for_a_turn_is_seen() -> None:
    """For as long as it waits, and no longer, whether it gets its turn or not."""
    share = Share(4)
    seen: list[bool] = []

    class Reading:
        def acquire(self, **how: Any) -> bool:
            seen.append(share.wanted)
            return "blocking" not in how and len(seen) > 3

    share._reading = Reading()  # type: ignore[assignment]
    assert [share.take(), share.take()] == [False, True]
    assert (seen, share.wanted) == ([False, True, False, True], False)


def test_the_declared_length_is_the_most_that_is_read() -> None:
    """Reading ends with the body, though the connection stays open."""
    assert drained([(0.0, 50_000), (1000.0, 1)], limit=50_000) == (0.0, 50_000)


def test_other_greenlets_run_while_a_client_sends_at_full_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is followed by a switch, which a wait for the next would not be: there is none."""
    switches: list[float] = []
    monkeypatch.setattr(time, "sleep", switches.append)
    drained(forever(0.0, 65_536), limit=MAX_BYTES)
    assert switches == [0] * (MAX_BYTES // 65_536)


@given(
    sends=st.lists(st.tuples(st.floats(0.0, 10.0), st.integers(1, 10 * KIB * KIB)), max_size=200),
    limit=st.integers(0, MAX_BYTES),
    grace=st.sampled_from([0.0, 1.0]),
)
def test_no_pace_gets_beyond_the_bounds(sends: list[tuple[float, int]], limit: int, grace: float) -> None:
    """Whatever a client sends and when, it is read for at most 5 s and within the limit."""
    seconds, received = drained(sends, limit, grace)
    assert seconds <= 5.0 + 1e-6
    assert received <= limit


@pytest.mark.parametrize(
    ("capacity", "at_once"), [pytest.param(size, most, id=str(size)) for size, most in ((1, 1), (2, 1), (12, 3))]
)
def test_a_quarter_of_the_threads_reads_at_once(capacity: int, at_once: int) -> None:
    """At least one; the next may read when one of them is done."""
    share = Share(capacity)
    assert [share.take() for _ in range(at_once + 1)] == [True] * at_once + [False]
    share.give_back()
    assert share.take()


FORK = """
from types import SimpleNamespace
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.transport.drain import Drain, share_of

class Client:
    def __init__(self, wait):
        self.wait, self.read = wait, False

    def shutdown(self, how):
        pass

    def settimeout(self, seconds):
        pass

    def recv(self, size):
        self.read = True
        self.wait()
        return b""

reading, hold = threading.Event(), threading.Event()

def wait():
    reading.set()
    hold.wait()

drain, owner = Drain(lambda environ, start: [], SystemClock()), SimpleNamespace()
thread = threading.Thread(target=drain.discard, args=[Client(wait), 100, 1.0, share_of(owner, 4)])
thread.start()
reading.wait()

def child():
    client = Client(lambda: None)
    drain.discard(client, 100, 1.0, share_of(owner, 4))
    assert client.read

pid = fork(child)
hold.set()
ended(pid)
thread.join()
"""


def test_a_fork_while_a_thread_reads() -> None:
    """Its slot is not taken in the child."""
    run_forking(FORK)


def test_every_process_has_its_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is forked while its parent reads does not inherit the slots that are taken."""
    owner = Config()
    assert share_of(owner, 1).take()
    assert not share_of(owner, 1).take()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert share_of(owner, 1).take()


@pytest.mark.parametrize("error", [None, ConnectionResetError, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("at", ["shutdown", "recv"])
def test_no_error_keeps_the_share(at: str, error: type[BaseException] | None) -> None:
    """Wherever reading breaks off, the next client is read."""
    share = Share(1)
    drain = Drain(lambda _environ, _start: [], FakeClock())

    class Breaking(PacedSocket):
        def shutdown(self, how: int, /) -> None:
            if at == "shutdown" and error is not None:
                raise error
            super().shutdown(how)

        def recv(self, size: int, /) -> bytes:
            if at == "recv" and error is not None:
                raise error
            return super().recv(size)

    for _ in range(3):
        with nullcontext() if error is None else pytest.raises(error):
            drain.discard(Breaking(FakeClock(), [(0.0, 5)]), 100, 1.0, share)
    last = PacedSocket(FakeClock(), [(0.0, 5)])
    drain.discard(last, 100, 1.0, share)
    assert last.received == 5


def test_others_skip_while_the_share_is_taken() -> None:
    """They do not read."""
    share = Share(1)
    drain = Drain(lambda _environ, _start: [], FakeClock())
    late = PacedSocket(FakeClock(), [(0.0, 5)])

    class Busy(PacedSocket):
        def recv(self, size: int, /) -> bytes:
            drain.discard(late, 100, 1.0, share)
            return b""

    drain.discard(Busy(FakeClock(), []), 100, 1.0, share)
    assert (late.received, late.events) == (0, [])
    drain.discard(late, 100, 1.0, share)
    assert late.received == 5


# --- whole requests --------------------------------------------------------------------------------------


@dataclass
class Server:
    """gunicorn's side of one connection, driven by hand as its workers drive it."""

    connection: socket.socket
    client: socket.socket
    cfg: Any = field(default_factory=Config)
    response: Any = None
    environ: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cfg.set("threads", 4)
        self.client.settimeout(10)
        self.parser = get_parser(self.cfg, self.connection, ("192.0.2.1", 1))

    def serve(self, app: Any, changes: dict[str, Any] | None = None, *, visible: bool = True) -> bool:
        """Serve the next request; return True if the connection may serve another.

        :param changes: what is different in the environ.
        :param visible: whether gunicorn's response object can be seen from its ``start_response``.
        """
        request = next(self.parser)
        names = ("192.0.2.1", 1), ("192.0.2.2", 80)
        self.response, self.environ = create(request, self.connection, *names, self.cfg)
        self.environ |= {"wsgi.multithread": True} | (changes or {})
        start = self.response.start_response
        iterable = app(self.environ, start if visible else partial(start))
        try:
            for item in iterable:
                self.response.write(item)
            self.response.close()
        finally:
            if hasattr(iterable, "close"):
                iterable.close()
        return not self.response.should_close()

    def received(self) -> bytes:
        """Return the bytes that the client can read now, to the end if the server has shut down its side."""
        self.client.setblocking(False)
        blocks = []
        try:
            while block := self.client.recv(65_536):
                blocks.append(block)
            blocks.append(b"<end>")
        except BlockingIOError:
            pass
        return b"".join(blocks)


@contextmanager
def connected(sent: bytes) -> Iterator[Server]:
    """Open a connection on which the client has sent some bytes."""
    connection, client = socket.socketpair()
    with connection, client:
        client.sendall(sent)
        yield Server(connection, client)


def responding(status: str, *, reads: int = 0) -> App:
    """Return an application that reads so much of the body and responds."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if reads:
            environ["wsgi.input"].read(reads)
        start_response(status, [("Content-Length", "4")])
        return [b"done"]

    return app


def post(body: bytes, length: int | None = None, *headers: str) -> bytes:
    lines = ["POST / HTTP/1.1", "Host: a", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n" % (len(body), body) + end


NEXT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "reads"),
    [
        pytest.param(NEXT, 0, id="no body"),
        pytest.param(post(b""), 0, id="empty body"),
        pytest.param(post(b"1" * 9), 9, id="read"),
        pytest.param(post(b"1" * 9), 4, id="read half, the rest has arrived"),
        pytest.param(post(b"1" * 9), 0, id="unread, has arrived"),
        pytest.param(post(b"1" * SMALL_BODY), 0, id="unread, 64 KiB have arrived"),
        pytest.param(chunked(b"1" * 9), -1, id="chunked, read"),
        pytest.param(chunked(b"1" * 9), 0, id="chunked, unread, has arrived"),
        pytest.param(chunked(b"1" * 9), 9, id="chunked, read but for its end"),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "401 UNAUTHORIZED"])
def test_the_connection_is_kept_when_the_body_has_ended(sent: bytes, reads: int, status: str) -> None:
    """Read or small and here: the next request on the connection is served."""
    with connected(sent + NEXT) as server:
        drain = Drain(responding(status, reads=reads), SystemClock())
        assert server.serve(drain)
        assert server.parser.finish_body()
        assert server.serve(drain)
        received = server.received()
    assert received.count(b"done") == 2
    assert received.count(b"Connection: keep-alive") == 2
    assert not received.endswith(b"<end>")


UNREAD = [
    pytest.param(post(b"", 36_000_000), id="nothing of it has come"),
    pytest.param(post(b"1" * 5, 10), id="small, half of it has come"),
    pytest.param(post(b"1" * 100_000), id="large, all of it has come"),
    pytest.param(post(b"", 36_000_000, "Expect: 100-continue"), id="Expect"),
    pytest.param(post(b"", 10**30), id="a length beyond all bounds"),
    pytest.param(post(b"", 10).replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
    pytest.param(post(b"", 10).replace(b"POST", b"HEAD"), id="HEAD"),
    pytest.param(chunked(b"1" * 9, end=b""), id="chunked, not at its end"),
    pytest.param(chunked(b"1" * 9, end=b"1;" + b"a" * 5000), id="chunked, within a long extension"),
    pytest.param(chunked(b"1" * 9, end=b"not hexadecimal\r\n"), id="chunked, malformed"),
    pytest.param(chunked(b"1" * 100_000), id="chunked, large"),
]


@pytest.mark.parametrize("sent", UNREAD)
def test_an_error_response_before_the_end_of_the_body(sent: bytes) -> None:
    """It carries ``Connection: close`` and is complete before anything is read; then both directions are shut."""
    with connected(sent) as server:
        server.client.shutdown(socket.SHUT_WR)
        assert not server.serve(Drain(responding("401 UNAUTHORIZED"), SystemClock()))
        received = server.received()
        assert server.connection.recv(1) == b""
    assert b" 401 UNAUTHORIZED\r\n" in received
    assert b"\r\nConnection: close\r\n" in received
    assert received.endswith(b"<end>")


@pytest.mark.parametrize("sent", UNREAD)
def test_a_success_before_the_end_of_the_body(sent: bytes) -> None:
    """The connection is closed in the same way, so the server does not read on."""
    with connected(sent) as server:
        server.client.shutdown(socket.SHUT_WR)
        assert not server.serve(Drain(responding("200 OK"), SystemClock()))
        assert server.received().endswith(b"<end>")
        assert server.connection.recv(1) == b""


def test_a_view_may_stream_what_it_reads() -> None:
    """The body of a successful request is still the application's while the response is sent."""

    def echo(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield from iter(lambda: environ["wsgi.input"].read(100), b"")

    with connected(post(b"12345" * 1000) + NEXT) as server:
        assert server.serve(Drain(echo, SystemClock()))
        assert server.received().count(b"12345" * 20) == 50


@pytest.mark.parametrize("visible", [True, False], ids=["response visible", "middleware before it"])
@pytest.mark.parametrize("header", ["Connection: close", "Connection: keep-alive"])
def test_without_a_body(header: str, visible: bool) -> None:
    """A connection that the client asked to close is closed soon; gunicorn would wait two seconds."""
    with connected(NEXT.replace(b"\r\n\r\n", f"\r\n{header}\r\n\r\n".encode())) as server:
        closes = header.endswith("close")
        assert server.serve(Drain(responding("200 OK"), SystemClock()), visible=visible) is not closes
        assert server.received().endswith(b"<end>") is (closes and visible)


def test_middleware_that_hides_the_server() -> None:
    """If gunicorn's response object is hidden, the rest is read and the connection is closed as usual."""
    with connected(post(b"1" * 100_000)) as server:
        server.client.shutdown(socket.SHUT_WR)
        assert server.serve(Drain(responding("401 UNAUTHORIZED"), SystemClock()), visible=False)
        assert server.received().endswith(b"<end>")
        assert server.connection.recv(1) == b""


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"gunicorn.socket": None}, id="no socket"),
        pytest.param({"SERVER_PROTOCOL": "HTTP/2.0"}, id="HTTP/2"),
    ],
)
def test_servers_that_are_left_alone(environ: dict[str, Any]) -> None:
    """Without a socket nothing is read; an HTTP/2 socket is shared with other requests."""
    with connected(post(b"", 10)) as server:
        assert server.serve(Drain(responding("401 UNAUTHORIZED"), SystemClock()), environ)
        assert not server.received().endswith(b"<end>")
        assert type(server.environ["wsgi.input"]).__module__.startswith("gunicorn.")


def test_a_protected_app_in_a_protected_app() -> None:
    """The outer one alone ends the connection."""
    inner = Drain(responding("401 UNAUTHORIZED"), SystemClock())
    iterables: list[object] = []

    def mounted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        iterables.append(inner(environ, start_response))
        return iterables[0]  # type: ignore[return-value]

    with connected(post(b"1" * 100_000)) as server:
        server.client.shutdown(socket.SHUT_WR)
        assert not server.serve(Drain(mounted, SystemClock()))
    assert isinstance(iterables[0], list)


def test_all_apps_of_a_worker_have_one_share() -> None:
    """With four apps in a worker with four threads, one thread reads at a time."""
    late = PacedSocket(FakeClock(), [(0.0, 5)])
    with connected(post(b"", 100_000) + post(b"", 100_000)) as server:

        class Busy(PacedSocket):
            def recv(self, size: int, /) -> bytes:
                with connected(post(b"", 100_000)) as second:
                    second.cfg = server.cfg
                    second.serve(Drain(responding("401 UNAUTHORIZED"), FakeClock()), {"gunicorn.socket": late})
                return b""

        server.cfg.set("threads", 4)
        busy = Busy(FakeClock(), [])
        server.serve(Drain(responding("401 UNAUTHORIZED"), FakeClock()), {"gunicorn.socket": busy})
    assert busy.events == [socket.SHUT_WR, socket.SHUT_RDWR]
    assert late.events == [socket.SHUT_RDWR]


def test_the_response_is_recorded_before_the_rest_is_read() -> None:
    """The response's own ``close()``, which writes the record, runs first; its failure has no effect."""
    connection = PacedSocket(FakeClock(), [(0.0, 5)])
    environ = {"wsgi.input": BytesIO(), "CONTENT_LENGTH": "100000", "gunicorn.socket": connection}
    environ |= {"SERVER_PROTOCOL": "HTTP/1.1", "wsgi.multithread": True}

    class Recorded(list[bytes]):
        def close(self) -> None:
            connection.events.append("recorded")
            raise ValueError

    response = Drain(lambda _environ, _start: Recorded(), connection.clock)(environ, lambda *_: lambda _: None)
    assert isinstance(response, Closing)
    with pytest.raises(ValueError):  # noqa: PT011 - it has no message
        response.close()
    assert connection.events == ["recorded", socket.SHUT_WR, "recv", "recv", socket.SHUT_RDWR]


@pytest.mark.parametrize("state", ["reset", "closed"])
def test_a_client_that_is_gone(state: str) -> None:
    """A broken connection is not an error of the response."""
    with connected(post(b"", 100_000)) as server:
        if state == "closed":
            app = Drain(responding("401 UNAUTHORIZED"), SystemClock())
            request = next(server.parser)
            response, environ = create(request, server.connection, ("a", 1), ("b", 1), server.cfg)
            server.connection.close()
            app(environ, response.start_response).close()  # type: ignore[attr-defined]
            return
        broken = PacedSocket(FakeClock(), [], broken=True)
        server.serve(Drain(responding("401 UNAUTHORIZED"), FakeClock()), {"gunicorn.socket": broken})
        assert broken.events == [socket.SHUT_WR, "recv", socket.SHUT_RDWR]


def test_files_are_still_sent_by_the_kernel() -> None:
    """gunicorn's file wrapper reaches gunicorn, and its close ends the connection too."""
    file = BytesIO(b"done")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        return wrapper

    with connected(post(b"1" * 100_000)) as server:
        server.client.shutdown(socket.SHUT_WR)
        kinds: list[type] = []
        drain = Drain(app, SystemClock())

        def seen(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            iterable = drain(environ, start_response)
            kinds.append(type(iterable))
            return iterable

        assert not server.serve(seen, visible=True)
        assert server.received().endswith(b"<end>")
    assert (kinds, file.closed) == ([FileWrapper], True)


@pytest.mark.parametrize(
    ("multithread", "threads", "seconds"),
    [
        pytest.param(False, 1, 0.25, id="sync"),
        pytest.param(True, 1, 0.25, id="gthread, one thread"),
        pytest.param(True, 4, 1.0, id="gthread, four threads"),
    ],
)
def test_the_bounds_of_workers(multithread: bool, threads: int, seconds: float) -> None:
    """A worker with one thread does not wait, because that would block all clients."""
    clock = FakeClock(0.0)
    slow = PacedSocket(clock, forever(0.2, 1))
    with connected(post(b"", 100_000)) as server:
        server.cfg.set("threads", threads)
        app = Drain(responding("401 UNAUTHORIZED"), clock)
        server.serve(app, {"gunicorn.socket": slow, "wsgi.multithread": multithread})
    assert clock.monotonic() == pytest.approx(seconds, abs=0.21)


def test_a_view_that_fails_is_not_touched() -> None:
    """The server makes the response of an application that raises."""

    def failing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise LookupError

    with connected(post(b"", 10)) as server, pytest.raises(LookupError):
        server.serve(Drain(failing, SystemClock()))


# --- the body --------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[RequestBody], object]] = {
    "read()": lambda body: body.read(),
    "read(n)": lambda body: b"".join(iter(lambda: body.read(3), b"")),
    "readline()": lambda body: b"".join(iter(body.readline, b"")),
    "readlines()": lambda body: body.readlines(),
    "iteration": list,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("sent", [post(b"1\n23\n456"), chunked(b"1\n23\n456")], ids=["declared", "chunked"])
def test_a_body_that_was_read_has_ended(sent: bytes, reader: Callable[[RequestBody], object]) -> None:
    """By whichever method, in either framing."""
    with connected(sent) as server:
        request = next(server.parser)
        _, environ = create(request, server.connection, ("a", 1), ("b", 1), server.cfg)
        body = RequestBody.declared(environ)
        assert body is not None
        body.read(0)
        before = body.ended
        reader(body)
        assert (before, body.ended) == (False, True)
        assert body.has_arrived(server.connection)


@pytest.mark.parametrize("length", ["", "0", None])
def test_no_body_is_declared(length: str | None) -> None:
    """Without a length there is none."""
    assert RequestBody.declared({"wsgi.input": BytesIO(), "CONTENT_LENGTH": length}) is None


def test_a_rejected_body_that_has_arrived_can_still_be_read() -> None:
    """A teardown function that reads it gets it, and the socket has its timeout again."""
    with connected(post(b"0123456789")) as server:
        request = next(server.parser)
        server.connection.settimeout(7.0)
        body = RequestBody(request.body, 10)
        assert body.read(4) == b"0123"
        assert body.has_arrived(server.connection)
        assert (body.read(), server.connection.gettimeout()) == (b"456789", 7.0)


def test_a_body_that_has_not_arrived_is_not_waited_for() -> None:
    """The part that has arrived is not lost."""
    with connected(post(b"01234", 10)) as server:
        request = next(server.parser)
        body = RequestBody(request.body, 10)
        assert not body.has_arrived(server.connection)
        server.client.sendall(b"56789")
        assert body.read(10) == b"0123456789"


# --- what stands behind a body -----------------------------------------------------------------------------

BEHIND = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"
WITHIN = b"GET /within HTTP/1.1\r\nHost: a\r\n\r\n"
Reading = Callable[[Any], object]


def careless(read: Reading) -> Reading:
    """Return a reader of bodies that reads on after an error."""

    def reader(body: Any) -> None:
        for _ in range(2):
            with suppress(Exception):
                read(body)

    return reader


BODIES: dict[str, tuple[bytes, Reading, list[str]]] = {
    "read": (post(b"1" * 9), lambda body: body.read(), ["/", "/behind"]),
    "unread, has arrived": (post(b"1" * 9), lambda _: None, ["/", "/behind"]),
    "empty": (post(b""), lambda _: None, ["/", "/behind"]),
    "chunked, read": (chunked(b"1" * 9), lambda body: body.read(), ["/", "/behind"]),
    "large, unread": (post(b"1" * 100_000), lambda _: None, ["/"]),
    "large, half read": (post(b"1" * 200_000), lambda body: body.read(100_000), ["/"]),
    "large, its length again behind it": (post(b"1" * 200_000, 100_000), lambda _: None, ["/"]),
    "a request as the body": (post(WITHIN, 100_000), lambda _: None, ["/"]),
    "a request as half of the body": (post(WITHIN * 2), lambda body: body.read(len(WITHIN)), ["/", "/behind"]),
    "the length has leading zeros": (post(b"", 0).replace(b": 0", b": " + b"0" * 30), lambda _: None, ["/"]),
    "chunked, large, unread": (chunked(b"1" * 100_000), lambda _: None, ["/"]),
    "chunked, malformed, unread": (chunked(b"1", b"zz\r\n"), lambda _: None, ["/"]),
    "chunked, malformed, read": (chunked(b"1", b"zz\r\n"), careless(lambda body: body.read()), ["/"]),
    "chunked, malformed, by lines": (chunked(b"1", b"zz\r\n"), careless(lambda body: body.readline()), ["/"]),
    "chunked, malformed, all lines": (chunked(b"1", b"zz\r\n"), careless(lambda body: body.readlines()), ["/"]),
    "chunked, malformed, iterated": (chunked(b"1", b"zz\r\n"), careless(list), ["/"]),
    "chunked, malformed trailer": (chunked(b"1", b"0\r\nHost\r\n\r\n"), careless(lambda body: body.read()), ["/"]),
    "chunked, a trailer without end": (chunked(b"1", b"0\r\na: b\r\n"), careless(lambda body: body.read()), ["/"]),
}


@pytest.mark.parametrize("status", ["200 OK", "401 UNAUTHORIZED"])
@pytest.mark.parametrize("visible", [True, False], ids=["response visible", "middleware before it"])
@pytest.mark.parametrize(("sent", "read", "paths"), BODIES.values(), ids=BODIES)
def test_no_bytes_of_a_body_become_a_request(
    sent: bytes, read: Reading, paths: list[str], visible: bool, status: str
) -> None:
    """Data after a body is served if the body has ended; otherwise the connection is not used further."""
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        seen.append(environ["PATH_INFO"])
        if len(seen) == 1 and isinstance(environ["wsgi.input"], RequestBody):
            read(environ["wsgi.input"])
        start_response(status, [("Content-Length", "4")])
        return [b"done"]

    with connected(sent + BEHIND * 2) as server:
        server.client.shutdown(socket.SHUT_WR)
        drain = Drain(app, SystemClock())
        with suppress(StopIteration):
            while server.serve(drain, visible=visible) and len(seen) < 2:
                pass
        received = server.received()
    assert seen == paths
    assert received.endswith(b"<end>") or len(paths) == 2
    if status.startswith("401") and visible:
        assert (b"Connection: close" in received) is (len(paths) == 1)


def test_a_body_whose_reading_was_interrupted() -> None:
    """gevent's Timeout is not an ``Exception``, so gunicorn does not notice that it ended the chunk reader."""

    class Timeout(BaseException):
        pass

    def late(*_: object) -> bytes:
        raise Timeout

    seen: list[str] = []

    with connected(chunked(b"1", b"")) as server:

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            seen.append(environ["PATH_INFO"])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(server.parser.unreader, "chunk", late)
                with pytest.raises(Timeout):
                    environ["wsgi.input"].read()
            server.client.sendall(WITHIN)
            server.client.shutdown(socket.SHUT_WR)
            assert environ["wsgi.input"].read() == b"1"
            start_response("503 SERVICE UNAVAILABLE", [("Content-Length", "4")])
            return [b"late"]

        assert not server.serve(Drain(app, SystemClock()))
        with pytest.raises(StopIteration):
            next(server.parser)
        assert b"Connection: close" in server.received()
    assert seen == ["/"]


def framed(framing: str, pieces: list[bytes]) -> bytes:
    """Return a request whose body consists of pieces, with or without its end depending on the case."""
    body = b"".join(pieces)
    if framing in {"declared", "too long"}:
        return post(body, len(body) + 10 * (framing == "too long"))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    end = {"chunked": b"0\r\n\r\n", "malformed": b"x" + WITHIN, "unfinished": b"%x\r\n%s" % (9 * len(WITHIN), WITHIN)}
    return chunked(b"1", chunks + end[framing])


@given(
    framing=st.sampled_from(["declared", "too long", "chunked", "malformed", "unfinished"]),
    pieces=st.lists(st.sampled_from([b"1", b"\r\n", b"0\r\n\r\n", WITHIN, WITHIN * 40]), max_size=6),
    large=st.booleans(),
    cut=st.floats(0.0, 1.0),
    reads=st.lists(
        st.tuples(st.sampled_from(["read", "readline"]), st.sampled_from([-1, 0, 1, 50, 70_000])), max_size=4
    ),
    status=st.sampled_from(["200 OK", "413 CONTENT TOO LARGE"]),
    visible=st.booleans(),
)
def test_no_way_to_read_a_body_makes_a_request_of_it(
    framing: str,
    pieces: list[bytes],
    large: bool,
    cut: float,
    reads: list[tuple[str, int]],
    status: str,
    visible: bool,
) -> None:
    """Whatever an app reads, and wherever it is interrupted because the rest has not arrived."""
    sent = framed(framing, pieces + [WITHIN * 2000] * large)
    complete = framing in {"declared", "chunked"}
    head = sent.index(b"\r\n\r\n") + 4
    early = head + int(cut * (len(sent) - head))
    seen: list[str] = []
    served_until: list[int] = []

    class Recording(Drain):
        def discard(self, connection: Any, limit: int, grace: float, share: Share) -> None:
            served_until.append(len(seen))
            super().discard(connection, limit, grace, share)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        seen.append(environ["PATH_INFO"])
        for method, size in reads:
            with suppress(Exception):
                getattr(environ["wsgi.input"], method)(size)
        if len(seen) == 1:
            sender.start()
        start_response(status, [("Content-Length", "4")])
        return [b"done"]

    with connected(sent[:early]) as server:

        def send_the_rest() -> None:
            with suppress(OSError):
                server.client.sendall(sent[early:] + BEHIND * 4000 * complete)
            with suppress(OSError):
                server.client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send_the_rest)
        server.connection.settimeout(0.001)
        drain = Recording(app, SystemClock())
        with suppress(Exception):
            while server.serve(drain, visible=visible) and len(seen) < 3:
                server.connection.settimeout(0.1)
        server.connection.close()
        sender.join()
    assert set(seen[1:]) <= ({"/behind"} if complete else set())
    assert served_until in ([], [len(seen)])
