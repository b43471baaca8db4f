"""The routes of the documentation page: access and header policies."""

from __future__ import annotations

import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from importlib.resources import files
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from flask import Flask

from described_app import PLANS, add_routes
from flask_secure_ml import ConfigError, SecureML
from flask_secure_ml.openapi import page as page_module
from flask_secure_ml.openapi.page import CONTENT_SECURITY_POLICY
from forks import run_forking
from servers import wait_until
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
    """Off has no routes; protected serves the document to callers, and a page asking for a credential to everyone."""
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
    """Each is served with its type, unchanged, to everyone, and contains nothing about the app."""
    response = app.test_client().get(f"/docs/{name}", base_url=HTTPS)
    assert response.status_code == 200
    assert response.data == (STATIC / name).read_bytes()
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert response.mimetype == kinds[name.rpartition(".")[2]]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["page.html", "../document.py", "..%2fdocument.py", "page.js/", "nothing.js", "%2e%2e/page.py"]
)
def test_nothing_else_is_served(app: Flask, path: str) -> None:
    """A name that is not on the list is an address like any other that does not exist."""
    assert app.test_client().get(f"/docs/{path}", base_url=HTTPS).status_code == 401
    assert app.test_client().get(f"/docs/{path}", base_url=HTTPS, headers=caller()).status_code == 404


def test_header_policy(app: Flask) -> None:
    """The page may run only its own files; other responses keep the strict policy."""
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


def test_options_of_plans_leave_it_alone(protected: MakeApp) -> None:
    """A plan that removes the scores of responses removes no bound from the description."""
    app = add_routes(protected(OPENAPI="public", PLANS=PLANS))
    schemas = app.test_client().get("/openapi.json", base_url=HTTPS).get_json()["components"]["schemas"]
    leaf = schemas["Unbounded"] if "Unbounded" in schemas else schemas["Everything"]["properties"]["unbounded"]
    assert leaf["prefixItems"][0]["maximum"] == 1.5


def test_mounted_below_a_prefix(app: Flask) -> None:
    """The document has the URL of the app; the page finds its assets relative to it."""
    document = app.test_client().get("/openapi.json", base_url=f"{HTTPS}/models/iris", headers=caller()).get_json()
    assert document["servers"] == [{"url": "/models/iris"}]
    page = app.test_client().get("/docs", base_url=f"{HTTPS}/models/iris").text
    assert not re.search(r'(?:href|src)="/', page)


@pytest.mark.parametrize("rule", ["/docs", "/openapi.json"])
def test_an_address_that_is_taken(bare_app: Flask, rule: str) -> None:
    """An app with a route of its own there fails at start, and keeps it."""
    bare_app.add_url_rule(rule, view_func=lambda: "mine", endpoint="mine")
    bare_app.config["SECURE_ML_OPENAPI"] = "public"
    with pytest.raises(ConfigError, match=rule):
        SecureML(bare_app)


