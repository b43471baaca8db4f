"""Apache httpd with its generated configuration, in front of real servers."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from flask import Flask

from breaking_server import BreakingServer
from flask_secure_ml import SecureML, public
from flask_secure_ml.deploy.facts import facts_of
from flask_secure_ml.deploy.targets.apache import TARGET
from http_servers import in_thread
from httpd import APACHE, before, error_log, open_folder, options
from programs import every_proxy, needs
from proxied import CLIENT, Proxied, proxied, proxied_facts
from proxied_place import HOST, make_place
from proxy_behaviours import BEHAVIOURS
from proxy_requests import CODES, PREDICTION, assert_problem, client_certificate
from proxy_traffic import REQUIRED, required_certificates, servers_stopped
from servers import PATIENCE, free_port, wait_until

pytestmark = needs("apache2")


@pytest.fixture(scope="module")
def running() -> Iterator[Proxied]:
    with open_folder() as folder, proxied(folder, APACHE) as found:
        yield found


def test_state(running: Proxied) -> None:
    """The state of httpd is at a port of this machine only, without requests."""
    found = running.status("/server-status?auto")
    assert b"BusyWorkers" in found
    assert b"GET" not in found
    assert b"HTTP/1.1 404" in running.status("/")


RAW = {
    "an unknown expectation": ("GET", "Expect: the-unexpected\r\n\r\n", 417, "expectation_failed"),
    "two codings": ("POST", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, CODES[400]),
    "a large header": ("GET", f"X-Large: {'a' * 9_000}\r\n\r\n", 400, CODES[400]),
    "a trace": ("TRACE", "\r\n", 405, "method_not_allowed"),
}


@pytest.mark.parametrize("name", RAW)
def test_own_responses(name: str, running: Proxied) -> None:
    """Rejections by httpd are problem documents with a code, and its log is JSON for every request."""
    method, rest, status, code = RAW[name]
    head = f"{method} /v1/classes HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
    received = running.raw(f"{head}{rest}".encode()).decode()
    assert received.startswith(f"HTTP/1.1 {status} ")
    assert "Content-Type: application/problem+json\r\n" in received
    assert f'"code": "{code}"' in received
    assert f"X-Error-Code: {code}\r\n" in received
    assert "(null)" not in received


def test_log_of_hostile_requests(running: Proxied) -> None:
    """No path, method or host of a request breaks the JSON of its line."""
    for target, host in (('/v1/"\\%22%01\xff', HOST), ("/v1/x", 'a"b'), ("/v1/x", "\xff"), ("/v1/\x01", HOST)):
        running.raw(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1"))
    running.raw(b'G"T / HTTP/1.1\r\nHost: own.example.com\r\n\r\n')
    running.raw(f"GET /v1/the-last HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    wait_until(lambda: "the-last" in running.access_log.read_text(), "the request is not in the log")
    lines = [json.loads(line) for line in running.access_log.read_text().splitlines()]
    assert "/v1/%22%5c%2522%2501%ff" in {line["path"].lower() for line in lines}


def test_named_in_connection(running: Proxied) -> None:
    """A client cannot have the proxy's own headers removed by naming them as those of its connection."""
    names = "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-ID, X-SSL-Client-Cert"
    for connection in (names, f"close, {names}", f"keep-alive, {names}"):
        answer = running.call("GET", "/v1/seen", headers=running.key | {"Connection": connection})
        assert answer.status == 200
        assert (answer.json["address"], answer.json["scheme"]) == (CLIENT, "https")
        client = running.call("GET", "/v1/whoami", headers={"Connection": connection}, client=running.place.trainer)
        assert client.status == 200


@every_proxy
def test_hosts() -> None:
    """A wildcard matches subdomains, and similar hosts are not served."""
    with open_folder() as folder, in_thread(BreakingServer()) as server:
        place = make_place(folder)
        hosts = {"hosts": ["*.example.org", HOST], "upstreams": [server.place]}
        with before(proxied_facts(place.settings, **options(place, folder) | hosts), place) as found:
            for host in (HOST, HOST.upper(), f"{HOST}:1", "a.example.org", "a.b.example.org"):
                assert found.call("GET", "/", host=host).status == 200, host
            for host in ("example.org", "a.example.orgx", "xexample.org", HOST.replace(".", "x"), f"a.{HOST}", "[::1]"):
                assert_problem(found.call("GET", "/", host=host), 421, "misdirected_request")


