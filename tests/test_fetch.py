"""The bounded GET, against misbehaving servers on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from certificates import make_certificate
from flask_secure_ml.fetch import FetchError, fetch, is_public, require_ok, send, tls_reason

Behaviour = Callable[[socket.socket], None]
Serve = Callable[[Behaviour], str]


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Response connections with a behaviour, one after the other."""
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
    def response(channel: socket.socket) -> None:
        channel.recv(65_536)
        channel.sendall(raw)

    return response


def dripping(raw: bytes, at_once: bytes = b"") -> Behaviour:
    """Send one byte every 50 ms, as long as the client reads."""

    def drip(channel: socket.socket) -> None:
        pause = threading.Event()
        channel.recv(65_536)
        channel.sendall(at_once)
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
    """JB-14: the request contains only the URL."""
    seen: list[bytes] = []

    def note(channel: socket.socket) -> None:
        seen.append(channel.recv(65_536))
        channel.sendall(ok(b"x"))

    fetch(serve(note))
    assert seen[0].startswith(b"GET /jwks?x=1 HTTP/1.1\r\n")
    assert b"Connection: close\r\n" in seen[0]
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
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", id="breaks off"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nx", id="breaks off in a chunk"),
        pytest.param(ok(b"x" * 2_000), id="too large"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000, id="too large without length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"7d0\r\n" + b"x" * 2_000 + b"\r\n0\r\n\r\n",
            id="too large in chunks",
        ),
    ],
)
def test_anything_else_is_rejected(serve: Serve, raw: bytes) -> None:
    """J2: redirects, errors, noise and large bodies are a FetchError."""
    with pytest.raises(FetchError):
        fetch(serve(answering(raw)), max_bytes=1_000)


def test_redirect_is_not_followed(serve: Serve) -> None:
    """AS-4: the URL of a redirect is never requested."""
    asked = threading.Event()

    def trap(channel: socket.socket) -> None:
        asked.set()

    target = serve(trap)
    with pytest.raises(FetchError):
        fetch(serve(answering(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())))
    assert not asked.is_set()


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        pytest.param(b"", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000, id="header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x" * 1_000, id="body"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1_000, id="body without length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 200, id="body in chunks"
        ),
    ],
)
def test_slow_server_is_cut_off(serve: Serve, at_once: bytes, slowly: bytes) -> None:
    """J2: a server that sends a byte now and then does not hold the thread for longer than the time allowed."""
    begun = time.monotonic()
    with pytest.raises(FetchError):
        fetch(serve(dripping(slowly, at_once)), timeout=0.3)
    assert time.monotonic() - begun < 5


def test_silent_server_is_cut_off(serve: Serve) -> None:
    """J2: the same for a server that sends nothing."""
    with pytest.raises(FetchError):
        fetch(serve(say_nothing), timeout=0.2)


def say_nothing(channel: socket.socket) -> None:
    channel.settimeout(10)
    while channel.recv(65_536):
        pass


def test_nobody_listens() -> None:
    """A rejected connection is a FetchError."""
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
    """AS-2, J2: a certificate that no known authority signed is rejected."""
    address = serve(over_tls(answering(ok(b"x")), tmp_path)).replace("http:", "https:")
    with pytest.raises(FetchError, match=r"SSLCertVerificationError while fetching it \(self.signed certificate\)"):
        fetch(address, private_network=True)


