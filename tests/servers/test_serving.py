"""gunicorn with the package's configuration: handshakes, rejections by gunicorn, limits and timeouts."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from certificates import Certificate, authority, issue
from servers import Served, free_port, gunicorn, wait_until
from serving import CONFIG, serving
from tls_handshakes import connect, only_group

CASES = json.loads((Path(__file__).parents[1] / "corpus/server/rejected.json").read_text())
WORKERS = ["gevent", "gthread", "sync"]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Callable[[str], Served]]:
    """A function that returns a server with workers of a class; each is started once."""
    with ExitStack() as running:

        @cache
        def started(worker: str) -> Served:
            folder = tmp_path_factory.mktemp(worker)
            return running.enter_context(serving(folder, certificate, WORKER_CLASS=worker))

        yield started


def request_of(case: dict[str, Any]) -> bytes:
    text: str = case["request"]
    if "pad" in case:
        part, count = case["pad"]
        text = text.replace(part, part + (part if ":" in part else "a") * count, 1)
    return text.encode("latin-1")


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("case", CASES, ids=[each["id"] for each in CASES])
def test_what_gunicorn_rejects(serve: Callable[[str], Served], worker: str, case: dict[str, Any]) -> None:
    """The response is a problem document without content of the request or details of gunicorn and its limits."""
    served = serve(worker)
    before = len(served.log.read_bytes())
    head, _, body = served.raw(request_of(case)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % case["status"])
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (case["status"], case["code"]), problem
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert headers["X-Request-ID"] == problem["request_id"]
    assert (headers["X-Error-Code"], headers["Content-Type"]) == (case["code"], "application/problem+json")
    assert not re.search(rb"(?i)gunicorn|server:|c4n4ry|\d{4} ?(bytes|>)", head + body)
    wait_until(lambda: problem["request_id"] in served.log.read_text(), "the line of the log")
    assert b"c4n4ry" not in served.log.read_bytes()[before:]


@pytest.mark.parametrize("worker", WORKERS)
def test_the_response_arrives_before_the_rest_of_the_request(serve: Callable[[str], Served], worker: str) -> None:
    """A client that sends more than gunicorn reads can read why it was rejected."""
    request = b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 4000 + b"\r\n"
    assert serve(worker).raw(request).startswith(b"HTTP/1.1 414 ")


@pytest.mark.parametrize("worker", WORKERS)
def test_no_server_header(serve: Callable[[str], Served], worker: str) -> None:
    """Neither of the app's responses nor of others."""
    status, headers, _ = serve(worker).call("GET", "/wait/0")
    assert status == 200
    assert "Server" not in headers
    assert "Server" not in serve(worker).call("GET", "/nowhere")[1]


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("headers", [{"X-Forwarded-Proto": "http", "X-Forwarded-Ssl": "on"}, {"SCRIPT_NAME": "/wait"}])
def test_forwarded_headers(serve: Callable[[str], Served], worker: str, headers: dict[str, str]) -> None:
    """gunicorn acts upon no header of a proxy, though this client has the IP address that it trusts by default."""
    assert serve(worker).call("GET", "/wait/0", headers=headers)[0] == 200


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("group", ["X25519", "prime256v1", "secp384r1", "X448", "secp521r1"])
def test_groups(serve: Callable[[str], Served], worker: str, group: str) -> None:
    """A real server has those of the profile, and no other."""
    served = serve(worker)
    context = ssl.create_default_context(cafile=served.trusted)
    only_group(context, group)
    if group in {"X448", "secp521r1"}:
        with pytest.raises(ssl.SSLError):
            connect(served.port, context)
    else:
        with connect(served.port, context) as channel:
            assert channel.version() == "TLSv1.3"


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize(
    "suite", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-CCM", "ECDHE-ECDSA-CAMELLIA128-SHA256"]
)
def test_suites(serve: Callable[[str], Served], worker: str, suite: str) -> None:
    """A real server has those of the profile, and no other."""
    served = serve(worker)
    context = ssl.create_default_context(cafile=served.trusted)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    with connect(served.port, context) as channel:
        assert (channel.version(), channel.compression()) == ("TLSv1.2", None)
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        connect(served.port, context)


@pytest.mark.parametrize("worker", WORKERS)
def test_protocol_and_sessions(serve: Callable[[str], Served], worker: str) -> None:
    """The protocol is HTTP/1.1, and no ticket is given out."""
    served = serve(worker)
    context = ssl.create_default_context(cafile=served.trusted)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect(served.port, context) as channel:
        channel.sendall(b"GET /wait/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert channel.recv(15) == b"HTTP/1.1 200 OK"
        assert channel.selected_alpn_protocol() == "http/1.1"
        assert channel.session is None or not channel.session.has_ticket


@pytest.mark.parametrize("worker", WORKERS)
def test_clear_text(serve: Callable[[str], Served], worker: str) -> None:
    """HTTP on the TLS port gets no response in clear text, and no traceback is logged."""
    served = serve(worker)
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain:
        plain.sendall(b"GET /wait/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        found = b""
        with suppress(ConnectionError):
            found = plain.recv(1000)
    # At most an alert of TLS, whose record has the type 21.
    assert not found or found[0] == 21
    assert served.call("GET", "/wait/0")[0] == 200
    assert "Traceback" not in served.log.read_text()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Served]:
    limits: dict[str, Any] = {
        "MAX_REQUEST_LINE": 200,
        "MAX_HEADERS": 10,
        "MAX_HEADER_BYTES": 300,
        "KEEPALIVE": 1,
        "LOG_LEVEL": "error",
    }
    with serving(tmp_path_factory.mktemp("small"), certificate, **limits) as found:
        yield found


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((b"GET /%s HTTP/1.1" % (b"a" * 170), b"Host: localhost"), 401),
        ((b"GET /%s HTTP/1.1" % (b"a" * 210), b"Host: localhost"), 414),
        ((b"GET /wait/0 HTTP/1.1", b"Host: localhost", *[b"X-A: 1"] * 9), 200),
        ((b"GET /wait/0 HTTP/1.1", b"Host: localhost", *[b"X-A: 1"] * 11), 431),
        ((b"GET /wait/0 HTTP/1.1", b"Host: localhost", b"X-A: " + b"a" * 250), 200),
        ((b"GET /wait/0 HTTP/1.1", b"Host: localhost", b"X-A: " + b"a" * 350), 431),
    ],
)
def test_limits(small: Served, lines: tuple[bytes, ...], status: int) -> None:
    """The variables for the request line and the headers are enforced."""
    assert small.raw(b"\r\n".join([*lines, b"", b""])).startswith(b"HTTP/1.1 %d " % status)


