"""Every target for the example app, as written by ``flask secure-ml deploy all``, checked by its program."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from demo_facts import demo_facts
from flask_secure_ml.deploy.facts import Facts
from flask_secure_ml.deploy.targets import targets
from programs import needs
from proxied import write_target
from proxied_place import Place, make_place

TARGETS = targets()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture
def facts(tmp_path: Path, place: Place) -> Facts:
    (tmp_path / "tls.crt").write_bytes(place.server.certificate.read_bytes())
    (tmp_path / "tls.key").write_bytes(place.server.key.read_bytes())
    options: dict[str, Any] = {
        "app": "example_app.app:create_app()",
        "certificate": str(tmp_path / "tls.crt"),
        "certificate_key": str(tmp_path / "tls.key"),
        "proxy_directory": str(tmp_path),
        "proxy_user": "root",
        "access_log": str(tmp_path / "access.log"),
        "request_timeout": 20,
    }
    return demo_facts(tmp_path, **options)


@pytest.mark.parametrize("name", TARGETS)
def test_files(name: str, facts: Facts) -> None:
    """Each is made, and has the limits of the example."""
    made = TARGETS[name].make(facts)
    assert made
    assert list(made) == list(TARGETS[name].make(facts))


@pytest.mark.parametrize(
    ("name", "file", "command"),
    [
        pytest.param("nginx", "nginx.conf", ["nginx", "-t", "-c"], marks=needs("nginx")),
        pytest.param("haproxy", "haproxy.cfg", ["haproxy", "-c", "-f"], marks=needs("haproxy")),
        pytest.param(
            "caddy", "Caddyfile", ["caddy", "validate", "--adapter", "caddyfile", "--config"], marks=needs("caddy")
        ),
        pytest.param(
            "prometheus", "prometheus.yml", ["promtool", "check", "config", "--syntax-only"], marks=needs("promtool")
        ),
    ],
)
def test_programs(name: str, file: str, command: list[str], facts: Facts, tmp_path: Path) -> None:
    """The program accepts the files."""
    folder = write_target(name, facts, tmp_path)
    done = subprocess.run([*command, str(folder / file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
