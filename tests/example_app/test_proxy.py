"""The protecting proxy of example_app/proxy.py, under gunicorn, in front of an unprotected app under gunicorn."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from certificates import Certificate, make_certificate
from doc_blocks import HOWTO, ROOT
from servers import WORKERS, Served, free_port, gunicorn
from stored_keys import key_in_file
from support import RANDOM_SECRET

CORPUS = ROOT / "tests" / "corpus" / "proxy"
TARGETS = json.loads((CORPUS / "targets.json").read_text(encoding="utf-8"))
REQUESTS = json.loads((CORPUS / "requests.json").read_text(encoding="utf-8"))
EVERY = ["GET", "POST", "PUT", "PATCH", "DELETE"]
ROUTES = {
    "/echo": EVERY,
    "/files/<path:name>": EVERY,
    "/status/<int:code>": ["GET"],
    **{f"/{name}": ["GET"] for name in ("moved", "large", "scores", "broken/<int:length>", "slow")},
}
POLICIES = {
    "*": {"scopes": ["predict"]},
    "/status/<int:code>": {"public": True},
    "/scores": {"scopes": ["predict"], "scores": {"round": 2}},
}
LIMIT = 2_000_000
OPTIONS = ("--threads", "4", "--pythonpath", str(ROOT))


def environ_of(folder: Path, **proxy: Any) -> dict[str, str]:
    settings = {
        "PEPPER": RANDOM_SECRET,
        "FLASK_PROXY_ROUTES": json.dumps(ROUTES),
        "FLASK_SECURE_ML_API_KEYS": str(folder / "keys.json"),
        "FLASK_SECURE_ML_API_KEY_PEPPER": "env:PEPPER",
        "FLASK_SECURE_ML_POLICIES": json.dumps(POLICIES),
        "FLASK_SECURE_ML_MAX_BODY_BYTES": str(LIMIT),
        # What must not change where requests go.
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }
    return os.environ | settings | {f"FLASK_PROXY_{name}": str(value) for name, value in proxy.items()}


def proxy(folder: Path, certificate: Certificate, **settings: Any) -> Any:
    return gunicorn(folder, certificate, environ_of(folder, **settings), *OPTIONS, app="example_app.proxy:create_app()")


class Site:
    """The proxy, and a key for it."""

    def __init__(self, served: Served, key: str) -> None:
        self.served = served
        self.key = key

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, bytes]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.served.call(method, path, body, {"X-API-Key": self.key} | sent)

    def echo(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        status, _, received = self.ask(method, path, body, **headers)
        assert status == 200, received
        return json.loads(received)

    def raw(self, text: str) -> bytes:
        return self.served.raw(text.replace("KEY", self.key).encode("latin-1"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=["loopback", "socket"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[Site]:
    """Start the two servers, with loopback or a Unix socket between them."""
    folder = tmp_path_factory.mktemp("proxy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        key = key_in_file(str(folder / "keys.json"))
    socket = folder / "upstream.sock"
    options = ("--threads", "4", "--graceful-timeout", "1", "--bind", f"unix:{socket}")
    with gunicorn(folder, None, dict(os.environ), *options, app="upstream_app:app") as upstream:
        # httpx needs a URL for a socket too; its host is the Host that the upstream sees.
        place: dict[str, Any] = {"UPSTREAM": f"http://127.0.0.1:{upstream.port}"}
        if request.param == "socket":
            place = {"UPSTREAM": "http://upstream", "SOCKET": socket}
        with proxy(folder, certificate, TIMEOUT=1, **place) as served:
            yield Site(served, key)


# --- what the upstream gets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", EVERY)
def test_a_request(site: Site, method: str) -> None:
    """Method, path, query and body arrive as they were sent."""
    body = b"\x00\xff" * 1000
    seen = site.echo(method, "/echo?a=1&b=%2F&a=%C3%A4", body, Content_Type="application/octet-stream")
    assert (seen["method"], seen["target"]) == (method, "/echo?a=1&b=%2F&a=%C3%A4")
    assert (seen["length"], seen["sha256"]) == (2000, sha256(body).hexdigest())
    assert seen["headers"]["content-type"] == "application/octet-stream"
    assert seen["headers"]["x-caller"].startswith("api_key:")


def test_headers_that_stay_here(site: Site) -> None:
    """Credentials, cookies, hop-by-hop headers and claims about the caller are not forwarded."""
    seen = site.echo(
        "GET",
        "/echo",
        Authorization="Custom secret",
        Cookie="session=1",
        Connection="X-Hop",
        X_Hop="1",
        Keep_Alive="timeout=5",
        Proxy_Authorization="Basic eA==",
        TE="trailers",
        Host="evil.example",
        Forwarded="for=10.0.0.1",
        X_Forwarded_For="10.0.0.1",
        X_Forwarded_Host="evil.example",
        X_Forwarded_Proto="http",
        X_Real_IP="10.0.0.1",
        X_Original_URL="/admin",
        X_Rewrite_URL="/admin",
        X_HTTP_Method_Override="DELETE",
        X_Caller="api_key:admin",
        X_Request_ID="forged",
        Upgrade="websocket",
    )
    # httpx sends these itself.
    own = {"host", "accept-encoding", "connection", "user-agent", "accept", "x-request-id", "x-caller"}
    assert set(seen["headers"]) <= own
    assert seen["headers"]["x-caller"] != "api_key:admin"
    assert len(seen["headers"]["x-request-id"]) == 32
    assert seen["headers"]["host"].split(":")[0] in {"127.0.0.1", "upstream"}
    assert seen["headers"]["accept-encoding"] == "identity"


@pytest.mark.parametrize(("target", "path"), TARGETS["forwarded"].values(), ids=TARGETS["forwarded"])
def test_targets(site: Site, target: str, path: str) -> None:
    """The upstream decodes the path to the one that the policy was chosen by."""
    answer = site.raw(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: KEY\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert json.loads(body)["path"] == path


@pytest.mark.parametrize("target", TARGETS["rejected"].values(), ids=TARGETS["rejected"])
def test_targets_that_are_not_forwarded(site: Site, target: str) -> None:
    """Paths that two readers may understand in two ways, and routes that are not listed."""
    answer = site.raw(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: KEY\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ", 2)[1] in {b"404", b"400"}, answer
    assert b"\r\n\r\nadmin" not in answer


@pytest.mark.parametrize(("text", "status"), REQUESTS.values(), ids=REQUESTS)
def test_request_smuggling(site: Site, text: str, status: str) -> None:
    """A request with an ambiguous end is rejected, and the data after it is not served."""
    answer = site.raw(text)
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert answer.split(b" ", 2)[1].decode() == status


def test_a_chunked_body(site: Site) -> None:
    """It gets a length here, and no request hides in it."""
    hidden = "GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nX-API-Key: KEY\r\nTransfer-Encoding: chunked\r\nConnection: close"
    answer = site.raw(f"{head}\r\n\r\n{len(hidden):x}\r\n{hidden}\r\n0\r\n\r\n")
    seen = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (seen["length"], seen["headers"]["content-length"]) == (len(hidden), str(len(hidden)))
    assert "transfer-encoding" not in seen["headers"]


def test_the_limit_of_bodies(site: Site) -> None:
    """A body at the limit is streamed, and one above it is not forwarded."""
    assert site.echo("POST", "/echo", b"x" * LIMIT)["length"] == LIMIT
    status, headers, _ = site.ask("POST", "/echo", b"x" * (LIMIT + 1))
    assert (status, headers["X-Error-Code"]) == (413, "payload_too_large")


def test_strangers(site: Site) -> None:
    """Without a key, every route is a 401."""
    for path in ("/echo", "/files/a", "/large", "/admin", "/nowhere"):
        assert site.served.call("GET", path)[0] == 401


# --- what the client gets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [200, 201, 204, 400, 401, 404, 409, 418, 429, 500, 503])
def test_the_status_and_forged_headers(site: Site, code: int) -> None:
    """The status and the body are the upstream's; headers that speak for this app are its own."""
    status, headers, body = site.served.call("GET", f"/status/{code}")
    assert (status, body) == (code, b"" if code == 204 else b"of the upstream")
    assert len(headers["X-Request-ID"]) == 32
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Strict-Transport-Security"] != "max-age=0"
    assert "no-store" in headers["Cache-Control"]
    for name in ("Set-Cookie", "Access-Control-Allow-Origin", "X-Hop", "WWW-Authenticate"):
        assert name not in headers, name
    assert headers["X-Error-Code"] != "forged"
    assert headers["Server"] != "Old/1.0"


