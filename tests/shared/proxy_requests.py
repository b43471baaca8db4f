"""Checks of how a generated proxy handles requests: credentials, addresses, sizes, TLS and ambiguous framing."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from plain_http import Answer
from proxied import CLIENT, Proxied
from proxied_place import HOST

PREDICTION = {"instances": [[1, 2, 3, 4]]}
FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "Forwarded": "for=203.0.113.9;host=evil.example;proto=http",
    "X-Real-IP": "203.0.113.9",
    "X-Request-ID": "forged-by-the-client",
}
SMALL = 4_194_304
LARGE = 16_777_216
"""The maximum body sizes of ``/v1/predict`` and ``/v1/models/<name>``."""

CODES = {400: "malformed_request", 413: "payload_too_large", 429: "rate_limited", 502: "bad_gateway"} | {
    503: "dependency_unavailable",
    504: "prediction_timeout",
}
_TELLS = re.compile(r"nginx|envoy|haproxy|caddy|apache|gunicorn|<html", re.IGNORECASE)


def assert_problem(answer: Answer, status: int, code: str) -> None:
    """Check that a response is a problem document with a request id, and does not name the program."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Error-Code"] == answer.json["code"] == code
    assert answer.json["status"] == status
    assert re.fullmatch(r"[A-Za-z0-9._-]{8,128}", answer.headers["X-Request-ID"])
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert len(answer.headers.get_all("X-Request-ID") or ()) == 1
    assert not _TELLS.search(answer.body.decode())


def padded(size: int) -> bytes:
    """Return the body of a prediction, padded to this size."""
    return json.dumps(PREDICTION).encode().ljust(size)


def pieces(size: int, piece: int = 65_536) -> Iterator[bytes]:
    """Yield ``size`` bytes in pieces."""
    for start in range(0, size, piece):
        yield b"1" * min(piece, size - start)


def prediction(proxied: Proxied) -> None:
    """A caller with a key gets a prediction, and one without gets the app's own 401."""
    answer = proxied.call("POST", "/v1/predict", PREDICTION, proxied.key)
    assert (answer.status, answer.json) == (200, {"sums": [10.0]})
    assert_problem(proxied.call("POST", "/v1/predict", PREDICTION), 401, "not_authenticated")


def forged_headers(proxied: Proxied) -> None:
    """Forwarded headers of a client are not trusted, and its request id is not used."""
    answer = proxied.call("GET", "/v1/seen", headers=proxied.key | FORGED)
    assert answer.status == 200
    seen = answer.json
    assert (seen["address"], seen["scheme"]) == (CLIENT, "https")
    assert seen["host"] in {HOST, f"{HOST}:{proxied.served.port}"}
    assert not re.search(r"203\.0\.113|evil|forged", json.dumps(seen["headers"]))
    assert "forged" not in answer.headers["X-Request-ID"]
    underscored = proxied.call("GET", "/v1/seen", headers=proxied.key | {"X_Forwarded_For": "203.0.113.9"})
    assert underscored.status == 400 or underscored.json["address"] == CLIENT


def forged_port(proxied: Proxied) -> None:
    """The port in the host is that of the service, so that links and DPoP proofs have the right port."""
    answer = proxied.call("GET", "/v1/seen", headers=proxied.key, host=f"{HOST}:1")
    assert answer.status in {400, 421} or answer.json["host"] == f"{HOST}:{proxied.served.port}"


def forged_certificates(proxied: Proxied) -> None:
    """A header with a client certificate is removed, so a caller cannot impersonate the trainer."""
    pem = proxied.place.trainer.certificate.read_text()
    escaped = "".join(f"%{byte:02X}" for byte in pem.encode())
    body = ":" + "".join(pem.splitlines()[1:-1]) + ":"
    forged = {"X-SSL-Client-Cert": escaped, "X-Forwarded-Client-Cert": f'Cert="{escaped}"', "Client-Cert": body}
    assert proxied.call("GET", "/v1/whoami", headers=forged).status == 401
    assert (
        proxied.call("GET", "/v1/seen", headers=proxied.key | forged)
        .json["headers"]
        .keys()
        .isdisjoint(name.lower() for name in forged)
    )


