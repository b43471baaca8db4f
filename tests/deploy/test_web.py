"""Properties that all proxies share."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask import Flask

from deployed_app import SETTINGS, create_app, own_facts
from flask_secure_ml import SecureML, protect, public
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets import targets
from flask_secure_ml.deploy.web import (
    LINE_BYTES,
    SERVER_IDLE_SECONDS,
    UPSTREAM_IDLE_SECONDS,
    Location,
    address_burst,
    address_connections,
    address_rate,
    hsts,
    locations,
    problems,
    warnings,
)
from flask_secure_ml.errors import ConfigError
from flask_secure_ml.transport.forwarded import CERTIFICATE_FORMATS


def facts(**settings: Any) -> Facts:
    app = Flask("web", static_folder=None)
    app.config.from_mapping(settings)
    SecureML(app)
    return facts_of(app)


def located(*rules: tuple[str, str, int]) -> dict[str, Location]:
    """Return the locations of an app with these rules, methods and limits by their rule."""
    app = Flask("located", static_folder=None)
    SecureML(app)
    for number, (rule, method, limit) in enumerate(rules):
        view = protect(caps={"max_body_bytes": limit})(lambda **_: "ok")
        app.add_url_rule(rule, endpoint=f"r{number}", view_func=view, methods=[method])
    return {location.rule: location for location in locations(facts_of(app))}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/models/large", "/models/<name>"),
        ("/models/<int:number>", "/models/<name>"),
        ("/models/<name>", "/<path:anything>"),
        ("/<a>/x", "/b/<c>"),
        ("/models/", "/models"),
        ("/f/<name>.bin", "/f/<name>.json"),
    ],
)
def test_the_limits_of_overlapping_rules(one: str, other: str) -> None:
    """A request that Flask gives to the second rule, for its method, is not rejected for the limit of the first."""
    for first, second in ((one, other), (other, one)):
        found = located((first, "GET", 10), (second, "PUT", 20))
        assert found[first].max_body_bytes == 20
        assert "PUT" in found[first].methods


@pytest.mark.parametrize(
    ("one", "other"),
    [("/models/large", "/models/<int:number>"), ("/models/<name>", "/users/<name>"), ("/a", "/b")],
)
def test_rules_that_do_not_overlap(one: str, other: str) -> None:
    """Each has its own limit."""
    found = located((one, "GET", 10), (other, "PUT", 20))
    assert (found[one].max_body_bytes, found[other].max_body_bytes) == (10, 20)


def test_a_rule_that_overlaps_a_closed_one_is_not_cached() -> None:
    """Otherwise the response to one caller could be kept for all."""
    app = Flask("cached", static_folder=None)
    SecureML(app)
    policy = public(headers={"values": {"Cache-Control": "public, max-age=60"}})
    app.add_url_rule("/classes/<name>", "one", policy(lambda **_: "ok"))
    app.add_url_rule("/classes/<int:number>", "two", lambda **_: "ok")
    app.add_url_rule("/labels", "three", policy(lambda: "ok"))
    found = {location.rule: location.cache_seconds for location in locations(facts_of(app))}
    assert found == {"/classes/<name>": 0, "/classes/<int:number>": 0, "/labels": 60}


def test_problems() -> None:
    """Each is the document that the app would write, with the placeholder of a program."""
    found = problems(own_facts(), "$request_id")
    assert list(found) == sorted(found)
    for name, problem in found.items():
        document = json.loads(problem.document)
        assert document["status"] == problem.status == int(name if name != "tls" else 403)
        assert document["code"] == problem.code == problem.headers["X-Error-Code"]
        assert document["request_id"] == "$request_id"
        assert problem.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    codes = {name: found[name].code for name in ("tls", "413", "429", "503", "504")}
    assert codes == {
        "tls": "tls_required",
        "413": "payload_too_large",
        "429": "rate_limited",
        "503": "dependency_unavailable",
        "504": "prediction_timeout",
    }
    assert [name for name, problem in found.items() if "Retry-After" in problem.headers] == ["429", "503"]


def test_the_documents_are_those_of_the_app() -> None:
    """The documents of the proxy and of the app are the same."""
    app = Flask("served", static_folder=None)
    SecureML(app)
    found = problems(facts_of(app), "x")
    client = app.test_client()
    response = client.get("/v1/whoami", base_url="http://own.example.com")
    ours = json.loads(found["tls"].document)
    assert response.get_json() | {"request_id": "x"} == ours


@pytest.mark.parametrize(
    ("server", "is_warned"),
    [
        ("127.0.0.2:8000", False),
        ("[::1]:8000", False),
        ("localhost:8000", False),
        ("unix:/run/own/own.sock", False),
        ("127.example.com:8000", True),
        ("10.0.3.9:8000", True),
    ],
)
def test_clear_text_to_servers(server: str, is_warned: bool) -> None:
    """There is a warning if it leaves the machine, whatever the host name begins with."""
    assert any("clear text" in each for each in warnings(own_facts(upstreams=[server]))) == is_warned


@pytest.mark.parametrize(
    ("cors", "headers"),
    [
        (None, {}),
        ({"origins": []}, {}),
        ({"origins": ["*"]}, {"Access-Control-Allow-Origin": "*"}),
        ({"origins": ["https://a.example"]}, {"Access-Control-Allow-Origin": "https://a.example"}),
        ({"origins": ["https://a.example", "https://b.example"]}, {"Vary": "Origin"}),
        (
            {"origins": ["https://a.example"], "credentials": True},
            {"Access-Control-Allow-Origin": "https://a.example", "Access-Control-Allow-Credentials": "true"},
        ),
    ],
    ids=["off", "none", "all", "one", "two", "credentials"],
)
def test_pages_that_read_errors(cors: dict[str, Any] | None, headers: dict[str, str]) -> None:
    """The headers that do not depend on the request."""
    found = problems(facts_of(create_app(SECURE_ML_CORS=cors)), "x")["413"].headers
    exposed = found.get("Access-Control-Expose-Headers", "")
    assert ("X-Request-ID" in exposed) == bool(headers)
    names = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Vary")
    assert {name: found[name] for name in names if name in found} == headers


def test_hsts() -> None:
    """As the app sends it, or not at all."""
    assert hsts(facts(SECURE_ML_HSTS_MAX_AGE=60, SECURE_ML_HSTS_INCLUDE_SUBDOMAINS=False).settings) == "max-age=60"
    off = facts(SECURE_ML_HSTS_MAX_AGE=0)
    assert hsts(off.settings) is None
    assert "Strict-Transport-Security" not in problems(off, "x")["500"].headers


def test_limits_of_an_address() -> None:
    """They are far above those of any caller."""
    assert (address_rate(facts()), address_burst(facts()), address_connections(facts())) == (500, 5000, 256)
    plans = {"default": {"requests": ["6000/minute", "90000/hour"], "in_flight": 32}}
    many = facts(SECURE_ML_PLANS=plans)
    assert (address_rate(many), address_burst(many), address_connections(many)) == (2000, 90000, 512)
    given = facts(SECURE_ML_PLANS=plans, SECURE_ML_DEPLOY={"address_rate": 7, "address_connections": 9})
    assert (address_rate(given), address_burst(given), address_connections(given)) == (7, 70, 9)


@pytest.mark.parametrize(
    ("deploy", "message"),
    [
        ({"listen": ["localhost"]}, "IP address"),
        ({"front_proxies": ["10.0.0.1/8"]}, "network"),
        ({"front_proxies": ["0.0.0.0/0"]}, "all addresses"),
        ({"front_proxies": ["::/0"]}, "all addresses"),
        ({"proxy_user": "root; daemon off"}, "user"),
        ({"proxy_directory": "/a b"}, "path"),
    ],
)
def test_options(deploy: dict[str, Any], message: str) -> None:
    """Values that could break out of a configuration, or let clients choose their address, are rejected."""
    with pytest.raises(ConfigError, match=message):
        facts(SECURE_ML_DEPLOY=deploy)


def test_warnings() -> None:
    """A proxy that the app does not trust, and servers whose certificates do not share a name."""
    assert list(warnings(own_facts())) == []
    assert "SECURE_ML_TRUSTED_PROXIES" in next(warnings(facts()))
    pattern = own_facts(hosts=["*.example.com"], upstream_ca="/ca.pem")
    assert "upstream_name" in next(warnings(pattern))


@pytest.mark.parametrize("name", ["nginx", "envoy", "haproxy", "caddy", "apache"])
@pytest.mark.parametrize(("root", "is_warned"), [(None, False), ("/", False), ("/ml", True)])
def test_an_app_below_a_prefix(name: str, root: str | None, is_warned: bool) -> None:
    """Its limits apply to paths without the prefix only, which is reported."""
    app = create_app()
    app.config["APPLICATION_ROOT"] = root
    found = list(targets()[name].warn(facts_of(app)))
    assert any("APPLICATION_ROOT is /ml" in each for each in found) == is_warned


def test_idle_connections() -> None:
    """A server keeps them longer than a proxy, so that it closes none on which a request is under way."""
    assert SERVER_IDLE_SECONDS > UPSTREAM_IDLE_SECONDS
    made = targets()
    behind = made["gunicorn"].make(own_facts())["gunicorn.conf.py"]
    assert f"keepalive = {SERVER_IDLE_SECONDS}\n" in behind
    assert "keepalive" not in made["gunicorn"].make(facts())["gunicorn.conf.py"]
    assert f"keepalive_timeout {UPSTREAM_IDLE_SECONDS}s;" in made["nginx"].make(own_facts())["nginx.conf"]
    assert f"idle_timeout: {UPSTREAM_IDLE_SECONDS}s" in made["envoy"].make(own_facts())["envoy.yaml"]


def test_request_lines() -> None:
    """gunicorn reads every line that a proxy passes on; the method and the version take less than 190 bytes."""
    content = targets()["gunicorn"].make(own_facts())["gunicorn.conf.py"]
    found = re.search(r"limit_request_line = (\d+)", content)
    assert found
    assert int(found[1]) >= LINE_BYTES + 190


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        (["*.example.com"], "probe.example.com"),
        (["*.example.com", "own.example.org"], "own.example.org"),
        (["a.example.com", "*.example.com"], "a.example.com"),
    ],
)
@pytest.mark.parametrize("name", ["kubernetes", "docker", "envoy"])
def test_the_host_of_probes(name: str, hosts: list[str], host: str) -> None:
    """It is one that an app with TRUSTED_HOSTS serves; a pattern is none."""
    app = Flask("probed", static_folder=None)
    app.config.from_mapping(SECURE_ML_DEPLOY={"hosts": hosts}, SECURE_ML_PROBES={"live": "/livez", "ready": "/readyz"})
    app.config["TRUSTED_HOSTS"] = [each.removeprefix("*") for each in hosts]
    SecureML(app)
    lines = "\n".join(targets()[name].make(facts_of(app)).values()).splitlines()
    probes = [line for line in lines if re.search(r"name: Host,|\"Host\":|^ +host: [^%]*$", line)]
    assert probes
    assert all(f'"{host}"' in line for line in probes)
    assert app.test_client().get("/livez", base_url=f"https://{host}").status_code == 200


@pytest.mark.parametrize(
    ("name", "line"), [("haproxy", "hdr Host probe.example.com "), ("caddy", "Host probe.example.com\n")]
)
def test_the_host_of_health_checks(name: str, line: str) -> None:
    """A proxy polls with a host name too."""
    (content,) = targets()[name].make(own_facts(hosts=["*.example.com"])).values()
    assert line in content


@pytest.mark.parametrize("header", [*CERTIFICATE_FORMATS])
@pytest.mark.parametrize("name", ["nginx", "envoy", "haproxy", "caddy", "apache", "kong", "aws-api-gateway"])
def test_certificates_that_clients_forge(name: str, header: str) -> None:
    """Each proxy removes every header that the app can be configured to read a certificate from."""
    options = SETTINGS["SECURE_ML_DEPLOY"] | {"client_certificates": "off"}
    app = create_app(SECURE_ML_CLIENT_CERTIFICATE_HEADER=header, SECURE_ML_DEPLOY=options)
    content = "\n".join(targets()[name].make(facts_of(app)).values())
    # Envoy has a mode of its own for its own header.
    own = name == "envoy" and header == "X-Forwarded-Client-Cert"
    assert ("forward_client_cert_details: SANITIZE\n" if own else header) in content.replace('"SANITIZE"', "SANITIZE")


def test_the_limit_of_an_address_at_gateways() -> None:
    """It is above the limit of each plan, as at other proxies: at Kong in a second, at AWS in five minutes."""
    app = create_app(SECURE_ML_PLANS={"default": {"requests": ["12000/minute"]}})
    assert "second: 4000\n" in targets()["kong"].make(facts_of(app))["kong.yaml"]
    assert "second: 5\n" in targets()["kong"].make(own_facts(address_rate=5))["kong.yaml"]
    for facts, rate in ((facts_of(app), 4000), (own_facts(address_rate=5), 5)):
        template = targets()["aws-api-gateway"].make(facts)["rest-api.yaml"]
        assert f"Limit: {300 * rate}\n" in template
        # All callers together may at least send what one address may.
        limits = [line.rpartition(":")[2] for line in template.splitlines() if "RateLimit:" in line]
        assert limits
        assert all(int(each) >= rate for each in limits)