def test_absolute_urls(running: Proxied) -> None:
    """The host of an absolute URL counts, and not the header (RFC 9112 section 3.2.2)."""
    rest = f"Host: evil.example\r\nConnection: close\r\nX-API-Key: {running.place.key}\r\n\r\n"
    received = running.raw(f"GET https://{HOST}/v1/seen?absolute HTTP/1.1\r\n{rest}".encode()).decode()
    assert received.startswith("HTTP/1.1 200 ")
    assert '"query":"absolute"' in received
    assert "evil" not in received
    received = running.raw(f"GET https://evil.example/v1/seen HTTP/1.1\r\n{rest}".encode()).decode()
    assert received.startswith("HTTP/1.1 421 ")


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviours(name: str, running: Proxied) -> None:
    """The table of every proxy; its last entries stop the servers."""
    BEHAVIOURS[name](running)


@every_proxy
def test_servers_stopped(running: Proxied) -> None:
    """See :func:`servers_stopped`, after which no server runs. This is the last test of ``running``."""
    servers_stopped(running)
    # The log of errors quotes no request, also of those that fail, as the servers are gone now.
    answer = running.call(
        "GET", "/v1/seen?token=in-the-query", headers={"Referer": "https://a.example/?in-the-referrer"}
    )
    assert answer.status == 503
    request = f"GET /../x?in-the-query HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    assert running.raw(request.encode()).startswith(b"HTTP/1.1 400 ")
    assert not re.search(r"in-the-query|in-the-cookie|in-the-referrer", error_log(running))


@every_proxy
def test_required_certificates_and_tls_behind() -> None:
    """See the table; the servers have certificates too, which httpd verifies, also when it polls them."""
    with open_folder() as folder, proxied(folder, APACHE, upstream_tls=True, **REQUIRED) as found:
        required_certificates(found)
        wait_until(lambda: len(found.reached(" /readyz ")) > 3, "the servers are not polled")
        assert "proxy_hcheck" not in error_log(found)
        # The name of another host in the handshake does not lead around it.
        context = found.context()
        context.check_hostname = False
        with (
            socket.create_connection(("127.0.0.1", found.served.port), PATIENCE) as plain,
            suppress(ssl.SSLError, ConnectionError),
            context.wrap_socket(plain, server_hostname="evil.example") as channel,
        ):
            channel.sendall(
                f"GET /v1/seen?around HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {found.place.key}\r\n\r\n".encode()
            )
            assert not channel.recv(100)
        assert not found.reached("around")
        found.upstreams[0].close()
        wait_until(lambda: "DISABLING" in error_log(found), "a server that is gone is not noticed")


@every_proxy
@pytest.mark.parametrize("header", ["Client-Cert", "X-Forwarded-Client-Cert"])
def test_other_headers_of_certificates(header: str) -> None:
    """Apache httpd writes each format that the app reads."""
    with (
        open_folder() as folder,
        proxied(folder, APACHE, settings={"SECURE_ML_CLIENT_CERTIFICATE_HEADER": header}) as found,
    ):
        client_certificate(found)


@every_proxy
def test_front_proxies() -> None:
    """Behind a load balancer, the client is the last address that is not the load balancer's."""
    with open_folder() as folder, proxied(folder, APACHE, front_proxies=["127.0.0.0/8"]) as found:
        for sent, seen in (
            ("203.0.113.9", "203.0.113.9"),
            ("198.51.100.7, 203.0.113.9", "203.0.113.9"),
            ("203.0.113.9, 127.0.0.9", "203.0.113.9"),
        ):
            answer = found.call("GET", "/v1/seen", headers=found.key | {"X-Forwarded-For": sent})
            assert answer.json["address"] == seen


@every_proxy
def test_nothing_is_sent_twice() -> None:
    """A request whose server breaks off is 502, and no server gets it again, also on a connection that was kept.

    Where a server cannot be reached, the request goes to the other one, with its body.
    """
    with open_folder() as folder, in_thread(BreakingServer()) as server:
        place = make_place(folder)
        upstreams = [f"127.0.0.1:{free_port()}", server.place]
        with before(proxied_facts(place.settings, **options(place, folder), upstreams=upstreams), place) as found:
            for number in range(4):
                assert found.call("POST", "/ok", b"1" * 100_000).status == 200
                answer = found.call("POST", f"/broken/{number}", PREDICTION)
                assert_problem(answer, 502, CODES[502])
            assert_problem(found.call("GET", "/broken/get"), 502, CODES[502])
            # The document of the error has no limit of its own.
            assert_problem(found.call("PUT", "/v1/models/broken", b"1" * 5_000_000), 502, CODES[502])
            with found.connected() as channel:
                # A body that has not arrived yet reaches no server.
                head = f"POST /half HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 200000\r\n\r\n"
                channel.sendall(head.encode() + b"1" * 150_000)
                assert_problem(found.call("GET", "/broken/last"), 502, CODES[502])
        sent = [line.split()[1] for line in server.lines]
    assert sent.count("/ok") == 4
    broken = [f"/broken/{number}" for number in (0, 1, 2, 3, "get")]
    assert [path for path in sent if path != "/ok"] == [*broken, "/v1/models/broken", "/broken/last"]


