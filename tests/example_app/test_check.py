"""The checks have no findings for the example, as each of its demos configures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from example_app.auth_setup import Config
from example_app.demo import prepare
from example_app.demo_monitoring import monitoring_settings
from example_app.demo_oauth import oauth_settings
from example_app.server import CONFIG

# A key for this run only, and a description that everyone may read.
MEANT = {"SML205", "SML605"}


def checked(settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the findings of a demo; its two workers are those of its gunicorn."""
    words = [sys.executable, "-m", "flask", "--app", "example_app.app:create_app", "secure-ml", "check"]
    done = subprocess.run(
        [*words, "--strict", "--json"],
        cwd=CONFIG.parents[1],
        env={"PATH": os.environ["PATH"], **settings, "WEB_CONCURRENCY": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


def test_the_demos(tmp_path: Path) -> None:
    """Their workers share their state; the notes are intended, and each ignore has a reason."""
    api = prepare({"DEMO_STATE": str(tmp_path)}, "127.0.0.1")
    assert {each["id"] for each in checked(api.settings)} == MEANT
    issuer = Config("https://127.0.0.1:9443", ("https://127.0.0.1:8443",), tmp_path)
    oauth = checked({**api.settings, **oauth_settings(api, issuer, "0123456789abcdef0123456789abcdef")})
    assert {each["id"] for each in oauth if "ignored" not in each} == MEANT
    assert [each["id"] for each in oauth if "ignored" in each] == ["SML222"]
    monitored = checked({**api.settings, **monitoring_settings(tmp_path)})
    assert {each["id"] for each in monitored} - {"SML303", "SML409"} == MEANT