def test_host_name_is_checked(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AS-2: a trusted certificate counts for the names in it only."""
    plain = serve(over_tls(answering(ok(b"secured")), tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    assert fetch(plain.replace("http:", "https:"), private_network=True) == b"secured"
    with pytest.raises(FetchError, match=r"SSLCertVerificationError|ConnectionRefusedError"):
        fetch(plain.replace("http://127.0.0.1", "https://127.0.0.2"), private_network=True)


def test_the_reason_of_a_handshake_that_fails(serve: Serve) -> None:
    """The reason distinguishes a server without TLS from one that is down."""
    address = serve(answering(ok(b"x"))).replace("http:", "https:")
    with pytest.raises(FetchError, match=r"SSLError while fetching it \((wrong version|record layer)"):
        fetch(address, private_network=True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ssl.SSLError(1, "[SSL: TLSV1_UNRECOGNIZED_NAME] tlsv1 unrecognized name (_ssl.c:1000)"), ""),
        (ssl.SSLError("what was sent"), ""),
        (OSError("what was sent"), ""),
        (ValueError("what was sent"), ""),
    ],
)
def test_other_messages_are_not_repeated(error: Exception, reason: str) -> None:
    """Only constants of OpenSSL are repeated."""
    assert tls_reason(error) == reason


def test_slow_tls_server_is_cut_off(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """J2: TLS does not shield a server that drips."""
    plain = serve(over_tls(dripping(ok(b"x" * 1_000)), tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    with pytest.raises(FetchError):
        fetch(plain.replace("http:", "https:"), timeout=0.5, private_network=True)


def test_slow_handshake_is_cut_off(serve: Serve) -> None:
    """J2: the time for the exchange covers the TLS handshake."""
    begun = time.monotonic()
    plain = serve(dripping(b"\x16\x03\x03\x40\x00" + b"x" * 1_000))
    with pytest.raises(FetchError):
        fetch(plain.replace("http:", "https:"), timeout=0.3, private_network=True)
    assert time.monotonic() - begun < 5


def test_post(serve: Serve) -> None:
    """A body makes it a POST; status and body of any response come back."""
    seen: list[bytes] = []

    def note(channel: socket.socket) -> None:
        # Head and body come in packets of their own.
        while not b"".join(seen).endswith(b"token=x"):
            seen.append(channel.recv(65_536))
        channel.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\nContent-Type: Text/Plain; charset=x\r\n\r\nno")

    reply = send(serve(note), body=b"token=x", headers={"X-Own": "1"})
    assert (reply.status, reply.body, reply.media_type) == (401, b"no", "text/plain")
    head, _, body = b"".join(seen).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /jwks?x=1 HTTP/1.1\r\n")
    assert b"\r\nX-Own: 1" in head
    assert body == b"token=x"
    with pytest.raises(FetchError, match="401"):
        require_ok(reply)


NOT_PUBLIC = (
    # Private, shared, loopback and link-local, with the first and last of each.
    *("0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1"),
    *("127.255.255.255", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"),
    # Protocol assignments, documentation, benchmarks, 6to4 relays, multicast, reserved.
    *(
        "192.0.0.1",
        "192.0.0.9",
        "192.0.0.10",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
    ),
    # Within the ranges, too.
    *("10.1.2.3", "100.64.0.1", "172.16.0.1", "192.168.0.1"),
    *("198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    # IPv6: unspecified, loopback, discard-only, unique local, link-local, site-local, multicast, not allocated.
    *("::", "::1", "100::1", "100:0:0:1::1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1", "4000::1"),
    *("5f00::1", "1fff::1", "fe80::1%eth0", "2606:4700::1111%eth0", "::ffff:8.8.8.8%eth0"),
    # Protocol assignments (Teredo, benchmarks, ORCHID, drones), documentation, 6to4.
    *("2001::1", "2001::7f00:1", "2001:1::1", "2001:2::1", "2001:3::1", "2001:10::1", "2001:20::1", "2001:30::1"),
    *("2001:1ff:ffff::1", "2001:db8::1", "3fff::1", "3fff:fff::1", "2002:7f00:1::", "2002:808:808::1"),
    *("2002:a00:1::",),
    # IPv4 inside IPv6: mapped, compatible, and NAT64 with a well-known and a local prefix.
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:192.0.0.9", "::7f00:1", "::8.8.8.8", "64:ff9b::7f00:1"),
    *("64:ff9b::a00:1", "64:ff9b::c058:6301", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808"),
)
PUBLIC = (
    *("8.8.8.8", "1.0.0.1", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.0.3.1"),
    *("192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"),
    # Registered for AS112 and AMT, and reachable from everywhere.
    *("192.31.196.1", "192.52.193.1", "192.175.48.1", "2620:4f:8000::1"),
    *("2606:4700::1111", "2001:200::1", "2003::1", "3ffe::1", "3fff:1000::1", "::ffff:8.8.8.8", "64:ff9b::808:808"),
)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    """JB-14, AS-4: no spelling of an internal or special address is public, on any release of Python."""
    assert not is_public(address)
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Public addresses are accepted, up to the limits of special-purpose ranges."""
    assert is_public(address)
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", ["", "localhost", "8.8.8", "8.8.8.8/32", "08.8.8.8", "[::1]"])
def test_strings_that_are_no_addresses(address: str) -> None:
    """They are not public."""
    assert not is_public(address)


@pytest.mark.parametrize("place", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_private_address_is_not_connected_to(place: str) -> None:
    """JB-14, AS-4, J2: whatever its name is, a private address gets no connection unless it is allowed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        with pytest.raises(FetchError, match=r"no allowed IP address \(private addresses need"):
            fetch(f"https://{place}:{server.getsockname()[1]}/jwks")
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("private_network", [True, False])
def test_clear_text_stays_on_loopback(private_network: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere than to loopback gets no clear text."""
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [place])
    with pytest.raises(FetchError, match=r"no allowed IP address .*http: is for loopback only"):
        fetch("http://localhost/jwks", private_network=private_network)


def resolving_to(*hosts: str) -> Callable[..., Any]:
    return lambda _host, port, *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]


def test_rebound_name(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """JB-14: a name that resolves to a public and a private address gets no connection to the private one."""
    tried = noting_connections(monkeypatch)
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.1", "8.8.8.8", "169.254.169.254", "8.8.8.8"))
    with pytest.raises(FetchError, match="TimeoutError"):
        fetch("https://keys.example:8443/")
    assert [place for place, _ in tried] == [("8.8.8.8", 8443)]


def noting_connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, float]]:
    """Let every connection time out, and note to where and after how many seconds."""
    tried: list[tuple[object, float]] = []

    def connect(channel: socket.socket, place: object) -> None:
        tried.append((place, channel.gettimeout() or 0))
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", connect)
    return tried


