"""Envoy with its generated configuration, in front of real servers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from deployed_app import own_facts
from flask_secure_ml import SecureML, public
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.envoy import TARGET
from programs import every_proxy, needs_tool, tool_marks
from proxied import Backend, Proxied, backend, proxied, proxied_facts, write_target
from proxied_place import HOST, Place
from proxy_behaviours import BEHAVIOURS
from proxy_programs import ENVOY
from proxy_requests import PREDICTION, assert_problem, mozilla_intermediate
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

pytestmark = tool_marks("envoy")


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
    with proxied(tmp_path_factory.mktemp("envoy"), ENVOY, behind=servers) as found:
        yield found


@pytest.fixture
def place(servers: Backend) -> Place:
    return servers.place


def options(place: Place, folder: Path) -> dict[str, Any]:
    """Return the options of a place where the test may write."""
    return {
        "certificate": str(place.server.certificate),
        "certificate_key": str(place.server.key),
        "client_ca": str(place.client_authority),
        "access_log": str(folder / "access.log"),
    }


def check(facts: Facts, folder: Path) -> str:
    """Return the output of the validation, which must succeed."""
    files = write_target("envoy", facts, folder)
    command = [str(files / "run.sh"), "--mode", "validate", "--disable-hot-restart"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_bad_requests(running: Proxied) -> None:
    """Requests that Envoy rejects while parsing also get a problem document."""
    head = f"GET /v1/seen HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
    requests = (
        (f"{head}Content-Length: x\r\n\r\n", 400),
        (f"{head}X-Long: {'x' * 40_000}\r\n\r\n", 431),
        (head + "X-Many: x\r\n" * 100 + "\r\n", 431),
        (f"{head}X_API_Key: x\r\n\r\n", 400),
        (head.replace("/v1/seen", "/" + "x" * 8000) + "\r\n", 414),
        (head.replace("/v1/seen", "/" + "x" * 7900) + "\r\n", 401),
        (head.replace("/v1/seen", "/v1/seen?" + "x" * 8100) + "\r\n", 414),
    )
    # Envoy waits for a second before it closes a connection.
    with ThreadPoolExecutor(len(requests)) as clients:
        responses = list(clients.map(running.raw, (request.encode() for request, _ in requests)))
    for (request, status), received in zip(requests, responses, strict=True):
        assert received.startswith(b"HTTP/1.1 %d " % status), (request[:80], received)
        assert b"application/problem+json" in received


def test_status(running: Proxied) -> None:
    """The metrics of Envoy are at a port of this machine only, and its other paths are off."""
    assert b"envoy_cluster_upstream_rq" in running.status("/stats/prometheus")
    for path in ("/config_dump", "/certs", "/quitquitquit", "/logging", "/"):
        assert re.match(rb"HTTP/1.1 40[0-9] ", running.status(path)), path


@every_proxy
@pytest.mark.parametrize("given", [{}, BEHIND], ids=["edge", "behind a load balancer"])
def test_headers_of_envoy(given: dict[str, Any], tmp_path: Path, servers: Backend) -> None:
    """A client cannot set the time limits and retries of Envoy, nor does it see its headers."""
    sent = {"X-Envoy-Upstream-RQ-Timeout-Ms": "1", "X-Envoy-Retry-On": "5xx", "X-Envoy-Original-Path": "/forged"}
    with proxied(tmp_path, ENVOY, behind=servers, **given) as found:
        (found.place.gates / tmp_path.name).touch()
        answer = found.call("GET", f"/v1/slow/{tmp_path.name}", headers=found.key | sent)
        assert answer.status == 200
        assert not [name for name in answer.headers if name.lower().startswith("x-envoy")]
        seen = found.call("GET", "/v1/seen", headers=found.key | sent).json["headers"]
        assert not [name for name in seen if name.startswith("x-envoy-")]


def test_escaped_paths(running: Proxied) -> None:
    """The app gets the path that Envoy has matched."""
    with running.asked("PUT", "/v1/notes/../models/x", b"1" * 2000, running.key) as response:
        assert response.status == 200
    assert running.call("PUT", "/v1/models/a%20b", b"1", running.key).json == {"name": "a b", "bytes": 1}


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
    with proxied(tmp_path, ENVOY, behind=servers, **LIMITED) as limited:
        address_limits(limited)


@every_proxy
def test_front_proxies(tmp_path: Path, servers: Backend) -> None:
    with proxied(tmp_path, ENVOY, behind=servers, **BEHIND) as behind:
        front_proxies(behind)


@every_proxy
def test_network_limits(tmp_path: Path, servers: Backend) -> None:
    with proxied(tmp_path, ENVOY, behind=servers, **BEHIND, **LIMITED) as limited:
        network_limits(limited)


@every_proxy
def test_required_certificates(tmp_path: Path, servers: Backend) -> None:
    with proxied(tmp_path, ENVOY, behind=servers, **REQUIRED) as required:
        required_certificates(required)


@every_proxy
@pytest.mark.parametrize(("name", "status"), [("localhost", 200), ("other.example.com", 503)])
def test_tls_to_the_servers(name: str, status: int, tmp_path: Path, encrypted_servers: Backend) -> None:
    """The certificates of the servers are verified: one with another name is as good as no server."""
    with proxied(tmp_path, ENVOY, behind=encrypted_servers, upstream_name=name) as encrypted:
        answer = encrypted.call("POST", f"/v1/predict?{name}", PREDICTION, encrypted.key)
        assert answer.status == status
        if status == 200:
            wait_until(lambda: bool(encrypted.reached(name)), "the request is not in the log of a server")
        else:
            assert_problem(answer, 503, "dependency_unavailable")
            assert not encrypted.reached(name)


HOSTILE = [
    '/a"}, route: {cluster: evil}}',
    "/a\\",
    "/a'b",
    "/a;b}c{d",
    "/a%REQ(X)%",
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
    """A rule that Envoy would read in another way has the largest limit of such rules, and none breaks out."""
    app = Flask("hostile", static_folder=None)
    app.config["SECURE_ML_DEPLOY"] = options(place, tmp_path)
    app.config["SECURE_ML_MAX_BODY_BYTES"] = 100
    SecureML(app)
    for number, rule in enumerate(HOSTILE):
        app.add_url_rule(
            rule, endpoint=f"r{number}", view_func=public(caps={"max_body_bytes": 1000 + number})(lambda **_: "ok")
        )
    facts = facts_of(app)
    check(facts, tmp_path)
    content = TARGET.make(facts)["envoy.yaml"]
    assert "max_request_bytes: 1012" in content
    assert "evil" not in content


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"front_proxies": ["10.0.0.0/8", "2001:db8::/32"], "clear_text_port": 0},
        {"upstreams": ["unix:/run/own-model.sock", "[::1]:8000"], "bind": "127.0.0.1:8000"},
        {"hosts": ["*.example.com"], "listen": ["0.0.0.0", "[::]"]},
        {"request_timeout": 1},
    ],
)
def test_valid(given: dict[str, Any], tmp_path: Path, place: Place) -> None:
    """Envoy accepts the configuration, and reports nothing deprecated."""
    output = check(proxied_facts(place.settings, **options(place, tmp_path), **given), tmp_path)
    assert "OK" in output
    assert "eprecated" not in output
    # With the port 0 nothing serves clear text.
    assert ("tls_required" in (tmp_path / "envoy/envoy.yaml").read_text()) == (given.get("clear_text_port") != 0)


def test_overlay(tmp_path: Path, place: Place) -> None:
    """The overlay is merged, and checked with the rest."""
    facts = proxied_facts(place.settings, **options(place, tmp_path))
    write_target("envoy", facts, tmp_path)
    (tmp_path / "envoy/overlay.yaml").write_text("no_such_field: 1\n")
    with pytest.raises(AssertionError, match="no_such_field"):
        check(facts, tmp_path)


def test_warnings() -> None:
    """A header that Envoy cannot write is reported."""
    assert list(TARGET.warn(own_facts())) == []
    app = Flask("other", static_folder=None)
    app.config["SECURE_ML_CLIENT_CERTIFICATE_HEADER"] = "Client-Cert"
    app.config["SECURE_ML_DEPLOY"] = {"client_certificates": "optional", "client_ca": "/ca.pem"}
    SecureML(app)
    assert "Client-Cert" in "\n".join(TARGET.warn(facts_of(app)))


@every_proxy
def test_servers_that_die(running: Proxied) -> None:
    """The last test, because it stops the servers."""
    broken_off(running)
    servers_stopped(running)
