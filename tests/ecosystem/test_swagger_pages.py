"""The pages of Swagger UI that frameworks serve, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from browsers import PATIENCE, chromium
from framework_apps import FRAMEWORKS
from support import HTTPS, MakeApp, caller

PAGES = {
    "restx": ("/", "/swagger.json"),
    "smorest": ("/swagger", "/openapi.json"),
    "apiflask": ("/docs", "/openapi.json"),
}
CDN = {"restx": "", "smorest": "https://cdn.example.net", "apiflask": "https://cdn.jsdelivr.net https://apiflask.com"}
BUNDLE = """window.SwaggerUIBundle = () => document.body.insertAdjacentHTML("beforeend", "<h1>Digits</h1>");
SwaggerUIBundle.presets = SwaggerUIBundle.plugins = {};
window.SwaggerUIStandalonePreset = [];"""
"""What stands for Swagger UI where the page loads it from another host."""


def policy_of(cdn: str) -> str:
    """Return the Content-Security-Policy of the documentation."""
    return (
        f"default-src 'none'; script-src 'self' 'unsafe-inline' {cdn}; style-src 'self' 'unsafe-inline' {cdn}; "
        f"img-src 'self' data: {cdn}; font-src 'self' {cdn}; connect-src 'self'; frame-ancestors 'none'"
    )


def opened(framework: str, protected: MakeApp) -> Flask:
    page, document = PAGES[framework]
    headers = {"preset": "page", "values": {"Content-Security-Policy": policy_of(CDN[framework])}}
    policies: dict[str, Any] = {page: {"public": True, "headers": headers}, document: {"public": True}}
    if framework == "restx":
        policies["/swaggerui/*"] = {"public": True, "headers": "page"}
    return protected(FRAMEWORKS[framework](), POLICIES=policies)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_closed_by_default(framework: str, protected: MakeApp) -> None:
    """The page and the document need a credential until a policy opens them."""
    client = protected(FRAMEWORKS[framework]()).test_client()
    for path in PAGES[framework]:
        assert client.get(path, base_url=HTTPS).status_code == 401
        assert client.get(path, base_url=HTTPS, headers=caller()).status_code == 200


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_in_a_browser(framework: str, protected: MakeApp, browser: Any) -> None:
    """Under the documented policies, scripts and styles of the page load and run, and nothing is blocked."""
    client = opened(framework, protected).test_client()
    complaints: list[str] = []

    def respond(route: Any) -> None:
        url = route.request.url
        if not url.startswith(HTTPS):
            kind = "text/css" if url.endswith(".css") else "text/javascript"
            route.fulfill(status=200, content_type=kind, body=BUNDLE if kind.endswith("script") else "")
            return
        with client.get(url.removeprefix(HTTPS), base_url=HTTPS) as response:
            route.fulfill(status=response.status_code, headers=dict(response.headers), body=response.data)

    page = browser.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.route("**/*", respond)
    page.goto(HTTPS + PAGES[framework][0])
    page.get_by_role("heading", name="Digits").wait_for(timeout=PATIENCE)
    page.close()
    assert complaints == []
