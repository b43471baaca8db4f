"""The target ``docker``: the Dockerfile under two linters, the probe on real servers, and files that are not copied."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from certificates import make_certificate
from deployed_app import create_app, own_facts
from flask_secure_ml import SecureML
from flask_secure_ml.deploy.containers import PORT
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.docker import TARGET
from programs import needs_tool
from servers import free_port, gunicorn
from support import RANDOM_SECRET

DIGEST = f"registry.example.com/python:3.12@sha256:{'a' * 64}"


def made(**options: object) -> dict[str, str]:
    return dict(TARGET.make(own_facts(**options)))


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return the instructions, with the lines of each joined."""
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


@needs_tool("hadolint")
def test_hadolint(tmp_path: Path) -> None:
    """It has no findings, with a tag and with a digest."""
    for number, image in enumerate((DIGEST, "docker.io/library/python:3.12-slim-bookworm")):
        path = tmp_path / f"Dockerfile.{number}"
        path.write_text(made(base_image=image)["Dockerfile"])
        done = subprocess.run(["hadolint", "--failure-threshold=style", str(path)], capture_output=True, check=False)
        assert (done.returncode, done.stdout.decode()) == (0, "")


@needs_tool("checkov")
def test_checkov(tmp_path: Path) -> None:
    """No check fails, and the ones that are skipped have their reasons in the file."""
    (tmp_path / "Dockerfile").write_text(made()["Dockerfile"])
    command = ["checkov", "--file", str(tmp_path / "Dockerfile"), "--framework", "dockerfile", "--output", "json"]
    done = subprocess.run([*command, "--skip-download"], capture_output=True, text=True, timeout=120, check=False)
    found = json.loads(done.stdout)["results"]
    assert [each["check_id"] for each in found["failed_checks"]] == []
    assert {each["check_id"] for each in found["skipped_checks"]} <= {"CKV_DOCKER_7"}
    assert all(each["check_result"]["suppress_comment"] for each in found["skipped_checks"])
    assert len(found["passed_checks"]) > 20