def test_addresses_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of several addresses cannot use up the time of the others."""
    tried = noting_connections(monkeypatch)
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("8.8.8.8", "2606:4700::1111", "8.8.4.4"))
    with pytest.raises(FetchError):
        fetch("https://keys.example/", timeout=90)
    assert [round(seconds) for _, seconds in tried] == [30, 45, 90]


def test_next_address(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that does not respond leaves time for the next one."""
    address = serve(answering(ok(b"second")))
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.3", "127.0.0.1"))
    assert fetch(address) == b"second"


@pytest.mark.parametrize("uri", ["ftp://127.0.0.1/", "file:///etc/passwd", "https:///x", "127.0.0.1", "http://[", ""])
def test_addresses_of_another_kind(uri: str) -> None:
    """JB-14: only http and https URLs are requested."""
    with pytest.raises(FetchError):
        fetch(uri, private_network=True)


def test_kept_context(serve: Serve, tmp_path: Path) -> None:
    """A caller may cache the TLS context, because loading all authorities is expensive."""
    address = serve(over_tls(answering(ok(b"secured")), tmp_path)).replace("http:", "https:")
    context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    assert send(address, private_network=True, context=context).body == b"secured"


def test_resolved_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was looked at is the one that is connected to: a name has no second chance."""
    responses: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **options: Any) -> Any:
        responses.append(host)
        return real(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    fetch(serve(answering(ok(b"x"))).replace("127.0.0.1", "localhost"))
    assert responses.count("localhost") == 1


def tunnel(head: bytes, seen: list[bytes]) -> Behaviour:
    """A proxy: responds with a head, and passes bytes on to the server that the client named."""

    def respond(channel: socket.socket) -> None:
        seen.append(channel.recv(65_536))
        channel.sendall(head)
        host, _, port = seen[0].split(b" ")[1].decode().rpartition(":")
        with socket.create_connection((host.replace("models.invalid", "127.0.0.1"), int(port))) as server:
            threads = [threading.Thread(target=_pass_on, args=pair) for pair in ((channel, server), (server, channel))]
            for each in threads:
                each.start()
            for each in threads:
                each.join(10)

    return respond


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def proxied(serve: Serve, folder: Path, head: bytes, host: str = "127.0.0.1") -> tuple[bytes, list[bytes]]:
    """Return the content fetched over TLS through a proxy, and the bytes that the proxy received."""
    seen: list[bytes] = []
    address = serve(over_tls(answering(ok(b"through")), folder)).replace("http://127.0.0.1", f"https://{host}")
    proxy = serve(tunnel(head, seen)).partition("/jwks")[0]
    context = ssl.create_default_context(cafile=str(folder / "server.pem"))
    return send(address, context=context, proxy=proxy).body, seen


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n"])
def test_proxy(serve: Serve, tmp_path: Path, head: bytes) -> None:
    """An https URL is fetched through a tunnel; the proxy sees only the host."""
    body, seen = proxied(serve, tmp_path, head)
    assert body == b"through"
    [connect] = seen
    assert connect.startswith(b"CONNECT 127.0.0.1:")
    assert b"/jwks" not in connect


def test_proxy_cannot_stand_for_the_host(serve: Serve, tmp_path: Path) -> None:
    """AS-2: the proxy resolves the name, and TLS verifies it."""
    with pytest.raises(FetchError, match="SSLCertVerificationError"):
        proxied(serve, tmp_path, b"HTTP/1.1 200 OK\r\n\r\n", "models.invalid")


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", id="407"),
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: https://evil.example\r\n\r\n", id="redirect"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}", id="response before the tunnel"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2_000, id="endless head"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n\r\n", id="no status"),
    ],
)
def test_proxy_that_opens_no_tunnel(serve: Serve, tmp_path: Path, head: bytes) -> None:
    """Nothing is sent through a proxy that does not do what it was asked."""
    with pytest.raises(FetchError, match="its proxy did not open a tunnel"):
        proxied(serve, tmp_path, head)


def test_proxy_that_says_nothing(serve: Serve) -> None:
    """The time limit is that of the whole exchange, with the tunnel."""

    def wait(channel: socket.socket) -> None:
        while channel.recv(65_536):
            pass

    proxy = serve(wait).partition("/jwks")[0]
    assert timed(lambda: send("https://192.0.2.1/", timeout=0.2, proxy=proxy)) < 5


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    with pytest.raises(FetchError):
        call()
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("uri", "proxy"),
    [
        ("http://127.0.0.1:1/", "http://127.0.0.1:1"),
        ("https://127.0.0.1/", "https://127.0.0.1:1"),
        ("https://127.0.0.1/", "socks5://127.0.0.1:1"),
        ("https:///x", "http://127.0.0.1:1"),
        ("https://127.0.0.1/", "http://"),
    ],
)
def test_no_tunnel_for_these(uri: str, proxy: str) -> None:
    """Clear text is not sent through a proxy, and there is no other kind of one."""
    with pytest.raises(FetchError, match="supports only https URLs"):
        send(uri, proxy=proxy)
