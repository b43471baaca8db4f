"""URL rules with syntax of the proxies: each proxy accepts the generated configuration."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from flask import Flask

from flask_secure_ml import SecureML, public
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets import targets
from httpd import APACHE, command, open_folder
from httpd import options as apache_options
from programs import needs, tool_marks
from proxied import Program, write_target
from proxied_place import make_place
from proxy_programs import CADDY, ENVOY, HAPROXY, NGINX

RULES: Sequence[str] = json.loads((Path(__file__).parents[1] / "corpus" / "deploy" / "rules.json").read_bytes())
LITERAL = [rule for rule in RULES if "<" not in rule]
MANY = [f"/many/{number}" for number in range(80)]
Command = Callable[[Path, Path], Sequence[str]]
CHECKS: dict[str, tuple[Program, Command]] = {
    "nginx": (NGINX, lambda files, _: ["nginx", "-t", "-c", str(files / "nginx.conf")]),
    "envoy": (ENVOY, lambda files, _: [str(files / "run.sh"), "--mode", "validate"]),
    "haproxy": (HAPROXY, lambda files, _: ["haproxy", "-c", "-f", str(files / "haproxy.cfg")]),
    "caddy": (
        CADDY,
        lambda files, _: ["caddy", "validate", "--config", str(files / "Caddyfile"), "--adapter", "caddyfile"],
    ),
    "apache": (APACHE, lambda files, scratch: command(files, scratch, "-t")),
}
PROXIES = [
    pytest.param(name, marks=tool_marks(name) if name == "envoy" else needs({"apache": "apache2"}.get(name, name)))
    for name in CHECKS
]


def facts(rules: Sequence[str], **options: object) -> Facts:
    """Return the facts of an app with a body limit for each rule, and caching for every second rule."""
    app = Flask("hostile", static_folder=None)
    app.config["SECURE_ML_DEPLOY"] = options
    SecureML(app)
    for number, rule in enumerate(rules):
        age = f"public, max-age={5 * (number % 2)}"
        policy = public(caps={"max_body_bytes": 1_000 + number}, headers={"values": {"Cache-Control": age}})
        app.add_url_rule(rule, endpoint=str(number), view_func=policy(lambda **_: ""))
    return facts_of(app)


def check(name: str, rules: Sequence[str], **options: object) -> None:
    """Check the configuration for these rules with the proxy itself."""
    program, arguments = CHECKS[name]
    with open_folder() as folder:
        place = make_place(folder)
        given = {**apache_options(place, folder), **program.options(place), "proxy_user": "www-data", **options}
        files = write_target(program.target, facts(rules, **given), folder / "deploy")
        done = subprocess.run(arguments(files, folder), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", PROXIES)
def test_all_rules(name: str) -> None:
    """A rule that cannot be written in a line gets the limit of unknown URLs."""
    check(name, RULES)


@pytest.mark.parametrize("name", PROXIES)
def test_many(name: str) -> None:
    """With many routes, hosts and load balancers, no line has more words than a proxy accepts."""
    hosts = [f"host{number}.example.com" for number in range(70)]
    networks = [f"10.{number}.0.0/16" for number in range(70)]
    check(name, MANY, hosts=hosts, front_proxies=networks)


@pytest.mark.parametrize("rule", LITERAL)
def test_the_path_that_is_polled(rule: str) -> None:
    """The health check path is percent-encoded: it needs no quoting and cannot add a request line."""
    path = facts([rule]).health_path
    assert path is not None
    assert re.fullmatch(r"[A-Za-z0-9/_.~%-]+", path)
    assert unquote(path) == rule


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("rule", ["/F\nevil_directive;", "/l\\", "/B%%evil", "/R{"])
def test_a_polled_path_is_accepted(name: str, rule: str) -> None:
    """The configuration is accepted if the health check path is the only route."""
    check(name, [rule])


def test_the_name_of_a_variable_in_a_caddyfile() -> None:
    """Caddy replaces ``{$NAME}`` before it parses the file, even in a string."""
    content = targets()["caddy"].make(facts(["/R{", "/S{<name>", "/I{$HOME}"]))["Caddyfile"]
    assert "{$" not in content
