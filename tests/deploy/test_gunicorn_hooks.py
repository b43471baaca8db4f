"""The hooks that the package has for gunicorn, in a process of their own: importing them creates a directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os
from types import SimpleNamespace

from flask import Flask

from flask_secure_ml import SecureML
from flask_secure_ml.deploy import gunicorn

app = Flask("app")
app.config["SECURE_ML_METRICS"] = "/metrics"
SecureML(app)
for wsgi in (Flask("unprotected"), lambda environ, start: [], app):
    gunicorn.post_worker_init(SimpleNamespace(wsgi=wsgi, cfg=SimpleNamespace(certfile=None, is_ssl=False)))
print(app.extensions["secure_ml"].metrics.exposition.text().body.decode())
directory = os.environ["PROMETHEUS_MULTIPROC_DIR"]
assert os.stat(directory).st_mode & 0o777 == 0o700
gunicorn.child_exit(None, SimpleNamespace(pid=os.getpid()))
assert not [name for name in os.listdir(directory) if "live" in name]
gunicorn.on_exit(None)
print(os.path.exists(directory))
"""


NO_DIRECTORY = """
from flask import Flask
from flask_secure_ml import ConfigError, SecureML

app = Flask("app")
app.config["SECURE_ML_METRICS"] = "/metrics"
try:
    SecureML(app)
except ConfigError as error:
    print(error)
"""
FAILS = """
import os, sys
from flask_secure_ml.deploy import gunicorn

worker = os.fork()
if not worker:
    sys.exit(3)
os.waitpid(worker, 0)
print(os.path.exists(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
"""


def run(tmp_path: Path, script: str = SCRIPT, **environ: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=kept | {"TMPDIR": str(tmp_path)} | environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_whatever_is_served(tmp_path: Path) -> None:
    """A worker begins with a protected app, with another one, and with an app inside middleware."""
    assert "secure_ml_workers 1.0" in run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_given(tmp_path: Path) -> None:
    """Is used and not removed."""
    given = tmp_path / "given"
    given.mkdir(mode=0o700)
    assert run(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(given)).endswith("True\n")
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_a_server_that_cannot_start(tmp_path: Path) -> None:
    """It leaves no directory, and a worker that ends before it removes none."""
    assert run(tmp_path, FAILS) == "True\n"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    """It is a problem of the configuration, with its name."""
    printed = run(tmp_path, NO_DIRECTORY, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "missing"))
    assert f"PROMETHEUS_MULTIPROC_DIR: {tmp_path}/missing/" in printed
    assert "No such file or directory" in printed
