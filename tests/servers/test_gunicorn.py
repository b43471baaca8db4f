"""End to end without test doubles: gunicorn, TLS, API keys, tokens, malformed bytes."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.api_keys.key import key_id
from flask_secure_ml.testing import make_token
from servers import gunicorn, wait_until
from site_under_test import AUDIENCE, ISSUER, Site
from stored_keys import key_in_file

ROWS = {"instances": [[1, 2, 3, 4], [0.5, 0, 0, 0]]}


def predict(site: Site, body: Any, **headers: str) -> tuple[int, Any]:
    sent = site.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answered, text = site.served.call("POST", "/predict", data, sent)
    assert answered["X-Content-Type-Options"] == "nosniff"
    return status, json.loads(text)


def test_a_prediction(site: Site) -> None:
    """A valid key and a valid tensor get the model's response, with HSTS."""
    status, headers, body = site.served.call("POST", "/predict", json.dumps(ROWS), site.headers)
    assert (status, json.loads(body)) == (200, {"sums": [10.0, 0.5]})
    assert headers["Strict-Transport-Security"].startswith("max-age=31536000")


def test_a_token(site: Site) -> None:
    """An access token is verified with the key set that the issuer serves over HTTP."""
    token = make_token(site.signing_key, issuer=ISSUER, audience=AUDIENCE, now=time.time())
    status, _, body = site.served.call("GET", "/whoami", headers={"Authorization": f"Bearer {token}"})
    assert (status, json.loads(body)) == (200, {"id": f"{ISSUER}#alice", "scopes": ["predict"]})
    stale = make_token(site.signing_key, issuer=ISSUER, audience=AUDIENCE, now=time.time() - 4000)
    assert site.served.call("GET", "/whoami", headers={"Authorization": f"Bearer {stale}"})[0] == 401


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        pytest.param(b"{", {}, 400, "malformed_request", id="JSON that does not parse"),
        pytest.param(b"[" * 19_000, {}, 400, "malformed_request", id="19,000 opening brackets"),
        pytest.param(b"[" * 100_000, {}, 413, "payload_too_large", id="100,000 opening brackets, over the cap"),
        pytest.param(b'{"instances": [[NaN,1,2,3]]}', {}, 400, "malformed_request", id="NaN"),
        pytest.param(b'{"instances": [], "instances": []}', {}, 400, "malformed_request", id="duplicate members"),
        pytest.param(b"\xff\xfe{\x00}\x00", {}, 400, "malformed_request", id="UTF-16"),
        pytest.param(b"", {}, 400, "malformed_request", id="empty body"),
        pytest.param(b"a=1", {"Content_Type": "text/plain"}, 415, "unsupported_media_type", id="media type"),
        pytest.param(b"{}", {"Content_Type": ""}, 415, "unsupported_media_type", id="empty media type"),
        pytest.param(gzip.compress(b"{}"), {"Content_Encoding": "gzip"}, 415, "unsupported_media_type", id="gzip"),
        pytest.param({"instances": [[1] * 4] * 5000}, {}, 413, "payload_too_large", id="over the cap"),
        pytest.param({"instances": [[1, 2, 3, 4], [1]]}, {}, 422, "validation_failed", id="ragged"),
        pytest.param({"instances": [1, 2, 3, 4]}, {}, 422, "validation_failed", id="wrong rank"),
        pytest.param({"instances": [["1", 2, 3, 4]]}, {}, 422, "validation_failed", id="text in the tensor"),
        pytest.param({"instances": [[True, 2, 3, 4]]}, {}, 422, "validation_failed", id="boolean in the tensor"),
        pytest.param({"instances": [[11, 2, 3, 4]]}, {}, 422, "validation_failed", id="out of range"),
        pytest.param({"instances": [[1] * 4] * 101}, {}, 422, "validation_failed", id="too many rows"),
        pytest.param({"instances": [], "admin": True}, {}, 422, "validation_failed", id="unknown member"),
        pytest.param([], {}, 422, "validation_failed", id="not an object"),
        pytest.param(ROWS, {"X_API_Key": "sml_no"}, 401, "not_authenticated", id="bad key"),
        pytest.param(ROWS, {"Authorization": "Bearer a.b.c"}, 400, "malformed_request", id="two credentials"),
        pytest.param(ROWS, {"Authorization": "Bearer a\tb", "X_API_Key": ""}, 400, "malformed_request", id="tab"),
    ],
)
def test_bad_requests(site: Site, body: Any, headers: dict[str, str], status: int, code: str) -> None:
    """Each gets its response, never a 500, and the log has the private reason."""
    found, problem = predict(site, body, **headers)
    assert (found, problem["code"]) == (status, code)
    wait_until(lambda: problem["request_id"] in site.served.log.read_text(), "the log line")
    line = next(line for line in site.served.log.read_text().splitlines() if problem["request_id"] in line)
    record = json.loads(line)
    assert (record["status"], record["code"]) == (status, code)
    assert record["reason"]


