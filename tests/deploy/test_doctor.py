"""``flask secure-ml check --url`` through each proxy with its generated files: no findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

import proxied_app
from every_proxy_program import PROGRAMS
from flask_secure_ml.cli import secure_ml
from httpd import open_folder
from programs import every_proxy
from proxied import Program, Proxied, proxied

SOON = "SML905"
"""The certificate ends soon: those of tests last for hours."""


def findings(found: Proxied, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the findings for a running proxy, without notes."""
    monkeypatch.setenv("KEY", found.place.key)
    app: Flask = proxied_app.described(**found.place.settings)
    arguments = ["check", "--json", "--url", f"https://localhost:{found.served.port}", "--credential", "env:KEY"]
    arguments += ["--ca-file", str(found.place.trusted), "--clear-text-port", str(found.clear_port)]
    done = CliRunner().invoke(secure_ml, arguments, obj=ScriptInfo(create_app=lambda: app))
    return [
        each
        for each in json.loads(done.stdout)["findings"]
        if each["id"].startswith("SML9") and each["severity"] != "note"
    ]


@every_proxy
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_finding(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged headers are not believed, both sides agree, and every error arrives as the app sends it."""
    with open_folder() as folder, proxied(Path(folder), program) as found:
        assert [each for each in findings(found, monkeypatch) if each["id"] != SOON] == []
