"""Caddy with its generated configuration, in front of real servers."""

from __future__ import annotations

import json
import os
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
from flask_secure_ml.deploy.targets.caddy import TARGET, quoted
from programs import every_proxy, needs
from proxied import Proxied, proxied, proxied_facts, write_target
from proxied_place import HOST, Place, make_place
from proxy_behaviours import BEHAVIOURS
from proxy_programs import CADDY
from proxy_traffic import REQUIRED, required_certificates, servers_stopped

pytestmark = needs("caddy")

HEADER = {"SECURE_ML_CLIENT_CERTIFICATE_HEADER": "Client-Cert"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(tmp_path_factory.mktemp("caddy"), CADDY, settings=HEADER) as found:
        yield found


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviours(name: str, running: Proxied) -> None:
    """The table of every proxy."""
    BEHAVIOURS[name](running)


def test_metrics(running: Proxied) -> None:
    """Those of Caddy are at a port of this machine only."""
    assert b"caddy_http_requests_total" in running.status("/metrics")
    assert b"HTTP/1.1 404" in running.status("/")


@every_proxy
def test_servers_stopped(running: Proxied) -> None:
    """See :func:`servers_stopped`, after which no server runs."""
    servers_stopped(running)


@every_proxy
def test_required_certificates_and_tls_behind(tmp_path: Path) -> None:
    """See the table; the servers have certificates too, which Caddy verifies."""
    with proxied(tmp_path, CADDY, settings=HEADER, upstream_tls=True, **REQUIRED) as found:
        required_certificates(found)


@every_proxy
def test_bodies_of_others(tmp_path: Path) -> None:
    """Each caller gets the response to its own request, also while one of the servers is down."""

    def outcome(number: int) -> int:
        answer = found.call("POST", "/v1/predict", {"instances": [[number, 0, 0, 0]]}, found.key)
        assert answer.status != 200 or answer.json == {"sums": [float(number)]}
        return answer.status

    with proxied(tmp_path, CADDY, settings=HEADER) as found, ThreadPoolExecutor(12) as callers:
        found.upstreams[0].close()
        statuses = list(callers.map(outcome, range(300)))
    # On a busy machine, Caddy may take both servers for down for a moment.
    assert set(statuses) <= {200, 502, 503}
    assert statuses.count(200) > len(statuses) / 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


def adapted(facts: Facts, folder: Path) -> Any:
    """Return the configuration that Caddy makes of its file, which must be valid and well formed."""
    path = write_target("caddy", facts, folder) / "Caddyfile"
    environ = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    for command in (["caddy", "validate"], ["caddy", "adapt"]):
        done = subprocess.run(
            [*command, "--config", str(path), "--adapter", "caddyfile"],
            capture_output=True,
            text=True,
            check=False,
            env=environ,
        )
        assert done.returncode == 0, done.stderr
        assert "not formatted" not in done.stderr
    return json.loads(done.stdout)


def options(place: Place, folder: Path) -> dict[str, Any]:
    return {
        "certificate": str(place.server.certificate),
        "certificate_key": str(place.server.key),
        "client_ca": str(place.client_authority),
        "access_log": str(folder / "access.log"),
    }


@pytest.mark.parametrize(
    "more",
    [
        {"hosts": ["*.example.org", "a.example"]},
        {"upstreams": ["unix:/run/app.sock", "[::1]:8000"]},
        {"front_proxies": ["10.0.0.0/24", "2001:db8::/32"]},
        {"clear_text_port": 0},
        {"client_certificates": "off"},
        {"listen": ["127.0.0.1", "[::1]"]},
    ],
    ids=min,
)
def test_options(more: dict[str, Any], place: Place, tmp_path: Path) -> None:
    """Caddy accepts the file with each option of the place."""
    assert adapted(proxied_facts(place.settings, **options(place, tmp_path) | more), tmp_path)["admin"]["disabled"]


def test_acme(place: Place, tmp_path: Path) -> None:
    """With a contact, Caddy obtains the certificates, and still redirects nothing."""
    facts = proxied_facts(place.settings, **options(place, tmp_path) | {"acme_email": "ops@example.com"})
    text = TARGET.make(facts)["Caddyfile"]
    assert "auto_https disable_redirects" in text
    assert str(place.server.key) not in text
    path = write_target("caddy", facts, tmp_path) / "Caddyfile"
    command = ["caddy", "adapt", "--config", str(path), "--adapter", "caddyfile"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert '"email": "ops@example.com"' in json.dumps(found["apps"]["tls"]["automation"]["policies"])


def test_without_settings(place: Place, tmp_path: Path) -> None:
    """An app with no setting but its certificate has a configuration too."""
    app = Flask("bare")
    app.config["SECURE_ML_DEPLOY"] = options(place, tmp_path)
    SecureML(app)
    facts = facts_of(app)
    assert facts.health_path is None
    assert "health_checks" not in json.dumps(adapted(facts, tmp_path))


def test_malformed_requests_take_no_server_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a health check path, a client without a credential cannot make the app unavailable."""
    monkeypatch.setattr(Facts, "health_path", None)
    head = f"POST /v1/seen HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with proxied(tmp_path, CADDY, settings=HEADER) as found:
        for _ in range(8):
            assert not found.raw(f"{head}5\r\nhelloXX0\r\n\r\n".encode()).startswith(b"HTTP/1.1 2")
        assert [found.call("GET", "/v1/seen", headers=found.key).status for _ in range(6)] == [200] * 6


HOSTILE = ["/a b/'c", '/"; }/{$HOME}', "/#x/{env.HOME}", "/\\<path:p>", "/é/<n>", "/a`x", "/a'\nadmin on"]


def test_hostile_rules(place: Place, tmp_path: Path) -> None:
    """A rule cannot end its string, and its limit applies."""
    app = Flask("hostile", static_folder=None)
    app.config["SECURE_ML_DEPLOY"] = options(place, tmp_path)
    SecureML(app)
    view = public(caps={"max_body_bytes": 7})(lambda **_: "")
    for number, rule in enumerate(HOSTILE):
        app.add_url_rule(rule, endpoint=str(number), view_func=view)
    found = adapted(facts_of(app), tmp_path)
    assert found["admin"]["disabled"]
    assert json.dumps(found).count('"max_size": 14') == len([rule for rule in HOSTILE if "\n" not in rule])
    assert os.environ["HOME"] not in json.dumps(found["apps"]["http"]).replace(str(tmp_path), "")


def test_quotes() -> None:
    """The quotation mark is the only character with an escape."""
    assert quoted('a"b\\c') == '"a\\"b\\c"'


def test_a_warning_without_a_path_to_poll() -> None:
    """With several servers, a server that is down still receives requests."""
    app = Flask("bare")
    app.config["SECURE_ML_DEPLOY"] = {"upstreams": ["127.0.0.1:8001", "127.0.0.1:8002"]}
    SecureML(app)
    assert "set SECURE_ML_PROBES" in " ".join(TARGET.warn(facts_of(app)))


def test_warnings() -> None:
    """Features that Caddy lacks are reported."""
    sentences = " ".join(TARGET.warn(own_facts(front_proxies=["10.0.0.0/24"])))
    assert "set SECURE_ML_CLIENT_CERTIFICATE_HEADER to Client-Cert" in sentences
    assert "front_proxies to SECURE_ML_TRUSTED_PROXIES" in sentences
    assert "set SECURE_ML_PROBES" not in sentences
    assert "Client-Cert" not in " ".join(TARGET.warn(own_facts(client_certificates="off")))
