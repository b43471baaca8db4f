"""The bounded GET, against servers on loopback that do what they should not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from certificates import make_certificate
from flask_secure_ml.authentication.fetch import FetchError, fetch

Behaviour = Callable[[socket.socket], None]
Serve = Callable[[Behaviour], str]


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Answer connections with a behaviour, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_loop, args=(server, behaviour), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/jwks?x=1"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _loop(server: socket.socket, behaviour: Behaviour) -> None:
    while True:
        try:
            channel = server.accept()[0]
        except OSError:
            return
        with channel:
            try:
                behaviour(channel)
            except OSError:
                continue


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(serving(behaviour))


def answering(raw: bytes) -> Behaviour:
    def answer(channel: socket.socket) -> None:
        channel.recv(65_536)
        channel.sendall(raw)

    return answer


def dripping(raw: bytes) -> Behaviour:
    """Send one byte each 50 ms, as long as the other side takes it."""

    def drip(channel: socket.socket) -> None:
        pause = threading.Event()
        channel.recv(65_536)
        for byte in raw:
            channel.sendall(bytes([byte]))
            pause.wait(0.05)

    return drip


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_body(serve: Serve) -> None:
    """The body comes back byte by byte."""
    assert fetch(serve(answering(ok(b'{"keys": []}')))) == b'{"keys": []}'


def test_request_has_no_cookie_and_keeps_the_query(serve: Serve) -> None:
    """JB-14: the request says no more than where and what."""
    seen: list[bytes] = []

    def note(channel: socket.socket) -> None:
        seen.append(channel.recv(65_536))
        channel.sendall(ok(b"x"))

    fetch(serve(note))
    assert seen[0].startswith(b"GET /jwks?x=1 HTTP/1.1\r\n")
    assert b"cookie" not in seen[0].lower()
    assert b"authorization" not in seen[0].lower()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", id="redirect"),
        pytest.param(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", id="500"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x00\xff\x00", id="noise"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nX" + b"y" * 70_000 + b": z\r\n\r\n", id="long header"),
        pytest.param(ok(b"x" * 2_000), id="too large"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000, id="too large without length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"7d0\r\n" + b"x" * 2_000 + b"\r\n0\r\n\r\n",
            id="too large in chunks",
        ),
    ],
)
def test_anything_else_is_refused(serve: Serve, raw: bytes) -> None:
    """J2: redirects, errors, noise and large bodies are a FetchError."""
    with pytest.raises(FetchError):
        fetch(serve(answering(raw)), max_bytes=1_000)


def test_redirect_is_not_followed(serve: Serve) -> None:
    """AS-4: the address that a redirect names is never asked."""
    asked = threading.Event()

    def trap(channel: socket.socket) -> None:
        asked.set()

    target = serve(trap)
    with pytest.raises(FetchError):
        fetch(serve(answering(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())))
    assert not asked.is_set()


@pytest.mark.parametrize("raw", [ok(b"x" * 1_000), b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000], ids=["body", "header"])
def test_slow_server_is_cut_off(serve: Serve, raw: bytes) -> None:
    """J2: a server that sends a byte now and then does not hold the thread for longer than the time allowed."""
    with pytest.raises(FetchError):
        fetch(serve(dripping(raw)), timeout=0.3)


def test_silent_server_is_cut_off(serve: Serve) -> None:
    """J2: so is one that sends nothing."""
    with pytest.raises(FetchError):
        fetch(serve(say_nothing), timeout=0.2)


def say_nothing(channel: socket.socket) -> None:
    channel.settimeout(10)
    while channel.recv(65_536):
        pass


def test_nobody_listens() -> None:
    """A refused connection is a FetchError."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FetchError):
        fetch(f"http://127.0.0.1:{port}/")


def test_proxy_of_the_environment_is_ignored(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable cannot send the request elsewhere."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(serve(answering(ok(b"direct")))) == b"direct"


def over_tls(behaviour: Behaviour, folder: Path) -> Behaviour:
    """Wrap a behaviour in TLS with a certificate that signs itself."""
    made = make_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    def wrapped(channel: socket.socket) -> None:
        with context.wrap_socket(channel, server_side=True) as secured:
            behaviour(secured)

    return wrapped


def test_certificate_is_checked(serve: Serve, tmp_path: Path) -> None:
    """AS-2, J2: a certificate that no known authority signed is refused."""
    address = serve(over_tls(answering(ok(b"x")), tmp_path)).replace("http:", "https:")
    with pytest.raises(FetchError, match="SSLCertVerificationError"):
        fetch(address)


def test_host_name_is_checked(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AS-2: a trusted certificate counts for the names in it only."""
    plain = serve(over_tls(answering(ok(b"secured")), tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    assert fetch(plain.replace("http:", "https:")) == b"secured"
    with pytest.raises(FetchError):
        fetch(plain.replace("http://127.0.0.1", "https://127.0.0.2"))


def test_slow_tls_server_is_cut_off(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """J2: TLS does not shield a server that drips."""
    plain = serve(over_tls(dripping(ok(b"x" * 1_000)), tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    with pytest.raises(FetchError):
        fetch(plain.replace("http:", "https:"), timeout=0.5)
