"""``flask secure-ml audit report``: a page from a log, with facts of the app and the result of verification."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import audit_attacks
from audit_attacks import Scene
from audit_logs import Site, append
from audited_app import Audited
from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.cli.verification import Verification
from flask_secure_ml.observe.audit.findings import Report
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.testing import FakeClock
from html_pages import Page
from report_logs import lines_of_site, site_with
from stored_keys import stored_key
from support import HTTPS, RANDOM_SECRET, caller

DAY = 86_400.0


def run(*words: object) -> Result:
    return CliRunner().invoke(secure_ml, ["audit", "report", *map(str, words)])


@pytest.fixture
def clock() -> FakeClock:
    """A clock in the past: the commands use the time of the system."""
    return FakeClock(1_705_305_600.0)


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def said(file: Path) -> str:
    return "".join(Page(file.read_text("utf-8")).text)


def test_a_page(tmp_path: Path, clock: FakeClock, page_file: Path) -> None:
    """It has the numbers of the log and the title, and only its owner can read it; an older page is replaced."""
    site = site_with(tmp_path / "site", clock, 300, DAY)
    page_file.write_text("older")
    done = run(site.folder, "--html", page_file, "--title", "Digits & more")
    assert (done.exit_code, done.stderr) == (0, "Reading\n")
    records = list(lines_of_site(site))
    assert f"300 requests in {len(records)} records." in done.stdout
    page = Page(page_file.read_text("utf-8"))
    rows = page.rows("Requests; ")
    assert sum(int(cell) for row in rows for cell in row[1:]) == 300
    assert "Digits & more" in "".join(page.text)
    assert stat.S_IMODE(page_file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if "html" in path.name] == ["report.html"]


def test_a_real_app(tmp_path: Path, clock: FakeClock, page_file: Path) -> None:
    """The page shows the records of its guards and views."""
    audited = Audited(tmp_path, clock)
    predict = {"base_url": HTTPS, "headers": caller("ada", "predict"), "json": {"rows": [[1, 2], [3, 4]]}}
    for _ in range(3):
        assert audited.client.post("/predict/x", **predict).status_code == 200
        clock.advance(60)
    audited.client.get("/x", base_url=HTTPS, headers=caller("bad"))
    audited.client.get("/crash", base_url=HTTPS)
    audited.client.get("/stream", base_url=HTTPS).get_data()
    audited.log.event("model_replaced", {"model": "digits", "version": "4"})
    audited.log.close()
    assert run(audited.folder, "--html", page_file).exit_code == 0
    page = Page(page_file.read_text("utf-8"))
    assert [row[:2] for row in page.rows("Most rows")] == [["test:adaprincipal", "6"]]
    assert [row[:3] for row in page.rows("Model versions")] == [["digits@3", "3", "6"]]
    assert {row[0]: row[1] for row in page.rows("Rejections and failures by code")} == {
        "not_authenticated": "401",
        "internal_error": "500",
    }
    assert {row[0]: row[1] for row in page.rows("Endpoints")} == {
        "predict": "3",
        "crash": "1",
        "stream": "1",
        "unknown URL": "1",
    }
    assert [row[1] for row in page.rows("Other events")] == ["model_replaced"]
    assert [row[1] != "no stop record" for row in page.rows("Workers")] == [True]


def test_a_part_of_the_time(tmp_path: Path, clock: FakeClock, page_file: Path) -> None:
    """The options are those of show; an invalid instant is an error, and no page is written."""
    site = site_with(tmp_path / "site", clock, 300, DAY)
    wanted = [each for each in lines_of_site(site) if "2024-01-15T12" <= each["time"] < "2024-01-15T18:30"]
    done = run(site.folder, "--html", page_file, "--since", "2024-01-15T12", "--until", "2024-01-15T18:30")
    assert f"in {len(wanted)} records." in done.stdout
    assert "From 2024-01-15 12:00 to 2024-01-15 18:30" in said(page_file)
    page_file.unlink()
    for words in (("--since", "yesterday"), ("--since", "2024-02", "--until", "2024-01")):
        done = run(site.folder, "--html", page_file, *words)
        assert done.exit_code == 1
        assert "Error: " in done.stderr
        assert not page_file.exists()


def test_a_log_that_verifies(tmp_path: Path, clock: FakeClock, page_file: Path) -> None:
    """It is stated at the top, with the coverage of the external checkpoints."""
    site = site_with(tmp_path / "site", clock, 200, 3600.0)
    done = run(site.folder, "--html", page_file, "--key", site.key_file, "--checkpoint-from", site.outside)
    assert done.exit_code == 0, done.stderr
    assert "Verified: the log is intact" in said(page_file)
    assert "External checkpoints cover" in said(page_file)


def test_a_log_that_was_changed(tmp_path: Path, clock: FakeClock, page_file: Path) -> None:
    """The page is written, with the first finding at its top, and the exit code is that of verify."""
    scene = Scene(Site(tmp_path, clock))
    audit_attacks.edit(scene)
    done = run(scene.site.folder, "--html", page_file, "--key", scene.site.key_file)
    assert done.exit_code == 1
    assert "TAMPERED" in done.stderr
    assert "The log was modified" in said(page_file)
    assert "record 10: its code is wrong" in said(page_file)


def test_mistakes(tmp_path: Path, clock: FakeClock, page_file: Path) -> None:
    """Each is a sentence, and leaves no file."""
    site = site_with(tmp_path / "site", clock, 10, 60.0)
    for words, code, message in (
        (("--max-age", 60), 2, "require --key"),
        (("--key", tmp_path / "nowhere"), 2, "nowhere"),
        (("--expiring-days", 0), 2, "--expiring-days"),
    ):
        done = run(site.folder, "--html", page_file, *words)
        assert (done.exit_code, message in done.stderr) == (code, True), done.stderr
    done = run(site.folder, "--html", tmp_path / "nowhere" / "x.html")
    assert (done.exit_code, "nowhere does not exist" in done.stderr) == (1, True)
    assert run(tmp_path / "none", "--html", page_file).exit_code == 2
    assert not page_file.exists()


def test_a_page_that_cannot_be_replaced(tmp_path: Path, clock: FakeClock) -> None:
    """No temporary file is left."""
    site = site_with(tmp_path / "site", clock, 10, 60.0)
    folder = tmp_path / "pages"
    (folder / "report.html" / "x").mkdir(parents=True)
    assert run(site.folder, "--html", folder / "report.html").exit_code == 2
    assert [path.name for path in folder.iterdir()] == ["report.html"]


APP = """
from flask import Flask
from flask_secure_ml import SecureML