def test_the_last_stage() -> None:
    """It has one layer, of a stage without tools, a user by number, a signal, and commands without a shell."""
    found = instructions(made()["Dockerfile"])
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    last = found[start:]
    assert last[0] == ("FROM", "scratch AS final")
    assert [rest for name, rest in last if name == "COPY"] == ["--from=rootfs / /"]
    assert not [rest for name, rest in last if name in {"RUN", "ADD"}]
    assert dict(last)["USER"] == "10001:10001"
    assert dict(last)["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(dict(last)["CMD"]) == ["deployed_app:create_app()"]
    assert json.loads(dict(last)["ENTRYPOINT"])[:3] == ["/opt/venv/bin/python", "-m", "gunicorn"]
    assert json.loads(dict(last)["HEALTHCHECK"].partition(" CMD ")[2])[0] == "/opt/venv/bin/python"


def test_every_command_of_pip_that_uses_an_index_has_the_secret() -> None:
    """So that the password of an index is in no argument and no layer."""
    runs = [rest for name, rest in instructions(made()["Dockerfile"]) if name == "RUN" and "bin/pip" in rest]
    assert len(runs) == 2
    assert all(rest.startswith("--mount=type=secret,id=pip.conf,target=/etc/pip.conf ") for rest in runs)


def test_options() -> None:
    """The base, the requirements, the app and the name are those of the place."""
    dockerfile = made(
        base_image=DIGEST, requirements="requirements/prod.txt", app="own:make(\"x y\", a='b')", name="own"
    )["Dockerfile"]
    assert f"\nARG BASE_IMAGE={DIGEST}\n" in dockerfile
    assert "\nCOPY requirements/prod.txt requirements.txt\n" in dockerfile
    assert "\n" + r"""CMD ["own:make(\"x y\", a='b')"]""" + "\n" in dockerfile


@pytest.mark.parametrize(
    ("trusted", "certificates", "ca", "requirement"),
    [
        ([], "required", "/run/clients/ca.crt", 1),
        ([], "optional", "/run/clients/ca.crt", 1),
        ([], "off", None, None),
        (["10.0.0.0/8"], "required", None, None),
    ],
)
def test_gunicorn(
    trusted: list[str], certificates: str, ca: str | None, requirement: int | None, tmp_path: Path
) -> None:
    """It always serves TLS; it verifies client certificates unless a proxy does, but a probe needs none."""
    app = create_app(
        SECURE_ML_TRUSTED_PROXIES=trusted,
        SECURE_ML_CLIENT_CERTIFICATE_HEADER="X-SSL-Client-Cert" if trusted else None,
        SECURE_ML_DEPLOY={"client_certificates": certificates, "client_ca": "/etc/clients.pem"},
    )
    path = tmp_path / "gunicorn.conf.py"
    path.write_text(TARGET.make(facts_of(app))["gunicorn.conf.py"])
    found = read(path)
    assert (found["bind"], found["certfile"], found["keyfile"]) == (
        [f"0.0.0.0:{PORT}"],
        "/run/tls/tls.crt",
        "/run/tls/tls.key",
    )
    assert (found.get("ca_certs"), found.get("cert_reqs")) == (ca, requirement)
    (tmp_path / "overlay.py").write_text("workers = 7\n")
    assert read(path)["workers"] == 7


def read(config: Path) -> Any:
    """Return names of a configuration of gunicorn, which is run by a process of its own because it has effects."""
    script = (
        "import json, runpy, sys; found = runpy.run_path(sys.argv[1]); names = sys.argv[2:];"
        "print(json.dumps({name: found[name] for name in names if name in found}))"
    )
    names = ["bind", "certfile", "keyfile", "ca_certs", "cert_reqs", "workers"]
    done = subprocess.run([sys.executable, "-c", script, str(config), *names], capture_output=True, check=True)
    return json.loads(done.stdout)


def probe(port: int, facts: Facts, folder: Path) -> int:
    path = folder / "probe.py"
    path.write_text(TARGET.make(facts)["probe.py"].replace(str(PORT), str(port)))
    return subprocess.run([sys.executable, "-I", str(path)], timeout=30, capture_output=True, check=False).returncode


def test_the_probe(tmp_path: Path) -> None:
    """It exits with 0 for a server that responds, whatever its certificate, and with 1 for any other."""
    settings = {"STORE_URI": "memory:", "STORE_PASSWORD": "null", "PROBES": '{"live": "/alive"}'}
    settings["MTLS_CA_FILE"] = str(make_certificate(tmp_path).certificate)
    environ = os.environ | {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
    environ["INTROSPECTION_SECRET"] = RANDOM_SECRET
    facts = facts_of(create_app(SECURE_ML_PROBES={"live": "/alive"}))
    with gunicorn(tmp_path, make_certificate(tmp_path), environ, app="deployed_app:serve_app()") as served:
        assert probe(served.port, facts, tmp_path) == 0
        assert probe(served.port, own_facts(), tmp_path) == 1
        assert probe(served.port, bare(), tmp_path) == 0
    assert probe(free_port(), facts, tmp_path) == 1
    with gunicorn(tmp_path, None, environ, app="deployed_app:serve_app()") as served:
        assert probe(served.port, facts, tmp_path) == 1


def bare(**settings: object) -> Facts:
    app = Flask("bare", static_folder=None)
    app.config.from_mapping(settings)
    SecureML(app)
    return facts_of(app)


def test_warnings() -> None:
    """A base without a digest, an app without probes, and state that a container does not share or keep."""
    found = "\n".join(TARGET.warn(bare()))
    assert "SECURE_ML_PROBES" in found
    assert "no digest" in found
    assert list(TARGET.warn(own_facts(base_image=DIGEST))) == []
    app = create_app(
        SECURE_ML_API_KEYS="/var/lib/own/keys.json",
        SECURE_ML_API_KEY_PEPPER="vault:kv/own#pepper",
        SECURE_ML_AUDIT_LOG="/var/log/own",
        SECURE_ML_DEPLOY={"base_image": DIGEST},
    )
    found = "\n".join(TARGET.warn(facts_of(app)))
    assert all(each in found for each in ("SECURE_ML_API_KEYS=store", "VAULT_ADDR", "/var/log/own"))


def test_what_is_not_copied() -> None:
    """Secrets in the project directory, whatever their names contain."""
    app = create_app(
        SECURE_ML_API_KEYS="state/keys of app.json", SECURE_ML_API_KEY_PEPPER=["file:state/!pe[p]*er", "file:a\nb"]
    )
    found = TARGET.make(facts_of(app))["Dockerfile.dockerignore"].splitlines()
    assert "**/state/keys of app.json" in found
    assert r"**/state/!pe\[p\]\*er" in found
    assert not [line for line in found if line in {"b", "a"} or line.startswith("!")]
    assert {"**/.env", "**/*.key", "**/.git"} <= set(found)
