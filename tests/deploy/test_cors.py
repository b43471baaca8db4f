"""Error responses of each proxy to pages of several origins: a page of a listed origin can read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from every_proxy_program import PROGRAMS
from httpd import open_folder
from programs import every_proxy
from proxied import Program, Proxied, proxied
from proxy_requests import ORIGIN, assert_readable

OTHER = "https://other-page.example.org:8443"
EVIL = "https://app.example.com.evil.example"
SETTINGS = {"SECURE_ML_CORS": {"origins": [ORIGIN, OTHER]}}


def allowed(found: Proxied, path: str, size: int, origin: str) -> list[str]:
    """Return the origins that the response to a request from an origin allows."""
    headers = found.key | {"Content-Type": "application/json", "Origin": origin}
    answer = found.call("POST", path, b" " * size, headers)
    assert answer.status >= 400
    if origin != EVIL:
        assert_readable(answer, origin)
    assert "Origin" in ", ".join(answer.headers.get_all("Vary") or [])
    return answer.headers.get_all("Access-Control-Allow-Origin") or []


@every_proxy
@pytest.mark.parametrize("program", PROGRAMS)
def test_several_origins(program: Program) -> None:
    """The proxy allows the origin of the request if it is listed, in its 413 and 502 too."""
    with open_folder() as folder, proxied(Path(folder), program, settings=SETTINGS) as found:
        for stopped in (False, True):
            for path, size in (("/v1/predict", 4_194_305), ("/v1/unknown", 2)):
                assert allowed(found, path, size, ORIGIN) == [ORIGIN]
                assert allowed(found, path, size, OTHER) == [OTHER]
                assert allowed(found, path, size, EVIL) == []
            if not stopped:
                for server in found.upstreams:
                    server.close()