REDIRECTS = {
    "a path": ("/admin", "/admin"),
    "another host": ("https://files.example/a", "https://files.example/a"),
    "the metadata of a cloud": ("http://169.254.169.254/latest", "http://169.254.169.254/latest"),
}


@pytest.mark.parametrize(("to", "location"), REDIRECTS.values(), ids=REDIRECTS)
def test_redirects(site: Site, to: str, location: str) -> None:
    """They are passed on, and never followed."""
    status, headers, body = site.ask("GET", f"/moved?to={to}")
    assert (status, headers["Location"]) == (307, location)
    assert body != b"admin"


def test_a_redirect_with_the_address_of_the_upstream(site: Site) -> None:
    """Only its path is passed on."""
    host = site.echo("GET", "/echo")["headers"]["host"]
    assert site.ask("GET", f"/moved?to=http://{host}/echo?a=1")[1]["Location"] == "/echo?a=1"


def test_a_large_response(site: Site) -> None:
    """It is streamed."""
    status, headers, body = site.ask("GET", "/large")
    assert (status, len(body), headers["Content-Length"]) == (200, 50_000_000, None)


def test_a_broken_response(site: Site) -> None:
    """The client can see that it is not complete."""
    answer = site.raw("GET /broken/2000000 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: KEY\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: 2000000" in head
    assert body == b"first"


def test_a_short_broken_response(site: Site) -> None:
    """It is a 503."""
    status, headers, _ = site.ask("GET", "/broken/100")
    assert (status, headers["X-Error-Code"]) == (503, "dependency_unavailable")


def test_scores_are_masked(site: Site) -> None:
    """The response options of the policy apply to responses of the upstream."""
    status, _, body = site.ask("GET", "/scores")
    assert (status, json.loads(body)) == (200, {"scores": [0.12, 0.88]})


def test_responses_without_a_body(site: Site) -> None:
    """More of them than the client library has connections (100): each is given back."""
    for _ in range(101):
        status, _, body = site.ask("HEAD", "/large")
        assert (status, body) == (200, b"")


def test_a_slow_upstream(site: Site) -> None:
    """It is a 504 with the problem document."""
    status, headers, body = site.ask("GET", "/slow")
    assert (status, headers["X-Error-Code"]) == (504, "gateway_timeout")
    assert b"upstream" not in body


def test_the_settings_of_the_documentation(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They start, and open exactly their routes to a caller with a key."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    key = {"X-API-Key": key_in_file(str(tmp_path / "keys.json"))}
    page = (HOWTO / "protecting_proxy.rst").read_text(encoding="utf-8")
    shown = dict(re.findall(r"\$ export (FLASK_(?:PROXY_ROUTES|SECURE_ML_POLICIES))='(.*)'", page))
    assert len(shown) == 2
    environ = environ_of(tmp_path, UPSTREAM=f"http://127.0.0.1:{free_port()}") | shown
    with gunicorn(tmp_path, certificate, environ, *OPTIONS, app="example_app.proxy:create_app()") as served:
        # There is no upstream, so what is forwarded is a 503.
        for path in ("/translate", "/detect"):
            assert served.call("POST", path, b"{}", key)[0] == 503
            assert served.call("GET", path, headers=key)[0] == 405
            assert served.call("POST", path, b"{}")[0] == 401
        assert served.call("GET", "/languages", headers=key)[0] == 503
        assert served.call("GET", "/", headers=key)[0] == 404


@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)
def test_classes_of_workers(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, worker: tuple[str, ...]
) -> None:
    """Under each, bodies are streamed in both directions, preloaded too."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    key = key_in_file(str(tmp_path / "keys.json"))
    with gunicorn(tmp_path, None, dict(os.environ), "--threads", "4", app="upstream_app:app") as upstream:
        environ = environ_of(tmp_path, UPSTREAM=f"http://127.0.0.1:{upstream.port}")
        options = (*worker, "--preload", "--workers", "2", "--pythonpath", str(ROOT))
        with gunicorn(tmp_path, certificate, environ, *options, app="example_app.proxy:create_app()") as served:
            site = Site(served, key)
            for _ in range(8):
                assert site.echo("POST", "/echo", b"x" * LIMIT)["length"] == LIMIT
            assert len(site.ask("GET", "/large")[2]) == 50_000_000


def test_an_upstream_that_is_down(tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a 503 with Retry-After for authorized callers; others get 401."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    key = key_in_file(str(tmp_path / "keys.json"))
    with proxy(tmp_path, certificate, UPSTREAM=f"http://127.0.0.1:{free_port()}") as served:
        assert served.call("GET", "/echo")[0] == 401
        status, headers, body = served.call("POST", "/echo", b"x", {"X-API-Key": key})
        assert (status, json.loads(body)["code"]) == (503, "dependency_unavailable")
        assert int(headers["Retry-After"]) > 0