@pytest.mark.parametrize("rule", ["/docs", "/docs/", "/openapi.json"])
def test_an_address_that_is_taken_later(bare_app: Flask, rule: str) -> None:
    """A route that is added later would never be called: the check reports it, and no request is served."""
    bare_app.config["SECURE_ML_OPENAPI"] = "public"
    secure_ml = SecureML(bare_app)
    secure_ml.check(bare_app)
    bare_app.add_url_rule(rule, view_func=lambda: "mine", endpoint="mine")
    with pytest.raises(ConfigError, match=re.escape(rule.rstrip("/"))):
        secure_ml.check(bare_app)
    assert bare_app.test_client().get("/docs", base_url=HTTPS).status_code == 500


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/page.js"])
def test_what_a_client_has_is_not_sent_again(protected: MakeApp, path: str) -> None:
    """A response has an entity tag; a matching request gets 304 without a body, with the same header policy."""
    client = protected(OPENAPI="public").test_client()
    first = client.get(path, base_url=HTTPS)
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get(path, base_url=HTTPS, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    for name in ("ETag", "Cache-Control", "Content-Security-Policy"):
        assert again.headers[name] == first.headers[name]
    assert client.get(path, base_url=HTTPS, headers={"If-None-Match": '"other"'}).data == first.data


def test_a_protected_description_is_not_kept(app: Flask) -> None:
    """Caches must not store it, and its entity tag does not bypass the credential."""
    client = app.test_client()
    first = client.get("/openapi.json", base_url=HTTPS, headers=caller())
    assert first.headers["Cache-Control"] == "no-store"
    known = {"If-None-Match": first.headers["ETag"]}
    assert client.get("/openapi.json", base_url=HTTPS, headers=known | caller()).status_code == 304
    assert client.get("/openapi.json", base_url=HTTPS, headers=known).status_code == 401
    elsewhere = client.get("/openapi.json", base_url=f"{HTTPS}/below", headers=known | caller())
    assert elsewhere.status_code == 200


def test_built_once(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests at the same time wait for one description; later ones get the same."""
    built: list[Flask] = []
    came: list[int] = []

    def build(app: Flask) -> dict[str, Any]:
        built.append(app)
        wait_until(lambda: len(came) >= 4, "requests at the same time")
        return {"number": len(built)}

    monkeypatch.setattr(page_module, "build_document", build)
    app = protected(OPENAPI="public")
    app.before_request(lambda: came.append(1))
    with ThreadPoolExecutor(4) as pool:
        responses = list(
            pool.map(lambda _: app.test_client().get("/openapi.json", base_url=HTTPS).get_json(), range(8))
        )
    assert responses == [{"number": 1}] * 8


def test_serialized_once_for_each_root(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request costs neither the document nor its tag; more roots than an app is mounted at are not kept."""
    written: list[Any] = []

    def dumps(document: Any, **options: Any) -> bytes:
        written.append(document)
        return orjson.dumps(document, **options)

    monkeypatch.setattr(page_module, "orjson", SimpleNamespace(dumps=dumps, OPT_APPEND_NEWLINE=1024))
    client = protected(OPENAPI="public").test_client()
    for root in ("", "/one", "", "/one", "", "/one"):
        servers = client.get("/openapi.json", base_url=f"{HTTPS}{root}").get_json().get("servers")
        assert servers == ([{"url": root}] if root else None)
    assert len(written) == 2
    for _ in range(2):
        for number in range(20):
            response = client.get("/openapi.json", base_url=f"{HTTPS}/{number}").get_json()
            assert response["servers"] == [{"url": f"/{number}"}]
    # Of the second round, some were kept and most were not.
    assert 2 + 20 + 10 < len(written) < 2 + 20 + 20


def test_a_description_that_cannot_be_made(protected: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client does not get the reason, and the next request tries again."""

    def fail(_app: Flask) -> dict[str, Any]:
        raise ValueError("a secret detail")

    client = protected(OPENAPI="public").test_client()
    with monkeypatch.context() as patch:
        patch.setattr(page_module, "build_document", fail)
        response = client.get("/openapi.json", base_url=HTTPS)
    assert (response.status_code, response.get_json()["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert client.get("/openapi.json", base_url=HTTPS).status_code == 200


def test_url_defaults_of_the_app(app: Flask) -> None:
    """URL defaults of the app do not change the described server URL."""
    app.url_defaults(lambda _endpoint, values: values.setdefault("lang", "en"))
    client = app.test_client()
    assert "servers" not in client.get("/openapi.json", base_url=HTTPS, headers=caller()).get_json()
    below = client.get("/openapi.json", base_url=f"{HTTPS}/a%20model", headers=caller()).get_json()
    assert below["servers"] == [{"url": "/a%20model"}]


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme: int) -> None:
    """Every text colour has a contrast of at least 4.5 to each of its backgrounds (WCAG 2.2, 1.4.3)."""
    root = re.findall(r":root \{([^}]*)\}", (STATIC / "page.css").read_text(encoding="utf-8"))[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", root))
    inks = ["text", "soft", "accent", "good", "bad", "get", "post", "put", "delete"]
    for ink, ground in [*product(inks, ["ground", "card"]), ("text", "code"), ("on-accent", "accent")]:
        dark, light = sorted((luminance(colours[ink]), luminance(colours[ground])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {ground}"


def test_the_page_is_small() -> None:
    """All files together have at most 40 KiB, as they are written."""
    assert sum(len(each.read_bytes()) for each in STATIC.iterdir() if each.is_file()) <= 40_960


def test_the_files_are_in_the_package() -> None:
    """The assets of the page are installed with the package, and its extra is declared."""
    top = Path(__file__).parents[2]
    setup = ConfigParser()
    setup.read(top / "setup.cfg", encoding="utf-8")
    assert "openapi/static/*" in setup["options.package_data"]["flask_secure_ml"]
    project = tomllib.loads((top / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any("apispec" in each for each in project["optional-dependencies"]["openapi"])


FORK = """
from flask import Flask
from flask_secure_ml import SecureML
from flask_secure_ml.openapi import page

app = Flask("app")
app.config.update(TESTING=True, SECURE_ML_OPENAPI="public", SECURE_ML_REQUEST_LOG="off")
SecureML(app)
build, building, hold = page.build_document, threading.Event(), threading.Event()

def build_slowly(app):
    building.set()
    hold.wait()
    return build(app)

def get():
    assert app.test_client().get("/openapi.json", base_url="https://localhost").status_code == 200

def child():
    page.build_document = build
    get()

page.build_document = build_slowly
thread = threading.Thread(target=get)
thread.start()
building.wait()
pid = fork(child)
hold.set()
ended(pid)
thread.join()
"""


def test_a_fork_while_the_description_is_made() -> None:
    """The child makes its own: it is not blocked by a thread that it does not have."""
    run_forking(FORK)
