"""Two independent scanners check TLS with the development certificate: ``make prove PROOFS=tls``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from certificates import Certificate
from flask_secure_ml.deploy.dev_certificate import DevCertificate, ensure
from programs import needs, program
from servers import Served, gunicorn

pytestmark = pytest.mark.skipif("TLS_SCANNERS" not in os.environ, reason="it runs with: make prove PROOFS=tls")

WORKERS = ["gevent", "gthread"]
SEVERE = {"MEDIUM", "HIGH", "CRITICAL"}
# What depends on the authority, not on the server: ours is not public and publishes no revocation.
TRUST = {"cert_chain_of_trust", "cert_revocation"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> DevCertificate:
    return ensure(tmp_path_factory.mktemp("tls"), (), datetime.now(UTC))


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, files: DevCertificate) -> Iterator[Callable[[str], Served]]:
    with ExitStack() as running:

        @cache
        def started(worker: str) -> Served:
            folder, pair = tmp_path_factory.mktemp(worker), Certificate(files.certificate, files.key)
            options = ("-c", "python:flask_secure_ml.deploy.gunicorn", "--worker-class", worker, "--workers", "2")
            return running.enter_context(gunicorn(folder, pair, dict(os.environ), *options, app="plain_site:app"))

        yield started


@needs("sslyze", "pip install sslyze, or pipx install sslyze")
@pytest.mark.parametrize("worker", WORKERS)
def test_sslyze(serve: Callable[[str], Served], files: DevCertificate, worker: str) -> None:
    """The server complies with Mozilla's intermediate profile."""
    options = ["--mozilla_config=intermediate", f"--certinfo_ca_file={files.authority}"]
    command = [program("sslyze") or "sslyze", *options, f"localhost:{serve(worker).port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    print(done.stdout.partition("COMPLIANCE AGAINST")[2])  # noqa: T201 - for the proof
    assert done.returncode == 0, done.stdout + done.stderr


@needs("testssl", "sudo apt install testssl.sh")
@pytest.mark.parametrize("worker", WORKERS)
def test_testssl(serve: Callable[[str], Served], files: DevCertificate, worker: str, tmp_path: Path) -> None:
    """It has no finding above low, except for trust in the authority."""
    report = tmp_path / "report.json"
    options = ["--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--add-ca", str(files.authority)]
    command = ["testssl", *options, "--jsonfile", str(report), f"localhost:{serve(worker).port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    findings = json.loads(report.read_text())
    print(f"{worker}: testssl.sh has {len(findings)} findings")  # noqa: T201 - for the proof
    assert len(findings) > 100, done.stdout
    worse = {each["id"]: each["finding"] for each in findings if each["severity"] in SEVERE}
    assert worse.keys() <= TRUST, worse