@every_proxy
def test_paths_as_sent() -> None:
    """A server gets the path that the client has sent, and the limit of a route is for no other path."""
    with open_folder() as folder, in_thread(BreakingServer()) as server:
        place = make_place(folder)
        facts = proxied_facts(place.settings, **options(place, folder), upstreams=[server.place])
        with before(facts, place) as found:
            for path in ("/a%2Fb//c", "/a/./b?x=%00", "/%e9?", "/a;b=c"):
                assert found.call("GET", path).status == 200
                assert f"GET {path} HTTP/1.1" in server.lines
            assert found.call("POST", "/v1/notes", b"1" * 2_000).status == 413
            assert found.call("POST", "/v1//notes", b"1" * 2_000).status == 502
            # Nothing of httpd itself is in a response, from the cache or not: no part of it, and no offer of HTTP/2.
            for _ in range(2):
                answer = found.call("GET", "/v1/classes", headers={"Range": "bytes=0-0"})
                assert (answer.status, answer.body) == (200, b"ok")
                assert "Upgrade" not in answer.headers
        assert server.lines.count("GET /v1/classes HTTP/1.1") == 1


@every_proxy
def test_name_of_a_server() -> None:
    """A server whose name, here an address, is not one of those in its certificate gets no request."""
    with open_folder() as folder, proxied(folder, replace(APACHE, upstream="127.0.0.1"), upstream_tls=True) as found:
        answer = found.call("GET", "/v1/seen?another-name", headers=found.key)
        assert_problem(answer, answer.status, answer.json["code"])
        assert answer.status in {500, 502, 503}
        assert not found.reached("another-name")


HOSTILE = {
    "/a b/'c": "/a%20b/'c",
    '/"; }/$x': "/%22;%20%7D/$x",
    "/#x/%[src]": "/%23x/%25%5Bsrc%5D",
    "/\\<path:p>": "/%5Cp/q",
    "/é/<n>": "/%C3%A9/n",
    "/>\\": "/%3E%5C",
    "/${APACHE_RUN_DIR}/x": "/$%7BAPACHE_RUN_DIR%7D/x",
    "/q\">;${APACHE_RUN_DIR}'": "/q\">;${APACHE_RUN_DIR}'",
    "/unsaid": "/unsaid",
    "/a\nListen 1": None,
}
"""Rules, and how a client asks for them; the last one fits into no line."""


def test_hostile_rules() -> None:
    """A rule cannot end its string, and its limit applies: httpd rejects larger bodies and caches public responses."""
    with open_folder() as folder, in_thread(BreakingServer()) as server:
        place = make_place(folder)
        app = Flask("hostile", static_folder=None)
        app.config["SECURE_ML_DEPLOY"] = options(place, folder) | {"upstreams": [server.place]}
        SecureML(app)
        view = public(caps={"max_body_bytes": 7}, headers={"values": {"Cache-Control": "public, max-age=5"}})(
            lambda **_: ""
        )
        for number, rule in enumerate(HOSTILE):
            app.add_url_rule(rule, endpoint=str(number), view_func=view, methods=["GET", "POST"])
        facts = facts_of(app)
        assert "Listen 1\n" not in TARGET.make(facts)["apache2.conf"]
        with before(facts, place) as found:
            for path in filter(None, HOSTILE.values()):
                assert_problem(found.call("POST", path, b"12345678"), 413, CODES[413])
                assert_problem(found.call("POST", path, b"1234567"), 502, CODES[502])
                assert [found.call("GET", path).status for _ in range(2)] == [200, 200]
        asked = [line.split()[1] for line in server.lines if line.startswith("GET")]
    # A path with an escape is not cached, nor what does not ask for it.
    assert {path: asked.count(path) for path in asked} == {
        path: 2 if "%" in path or path == "/unsaid" else 1 for path in HOSTILE.values() if path
    }
