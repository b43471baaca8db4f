"""Bodies of every format over TLS to a real gunicorn: each gets the status in the corpus, never a 500."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from certificates import Certificate
from servers import Served, gunicorn
from site_under_test import Site

CORPUS = Path(__file__).parents[1] / "corpus"
CASES = [
    case for path in sorted((CORPUS / "payloads").glob("*.json")) for case in json.loads(path.read_text())["cases"]
]
TEXTS = sorted((CORPUS / "json").glob("*/*.json"))


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, environ: dict[str, str], site: Site
) -> Iterator[Served]:
    """The app of the other tests, with every format and every content encoding."""
    settings = {
        "FLASK_SECURE_ML_WIRE_FORMATS": '["json", "oip", "npy", "msgpack", "csv"]',
        "FLASK_SECURE_ML_CONTENT_ENCODINGS": '["identity", "gzip", "zstd"]',
        "FLASK_SECURE_ML_MAX_ELEMENTS": "8000",
        "FLASK_SECURE_ML_MAX_STRING_LENGTH": "10000",
    }
    folder = tmp_path_factory.mktemp("payloads")
    with gunicorn(folder, certificate, environ | settings, "--threads", "2") as served:
        yield served


def body_of(case: Mapping[str, Any]) -> bytes:
    if "base64" in case:
        return base64.b64decode(case["base64"])
    if "repeat" in case:
        prefix, text, times, suffix = case["repeat"]
        return f"{prefix}{text * times}{suffix}".encode()
    return str(case.get("text", "")).encode()


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_body_gets_its_response(served: Served, site: Site, case: dict[str, Any]) -> None:
    """Status and code are those in the corpus (STANDARDS P1 to P5), and no response quotes the body."""
    body = body_of(case)
    sent: Any = iter([body]) if case.get("chunked") else body
    method = "POST" if case["path"] == "/predict" else "GET"
    status, headers, text = served.call(method, case["path"], sent, site.headers | case.get("headers", {}))
    document = json.loads(text)
    assert (status, document.get("code")) == (case["status"], case.get("code"))
    if status == 200:
        return
    assert headers["Content-Type"] == "application/problem+json"
    assert len(text) < 2_000
    # The request id is random, and may have the digits of a number that was sent.
    rest = text.decode().replace(document["request_id"], "")
    for secret in ("s3cret", "99999", "Traceback", "secret detail", "marshmallow", "numpy"):
        assert secret not in rest


@pytest.mark.parametrize("path", TEXTS, ids=[f"{path.parent.name}/{path.stem}" for path in TEXTS])
def test_json_is_strict_or_rejected(served: Served, site: Site, path: Path) -> None:
    """JSON reaches the view unchanged, anything else is a 400; with a schema it is always a 4xx."""
    body = path.read_bytes()
    status, _, text = served.call("POST", "/legacy", body, site.headers)
    if path.parent.name == "accept":
        assert (status, json.loads(text)) == (200, {"length": len(body), "json": json.loads(body)})
    else:
        # An empty body says nothing that could be wrong; a view that parses it rejects it.
        assert status == (400 if body else 200)
    expected = {400} if path.parent.name == "refuse" else {200, 422}
    assert served.call("POST", "/predict", body, site.headers)[0] in expected
