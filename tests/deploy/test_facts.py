"""The facts about an app that generators use."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BaseConverter

from deployed_app import create_app, own_facts
from flask_secure_ml import SecureML, public
from flask_secure_ml.deploy.destinations import Destination
from flask_secure_ml.deploy.facts import RouteFacts, SecretFacts, facts_of
from flask_secure_ml.deploy.mounts import public_files, written_folders
from flask_secure_ml.deploy.targets import targets
from support import RANDOM_SECRET


def routes(**settings: Any) -> dict[str, RouteFacts]:
    return {route.rule: route for route in facts_of(create_app(**settings)).routes}


def test_routes() -> None:
    """Literal rules come first, and each has the largest body and the methods of its policies."""
    found = routes()
    assert list(found) == [
        "/livez",
        "/metrics",
        "/readyz",
        "/readyz/details",
        "/v1/classes",
        "/v1/notes/",
        "/v1/predict",
        "/v1/stream",
        "/v1/whoami",
        "/v1/jobs/<int:job>/files/<path:file>",
        "/v1/models/<name>",
    ]
    assert found["/v1/predict"].methods == ("POST",)
    assert found["/v1/predict"].max_body_bytes == 4_194_304
    assert found["/v1/models/<name>"].max_body_bytes == 16_777_216
    assert found["/v1/notes/"].max_body_bytes == 1024
    assert (found["/livez"].public, found["/livez"].clear_text) == (True, True)
    assert (found["/v1/classes"].public, found["/v1/classes"].clear_text) == (True, False)
    assert [rule for rule, route in found.items() if route.stream] == ["/v1/stream"]
    assert own_facts().max_body_bytes == 16_777_216


@pytest.mark.parametrize(
    ("rule", "matching", "others"),
    [
        ("/a.b", ["/a.b"], ["/axb", "/a.b/", "/a.b\n"]),
        ("/a/", ["/a", "/a/"], ["/a/b"]),
        ("/", ["/"], ["", "/a"]),
        ("/u/<name>", ["/u/x", "/u/x-y.z"], ["/u/", "/u/x/y"]),
        ("/u/<string(length=2):name>", ["/u/xy"], ["/u/x/y"]),
        ("/n/<int:n>/x", ["/n/12/x"], ["/n/a/x", "/n//x"]),
        ("/f/<float:n>", ["/f/1.5"], ["/f/a"]),
        ("/p/<path:rest>", ["/p/a", "/p/a/b"], ["/p/"]),
        ("/i/<uuid:id>", ["/i/9c1f5ae0-7b42-4d86-a3f9-0d0b7c5a1846"], ["/i/9c1f"]),
        ("/e/<any(cat, dog):kind>", ["/e/cat", "/e/dog"], ["/e/cow"]),
        ("/c/<odd:x>", ["/c/x"], []),
        ("/plus+(1)", ["/plus+(1)"], ["/pluss1"]),
    ],
)
def test_patterns(rule: str, matching: list[str], others: list[str]) -> None:
    """A pattern matches each path of its rule, and, without a converter of the app's own, no other."""

    class Odd(BaseConverter):
        regex = r"(?!y)\w+"

    app = Flask("patterns", static_folder=None)
    app.url_map.converters["odd"] = Odd
    SecureML(app)
    app.add_url_rule(rule, endpoint="one", view_func=public(lambda **_: "ok"))
    (route,) = facts_of(app).routes
    assert all(re.search(route.pattern, path) for path in matching)
    # A "$" of Python matches before a last newline, which no proxy lets into a path.
    assert not [path for path in others if re.fullmatch(route.pattern[1:-1], path)]
    assert "(?!" not in route.pattern


@pytest.mark.parametrize(
    ("declared", "seconds"),
    [
        ("public, max-age=5", 5),
        ("public, max-age=60, s-maxage=10", 10),
        ("max-age=5", 0),
        ("private, max-age=5", 0),
        ("public, no-cache, max-age=5", 0),
        ("public", 0),
        ("no-store", 0),
    ],
)
def test_cache_seconds(declared: str, seconds: int) -> None:
    """Only a public GET that declares it is kept."""
    policies = {"/v1/classes": {"public": True, "headers": {"values": {"Cache-Control": declared}}}}
    app = Flask("cached", static_folder=None)
    app.config["SECURE_ML_POLICIES"] = policies
    SecureML(app)
    app.add_url_rule("/v1/classes", endpoint="classes", view_func=lambda: "ok")
    assert [route.cache_seconds for route in facts_of(app).routes] == [seconds]