def chunked(site: Site, path: str, size: int) -> bytes:
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [b"1" * 1000] * (size // 1000))
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-API-Key: {site.api_key}\r\n"
        "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head.encode() + pieces + b"0\r\n\r\n"


def test_chunked_bodies(site: Site) -> None:
    """A chunked body is read whole up to the cap and rejected above it; Werkzeug would cut it silently."""
    whole = site.served.raw(chunked(site, "/legacy", 15_000))
    assert b'"length":15000' in whole.replace(b" ", b"")
    assert site.served.raw(chunked(site, "/legacy", 21_000)).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("X-API-Key: a\x00b", id="NUL"),
        pytest.param("X-API-Key: a\x0bb", id="vertical tab"),
        pytest.param("X-Forwarded-For: \x1b[31m", id="escape"),
        pytest.param("Content-Length: 5\r\nTransfer-Encoding: chunked", id="two lengths"),
        pytest.param("Content-Length: +3", id="signed length"),
        pytest.param("Authorization: Bearer \xe9", id="beyond ASCII"),
        pytest.param("X-API-Key: sml_a\r\nX-API-Key: sml_b", id="two keys"),
        pytest.param("Authorization: Bearer a\r\nAuthorization: Bearer b", id="two Authorization headers"),
    ],
)
def test_control_characters_in_headers(site: Site, line: str) -> None:
    """Rejected by the server or by us with 4xx; never a 5xx, never a response of the model."""
    request = f"GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{line}\r\n\r\n"
    status = site.served.raw(request.encode("latin-1")).split(b" ", 2)[1]
    assert status in {b"400", b"401"}


def test_errors_leak_nothing(site: Site) -> None:
    """A crash of the view is a constant sentence outside and a trace inside."""
    status, headers, body = site.served.call("GET", "/crash", headers=site.headers)
    assert (status, headers["Content-Type"]) == (500, "application/problem+json")
    assert b"secret detail" not in body
    wait_until(lambda: "secret detail of the model" in site.served.log.read_text(), "the trace")


def test_the_log_has_no_secret(site: Site) -> None:
    """The output of the server contains neither the key nor the payload nor the pepper."""
    predict(site, {"instances": [[0.123456789, 0, 0, 0]]})
    predict(site, {"instances": [[9.87654321, "canary", 0, 0]]})
    text = site.served.log.read_text()
    for secret in (site.api_key, site.api_key[17:], site.environ["PEPPER"], "0.123456789", "9.87654321", "canary"):
        assert secret not in text


@pytest.mark.parametrize("proto", ["http", "https"])
def test_forged_forwarded_headers_change_nothing(site: Site, proto: str) -> None:
    """Over TLS: the scheme is that of the connection, and the log shows the real peer."""
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": proto, "X-Request-ID": "forged-request-id"}
    status, headers, _ = site.served.call("GET", "/healthz", headers=forged)
    assert status == 200
    assert headers["X-Request-ID"] != "forged-request-id"
    assert "6.6.6.6" not in site.served.log.read_text()


def test_forged_https_over_clear_text(site: Site, tmp_path: Path) -> None:
    """gunicorn itself trusts X-Forwarded-Proto from loopback; the connection is what counts here."""
    with gunicorn(tmp_path, None, site.environ) as served:
        connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
        connection.request("GET", "/healthz", headers={"X-Forwarded-Proto": "https"})
        response = connection.getresponse()
        problem = json.loads(response.read())
        connection.close()
    assert (response.status, problem["code"]) == (403, "tls_required")
    assert "Strict-Transport-Security" not in response.headers


def test_keys_change_under_running_workers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key works at the next request, and a revoked one stops within 100 ms, in every worker."""
    monkeypatch.setenv("PEPPER", site.environ["PEPPER"])
    store = FileKeyStore(str(site.keys_file))
    key = key_in_file(str(site.keys_file), scopes=())

    def calls() -> list[int]:
        return [site.served.call("GET", "/whoami", headers={"X-API-Key": key})[0] for _ in range(8)]

    assert calls() == [200] * 8
    store.revoke(str(key_id(key)))
    wait_until(lambda: calls() == [401] * 8, "the revocation in every worker")


def test_clear_text_to_the_tls_port_gets_no_response_of_the_app(site: Site) -> None:
    """The port speaks TLS only."""
    with socket.create_connection(("127.0.0.1", site.served.port), timeout=5) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"200" not in plain.recv(1000)
