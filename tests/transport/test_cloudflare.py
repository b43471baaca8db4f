"""The trusted proxies for Cloudflare in docs/howto/proxies.rst: only its edge is trusted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from doc_blocks import HOWTO
from doctored import found_in
from support import MakeApp, caller

PAGE = (HOWTO / "proxies.rst").read_text(encoding="utf-8").partition("Behind Cloudflare\n")[2]
VISITOR, VICTIM, WORKER, STRANGER = "203.0.113.9", "198.51.100.7", "2a06:98c0:3600::103", "192.0.2.66"
HAS_TRUSTED_HOSTS = tuple(map(int, version("flask").split(".")[:2])) >= (3, 1)
CLAIMS = {
    "X-Forwarded-For": VICTIM,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "CF-Connecting-IP": VICTIM,
    "CF-Connecting-IPv6": "2001:db8::1",
    "CF-Pseudo-IPv4": VICTIM,
    "CF-Visitor": '{"scheme":"https"}',
    "True-Client-IP": VICTIM,
    "X-Real-IP": VICTIM,
}


def documented() -> list[str]:
    """Return the value of the documented command, as a shell reads it."""
    (command,) = re.findall(r"(export FLASK_SECURE_ML_TRUSTED_PROXIES='[^']*')", PAGE)
    value = shlex.split(command)[1].partition("=")[2]
    found: list[str] = json.loads(value)
    return found


EDGES = [str(ip_network(each)[at]) for each in documented() for at in (0, -1)]


def served(protected: MakeApp, **settings: Any) -> Flask:
    app = Flask("cloudflare")

    @app.get("/who")
    def who() -> dict[str, Any]:
        names = [name for name in CLAIMS if name in request.headers]
        return {"client": request.remote_addr, "host": request.host, "scheme": request.scheme, "claims": names}

    return protected(app, TRUSTED_PROXIES=documented(), **settings)


def ask(app: Flask, peer: str, headers: dict[str, str], base_url: str = "https://models.example.com") -> Any:
    sent = headers | caller()
    return app.test_client().get("/who", base_url=base_url, headers=sent, environ_overrides={"REMOTE_ADDR": peer})


def from_edge(chain: str) -> dict[str, str]:
    """Return the headers that Cloudflare sends for a chain."""
    return {
        "X-Forwarded-For": chain,
        "X-Forwarded-Proto": "https",
        "CF-Connecting-IP": chain.rpartition(", ")[2],
        "CF-Visitor": '{"scheme":"https"}',
    }


def test_the_documented_networks(protected: MakeApp) -> None:
    """Fifteen IPv4 networks that do not overlap; the check has no finding for them."""
    networks = [ip_network(each) for each in documented()]
    assert len(networks) == 15
    assert {each.version for each in networks} == {4}
    assert not any(one.overlaps(other) for one in networks for other in networks if one != other)
    app = served(protected)
    assert not [each for each in found_in(app) if "all IP addresses of" in each]


def test_the_command_that_fetches(tmp_path: Path) -> None:
    """It turns the published format, a network on each line, into the value of the setting."""
    (command,) = re.findall(r'(export FLASK_SECURE_ML_TRUSTED_PROXIES="\$\((?:.|\n)*?networks\.txt\)")', PAGE)
    (tmp_path / "networks.txt").write_text("\n".join(documented()), encoding="utf-8")
    python = f'python() {{ "{sys.executable}" "$@"; }}'
    script = f'{python}\n{command}\nprintf %s "$FLASK_SECURE_ML_TRUSTED_PROXIES"'
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == documented()


@pytest.mark.parametrize("edge", EDGES)
def test_a_visitor(protected: MakeApp, edge: str) -> None:
    """From the first and the last address of each network."""
    found = ask(served(protected), edge, from_edge(VISITOR), "http://models.example.com").json
    assert (found["client"], found["scheme"]) == (VISITOR, "https")


CHAINS = {
    "nothing": (VISITOR, VISITOR),
    "the address of another": (f"{VICTIM}, {VISITOR}", VISITOR),
    "an address of the edge": (f"{VICTIM}, {EDGES[0]}, {VISITOR}", VISITOR),
    "a private address": (f"127.0.0.1, {VISITOR}", VISITOR),
    "garbage": (f"unknown, {VISITOR}", VISITOR),
    "from a Worker": (f"{VICTIM}, {WORKER}", WORKER),
}


@pytest.mark.parametrize(("chain", "client"), CHAINS.values(), ids=CHAINS)
def test_what_a_visitor_writes_into_the_chain(protected: MakeApp, chain: str, client: str) -> None:
    """Cloudflare appends the address of its client, and that is the client."""
    assert ask(served(protected), EDGES[0], from_edge(chain)).json["client"] == client


@pytest.mark.parametrize("peer", [STRANGER, WORKER, "127.0.0.1", "10.0.0.1", "104.28.0.1", "2606:4700::1"])
def test_who_goes_around_cloudflare(protected: MakeApp, peer: str) -> None:
    """Forwarded headers of clients that bypass it are not trusted and do not reach the view."""
    found = ask(served(protected), peer, CLAIMS).json
    assert found == {"client": peer, "host": "models.example.com", "scheme": "https", "claims": []}


def test_clear_text_around_cloudflare(protected: MakeApp) -> None:
    """It is rejected, with any headers."""
    response = ask(served(protected), STRANGER, CLAIMS, "http://models.example.com")
    assert (response.status_code, response.headers["X-Error-Code"]) == (403, "tls_required")


def test_a_visitor_in_clear_text(protected: MakeApp) -> None:
    """TLS between Cloudflare and the app does not make up for it."""
    headers = from_edge(VISITOR) | {"X-Forwarded-Proto": "http"}
    assert ask(served(protected), EDGES[0], headers).headers["X-Error-Code"] == "tls_required"


def test_headers_of_cloudflare_reach_nobody(protected: MakeApp) -> None:
    """Not even from the edge: no extension behind can read another client from them."""
    found = ask(served(protected), EDGES[0], CLAIMS | from_edge(VISITOR)).json
    assert set(found["claims"]) <= {"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"}


@pytest.mark.skipif(not HAS_TRUSTED_HOSTS, reason="TRUSTED_HOSTS is a setting of Flask 3.1")
@pytest.mark.parametrize("where", ["X-Forwarded-Host", "Host"])
def test_a_forged_host(protected: MakeApp, where: str) -> None:
    """With the documented hosts, one that a visitor sends through Cloudflare is a 400."""
    app = served(protected)
    app.config["TRUSTED_HOSTS"] = ["models.example.com"]
    assert ask(app, EDGES[0], from_edge(VISITOR)).status_code == 200
    assert ask(app, EDGES[0], from_edge(VISITOR) | {where: "evil.example"}).status_code == 400


def test_limits_count_for_each_visitor(protected: MakeApp) -> None:
    """A block of one does not reach the others behind the same edge, and changing the chain does not end it."""
    app = served(protected, FAILED_AUTH_LIMITS=["2/minute"])

    def guess(chain: str) -> int:
        headers = from_edge(chain) | caller("bad")
        overrides = {"REMOTE_ADDR": EDGES[0]}
        client = app.test_client()
        return client.get("/who", base_url="https://x", headers=headers, environ_overrides=overrides).status_code

    assert [guess(VISITOR) for _ in range(3)] == [401, 401, 429]
    assert guess(f"{VICTIM}, {VISITOR}") == 429
    assert guess(VICTIM) == 401
