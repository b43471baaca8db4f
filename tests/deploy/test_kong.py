"""Kong's files: every field is one of the schemas that Kong publishes (3.x), and both sides agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from deployed_app import create_app, own_facts
from flask_secure_ml import SecureML
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.kong import FORGED, TARGET

SCHEMA: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("kong_schema.json").read_text(encoding="utf-8"))
KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "set": (list,),
    "record": (dict,),
    "map": (dict,),
}


def kong(facts: Facts) -> Any:
    return yaml.safe_load(TARGET.make(facts)["kong.yaml"])


def problems(entity: str, value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the members that the schema does not have."""
    for name, given in value.items():
        kind = SCHEMA[entity].get(name)
        if kind is None:
            yield f"{entity}.{name} does not exist"
        elif isinstance(kind, list):
            if given not in kind:
                yield f"{entity}.{name} is {given!r}"
        elif type(given) not in KINDS[kind]:
            yield f"{entity}.{name} is no {kind}"


def all_problems(found: Mapping[str, Any]) -> Iterator[str]:
    for upstream in found["upstreams"]:
        yield from problems("upstream", upstream)
        for name, check in upstream.get("healthchecks", {}).items():
            yield from problems(f"healthchecks.{name}", check)
            for state in ("healthy", "unhealthy"):
                yield from problems(f"healthchecks.{name}.{state}", check[state]) if state in check else ()
        for target in upstream["targets"]:
            yield from problems("target", target)
    for service in found["services"]:
        yield from problems("service", service)
        for route in service["routes"]:
            yield from problems("route", route)
    for plugin in plugins(found):
        yield from problems(f"plugin.{plugin['name']}", plugin["config"])


