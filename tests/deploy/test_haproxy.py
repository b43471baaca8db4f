"""HAProxy with its generated configuration, in front of real servers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from deployed_app import own_facts
from flask_secure_ml import SecureML, public
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.haproxy import TARGET, log_string, quoted
from programs import every_proxy, needs
from proxied import Proxied, proxied, proxied_facts, write_target
from proxied_place import Place, make_place
from proxy_behaviours import BEHAVIOURS
from proxy_programs import HAPROXY, haproxy_options
from proxy_requests import client_certificate
from proxy_traffic import (
    BEHIND,
    LIMITED,
    REQUIRED,
    address_limits,
    network_limits,
    required_certificates,
    servers_stopped,
)

pytestmark = needs("haproxy")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(tmp_path_factory.mktemp("haproxy"), HAPROXY) as found:
        yield found


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviours(name: str, running: Proxied) -> None:
    """The table of every proxy."""
    BEHAVIOURS[name](running)


def test_metrics(running: Proxied) -> None:
    """Those of HAProxy are at a port of this machine only."""
    assert b"haproxy_frontend_http_requests_total" in running.status("/metrics")
    assert b"HTTP/1.1 404" in running.status("/")


@every_proxy
def test_servers_stopped(running: Proxied) -> None:
    """See :func:`servers_stopped`, after which no server runs."""
    servers_stopped(running)


@every_proxy
def test_address_limits(tmp_path: Path) -> None:
    """See the table."""
    with proxied(tmp_path, HAPROXY, **LIMITED) as found:
        address_limits(found)


@every_proxy
def test_network_limits(tmp_path: Path) -> None:
    """See the table."""
    with proxied(tmp_path, HAPROXY, **BEHIND, **LIMITED) as found:
        network_limits(found, 25)


@every_proxy
def test_required_certificates_and_tls_behind(tmp_path: Path) -> None:
    """See the table; the servers have certificates too, which HAProxy verifies."""
    with proxied(tmp_path, HAPROXY, upstream_tls=True, **REQUIRED) as found:
        required_certificates(found)


@every_proxy
@pytest.mark.parametrize("header", ["Client-Cert", "X-Forwarded-Client-Cert"])
def test_other_headers_of_certificates(tmp_path: Path, header: str) -> None:
    """HAProxy writes each format that the app reads."""
    with proxied(tmp_path, HAPROXY, settings={"SECURE_ML_CLIENT_CERTIFICATE_HEADER": header}) as found:
        client_certificate(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


def check(facts: Facts, folder: Path) -> str:
    """Check that the configuration is valid, and return the messages of HAProxy."""
    files = write_target("haproxy", facts, folder)
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(files / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@pytest.mark.parametrize(
    "more",
    [
        {"hosts": ["*.example.org", "a.example"]},
        {"upstreams": ["unix:/run/app.sock", "[::1]:8000"]},
        {"front_proxies": ["10.0.0.0/24", "2001:db8::/32"]},
        {"acme_email": "ops@example.com"},
        {"clear_text_port": 0},
        {"client_certificates": "off"},
        {"listen": ["127.0.0.1", "[::1]"]},
    ],
    ids=min,
)
def test_options(more: dict[str, Any], place: Place, tmp_path: Path) -> None:
    """HAProxy accepts the file with each option of the place, without a warning."""
    base = haproxy_options(place) | {"client_ca": str(place.client_authority), "proxy_user": "root"}
    assert not re.search("WARNING|ALERT", check(proxied_facts(place.settings, **base | more), tmp_path))


def test_without_settings(place: Place, tmp_path: Path) -> None:
    """An app with no setting but its certificate has a configuration too."""
    app = Flask("bare")
    app.config["SECURE_ML_DEPLOY"] = haproxy_options(place) | {"proxy_user": "root"}
    SecureML(app)
    assert "ALERT" not in check(facts_of(app), tmp_path)


HOSTILE = ["/a b/'c", '/"; }/$x', "/#x/%[src]", "/\\<path:p>", "/é/<n>", "/a'\nserver evil 192.0.2.1:80"]


def test_hostile_rules(place: Place, tmp_path: Path) -> None:
    """A rule cannot end its string, and its limit applies."""
    app = Flask("hostile", static_folder=None)
    app.config["SECURE_ML_DEPLOY"] = haproxy_options(place) | {"proxy_user": "root"}
    SecureML(app)
    view = public(caps={"max_body_bytes": 7}, headers={"values": {"Cache-Control": "public, max-age=5"}})(
        lambda **_: ""
    )
    for number, rule in enumerate(HOSTILE):
        app.add_url_rule(rule, endpoint=str(number), view_func=view)
    facts = facts_of(app)
    assert "WARNING" not in check(facts, tmp_path)
    text = TARGET.make(facts)["haproxy.cfg"]
    assert not re.search(r"^\s*server evil", text, re.MULTILINE)
    assert text.count("req.body_size gt 7 ") == len([rule for rule in HOSTILE if "\n" not in rule])


def test_quotes() -> None:
    """An apostrophe ends a string of HAProxy, and a per cent sign begins an expression of a log format."""
    assert quoted("a'b") == "'a'\\''b'"
    assert log_string("100%") == "'100%%'"


@every_proxy
def test_front_proxies(tmp_path: Path) -> None:
    """Behind a load balancer, the client is the last address that is not the load balancer's."""
    with proxied(tmp_path, HAPROXY, front_proxies=["127.0.0.0/8"]) as found:
        for sent, seen in (
            ("203.0.113.9", "203.0.113.9"),
            ("198.51.100.7, 203.0.113.9", "203.0.113.9"),
            ("203.0.113.9, 127.0.0.9", "203.0.113.9"),
        ):
            answer = found.call("GET", "/v1/seen", headers=found.key | {"X-Forwarded-For": sent})
            assert answer.json["address"] == seen


def test_warnings() -> None:
    """Features that HAProxy lacks are reported."""
    assert any("Core Rule Set" in each for each in TARGET.warn(own_facts(waf=True, streams=[])))
    sentences = " ".join(TARGET.warn(own_facts(certificate="/etc/a.pem", certificate_key="/etc/b.pem")))
    assert "X.key" in sentences
    assert "X.key" not in " ".join(TARGET.warn(own_facts()))
