"""Pages in a real Chromium: of other origins, and of the app itself, which a real gunicorn serves over TLS."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from browsers import PATIENCE, chromium
from certificates import make_certificate
from flask_secure_ml.testing import make_key_set, make_signing_key, make_token
from http_servers import QuietHandler, in_thread
from servers import Served, gunicorn
from stored_keys import key_in_file
from support import RANDOM_SECRET

APP, EVIL = 0, 1
ISSUER, AUDIENCE = "https://as.example", "https://models.example"
CALL = """async ([url, options]) => {
  try {
    const response = await fetch(url, options);
    const headers = Object.fromEntries(response.headers);
    return { status: response.status, headers, body: await response.json() };
  } catch (error) {
    return error.message;
  }
}"""
FAILED = "Failed to fetch"


class Page(QuietHandler):
    """An empty page. It comes from this machine, as Chromium lets no page of another one call here."""

    def do_GET(self) -> None:
        self.respond(200, b"<p>page", {"Content-Type": "text/html"})


@pytest.fixture(scope="module")
def origins() -> Iterator[list[str]]:
    """Serve pages of two origins."""
    with ExitStack() as running:
        servers = [running.enter_context(in_thread(ThreadingHTTPServer(("127.0.0.1", 0), Page))) for _ in range(2)]
        yield [f"http://localhost:{server.server_port}" for server in servers]


@dataclass
class Site:
    """A served app, credentials for it, and the two origins: one that it allows, and another."""

    served: Served
    origins: list[str]
    api_key: str
    token: str

    def url(self, path: str) -> str:
        return f"https://localhost:{self.served.port}{path}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, browser: Any, origins: list[str]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("cors")
    keys, signing = folder / "keys.json", make_signing_key("ES256")
    (folder / "jwks.json").write_text(make_key_set(signing))
    issuer = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks_file": str(folder / "jwks.json")}
    settings = {
        "API_KEYS": str(keys),
        "API_KEY_PEPPER": "env:PEPPER",
        "TOKEN_ISSUERS": json.dumps([issuer]),
        "CORS": json.dumps({"origins": [origins[APP]], "max_age": 0}),
        "POLICIES": json.dumps({"legacy": {"cors": {"origins": [origins[EVIL]]}}}),
        "MAX_BODY_BYTES": "2000",
    }
    environ = dict(os.environ) | {"PEPPER": RANDOM_SECRET}
    environ |= {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        api_key = key_in_file(str(keys))
    token = make_token(signing, issuer=ISSUER, audience=AUDIENCE, now=time.time())
    with gunicorn(folder, make_certificate(folder), environ, "--threads", "8", app="pages_app:create_app()") as served:
        yield Site(served, origins, api_key, token)


@pytest.fixture(scope="module")
def call(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """Send a request from a page of an origin; return what its script can read."""
    context = browser.new_context(ignore_https_errors=True)
    pages = [context.new_page() for _ in site.origins]
    for page, origin in zip(pages, site.origins, strict=True):
        page.set_default_timeout(PATIENCE)
        page.goto(origin)

    def send(page: int, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        options: dict[str, Any] = {"headers": headers or {}}
        if body is not None:
            options |= {"method": "POST", "body": json.dumps(body)}
            options["headers"] = {"Content-Type": "application/json"} | options["headers"]
        return pages[page].evaluate(CALL, [site.url(path), options])

    yield send
    context.close()


BODY = {"instances": [[1, 2, 3, 4]]}


@pytest.fixture(params=["API key", "token"])
def credential(request: pytest.FixtureRequest, site: Site) -> dict[str, str]:
    return {"X-API-Key": site.api_key} if request.param == "API key" else {"Authorization": f"Bearer {site.token}"}


def test_an_allowed_page(call: Callable[..., Any], credential: dict[str, str]) -> None:
    """The preflight passes without a credential, and the script reads the body and our headers."""
    found = call(APP, "/predict", BODY, credential)
    assert (found["status"], found["body"]) == (200, {"sums": [10.0]})
    assert len(found["headers"]["x-request-id"]) == 32


def test_any_other_page(call: Callable[..., Any], credential: dict[str, str]) -> None:
    """It cannot read responses, with or without a valid credential, and without a preflight."""
    assert call(EVIL, "/predict", BODY, credential) == FAILED
    assert call(EVIL, "/predict", BODY) == FAILED
    assert call(EVIL, "/healthz") == FAILED
    assert call(APP, "/healthz")["status"] == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/nowhere", None, 404, "not_found"),
        ("/whoami", BODY, 405, "method_not_allowed"),
        ("/predict", {"instances": [[0] * 4] * 1000}, 413, "payload_too_large"),
        ("/predict", {"instances": 1}, 422, "validation_failed"),
        ("/crash", None, 500, "internal_error"),
    ],
)
def test_errors_can_be_read(call: Callable[..., Any], site: Site, path: str, body: Any, status: int, code: str) -> None:
    """A page of an allowed origin learns the status and the code."""
    found = call(APP, path, body, {"X-API-Key": site.api_key})
    assert (found["status"], found["headers"]["x-error-code"], found["body"]["code"]) == (status, code, code)


def test_a_missing_credential(call: Callable[..., Any]) -> None:
    """The challenge can be read too."""
    found = call(APP, "/predict", BODY)
    assert (found["status"], found["headers"]["x-error-code"]) == (401, "not_authenticated")
    assert "Bearer" in found["headers"]["www-authenticate"]


def test_what_a_preflight_does_not_allow(call: Callable[..., Any], site: Site) -> None:
    """A header that is not listed is not sent."""
    assert call(APP, "/whoami", headers={"X-API-Key": site.api_key, "X-Other": "1"}) == FAILED


def test_a_route_with_other_origins(call: Callable[..., Any], credential: dict[str, str]) -> None:
    """Its own list replaces the setting."""
    assert call(EVIL, "/legacy", BODY, credential)["body"]["json"] == BODY
    assert call(APP, "/legacy", BODY, credential) == FAILED


def test_a_sandboxed_frame(call: Callable[..., Any], browser: Any, site: Site) -> None:
    """Its origin is ``null``, which is never allowed."""
    assert call(APP, "/healthz")["status"] == 200
    with browser.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        page.goto(site.origins[APP])
        page.evaluate(
            """url => new Promise((done) => {
              const frame = document.createElement("iframe");
              frame.sandbox = "allow-scripts";
              frame.srcdoc = `<script>fetch("${url}").then(() => "read", (error) => error.message)
                .then((said) => parent.postMessage(said, "*"))<\\/script>`;
              addEventListener("message", (event) => { window.said = event.origin + " " + event.data; done(); });
              document.body.append(frame);
            })""",
            site.url("/healthz"),
        )
        assert page.evaluate("window.said") == f"null {FAILED}"


def test_forms_of_a_page_have_a_referer(browser: Any, site: Site) -> None:
    """Checks against forged forms need it; the preset for data sends none, and runs no script."""
    with browser.new_context(ignore_https_errors=True) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(site.url("/page"))
        # Its own script ran, and the one that stands in the markup did not.
        assert page.evaluate("[document.documentElement.lang, document.title]") == ["la", ""]
        page.get_by_role("button").click()
        page.get_by_text("Referer").wait_for()
        assert page.inner_text("body") == f"Referer: {site.url('/page')}"
        page.goto(site.url("/bare"))
        assert page.evaluate("[document.documentElement.lang, document.title]") == ["", ""]
        page.get_by_role("button").click()
        page.get_by_text("Referer").wait_for()
        assert page.inner_text("body") == "Referer: None"
