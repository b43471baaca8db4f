"""The page in a real Chromium, from a real gunicorn over TLS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from browsers import PATIENCE, chromium
from certificates import Certificate, make_certificate
from servers import Served, gunicorn
from stored_keys import key_in_file
from support import RANDOM_SECRET


@dataclass
class Site:
    """A served app, a key for it, and the browser's errors."""

    served: Served
    api_key: str
    complaints: list[str] = field(default_factory=list)

    def address(self, path: str) -> str:
        return f"https://localhost:{self.served.port}{path}"

    def ask(self, url: str) -> None:
        if not url.startswith(self.address("/")):
            self.complaints.append(url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def serve(folder: Path, certificate: Certificate, mode: str) -> Iterator[Site]:
    keys = folder / "keys.json"
    settings = {"API_KEYS": str(keys), "API_KEY_PEPPER": "env:PEPPER", "OPENAPI": mode}
    environ = dict(os.environ) | {"PEPPER": RANDOM_SECRET}
    environ |= {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        api_key = key_in_file(str(keys))
    with gunicorn(folder, certificate, environ, "--threads", "8") as served:
        yield Site(served, api_key)


@pytest.fixture(scope="module")
def public_site(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, browser: Any) -> Iterator[Site]:
    yield from serve(tmp_path_factory.mktemp("public"), certificate, "public")


@pytest.fixture(scope="module")
def protected_site(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, browser: Any) -> Iterator[Site]:
    yield from serve(tmp_path_factory.mktemp("protected"), certificate, "protected")


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open the page, and record errors of the browser and requests to other origins."""
    contexts = []

    def open_page(site: Site, path: str = "/docs", **options: Any) -> Any:
        site.complaints.clear()
        contexts.append(browser.new_context(ignore_https_errors=True, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: site.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: site.complaints.append(str(error)))
        page.on("request", lambda sent: site.ask(sent.url))
        page.goto(site.address(path))
        return page

    yield open_page
    # A connection that stays open keeps a thread of the server busy.
    for context in contexts:
        context.close()


def enter(page: Any, secret: str) -> None:
    page.get_by_label("Secret").fill(secret)
    page.get_by_role("button", name="Use").click()


def test_every_operation_without_a_complaint(opened: Callable[..., Any], public_site: Site) -> None:
    """Each route is a card with its tensor in words; nothing is blocked or requested from other origins."""
    page = opened(public_site)
    page.locator("article").first.wait_for()
    assert page.locator("article").count() == 6
    card = page.locator("article", has_text="/predict")
    assert "float32 (any, 4)" in card.inner_text()
    assert "predict" in card.locator(".scope").inner_text()
    card.locator("summary", has_text="401").click()
    assert "not_authenticated" in card.locator(".errors").inner_text()
    assert page.title() == "served API"
    assert public_site.complaints == []


def test_a_prediction(opened: Callable[..., Any], public_site: Site) -> None:
    """With a key the example that the page made is accepted, and the response is shown."""
    page = opened(public_site)
    enter(page, public_site.api_key)
    card = page.locator("article", has_text="/predict")
    card.get_by_role("button", name="Send").click()
    card.locator(".response pre").wait_for()
    assert "200" in card.locator(".status").inner_text()
    assert '"sums"' in card.locator(".response pre").inner_text()
    assert "x-request-id" in card.locator(".headers").inner_text()
    assert public_site.complaints == []


def test_a_wrong_body_and_a_missing_key(opened: Callable[..., Any], public_site: Site) -> None:
    """A rejection is shown with its code; an error response is not an error of the page."""
    page = opened(public_site)
    card = page.locator("article", has_text="/predict")
    card.get_by_role("button", name="Send").click()
    card.locator(".response pre").wait_for()
    assert "not_authenticated" in card.locator(".response").inner_text()
    enter(page, public_site.api_key)
    card.get_by_label("Body", exact=True).fill('{"instances": [[99, 0, 0, 0]]}')
    card.get_by_role("button", name="Send").click()
    # Not wait_for_function: the header policy of the page lets no text become a script.
    rejected = card.locator(".response pre", has_text="validation_failed")
    rejected.wait_for()
    assert "/instances/0/0" in rejected.inner_text()


def test_the_shell_command_has_no_secret(opened: Callable[..., Any], public_site: Site) -> None:
    """The call for a shell names a variable where the key would be, follows the form, and quotes it."""
    page = opened(public_site)
    enter(page, public_site.api_key)
    card = page.locator("article", has_text="/predict")
    card.get_by_label("Body", exact=True).fill("it's")
    card.get_by_text("As a shell command").click()
    command = card.locator(".shell pre").inner_text()
    assert '"X-API-Key: $API_KEY"' in command
    assert "'it'\\''s'" in command
    assert public_site.api_key not in page.content()


def test_nothing_is_kept(opened: Callable[..., Any], public_site: Site) -> None:
    """The key is in no storage, no cookie and no address, and gone after a reload."""
    page = opened(public_site)
    enter(page, public_site.api_key)
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert public_site.api_key not in page.url
    page.reload()
    card = page.locator("article", has_text="/whoami")
    card.get_by_role("button", name="Send").click()
    card.locator(".response pre").wait_for()
    assert "401" in card.locator(".status").inner_text()


def test_a_protected_description(opened: Callable[..., Any], protected_site: Site) -> None:
    """The page asks for a key first: nothing about the app is shown before a valid one, and everything after."""
    page = opened(protected_site)
    page.get_by_text("is for callers with a credential").wait_for()
    assert "predict" not in page.content()
    enter(page, "sml_wrong")
    page.get_by_text("rejected this credential").wait_for()
    enter(page, protected_site.api_key)
    page.locator("article").first.wait_for()
    assert page.locator("article").count() == 6


def test_hostile_words_stay_words(opened: Callable[..., Any], public_site: Site) -> None:
    """Markup and scripts in a description are shown as they are written, schemas that have themselves within too."""
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    loop = {"type": "object", "description": markup, "properties": {markup: {"$ref": "#/components/schemas/Loop"}}}
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Loop"}}}}
    described = {"operationId": markup, "summary": markup, "tags": [markup], "requestBody": body, "responses": {}}
    document = {"info": {"title": markup}, "paths": {f"/{markup}": {"post": described}}}
    page = opened(public_site, "/docs/icon.svg")
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    given = document | {"components": {"schemas": {"Loop": loop}}}
    page.route("**/openapi.json", lambda route: route.fulfill(json=given))
    page.goto(public_site.address("/docs"))
    page.locator("article").wait_for()
    for summary in page.locator("main summary").all():
        summary.click()
    assert page.locator("article img, article script").count() == 0
    assert markup in page.locator("h3").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_numbers_and_texts_are_shown_as_they_came(opened: Callable[..., Any], public_site: Site) -> None:
    """Long numbers keep their digits and strings their spaces, and mixed rows of them are shown without delay."""
    page = opened(public_site)
    row = "0.12345678901234567, " * 20
    body = f'{{"id": 9007199254740993, "rows": [[1.0, 2e3], [{row}"cat"]], "text": "[1,   2]", "none": {{}}}}'
    page.route("**/whoami", lambda route: route.fulfill(body=body, content_type="application/json"))
    card = page.locator("article", has_text="/whoami")
    card.get_by_role("button", name="Send").click()
    shown = card.locator(".response pre").inner_text()
    for part in ("9007199254740993", "[1.0, 2e3]", "0.12345678901234567", '"[1,   2]"', '"none": {}'):
        assert part in shown


def test_parts_of_an_address(opened: Callable[..., Any], public_site: Site) -> None:
    """They are encoded, cannot name another host, and those that a browser would take away are rejected."""
    parameter = {"name": "part", "in": "path", "required": True, "schema": {"type": "string"}}
    described = {"operationId": "one", "parameters": [parameter], "responses": {}}
    page = opened(public_site, "/docs/icon.svg")
    page.route("**/openapi.json", lambda route: route.fulfill(json={"paths": {"/{part}": {"get": described}}}))
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(public_site.address("/docs#op-%E0%A4%A"))
    card = page.locator("article")
    part = card.get_by_role("textbox", name="part")
    for text, path in (("/evil.example/x?y#z", "//evil.example/x%3Fy%23z"), ("%2e%2E", "/%252e%252E")):
        part.fill(text)
        with page.expect_request(public_site.address(path)):
            card.get_by_role("button", name="Send").click()
    count = len(asked)
    part.fill("a/../../whoami")
    card.get_by_role("button", name="Send").click()
    assert part.evaluate("each => each.validationMessage").startswith("A browser cannot send")
    assert len(asked) == count


def test_sending_with_the_keyboard(opened: Callable[..., Any], public_site: Site) -> None:
    """The button is reached from the body with the tabulator, sends with Enter, and keeps the focus."""
    page = opened(public_site)
    card = page.locator("article", has_text="/predict")
    card.get_by_label("Body", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    card.locator(".response pre").wait_for()
    assert "401" in card.get_by_role("status").inner_text()
    assert "needs a credential" in card.locator(".response").inner_text()
    card.locator("button:focus", has_text="Send").wait_for()


def test_keyboard_and_small_screens(opened: Callable[..., Any], public_site: Site) -> None:
    """Every control has a name, is reached with the tabulator, and fits on a narrow screen."""
    page = opened(public_site, viewport={"width": 360, "height": 740})
    page.locator("article").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    unnamed = "[...document.querySelectorAll('input, select, textarea')].filter((each) => !each.labels.length).length"
    assert page.evaluate(unnamed) == 0
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.textContent.trim().slice(0, 20) || document.activeElement.type")
        )
    assert {"Skip to the operations"[:20], "Use", "Send", "password", "search"} <= reached


def test_the_filter(opened: Callable[..., Any], public_site: Site) -> None:
    """A word selects the operations that contain it; a message is shown if there are none."""
    page = opened(public_site)
    page.locator("article").first.wait_for()
    page.get_by_label("Filter").fill("predict")
    assert page.locator("article:visible").count() == 1
    page.get_by_label("Filter").fill("nothing at all")
    assert page.locator("article:visible").count() == 0
    assert page.get_by_text("No operation matches.").is_visible()
