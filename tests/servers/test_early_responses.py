"""Many kinds of clients send a large body, and read the response that does not wait for it.

Every combination takes half a minute, with ``EVERY_CLIENT=1``. Without it, what one combination shares with another is
tried once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product

import pytest

from http_clients import CLIENTS, MEGABYTE, Upload, has_curl
from servers import Served
from site_under_test import Site

Case = tuple[str, bool, int, bool, int]
CASES: list[Case] = list(product(("gthread", "gevent"), (True, False), (5, 36), (False, True), (401, 413)))
"""Worker, TLS, megabytes, chunked, status."""

USUAL: list[Case] = [
    ("gthread", True, 5, False, 401),
    ("gthread", True, 36, False, 401),
    ("gthread", True, 5, True, 413),
    ("gthread", True, 36, True, 401),
    ("gthread", False, 36, False, 413),
    ("gevent", True, 36, False, 413),
    ("gevent", True, 5, True, 401),
]


def named(case: Case) -> str:
    worker, tls, megabytes, chunked, status = case
    framing = "chunked" if chunked else "declared"
    return f"{worker}, {'TLS' if tls else 'clear text'}, {megabytes} MB {framing}, {status}"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", CASES if os.environ.get("EVERY_CLIENT") else USUAL, ids=named)
def test_the_client_reads_the_response(
    serve: Callable[[str, bool], Served], site: Site, case: Case, client: str
) -> None:
    """Without a credential 401, with an API key 413 for a body over the limit; never a broken connection."""
    if client.startswith("curl") and not has_curl():
        pytest.skip("curl is not on this machine")
    worker, tls, megabytes, chunked, status = case
    served = serve(worker, tls)
    upload = Upload(
        f"{'https' if tls else 'http'}://localhost:{served.port}/legacy",
        megabytes * MEGABYTE,
        chunked=chunked,
        trusted=served.trusted,
        headers={"Content-Type": "application/json"} | ({"X-API-Key": site.api_key} if status == 413 else {}),
    )
    assert CLIENTS[client](upload) == status
