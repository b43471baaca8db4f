"""The pages of Swagger UI that frameworks serve, with the real Swagger UI in a real Chromium."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Flask

from browsers import PATIENCE, chromium
from doc_blocks import HOWTO, write_file
from flask_secure_ml.testing import make_api_key
from framework_apps import FRAMEWORKS
from support import HTTPS, RANDOM_SECRET, MakeApp, caller

PAGES = {
    "restx": ("/", "/swagger.json"),
    "smorest": ("/swagger", "/openapi.json"),
    "apiflask": ("/docs", "/openapi.json"),
}

SETTINGS = {"restx": "FLASK_RESTX", "smorest": "FLASK_SMOREST", "apiflask": "APIFLASK"}


@pytest.fixture
def documented(tmp_path: Path) -> ModuleType:
    """Return the module that the documentation shows."""
    write_file(HOWTO / "pages_and_forms.rst", "swagger_ui.py", tmp_path)
    spec = importlib.util.spec_from_file_location("swagger_ui", tmp_path / "swagger_ui.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def opened(documented: ModuleType, protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a framework's app with its documented settings."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)

    def make(framework: str, headers: Any = None) -> Flask:
        def configure(app: Any) -> None:
            app.config |= getattr(documented, SETTINGS[framework])
            if headers is not None:
                app.config["SECURE_ML_POLICIES"][PAGES[framework][0]] = {"public": True, "headers": headers}
            if framework != "restx":
                app.register_blueprint(documented.files)
            if framework == "apiflask":
                app.spec_processor(documented.with_api_key)

        app = FRAMEWORKS[framework](configure)
        return protected(app, API_KEYS=str(tmp_path / "keys.json"), API_KEY_PEPPER="env:PEPPER")

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


class Visit:
    """One page of an app in the browser; all its requests go to the app."""

    def __init__(self, app: Flask, browser: Any, path: str) -> None:
        self._client = app.test_client()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page = browser.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.route("**/*", self._respond)
        self.page.goto(HTTPS + path)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _respond(self, route: Any) -> None:
        url, request = route.request.url, route.request
        if not url.startswith(f"{HTTPS}/"):
            self.elsewhere.append(url)
            route.abort()
            return
        sent = {name: value for name, value in request.headers.items() if name != "host"}
        path = url.removeprefix(HTTPS)
        with self._client.open(path, method=request.method, base_url=HTTPS, headers=sent) as response:
            route.fulfill(status=response.status_code, headers=dict(response.headers), body=response.data)

    def operation(self) -> Any:
        """Return the GET operation, in the list that the page shows."""
        self.page.locator(".opblock-tag").first.wait_for(timeout=PATIENCE)
        if self.page.locator(".opblock-tag-section.is-open").count() == 0:
            self.page.locator(".opblock-tag").first.click()
        found = self.page.locator(".opblock-get", has_text="/rows").first
        found.wait_for(timeout=PATIENCE)
        return found

    def execute(self) -> str:
        """Send the operation that is being tried out, and return the status that the page shows."""
        operation = self.operation()
        operation.get_by_role("button", name="Execute").click()
        shown = operation.locator(".live-responses-table tbody .response-col_status")
        shown.wait_for(timeout=PATIENCE)
        return str(shown.inner_text()).split()[0]

    def authorize(self, key: str) -> None:
        """Type an API key into the dialog of the page."""
        self.page.locator(".auth-wrapper .btn.authorize").click()
        dialog = self.page.locator(".dialog-ux")
        dialog.locator("input").fill(key)
        dialog.locator("button.authorize").click()
        dialog.locator("button.btn-done").click()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_closed_by_default(framework: str, protected: MakeApp) -> None:
    """The page and the document need a credential until a policy opens them."""
    client = protected(FRAMEWORKS[framework]()).test_client()
    for path in PAGES[framework]:
        assert client.get(path, base_url=HTTPS).status_code == 401
        assert client.get(path, base_url=HTTPS, headers=caller()).status_code == 200


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_operation_in_a_browser(framework: str, opened: Any, browser: Any) -> None:
    """The page lists it; without a key it is a 401, with one a 200; nothing is blocked, and no other host is asked."""
    app = opened(framework)
    visit = Visit(app, browser, PAGES[framework][0])
    visit.page.get_by_role("heading", name="Digits").wait_for(timeout=PATIENCE)
    operation = visit.operation()
    assert (visit.complaints, visit.elsewhere) == ([], [])
    operation.locator(".opblock-summary").click()
    operation.get_by_role("button", name="Try it out").click()
    assert visit.execute() == "401"
    operation.get_by_role("button", name="Clear").click()
    visit.authorize(make_api_key(app))
    assert visit.execute() == "200"
    visit.page.close()
    # Chromium reports the 401 itself.
    assert [each for each in visit.complaints if "401" not in each] == []
    assert visit.elsewhere == []


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_preset_alone(framework: str, opened: Any, browser: Any) -> None:
    """Without the policy of the documentation, the inline script of the page is blocked."""
    app = opened(framework, headers="page")
    visit = Visit(app, browser, PAGES[framework][0])
    visit.page.wait_for_load_state("load", timeout=PATIENCE)
    assert any("Content Security Policy" in each for each in visit.complaints)
    assert visit.page.locator(".opblock-tag").count() == 0
    visit.page.close()
