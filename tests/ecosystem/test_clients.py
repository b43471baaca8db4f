"""HTTP clients with an API key against a real gunicorn over TLS."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from certificates import make_certificate
from programs import needs
from servers import Served, gunicorn
from stored_keys import key_in_file
from support import RANDOM_SECRET

PATIENCE = 20.0
LARGE = b"1" * 30_000_000
GOOD = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()


@dataclass(frozen=True)
class Call:
    """One POST; without a key, it has no credential."""

    body: bytes
    status: int
    code: str | None = None
    with_key: bool = True


CALLS = (
    Call(GOOD, 200),
    Call(GOOD, 401, "not_authenticated", with_key=False),
    Call(LARGE, 401, "not_authenticated", with_key=False),
    Call(GOOD, 200),
    Call(LARGE, 413, "payload_too_large"),
    Call(b'{"instances": [["x"]]}', 422, "validation_failed"),
    Call(b"{", 400, "malformed_request"),
    Call(GOOD, 200),
)
"""What one session sends in this order: after each error the next call is served."""

Answers = list[tuple[int, Any]]
Client = Callable[[str, str, str], Answers]


def headers_of(call: Call, key: str) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"X-API-Key": key} if call.with_key else {})


def by_requests(url: str, trusted: str, key: str) -> Answers:
    responses = []
    with requests.Session() as session:
        for call in CALLS:
            response = session.post(
                url, data=call.body, headers=headers_of(call, key), verify=trusted, timeout=PATIENCE
            )
            responses.append((response.status_code, response.json()))
    return responses


def by_httpx(url: str, trusted: str, key: str) -> Answers:
    context = ssl.create_default_context(cafile=trusted)
    with httpx.Client(verify=context, timeout=PATIENCE, trust_env=False) as client:
        found = [client.post(url, content=call.body, headers=headers_of(call, key)) for call in CALLS]
    return [(response.status_code, response.json()) for response in found]


def by_aiohttp(url: str, trusted: str, key: str) -> Answers:
    async def run() -> Answers:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=trusted))
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        responses = []
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            for call in CALLS:
                async with session.post(url, data=BytesIO(call.body), headers=headers_of(call, key)) as response:
                    responses.append((response.status, await response.json(content_type=None)))
        return responses

    return asyncio.run(run())


def by_curl(url: str, trusted: str, key: str) -> Answers:
    needs("curl")
    responses = []
    for call in CALLS:
        command = ["curl", "--silent", "--show-error", "--cacert", trusted, "--max-time", str(PATIENCE), url]
        command += ["--data-binary", "@-", "--write-out", "\n%{http_code}"]
        for name, value in headers_of(call, key).items():
            command += ["--header", f"{name}: {value}"]
        done = subprocess.run(command, input=call.body, capture_output=True, check=True)
        body, status = done.stdout.decode().rsplit("\n", 1)
        responses.append((int(status), json.loads(body)))
    return responses


CLIENTS: dict[str, Client] = {"requests": by_requests, "httpx": by_httpx, "aiohttp": by_aiohttp, "curl": by_curl}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    folder = tmp_path_factory.mktemp("clients")
    keys = str(folder / "keys.json")
    environ = os.environ | {
        "PEPPER": RANDOM_SECRET,
        "FLASK_SECURE_ML_API_KEYS": keys,
        "FLASK_SECURE_ML_API_KEY_PEPPER": "env:PEPPER",
        "FLASK_SECURE_ML_MAX_BODY_BYTES": "20000",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        key = key_in_file(keys)
    with gunicorn(folder, make_certificate(folder), environ, "--threads", "4") as served:
        yield served, key


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_a_session(site: tuple[Served, str], client: Client) -> None:
    """Each response is read, also one that does not wait for the body, and the next call of the session works."""
    served, key = site
    responses = client(f"https://localhost:{served.port}/predict", str(served.trusted), key)
    assert [status for status, _ in responses] == [call.status for call in CALLS]
    for call, (_, body) in zip(CALLS, responses, strict=True):
        assert body.get("code") == call.code
        assert call.code is not None or body == {"sums": [10.0]}