app = Flask("app")
app.config.from_prefixed_env()
SecureML(app)
"""


def test_credentials_that_expire(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command as people type it: keys of the app that expire soon; revoked and later ones are left out."""
    (tmp_path / "app.py").write_text(APP)
    site_with(tmp_path / "site", clock, 10, 60.0)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASK")}
    environ |= {"PEPPER": RANDOM_SECRET, "FLASK_SECURE_ML_API_KEY_PEPPER": "env:PEPPER"}
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    store, pepper, real = FileKeyStore(tmp_path / "keys.json"), SecretRing(Secret("env:PEPPER")), SystemClock()
    for client, days in (("soon", 4.5), ("later", 90), ("revoked", 6), ("never", None)):
        lifetime = None if days is None else days * DAY
        key = stored_key(store, pepper, real, client=client, lifetime=lifetime)
        if client == "revoked":
            store.revoke(key.split("_")[1])

    def report(**settings: str) -> subprocess.CompletedProcess[str]:
        options = ("site/log", "--html", "report.html", "--expiring-days", "30")
        command = [sys.executable, "-m", "flask", "secure-ml", "audit", "report", *options]
        done = environ | settings
        return subprocess.run(command, cwd=tmp_path, env=done, capture_output=True, text=True, check=False)

    done = report(FLASK_SECURE_ML_API_KEYS=str(tmp_path / "keys.json"))
    assert done.returncode == 0, done.stderr
    rows = Page((tmp_path / "report.html").read_text("utf-8")).rows("API keys that expire within 30 days")
    assert [(row[0], row[3], row[4]) for row in rows] == [("soon", "4", "never")]
    without = report(FLASK_SECURE_ML_ALLOW_NO_AUTHENTICATION="true")
    assert without.returncode != 0
    assert "Traceback" not in without.stderr


def test_a_log_that_is_written_to(
    tmp_path: Path, clock: FakeClock, page_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that came after the verification are counted, and are not called verified."""
    site = Site(tmp_path / "site", clock)
    writer = site.writer()
    append([writer], 3, clock)
    writer.checkpoint()
    run_verification = Verification.run

    def verified(self: Verification, folder: Path) -> Report:
        report = run_verification(self, folder)
        append([writer], 2, clock)
        return report

    monkeypatch.setattr(Verification, "run", verified)
    assert run(site.folder, "--html", page_file, "--key", site.key_file).exit_code == 0
    assert "4 records in 1 streams were verified." in said(page_file)
    assert "The numbers below contain 2 more records: the log was written to after it was verified." in said(page_file)
    monkeypatch.undo()
    assert run(site.folder, "--html", page_file, "--key", site.key_file).exit_code == 0
    assert "The numbers below contain" not in said(page_file)
