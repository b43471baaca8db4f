"""Forms in a real Chromium: from the app itself, and from another origin, with the session cookie."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from browsers import PATIENCE, chromium
from certificates import Certificate, make_certificate
from http_servers import QuietHandler, in_thread
from servers import Served, gunicorn
from support import RANDOM_SECRET

FETCH = "([url, options]) => fetch(url, options).then(() => 'read', (error) => error.message)"


class Evil(QuietHandler):
    """A page with a form and a link to the URL in its query. It is of this machine, and of another origin."""

    def do_GET(self) -> None:
        url = self.path.partition("?")[2]
        page = f'<form method=post action="{url}"><button>Win</button></form><a href="{url}">link</a>'
        self.respond(200, page.encode(), {"Content-Type": "text/html"})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def evil(certificate: Certificate) -> Iterator[str]:
    """Serve another port of the same host: browsers send cookies there and back, whatever their SameSite."""
    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), Evil), certificate) as server:
        yield f"https://localhost:{server.server_port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, browser: Any, certificate: Certificate) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("session")
    environ = dict(os.environ) | {
        "FLASK_SECRET_KEY": RANDOM_SECRET,
        "FLASK_SECURE_ML_SESSION_LOGIN": json.dumps({"user": "user_id"}),
    }
    with gunicorn(folder, certificate, environ, "--threads", "4", app="session_app:create_app()") as served:
        yield served


@pytest.fixture
def page(browser: Any, site: Served) -> Iterator[Any]:
    """Return a page of a browser whose user is logged in."""
    with browser.new_context(ignore_https_errors=True) as context:
        opened = context.new_page()
        opened.set_default_timeout(PATIENCE)
        opened.goto(url(site, "/enter"))
        yield opened


def url(site: Served, path: str) -> str:
    return f"https://localhost:{site.port}{path}"


def send(page: Any) -> tuple[int, str]:
    """Submit the form of the page; return the status and the body of the response."""
    with page.expect_navigation() as caught:
        page.get_by_role("button").click()
    return caught.value.status, caught.value.text()


def acted(page: Any, site: Served) -> str:
    """Return how often the view has run, this call included."""
    return str(page.goto(url(site, "/act")).text())


def test_a_form_of_the_app(page: Any, site: Served) -> None:
    """It is sent with the session."""
    page.goto(url(site, "/page"))
    assert send(page) == (200, "session:7 acted 1")


def test_a_form_of_a_page_without_referrer(page: Any, site: Served) -> None:
    """Under the preset for data, Chromium sends ``Origin: null``."""
    page.goto(url(site, "/bare"))
    status, body = send(page)
    assert (status, json.loads(body)["code"]) == (403, "origin_not_allowed")
    assert acted(page, site) == "session:7 acted 1"


def test_a_form_of_another_origin(page: Any, site: Served, evil: str) -> None:
    """It comes with the session, and the view does not run."""
    page.goto(f"{evil}?{url(site, '/act')}")
    status, body = send(page)
    assert (status, json.loads(body)["code"]) == (403, "origin_not_allowed")
    assert acted(page, site) == "session:7 acted 1"


def test_a_link_of_another_origin(page: Any, site: Served, evil: str) -> None:
    """It leads to a page for the user."""
    page.goto(f"{evil}?{url(site, '/act')}")
    page.get_by_role("link").click()
    page.get_by_text("acted 1").wait_for()


def rejected(site: Served) -> int:
    """Return how many requests of other origins came with a session."""
    return site.log.read_text().count('"code":"origin_not_allowed"')


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_script_of_another_origin(page: Any, site: Served, evil: str, method: str) -> None:
    """It cannot read the response, and the view does not run."""
    page.goto(evil)
    before = rejected(site)
    options = {"method": method, "mode": "no-cors", "credentials": "include"}
    assert page.evaluate(FETCH, [url(site, "/act"), options]) == "Failed to fetch"
    assert rejected(site) == before + 1
    assert acted(page, site) == "session:7 acted 1"