def client_certificate(proxied: Proxied) -> None:
    """A client is authenticated by its certificate, but not by one of another authority."""
    answer = proxied.call("GET", "/v1/whoami", client=proxied.place.trainer)
    assert answer.status == 200, answer.body
    assert answer.json["id"].endswith("trainer")
    try:
        rejected = proxied.call("GET", "/v1/whoami", client=proxied.place.stranger)
    except (ssl.SSLError, ConnectionError):
        return
    assert_problem(rejected, 401, "not_authenticated")


def body_limits(proxied: Proxied) -> None:
    """A body of the maximum size of its route is accepted, declared or chunked; one byte more is 413."""
    assert proxied.call("POST", "/v1/predict", padded(SMALL), proxied.key | _JSON).status == 200
    chunks = iter([padded(SMALL // 2), b" " * (SMALL // 2)])
    assert proxied.call("POST", "/v1/predict", chunks, proxied.key | _JSON).status == 200
    assert_problem(proxied.call("POST", "/v1/predict", padded(SMALL + 1), proxied.key | _JSON), 413, CODES[413])
    chunks = iter([padded(SMALL), b" "])
    assert_problem(proxied.call("POST", "/v1/predict", chunks, proxied.key | _JSON), 413, CODES[413])
    path = "/v1/models/resnet"
    answer = proxied.call("PUT", path, b"1" * LARGE, proxied.key | _BYTES)
    assert (answer.status, answer.json["bytes"]) == (200, LARGE)
    assert proxied.call("PUT", path, pieces(LARGE), proxied.key | _BYTES).json["bytes"] == LARGE
    assert_problem(proxied.call("PUT", path, b"1" * (LARGE + 1), proxied.key | _BYTES), 413, CODES[413])
    assert_problem(proxied.call("PUT", path, pieces(LARGE + 1), proxied.key | _BYTES), 413, CODES[413])


def readable_errors(proxied: Proxied) -> None:
    """Pages of the app's origin can read the error responses of the proxy and of the app; other pages cannot."""
    assert_readable(proxied.call("POST", "/v1/predict", padded(SMALL + 1), _from(proxied, ORIGIN)), ORIGIN)
    assert_readable(proxied.call("POST", "/v1/unknown", b"{}", _from(proxied, ORIGIN)), ORIGIN)
    answer = proxied.call("POST", "/v1/predict", padded(SMALL + 1), _from(proxied, "https://evil.example"))
    assert answer.status == 413
    assert (answer.headers.get_all("Access-Control-Allow-Origin") or [ORIGIN]) == [ORIGIN]


def assert_readable(answer: Answer, origin: str) -> None:
    """Check that a page of an origin can read an error response."""
    assert answer.status >= 400
    assert answer.headers.get_all("Access-Control-Allow-Origin") == [origin]
    (exposed,) = answer.headers.get_all("Access-Control-Expose-Headers") or []
    assert {"X-Request-ID", "X-Error-Code", "Retry-After"} <= set(exposed.split(", "))


def _from(proxied: Proxied, origin: str) -> dict[str, str]:
    return proxied.key | _JSON | {"Origin": origin}


ORIGIN = "https://app.example.com"
_JSON = {"Content-Type": "application/json"}
_BYTES = {"Content-Type": "application/octet-stream"}


def unknown_host(proxied: Proxied) -> None:
    """Requests with an unknown host name or server name (SNI) do not reach the app."""
    for host in ("evil.example", "127.0.0.1", f"evil.example:{proxied.served.port}"):
        answer = proxied.call("GET", "/v1/seen?unknown-host", headers=proxied.key, host=host)
        assert answer.status in {400, 403, 404, 421}
        assert answer.headers["Content-Type"] == "application/problem+json"
    context = proxied.context()
    context.check_hostname = False
    request = b"GET /v1/seen?unknown-host HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    with (
        suppress(ssl.SSLError, ConnectionError),
        socket.create_connection(("127.0.0.1", proxied.served.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="evil.example") as channel,
    ):
        channel.sendall(request)
        assert not re.match(rb"HTTP/1.1 2", channel.recv(100))
    assert not proxied.reached("unknown-host")


def own_errors(proxied: Proxied) -> None:
    """The app's own error responses pass as they are."""
    assert_problem(proxied.call("GET", "/v1/nothing"), 401, "not_authenticated")
    assert_problem(proxied.call("GET", "/v1/nothing", headers=proxied.key), 404, "not_found")
    answer = proxied.call("GET", "/v1/predict", headers=proxied.key)
    assert_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]
    # Each of the two servers counts separately.
    answers = [proxied.call("GET", "/v1/rare", headers=proxied.key) for _ in range(4)]
    limited = [answer for answer in answers if answer.status == 429]
    assert limited
    assert_problem(limited[0], 429, "rate_limited")
    assert int(limited[0].headers["Retry-After"]) > 60


def clear_text(proxied: Proxied) -> None:
    """Clear text is rejected at its own port and at that of TLS, and never served."""
    request = f"GET /v1/classes?in-clear-text HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    received = proxied.clear(request)
    assert received.startswith(b"HTTP/1.1 403 ")
    assert b"tls_required" in received
    assert b"application/problem+json" in received
    assert not re.match(rb"HTTP/1.. [23]", proxied.clear(request, proxied.served.port))
    received = proxied.clear(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert re.match(rb"HTTP/1\.[01] 403 ", received)
    assert b"tls_required" in received
    assert not proxied.reached("in-clear-text")


def tls_versions(proxied: Proxied) -> None:
    """Only TLS 1.2 and 1.3 with forward secrecy and authenticated encryption are accepted."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert _handshake(proxied, version, "DEFAULT:@SECLEVEL=0") is not None
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        assert _handshake(proxied, old, "DEFAULT:@SECLEVEL=0") is None
    for weak in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "AES256-SHA"):
        assert _handshake(proxied, ssl.TLSVersion.TLSv1_2, f"{weak}:@SECLEVEL=0") is None, weak


def _handshake(proxied: Proxied, version: ssl.TLSVersion, ciphers: str) -> str | None:
    context = proxied.context()
    with warnings.catch_warnings():
        # Old versions are deprecated in Python, but must be tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    with socket.create_connection(("127.0.0.1", proxied.served.port), 10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=HOST) as channel:
                return channel.version()
        except (ssl.SSLError, ConnectionError):
            return None


def mozilla_intermediate(proxied: Proxied) -> None:
    """A scanner finds Mozilla's intermediate configuration and no known weakness of TLS; it needs ``sslyze``."""
    target = f"{HOST}:{proxied.served.port}{{127.0.0.1}}"
    command = ["sslyze", "--mozilla_config=intermediate", "--certinfo_ca_file", str(proxied.place.trusted), target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"{HOST}:{proxied.served.port}: OK - Compliant." in done.stdout, done.stdout[-2000:]


SMUGGLED = {
    "CL.TE": "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "two lengths": "Content-Length: 0\r\nContent-Length: 44\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    "a list of lengths": "Content-Length: 0, 44\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before the colon": "Content-Length : 44\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    "a sign in the length": "Content-Length: +44\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\n\r\n",
    "a coding twice": "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab": "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a bare line feed in a value": "X-Bare: a\nTransfer-Encoding: chunked\nContent-Length: 1\r\n\r\n0\r\n\r\n",
    "a size in octal": "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
}
"""Requests for which two parsers could disagree on the end. None may reach the app."""


def smuggling(proxied: Proxied) -> None:
    """A request whose end is ambiguous does not reach the app, and neither does the data after it."""
    head = f"POST /v1/seen?attack HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {proxied.place.key}\r\nConnection: close\r\n"
    sent = {name: rest for name, rest in SMUGGLED.items() if name not in proxied.program.reframes}
    with ThreadPoolExecutor(len(sent)) as clients:
        requests = [f"{head}{rest}".encode("latin-1") for rest in sent.values()]
        received = dict(zip(sent, clients.map(proxied.raw, requests), strict=True))
    for name, response in received.items():
        assert not re.search(rb"HTTP/1.1 2", response), name
        if "own 400" in proxied.program.can:
            assert re.match(rb"HTTP/1.1 (400|501) ", response), (name, response)
            assert b"application/problem+json" in response, (name, response)
        body = response.split(b"\r\n\r\n", 1)[-1].decode("latin-1")
        assert not _TELLS.search(body) or ("html" in proxied.program.can and "400 Bad request" in body), name
    assert proxied.call("GET", "/v1/seen", headers=proxied.key).status == 200
    assert not proxied.reached("attack")
    assert not proxied.reached("smuggled")


def folded_lines(proxied: Proxied) -> None:
    """A folded header is rejected or unfolded (RFC 9112 section 5.2); no part of it becomes a header."""
    head = f"POST /v1/seen HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {proxied.place.key}\r\nConnection: close\r\n"
    received = proxied.raw(f"{head}Content-Length: 0\r\nX-Folded: a\r\n X-Other: b\r\n\r\n".encode())
    assert received.startswith(b"HTTP/1.1 400 ") or b'"x-other"' not in received


def hop_by_hop(proxied: Proxied) -> None:
    """Hop-by-hop headers do not reach the app, and no WebSocket is opened."""
    sent = {"TE": "trailers", "Keep-Alive": "timeout=9", "Proxy-Authorization": "Basic eDp5", "Trailer": "X"}
    sent |= {"Upgrade": "websocket", "Connection": "Upgrade, Keep-Alive", "Proxy": "http://evil.example"}
    # Without these headers, the upgrade is malformed.
    websocket = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    seen = proxied.call("GET", "/v1/seen", headers=proxied.key | websocket | sent)
    assert seen.status == 200
    assert seen.json["headers"].keys().isdisjoint(name.lower() for name in sent if name != "Connection")
    # Without the header Upgrade, the word has no effect (RFC 9110 section 7.8).
    assert "connection" in proxied.program.can or "upgrade" not in seen.json["headers"].get("connection", "").lower()


def http_1_0(proxied: Proxied) -> None:
    """Clients with HTTP/1.0, such as health checks, are served, and get no chunks (RFC 9112 section 6.1)."""
    head = f"Host: {HOST}\r\nX-API-Key: {proxied.place.key}\r\n"
    body = json.dumps(PREDICTION)
    as_json = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    requests = {
        "/v1/seen": (f"GET /v1/seen?old HTTP/1.0\r\n{head}\r\n", b'"query":"old"'),
        "/v1/stream": (f"GET /v1/stream HTTP/1.0\r\n{head}\r\n", b"\r\n\r\n0\n1\n2\n"),
        "/v1/predict": (f"POST /v1/predict HTTP/1.0\r\n{head}{as_json}\r\n{body}", b"}"),
    }
    for path, (request, expected) in requests.items():
        received = proxied.raw(request.encode())
        assert re.match(rb"HTTP/1\.[01] 200 ", received), (path, received)
        assert expected in received, path
        assert b"transfer-encoding" not in received.split(b"\r\n\r\n", 1)[0].lower(), path
    rejected = proxied.raw(f"GET /v1/seen HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
    assert re.match(rb"HTTP/1\.[01] 401 ", rejected)
    for hosts in ("", "Host: evil.example\r\n"):
        received = proxied.raw(f"GET /v1/seen?no-host HTTP/1.0\r\n{hosts}\r\n".encode())
        assert not re.match(rb"HTTP/1\.[01] 2", received)
    assert not proxied.reached("no-host")
    # Transfer codings are not defined for HTTP/1.0.
    chunked = f"POST /v1/seen?old-chunks HTTP/1.0\r\n{head}Transfer-Encoding: chunked\r\n\r\n"
    received = proxied.raw(f"{chunked}0\r\n\r\nGET /v1/smuggled HTTP/1.0\r\n{head}\r\n".encode())
    assert received.count(b"HTTP/1.") == 1
    assert not proxied.reached("smuggled")
