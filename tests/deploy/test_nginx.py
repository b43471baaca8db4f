"""nginx with its generated configuration, in front of real servers."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from deployed_app import own_facts
from flask_secure_ml import SecureML, public
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.nginx import TARGET
from http_clients import CLIENTS, Upload
from plain_http import Answer
from programs import every_proxy, needs, needs_tool
from proxied import NEIGHBOUR, Backend, Proxied, backend, proxied, proxied_facts, write_target
from proxied_place import Place
from proxy_behaviours import BEHAVIOURS
from proxy_programs import NGINX
from proxy_requests import LARGE, PREDICTION, SMALL, assert_problem, mozilla_intermediate, padded
from proxy_traffic import (
    BEHIND,
    LIMITED,
    REQUIRED,
    address_limits,
    broken_off,
    front_proxies,
    network_limits,
    required_certificates,
    servers_stopped,
)
from servers import wait_until

pytestmark = needs("nginx")

CORE_RULES = "/usr/share/modsecurity-crs/rules"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("servers")) as found:
        yield found


@pytest.fixture(scope="module")
def encrypted_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with backend(tmp_path_factory.mktemp("encrypted"), tls=True) as found:
        yield found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, servers: Backend) -> Iterator[Proxied]:
    with proxied(tmp_path_factory.mktemp("nginx"), NGINX, behind=servers, acme_email="ops@example.com") as found:
        yield found


@pytest.fixture
def place(servers: Backend) -> Place:
    return servers.place


def options(place: Place, folder: Path) -> dict[str, Any]:
    """Return the options of a place where the test may write."""
    return {
        "port": 8443,
        "clear_text_port": 8080,
        "certificate": str(place.server.certificate),
        "certificate_key": str(place.server.key),
        "client_ca": str(place.client_authority),
        "proxy_directory": str(folder),
        "proxy_user": "root",
        "access_log": str(folder / "access.log"),
    }


def check(facts: Facts, folder: Path) -> str:
    """Return the output of the validation, which must succeed."""
    files = write_target("nginx", facts, folder)
    done = subprocess.run(
        ["nginx", "-t", "-c", str(files / "nginx.conf"), "-g", f"pid {folder}/nginx.pid;"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_bad_requests(running: Proxied) -> None:
    """Requests that nginx rejects while parsing also get a problem document."""
    head = "GET /v1/seen HTTP/1.1\r\nHost: own.example.com\r\nConnection: close\r\n"
    for request, status in (
        (f"{head}Content-Length: x\r\n\r\n", 400),
        (f"{head}X-Long: {'x' * 9000}\r\n\r\n", 431),
        ("GET /" + "x" * 7900 + " HTTP/1.1\r\nHost: own.example.com\r\nConnection: close\r\n\r\n", 401),
        ("GET /" + "x" * 9000 + " HTTP/1.1\r\nHost: own.example.com\r\nConnection: close\r\n\r\n", 414),
        (head.replace("GET", "TRACE") + "\r\n", 405),
        (head.replace("HTTP/1.1", "HTTP/7.1") + "\r\n", 505),
    ):
        received = running.raw(request.encode())
        assert received.startswith(b"HTTP/1.1 %d " % status), (request[:80], received)
        assert b"application/problem+json" in received
        assert b"<html" not in received


def test_acme(running: Proxied) -> None:
    """Challenges are served in clear text, and no other URL."""
    folder = running.access_log.parent / "own-model-acme/.well-known/acme-challenge"
    folder.mkdir(parents=True)
    (folder / "token").write_text("proof")
    (folder / "link").symlink_to(running.place.server.key)

    def asked(path: str) -> bytes:
        return running.clear(f"GET {path} HTTP/1.1\r\nHost: own.example.com\r\nConnection: close\r\n\r\n".encode())

    assert asked("/.well-known/acme-challenge/token").endswith(b"proof")
    for path in ("link", "../../../../server.key", "%2e%2e/%2e%2e/%2e%2e/server.key", "nothing"):
        received = asked(f"/.well-known/acme-challenge/{path}")
        assert re.match(rb"HTTP/1.1 4", received)
        assert b"PRIVATE" not in received
        assert b"application/problem+json" in received


def test_status(running: Proxied) -> None:
    """The metrics of nginx are at a port of this machine only."""
    assert b"Active connections" in running.status("/nginx_status")
    assert b"HTTP/1.1 404" in running.status("/")


def test_resumption(running: Proxied) -> None:
    """A session is resumed from the cache."""
    context = running.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session: ssl.SSLSession | None = None
    reused = []
    for _ in range(2):
        channel = context.wrap_socket(_connection(running), server_hostname="own.example.com", session=session)
        with channel:
            reused.append(channel.session_reused)
            session = channel.session
    assert reused == [False, True]


def _connection(running: Proxied) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.served.port), 10)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviours(name: str, running: Proxied) -> None:
    """The table of every proxy."""
    BEHAVIOURS[name](running)


@every_proxy
@needs_tool("sslyze")
def test_mozilla_intermediate(running: Proxied) -> None:
    mozilla_intermediate(running)


@every_proxy
def test_address_limits(tmp_path: Path, servers: Backend) -> None:
    with proxied(tmp_path, NGINX, behind=servers, **LIMITED) as limited:
        address_limits(limited)


@every_proxy
def test_connection_limits(tmp_path: Path, servers: Backend) -> None:
    """One address that has as many requests in flight as it may gets 429; another one does not."""
    with proxied(tmp_path, NGINX, behind=servers, address_connections=2) as limited, ExitStack() as open_requests:
        for number in range(2):
            request = limited.asked("GET", f"/v1/gated/connection-{number}", headers=limited.key)
            assert open_requests.enter_context(request).readline() == b"first\n"
        assert_problem(limited.call("GET", "/v1/classes"), 429, "rate_limited")
        assert limited.call("GET", "/v1/classes", source=NEIGHBOUR).status == 200
        for number in range(2):
            limited.open(f"connection-{number}")


@every_proxy
def test_front_proxies(tmp_path: Path, servers: Backend) -> None:
    with proxied(tmp_path, NGINX, behind=servers, **BEHIND) as behind:
        front_proxies(behind)


@every_proxy
def test_network_limits(tmp_path: Path, servers: Backend) -> None:
    with proxied(tmp_path, NGINX, behind=servers, **BEHIND, **LIMITED) as limited:
        network_limits(limited)


@every_proxy
def test_required_certificates(tmp_path: Path, servers: Backend) -> None:
    with proxied(tmp_path, NGINX, behind=servers, **REQUIRED) as required:
        required_certificates(required)


@every_proxy
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("client", CLIENTS)
def test_early_responses(client: str, chunked: bool, running: Proxied) -> None:
    """Clients that send all of a body that is far too large before they read get the 413 too."""
    url = f"https://localhost:{running.served.port}/v1/models/resnet"
    assert CLIENTS[client](Upload(url, 2 * LARGE, chunked, str(running.place.trusted), running.key)) == 413


@every_proxy
@pytest.mark.parametrize(("name", "status"), [("localhost", 200), ("other.example.com", 502)])
def test_tls_to_the_servers(name: str, status: int, tmp_path: Path, encrypted_servers: Backend) -> None:
    """The certificates of the servers are verified: one with another name is as good as no server."""
    with proxied(tmp_path, NGINX, behind=encrypted_servers, upstream_name=name) as encrypted:
        answer = encrypted.call("POST", f"/v1/predict?{name}", PREDICTION, encrypted.key)
        assert answer.status == status
        if status == 200:
            wait_until(lambda: bool(encrypted.reached(name)), "the request is not in the log of a server")
        else:
            assert not encrypted.reached(name)


@every_proxy
@needs(CORE_RULES)
def test_modsecurity(tmp_path: Path, servers: Backend) -> None:
    """The rule set rejects attacks with our problem document, and no honest request."""
    overlay = tmp_path / "deploy/nginx/overlay"
    overlay.mkdir(parents=True)
    log = tmp_path / "modsecurity.log"
    (overlay / "server.conf").write_text(
        f"error_log {log} info;\nmodsecurity_rules 'SecRuleRemoveById 930100-930130 932160';\n"
    )
    with proxied(tmp_path, NGINX, behind=servers, waf=True) as guarded:
        for attack in ("id=1%27%20OR%20%271%27=%271%27--%20-", "q=%3Cscript%3Ealert(1)%3C/script%3E"):
            answer = guarded.call("GET", f"/v1/seen?attack&{attack}", headers=guarded.key)
            assert_problem(answer, 403, "forbidden")
        assert not guarded.reached("attack")
        assert "942100" in log.read_text()
        assert guarded.place.key not in log.read_text()
        honest: list[Answer] = [
            guarded.call("POST", "/v1/predict", PREDICTION, guarded.key),
            guarded.call("GET", "/v1/seen?page=2&sort=name", headers=guarded.key | {"Accept": "application/json"}),
            guarded.call("POST", "/v1/predict", padded(SMALL), guarded.key | {"Content-Type": "application/json"}),
            guarded.call("GET", "/v1/whoami", client=guarded.place.trainer),
            # The overlay removes the rules against this one.
            guarded.call("GET", "/v1/seen?f=../../etc/passwd", headers=guarded.key),
            guarded.call("PUT", "/v1/models/a-b_c.1", b"\x93NUMPY' OR 1=1 --", guarded.key | _NUMPY),
        ]
        assert [answer.status for answer in honest] == [200] * len(honest)


_NUMPY = {"Content-Type": "application/x-npy"}

HOSTILE = [
    '/a"; return 200; location /b {',
    "/a\\",
    '/a\\"',
    "/a'b",
    "/a;b}c{d",
    "/a$request_id",
    "/a#b",
    "/a\nb",
    "/a b",
    "/a\x01b",
    "/modèle",
    "/a/<path:rest>",
    '/b"\\/<name>;}',
    "/c{1}[x](y)*+?.^$|/<int:n>",
    "/" + "long-" * 100 + "/<uuid:id>/<uuid:other>/<path:rest>",
    "/",
]
"""URL rules that would break out of a configuration that does not quote them."""


def test_hostile_rules(tmp_path: Path, place: Place) -> None:
    """Every rule remains one argument, and its limit applies to its own paths."""
    app = Flask("hostile", static_folder=None)
    app.config["SECURE_ML_DEPLOY"] = options(place, tmp_path)
    SecureML(app)
    for number, rule in enumerate(HOSTILE):
        app.add_url_rule(
            rule, endpoint=f"r{number}", view_func=public(caps={"max_body_bytes": 1000 + number})(lambda **_: "ok")
        )
    facts = facts_of(app)
    assert len(facts.routes) == len(HOSTILE)
    check(facts, tmp_path)
    content = TARGET.make(facts)["nginx.conf"]
    assert len(re.findall(r"^        location ", content, re.MULTILINE)) >= len(HOSTILE) - 1
    assert "\n        return 200" not in content


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"front_proxies": ["10.0.0.0/8", "2001:db8::/32"], "clear_text_port": 0},
        {"upstreams": ["unix:/run/own-model.sock", "[::1]:8000"], "bind": "127.0.0.1:8000"},
        {"hosts": ["*.example.com"], "listen": ["0.0.0.0", "[::]"]},
        pytest.param({"waf": True}, marks=needs(CORE_RULES)),
        {"port": 8443, "acme_email": "ops@example.com", "request_timeout": 1},
    ],
)
def test_valid(given: dict[str, Any], tmp_path: Path, place: Place) -> None:
    """nginx accepts the configuration without warnings."""
    output = check(proxied_facts(place.settings, **options(place, tmp_path) | given), tmp_path)
    # Whoever is not root cannot choose the user.
    assert not [line for line in output.splitlines() if "[warn]" in line and '"user" directive' not in line]
    # With the port 0 nothing serves clear text.
    served = re.findall(r"listen (\S+?)(?::\d+)?( ssl)?[; ]", (tmp_path / "nginx/nginx.conf").read_text())
    in_clear_text = [address for address, tls in served if not tls and not address.startswith("127.0.0.1")]
    assert bool(in_clear_text) == (given.get("clear_text_port") != 0)


@needs_tool("gixy")
def test_gixy(tmp_path: Path, place: Place) -> None:
    """The linter gixy has no findings."""
    facts = proxied_facts(place.settings, **options(place, tmp_path), acme_email="ops@example.com")
    files = write_target("nginx", facts, tmp_path)
    done = subprocess.run(["gixy", str(files / "nginx.conf")], capture_output=True, text=True, check=False)
    assert "No issues found" in done.stdout, done.stdout + done.stderr


def test_warnings() -> None:
    """Settings with which every request would fail are reported."""
    assert list(TARGET.warn(own_facts())) == []
    app = Flask("alone", static_folder=None)
    app.config["SECURE_ML_DEPLOY"] = {"upstreams": ["10.0.3.9:8000"]}
    SecureML(app)
    warned = "\n".join(TARGET.warn(facts_of(app)))
    assert "SECURE_ML_TRUSTED_PROXIES" in warned
    assert "upstream_ca" in warned


@every_proxy
def test_servers_that_die(running: Proxied) -> None:
    """The last test, because it stops the servers."""
    broken_off(running)
    servers_stopped(running)