def test_a_route_with_a_principal_is_never_cached() -> None:
    """Its policy cannot change this."""
    app = Flask("closed", static_folder=None)
    app.config["SECURE_ML_POLICIES"] = {"/x": {"headers": {"values": {"Cache-Control": "public, max-age=5"}}}}
    SecureML(app)
    app.add_url_rule("/x", endpoint="x", view_func=lambda: "ok")
    assert [route.cache_seconds for route in facts_of(app).routes] == [0]


def mounted(policies: dict[str, Any], *mounts: str) -> dict[str, RouteFacts]:
    app = Flask("outer", static_folder=None)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, dict.fromkeys(mounts, app.wsgi_app))  # type: ignore[method-assign]
    app.config["SECURE_ML_POLICIES"] = policies
    app.config["SECURE_ML_DEPLOY"] = {"streams": ["/old/events"]}
    SecureML(app)
    app.add_url_rule("/x", endpoint="x", view_func=lambda: "ok")
    return {route.rule: route for route in facts_of(app).routes if route.rule != "/x"}


LARGE = {"caps": {"max_body_bytes": 20_000_000}}


@pytest.mark.parametrize(
    ("policies", "rules"),
    [
        ({}, []),
        ({"/old/*": LARGE}, ["/old/<path:_>"]),
        ({"/old": LARGE}, ["/old"]),
        ({"POST /old/upload": LARGE, "/old/events": {}}, ["/old/events", "/old/upload"]),
        ({"*": LARGE}, ["/a/older/<path:_>", "/old/<path:_>"]),
        ({"/a/*": LARGE}, ["/a/older/<path:_>"]),
    ],
    ids=["none", "tree", "root", "paths", "every", "above"],
)
def test_mounted_apps(policies: dict[str, Any], rules: list[str]) -> None:
    """The paths of a mounted app that have a policy are routes of a proxy too, with its limit."""
    found = mounted(policies, "/old", "/a/older")
    assert list(found) == rules
    for rule in rules:
        assert found[rule].max_body_bytes == (4_194_304 if rule == "/old/events" else 20_000_000)
        assert found[rule].cache_seconds == 0
        assert found[rule].stream == (rule == "/old/events")
    if "/old/upload" in rules:
        assert found["/old/upload"].methods == ("POST",)


@pytest.mark.parametrize(("path", "is_below"), [("/old", True), ("/old/", True), ("/old/a/b", True), ("/older", False)])
def test_the_paths_of_a_mounted_app(path: str, is_below: bool) -> None:
    """All paths below the mount, and the mount itself."""
    (route,) = mounted({"/old/*": LARGE}, "/old").values()
    assert bool(re.search(route.pattern, path)) == is_below