def test_keepalive(small: Served) -> None:
    """The server ends a connection that is not used again."""
    with connect(small.port, small.context) as channel:
        channel.sendall(b"GET /wait/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"Connection: keep-alive" in b"".join(iter(lambda: channel.recv(65_536), b""))


def test_log_level(small: Served) -> None:
    """Messages below the level are not written."""
    small.raw(b"GARBAGE\r\n\r\n")
    assert "Invalid request" not in small.log.read_text()
    assert "Booting worker" not in small.log.read_text()


def test_workers(tmp_path: Path, certificate: Certificate) -> None:
    """So many processes respond."""
    with serving(tmp_path, certificate, WORKERS=3) as served:
        found: set[int] = set()

        def all_have_responded() -> bool:
            found.add(json.loads(served.call("GET", "/wait/5")[2])["worker"])
            return len(found) == 3

        wait_until(all_have_responded, "three workers")
        assert len(re.findall("Booting worker", served.log.read_text())) == 3


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"1\r\n1x\r\n"])
def test_malformed_chunks_in_a_view(serve: Callable[[str], Served], worker: str, chunk: bytes) -> None:
    """A view that reads the body itself gets an error that is a 400, not a 500."""
    served = serve(worker)
    head = b"POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(served.port, served.context) as channel:
        channel.sendall(head + chunk)
        with suppress(ConnectionError, ssl.SSLError):
            assert channel.recv(20).startswith(b"HTTP/1.1 400")
    assert "Traceback" not in served.log.read_text()


def test_client_certificates(tmp_path: Path, certificate: Certificate) -> None:
    """They are required by a variable, and those of other authorities are rejected."""
    signer = authority()
    good = issue("CN=good", signer).write(tmp_path, "good")
    ca = signer.write(tmp_path, "ca")
    with serving(tmp_path, certificate, CLIENT_CA=ca.certificate, CLIENT_CERTIFICATES="required") as served:
        assert served.call("GET", "/wait/0", client=good)[0] == 200
        for client in (None, issue("CN=bad", authority("Other")).write(tmp_path, "bad")):
            with pytest.raises(OSError):  # noqa: PT011 - an alert, or the end of the connection
                served.call("GET", "/wait/0", client=client)


def test_pem_in_the_environment(tmp_path: Path, certificate: Certificate) -> None:
    """The certificate and its key need no files, and none is left behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = {
        "TMPDIR": str(temporary),
        "CHAIN": certificate.certificate.read_text(),
        "KEY": certificate.key.read_text(),
        "SECURE_ML_SERVE_CERTIFICATE": "env:CHAIN",
        "SECURE_ML_SERVE_PRIVATE_KEY": "env:KEY",
    }
    with serving(tmp_path, certificate, environ) as served:
        assert served.call("GET", "/wait/0")[0] == 200
        files = list(temporary.rglob("pem"))
        assert [path.stat().st_mode & 0o777 for path in files] == [0o600, 0o600]
    assert list(temporary.iterdir()) == []


def test_a_pair_that_does_not_match(tmp_path: Path, certificate: Certificate) -> None:
    """gunicorn ends with a sentence before it listens, also with threads, which load it with the first connection."""
    temporary, other = tmp_path / "temporary", issue("CN=localhost").write(tmp_path, "other")
    temporary.mkdir()
    command = [sys.executable, "-m", "gunicorn", *CONFIG, "--worker-class", "gthread", "slow_app:create_app()"]
    command += [
        "--certfile",
        str(certificate.certificate),
        "--keyfile",
        str(other.key),
        "--bind",
        f"127.0.0.1:{free_port()}",
    ]
    environ = os.environ | {"TMPDIR": str(temporary)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "cannot be used: the private key does not match the certificate" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Listening" not in done.stderr
    assert list(temporary.iterdir()) == []


def test_an_error_of_the_server_itself(tmp_path: Path, certificate: Certificate) -> None:
    """A response that gunicorn cannot write is a 500, with its traceback in the log only."""
    app = tmp_path / "broken_app.py"
    app.write_text("def app(environ, start):\n    start('200 OK', [('X-A', 'c4n4ry\\n')])\n    return [b'']\n")
    options = ("--pythonpath", str(tmp_path), *CONFIG)
    with gunicorn(tmp_path, certificate, dict(os.environ), *options, app="broken_app:app") as served:
        status, headers, body = served.call("GET", "/?token=c4n4ry")
        problem = json.loads(body)
        assert (status, problem["code"], headers["X-Error-Code"]) == (500, "internal_error", "internal_error")
        wait_until(lambda: problem["request_id"] in served.log.read_text(), "the line of the log")
        assert "?token" not in served.log.read_text()