def plugins(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from found["plugins"]
    for service in found["services"]:
        yield from service.get("plugins", [])
        for route in service["routes"]:
            yield from route.get("plugins", [])


@pytest.mark.parametrize(
    "options", [{}, {"upstream_ca": "/etc/ca.pem"}, {"upstreams": ["[::1]:8000", "app.internal:8443"]}], ids=str
)
def test_fields(options: dict[str, Any]) -> None:
    """Each exists and has the type that Kong wants."""
    found = kong(own_facts(**options))
    assert found["_format_version"] == "3.0"
    assert list(all_problems(found)) == []


def test_a_wrong_field_is_found() -> None:
    """The check of the fields can fail."""
    found = kong(own_facts())
    found["services"][0]["routes"][0]["plugins"][0]["config"] |= {"allowed_payload_size": "1", "size": 1}
    found["upstreams"][0]["algorithm"] = "random"
    assert len(list(all_problems(found))) == 3


def test_without_settings() -> None:
    """An app with no setting has a configuration too."""
    app = Flask("bare")
    SecureML(app)
    found = kong(facts_of(app))
    assert list(all_problems(found)) == []
    # Without an active check, an excluded server would stay excluded.
    assert "healthchecks" not in found["upstreams"][0]


def route_of(found: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return the route that Kong takes for a path: regular expressions first, by their priority."""
    routes = sorted(found["services"][0]["routes"], key=lambda route: -route["regex_priority"])
    for route in routes:
        pattern: str = route["paths"][0]
        if re.match(pattern[1:], path) if pattern.startswith("~") else path.startswith(pattern):
            return route  # type: ignore[no-any-return]
    raise AssertionError(path)


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/predict", 4_194_304),
        ("/v1/models/digits", 16_777_216),
        ("/v1/models/digits/x", 4_194_304),
        ("/v1/notes/", 1024),
        ("/v1/notes", 1024),
        ("/unknown", 4_194_304),
    ],
)
def test_sizes(path: str, limit: int) -> None:
    """Kong forwards bodies that the app rejects itself, up to twice its limit."""
    (plugin,) = route_of(kong(own_facts()), path)["plugins"]
    assert plugin["config"]["allowed_payload_size"] == 2 * limit
    assert plugin["config"]["size_unit"] == "bytes"


def test_streams_are_not_buffered() -> None:
    """Other responses are, so that a slow reader does not occupy a worker."""
    found = kong(own_facts())
    assert route_of(found, "/v1/stream")["response_buffering"] is False
    assert route_of(found, "/v1/predict")["response_buffering"] is True


def test_forged_headers() -> None:
    """The header in which a certificate is believed is removed, whichever the app takes."""
    for header in ("Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert"):
        app = create_app(SECURE_ML_CLIENT_CERTIFICATE_HEADER=header)
        (removed,) = [
            plugin["config"]["remove"]["headers"]
            for plugin in plugins(kong(facts_of(app)))
            if plugin["name"] == "request-transformer"
        ]
        assert header in removed
        assert set(removed) == set(FORGED)


def test_clear_text() -> None:
    """It gets the problem document of the app, and never reaches it."""
    found = kong(own_facts())
    assert {tuple(route["protocols"]) for route in found["services"][0]["routes"]} == {("https",)}
    (termination,) = [plugin for plugin in plugins(found) if plugin["name"] == "request-termination"]
    assert termination["config"]["status_code"] == 403
    assert json.loads(termination["config"]["body"])["code"] == "tls_required"
    assert found["services"][1]["host"] == "127.0.0.1"


def test_time_outs() -> None:
    """They are those of the app, in milliseconds, and never exclude a server."""
    assert kong(own_facts())["upstreams"][0]["healthchecks"]["passive"]["unhealthy"]["timeouts"] == 0
    service = kong(own_facts(request_timeout=7))["services"][0]
    assert (service["read_timeout"], service["write_timeout"], service["retries"]) == (7000, 7000, 0)


def test_hostile_rules() -> None:
    """A rule cannot end its string."""
    app = Flask("hostile", static_folder=None)
    rule = '/a"]}, {"x": \'y\' #\\<path:p>'
    app.config["SECURE_ML_DEPLOY"] = {"streams": [rule]}
    SecureML(app)
    app.add_url_rule(rule, endpoint="x", view_func=lambda p: p)
    found = kong(facts_of(app))
    assert list(all_problems(found)) == []
    assert [route["response_buffering"] for route in found["services"][0]["routes"]] == [False, True]


def test_a_rule_beyond_the_basic_plane() -> None:
    """YAML has no surrogates (YAML 1.2 section 5.7), and the parser of Kong rejects them."""
    app = Flask("emoji", static_folder=None)
    app.config["SECURE_ML_DEPLOY"] = {"streams": ["/\U0001f600/<name>"]}
    SecureML(app)
    app.add_url_rule("/\U0001f600/<name>", endpoint="\U0001f600", view_func=lambda name: name)
    facts = facts_of(app)
    assert not re.search(r"\\u[dD][89a-fA-F]", TARGET.make(facts)["kong.yaml"])
    assert any("\U0001f600" in path for route in kong(facts)["services"][0]["routes"] for path in route["paths"])


def test_the_server() -> None:
    """No interface for changes, modern TLS, no headers of clients believed, no secret in the log."""
    text = TARGET.make(own_facts(upstream_ca="/etc/ca.pem"))["kong.conf"]
    lines = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line and not line.startswith("#"))
    assert lines["admin_listen"] == "off"
    assert lines["ssl_protocols"] == "TLSv1.2 TLSv1.3"
    assert "\ntrusted_ips =\n" in text
    assert lines["lua_ssl_trusted_certificate"] == "/etc/ca.pem"
    assert not re.search(r"\$(request_uri|args|query_string|http_authorization|http_x_api_key|request)\b", text)
    template = TARGET.make(own_facts())["problem.json"]
    assert template.count("%s") == 2
    # Kong uses it for every status, so it names no code.
    assert json.loads(template).keys() == {"type", "detail", "request_id"}


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        ({"clear_text_port": 8080}, ["0.0.0.0:443 http2 ssl", "0.0.0.0:8080", "[::]:443 http2 ssl", "[::]:8080"]),
        ({"listen": ["192.0.2.7"], "clear_text_port": 0, "port": 8443}, ["192.0.2.7:8443 http2 ssl"]),
    ],
    ids=["all", "one"],
)
def test_listeners(options: dict[str, Any], addresses: list[str]) -> None:
    """They have the addresses and ports of the options, and 0 leaves the clear-text port closed."""
    text = TARGET.make(own_facts(**options, status_port=9901))["kong.conf"]
    (line,) = (line for line in text.splitlines() if line.startswith("proxy_listen"))
    assert [each.partition(" reuseport")[0] for each in line.partition(" = ")[2].split(", ")] == addresses
    assert "\nstatus_listen = 127.0.0.1:9901\n" in text


def test_warnings() -> None:
    """Features that Kong lacks are reported."""
    facts = own_facts(upstreams=["unix:/run/app.sock"])
    assert len(list(TARGET.warnings(facts))) == 2
    assert any("load balancer" in each for each in TARGET.warnings(own_facts(front_proxies=["10.0.0.0/24"])))
    assert list(TARGET.warnings(own_facts(client_certificates="off"))) == []