def test_secrets_and_destinations() -> None:
    """References are known, and the servers that the app connects to."""
    facts = own_facts()
    assert facts.secrets == (
        SecretFacts("SECURE_ML_STORE_PASSWORD", "file", "/run/secrets/store"),
        SecretFacts("SECURE_ML_TOKEN_ISSUERS", "env", "INTROSPECTION_SECRET"),
    )
    assert facts.destinations == (
        Destination("id.example.com", 443, "issuer"),
        Destination("login.example.org", 8443, "issuer"),
        Destination("valkey.example.com", 6380, "store", private=True),
    )


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("memory:", []),
        ("sqlite:/var/lib/state.db", []),
        ("redis://:password@h/0", [("h", 6379)]),
        ("redis+cluster://a:7000,b:7001", [("a", 7000), ("b", 7001)]),
    ],
)
def test_stores(uri: str, expected: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node of a store is a destination."""
    facts = facts_of(create_app(SECURE_ML_STORE_URI=uri))
    assert [(each.host, each.port) for each in facts.destinations if each.purpose == "store"] == expected


@pytest.mark.parametrize(
    ("uri", "is_withheld"),
    [
        ("rediss://h/0", False),
        ("rediss://model@h:6380/0?ssl_ca_certs=/etc/own/valkey.pem", False),
        ("rediss://h/0?ssl_ca_certs=/etc/own/valkey.pem&socket_timeout=0.2", False),
        ("rediss://:word@h/0", True),
        ("rediss://model:word@h/0", True),
        ("rediss://h/0?password=word", True),
        ("rediss+cluster://model:word@a:1,b:2", True),
    ],
)
def test_the_uri_of_a_store(uri: str, is_withheld: bool) -> None:
    """Without a password it is in the generated files, and its authorities are mounted."""
    facts = facts_of(create_app(SECURE_ML_STORE_URI=uri, SECURE_ML_STORE_PASSWORD=None))
    assert ("SECURE_ML_STORE_URI" in facts.withheld) == is_withheld
    assert (facts.environment.get("FLASK_SECURE_ML_STORE_URI") == uri) != is_withheld
    assert ("/etc/own/valkey.pem" in {each.path for each in public_files(facts)}) == ("ssl_ca_certs" in uri)


def test_no_secret_is_in_the_environment() -> None:
    """Neither a literal, which debug mode allows, nor a URL with a password."""
    app = create_app(
        DEBUG=True,
        SECURE_ML_STORE_URI=f"redis://:{RANDOM_SECRET}@h/0",
        SECURE_ML_STORE_PASSWORD=None,
        SECURE_ML_API_KEYS="/var/lib/keys.json",
        SECURE_ML_API_KEY_PEPPER=RANDOM_SECRET,
        SECURE_ML_TOKEN_ISSUERS=[
            {"issuer": "https://i.example", "audience": "a", "algorithms": ["HS256"], "secret": RANDOM_SECRET}
        ],
    )
    environment = facts_of(app).environment
    assert RANDOM_SECRET not in repr(environment)
    assert environment["FLASK_SECURE_ML_API_KEYS"] == "/var/lib/keys.json"
    assert environment["FLASK_SECURE_ML_PROBES"] == "{}"
    assert "FLASK_SECURE_ML_DEPLOY" not in environment
    assert "FLASK_SECURE_ML_TOKEN_ISSUERS" not in environment


def test_health_path() -> None:
    """The readiness probe, or else a public route that needs no argument."""
    assert own_facts().health_path == "/readyz"
    assert facts_of(create_app(SECURE_ML_PROBES=None)).health_path == "/v1/classes"


@pytest.mark.parametrize(
    ("sink", "is_withheld"),
    [
        ("https://sink.example.com/in/T0-token", True),
        ("https://sink.example.com?key=token", True),
        ("https+private://sink.example.com/token", True),
        ("https://sink.example.com/", False),
        ("file:/mnt/witness/checkpoints", False),
        ("syslog+tcp://log.example.com:601", False),
    ],
)
def test_receivers_of_checkpoints(sink: str, is_withheld: bool) -> None:
    """A URL that contains a secret is in no file, and a warning reports the omission."""
    facts = facts_of(create_app(SECURE_ML_AUDIT_LOG="/srv/audit", SECURE_ML_AUDIT_CHECKPOINT_SINKS=[sink]))
    assert ("FLASK_SECURE_ML_AUDIT_CHECKPOINT_SINKS" not in facts.environment) == is_withheld
    for name in ("kubernetes", "compose", "systemd"):
        made = targets()[name]
        assert (sink in "".join(made.make(facts).values())) != is_withheld
        sentence = "SECURE_ML_AUDIT_CHECKPOINT_SINKS may contain a secret"
        assert any(each.startswith(sentence) for each in made.warn(facts)) == is_withheld


def test_a_file_of_checkpoints() -> None:
    """It is written to where it is; no copy of it is a secret."""
    sinks = ["file:/mnt/witness/checkpoints"]
    facts = facts_of(create_app(SECURE_ML_AUDIT_LOG="/srv/audit", SECURE_ML_AUDIT_CHECKPOINT_SINKS=sinks))
    assert written_folders(facts) == ("/mnt/witness", "/srv/audit")
    assert "SECURE_ML_AUDIT_CHECKPOINT_SINKS" not in {each.setting for each in facts.secrets}
    unit = targets()["systemd"].make(facts)["own-model.service"]
    assert 'ReadWritePaths="/mnt/witness"' in unit
    assert "LoadCredential=checkpoints" not in unit
