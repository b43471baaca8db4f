"""The routes of the page: what is open, what is not, and under which header policy."""

from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from importlib.resources import files
from pathlib import Path

import pytest
from flask import Flask

from described_app import PLANS, add_routes
from flask_secure_ml import ConfigError, SecureML
from flask_secure_ml.openapi.page import CONTENT_SECURITY_POLICY
from support import HTTPS, MakeApp, caller

STATIC = files("flask_secure_ml.openapi") / "static"
NAMES = sorted(each.name for each in STATIC.iterdir() if each.is_file() and each.name != "page.html")


@pytest.mark.parametrize(
    ("mode", "description", "page"),
    [
        pytest.param("off", 404, 404, id="off"),
        pytest.param("public", 200, 200, id="public"),
        pytest.param("protected", 200, 200, id="protected"),
    ],
)
def test_modes(protected: MakeApp, mode: str, description: int, page: int) -> None:
    """Off has no route at all; protected keeps the description for callers, and shows everyone a page that asks."""
    client = protected(OPENAPI=mode).test_client()
    known = caller("ada")
    assert client.get("/openapi.json", base_url=HTTPS, headers=known).status_code == description
    assert client.get("/docs", base_url=HTTPS, headers=known).status_code == page
    anonymous = client.get("/openapi.json", base_url=HTTPS).status_code
    assert anonymous == (200 if mode == "public" else 401)
    if mode != "off":
        assert f'data-access="{mode}"' in client.get("/docs", base_url=HTTPS).text


@pytest.mark.parametrize("name", NAMES)
def test_files_of_the_page(app: Flask, name: str) -> None:
    """Each is served as what it is, unchanged, to everyone, and nothing of the app is in it."""
    answer = app.test_client().get(f"/docs/{name}", base_url=HTTPS)
    assert answer.status_code == 200
    assert answer.data == (STATIC / name).read_bytes()
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert answer.mimetype == kinds[name.rpartition(".")[2]]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["page.html", "../document.py", "..%2fdocument.py", "page.js/", "nothing.js", "%2e%2e/page.py"]
)
def test_nothing_else_is_served(app: Flask, path: str) -> None:
    """A name that is not on the list is an address like any other that does not exist."""
    assert app.test_client().get(f"/docs/{path}", base_url=HTTPS).status_code == 401
    assert app.test_client().get(f"/docs/{path}", base_url=HTTPS, headers=caller()).status_code == 404


def test_header_policy(app: Flask) -> None:
    """The page may run its own files only; every other answer keeps the policy that allows nothing."""
    client = app.test_client()
    assert client.get("/docs", base_url=HTTPS).headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    for path in ("/openapi.json", "/docs/page.js", "/healthz"):
        policy = client.get(path, base_url=HTTPS, headers=caller()).headers["Content-Security-Policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'"


def test_nothing_comes_from_outside() -> None:
    """No file names another origin, makes markup from text, or keeps anything in the browser."""
    for name in [*NAMES, "page.html"]:
        text = (STATIC / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.", text), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Storage|cookie|style=", text
        ), name


def test_terms_of_plans_leave_it_alone(protected: MakeApp) -> None:
    """A plan that removes the scores of answers removes no bound from the description."""
    app = add_routes(protected(OPENAPI="public", PLANS=PLANS))
    schemas = app.test_client().get("/openapi.json", base_url=HTTPS).get_json()["components"]["schemas"]
    leaf = schemas["Unbounded"] if "Unbounded" in schemas else schemas["Everything"]["properties"]["unbounded"]
    assert leaf["prefixItems"][0]["maximum"] == 1.5


def test_mounted_below_a_prefix(app: Flask) -> None:
    """The description says where the app is; the page finds its files beside it."""
    document = app.test_client().get("/openapi.json", base_url=f"{HTTPS}/models/iris", headers=caller()).get_json()
    assert document["servers"] == [{"url": "/models/iris"}]
    page = app.test_client().get("/docs", base_url=f"{HTTPS}/models/iris").text
    assert not re.search(r'(?:href|src)="/', page)


@pytest.mark.parametrize("rule", ["/docs", "/openapi.json"])
def test_an_address_that_is_taken(bare_app: Flask, rule: str) -> None:
    """An app with a route of its own there is told so, and keeps it."""
    bare_app.add_url_rule(rule, view_func=lambda: "mine", endpoint="mine")
    bare_app.config["SECURE_ML_OPENAPI"] = "public"
    with pytest.raises(ConfigError, match=rule):
        SecureML(bare_app)


def test_the_files_are_in_the_package() -> None:
    """What the page needs is installed with the package, and its extra is declared."""
    top = Path(__file__).parents[2]
    setup = ConfigParser()
    setup.read(top / "setup.cfg", encoding="utf-8")
    assert "openapi/static/*" in setup["options.package_data"]["flask_secure_ml"]
    project = tomllib.loads((top / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any("apispec" in each for each in project["optional-dependencies"]["openapi"])
