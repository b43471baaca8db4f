"""Probes of gunicorn in clear text, as a kubelet sends them."""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path

import pytest

from servers import gunicorn, wait_until
from stored_keys import key_in_file


def test_probes_in_clear_text(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is live from its start, ready when the file of keys exists, and closed otherwise."""
    keys = tmp_path / "keys.json"
    own = {"FLASK_SECURE_ML_PROBES": "{}", "FLASK_SECURE_ML_API_KEYS": str(keys)}
    monkeypatch.setenv("PEPPER", environ["PEPPER"])
    with gunicorn(tmp_path, None, environ | own) as served:

        def get(path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
            connection = HTTPConnection("127.0.0.1", served.port, timeout=10)
            try:
                connection.request("GET", path, headers=headers or {})
                response = connection.getresponse()
                return response.status, response.read().strip()
            finally:
                connection.close()

        assert get("/livez") == (200, b'{"status":"ok"}')
        assert get("/readyz") == (503, b'{"status":"unavailable"}')
        api_key = key_in_file(str(keys))
        wait_until(lambda: get("/readyz") == (200, b'{"status":"ok"}'), "the app is not ready")
        assert get("/whoami", {"X-API-Key": api_key})[0] == 403
        assert get("/readyz/details", {"X-API-Key": api_key})[0] == 403
