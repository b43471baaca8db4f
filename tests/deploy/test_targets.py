"""Requirements on every target, for the test app and for an app without settings."""

from __future__ import annotations

import re

import pytest
from flask import Flask

from deployed_app import create_app, own_facts
from flask_secure_ml import SecureML
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.target import GENERATED
from flask_secure_ml.deploy.targets import targets
from support import RANDOM_SECRET

TARGETS = targets()


def bare() -> Facts:
    app = Flask("bare")
    SecureML(app)
    return facts_of(app)


@pytest.fixture(params=["own", "bare"])
def facts(request: pytest.FixtureRequest) -> Facts:
    return own_facts() if request.param == "own" else bare()


@pytest.mark.parametrize("name", TARGETS)
def test_files(name: str, facts: Facts) -> None:
    """Each names its generator, unless its language has no comments, and is the same every time."""
    target = TARGETS[name]
    made = target.make(facts)
    assert made
    assert dict(made) == dict(TARGETS[name].make(facts))
    for path, content in made.items():
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert content.endswith("\n")
        assert not [line for line in content.splitlines() if line != line.rstrip()], f"{path}: trailing spaces"
        if not path.endswith(".json"):
            assert GENERATED.format(target=name) in "\n".join(content.splitlines()[:6]), path


@pytest.mark.parametrize("name", TARGETS)
def test_no_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files contain references, never the secrets."""
    monkeypatch.setenv("INTROSPECTION_SECRET", RANDOM_SECRET)
    app = create_app(SECURE_ML_STORE_URI=f"redis://:{RANDOM_SECRET}@h/0", SECURE_ML_STORE_PASSWORD=None)
    assert RANDOM_SECRET not in repr(dict(TARGETS[name].make(facts_of(app))))


@pytest.mark.parametrize("name", TARGETS)
def test_advice(name: str, facts: Facts) -> None:
    """Every line can be printed, and every target names an overlay."""
    target = TARGETS[name]
    assert target.overlay
    assert all(line.format(folder="deploy", absolute="/deploy", options=facts.options) for line in target.advice)
    assert all(isinstance(warning, str) for warning in target.warnings(facts))


# An option of the proxy, and a value that differs from that of the test app.
PROXY_OPTIONS = {
    "hosts": ["other.example.com"],
    "port": 9443,
    "listen": ["192.0.2.7"],
    "clear_text_port": 0,
    "status_port": 9901,
    "front_proxies": ["10.9.0.0/24"],
    "address_rate": 7,
    "address_connections": 9,
    "waf": True,
    "access_log": "/var/log/own.log",
    "upstreams": ["192.0.2.9:8009"],
    "upstream_ca": "/etc/upstream.pem",
    "certificate": "/etc/other.crt",
    "certificate_key": "/etc/other.key",
    "client_certificates": "off",
    "acme_email": "ops@example.com",
    "request_timeout": 77,
}
# HAProxy logs to standard output, as its page says.
DOCUMENTED = {("haproxy", "access_log")}


@pytest.mark.parametrize("option", PROXY_OPTIONS)
@pytest.mark.parametrize("name", ["nginx", "envoy", "haproxy", "caddy", "apache", "kong"])
def test_no_option_is_ignored(name: str, option: str) -> None:
    """Each option of a proxy changes its files, or a warning says that it does not."""
    before, after = own_facts(), own_facts(**{option: PROXY_OPTIONS[option]})
    one, other = ((dict(TARGETS[name].make(each)), list(TARGETS[name].warnings(each))) for each in (before, after))
    assert one != other or (name, option) in DOCUMENTED


def test_the_variable_of_grafana(facts: Facts) -> None:
    """A variable that is not set would be an empty URL, so the command and the file name it with a value."""
    target = TARGETS["grafana"]
    content = target.make(facts)["provisioning/datasources/prometheus.yaml"]
    for name in re.findall(r"url: \$\{(\w+)\}", content):
        assert f"{name}=http://127.0.0.1:9090" in content
        assert any(f"{name}=http://127.0.0.1:9090" in line for line in target.advice)
