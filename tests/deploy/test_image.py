"""The image of the example app, from the generated Dockerfile: its contents, and that it serves.

``BUILD_IMAGE=1`` runs it. It takes some minutes, root, and Debian's ``buildah`` and ``debootstrap``. The base is
Debian's Python, because no registry of images is needed for it. Everything is beneath the directory of the test, and
removed at its end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from certificates import Certificate, make_certificate
from flask_secure_ml.deploy.containers import PORT, UID
from flask_secure_ml.deploy.targets.docker import CYCLONEDX
from images import PIP_SECRET, ROOT, Buildah, Image, build_wheel, download_wheels, pinned, running
from programs import needs
from servers import Served, accepts, free_port, wait_until
from support import RANDOM_SECRET

pytestmark = [
    pytest.mark.skipif(not os.environ.get("BUILD_IMAGE"), reason="BUILD_IMAGE=1 builds an image"),
    *map(needs, ("buildah", "debootstrap", "curl", "nsenter", "unshare")),
]

EXTRAS = "[fast,metrics,openapi]"
REQUIREMENTS = [f"flask-secure-ml{EXTRAS}", "gevent", "gunicorn"]
SECRETS = {".env": b"CANARY-env", "server.key": b"CANARY-key", ".git/config": b"CANARY-git", "state.db": b"CANARY-db"}
SECRETS |= {"deploy/compose/secrets/pepper-of-app": b"CANARY-compose"}
# What a server could be misused with.
TOOLS = {
    "sh",
    "bash",
    "dash",
    "apt",
    "apt-get",
    "dpkg",
    "perl",
    "pip",
    "pip3",
    "curl",
    "wget",
    "su",
    "mount",
    "tar",
    "env",
}
PACKAGES = {"pip", "setuptools", "ensurepip", "wheel"}


class Built(NamedTuple):
    buildah: Buildah
    image: Image
    folder: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("image")
    buildah = Buildah(folder)
    try:
        wheels = folder / "wheels"
        python = buildah.add_base()
        build_wheel(wheels)
        download_wheels(wheels, python, REQUIREMENTS)
        requirements = pinned(wheels, {"flask_secure_ml": EXTRAS})
        download_wheels(wheels, python, [f"cyclonedx-bom=={CYCLONEDX}"])
        start = time.monotonic()
        buildah.build(project(folder, requirements), wheels, "--tag", "localhost/demo:1")
        seconds = time.monotonic() - start
        buildah.build(folder / "project", wheels, "--target", "sbom", "--tag", "localhost/sbom:1")
        image = Image(buildah, "localhost/demo:1")
        sys.stdout.write(f"\nbuilt in {seconds:.0f} s, {image.bytes / 1e6:.1f} MB compressed\n")
        yield Built(buildah, image, folder)
    finally:
        buildah.clean()
        shutil.rmtree(folder, ignore_errors=True)


def project(folder: Path, requirements: list[str]) -> Path:
    """Return the example app as a project of its own, with its model, files that must not be copied, and the target."""
    found = folder / "project"
    shutil.copytree(ROOT / "example_app", found / "example_app", ignore=shutil.ignore_patterns("__pycache__"))
    (found / "requirements.txt").write_text("\n".join(requirements))
    for name, content in SECRETS.items():
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_bytes(content)
    # A developer's umask may keep others out, and the user of the image is such another.
    (found / "example_app" / "model.py").chmod(0o600)
    environ = os.environ | {
        "FLASK_MODEL_FILE": "model.npz",
        "FLASK_SECURE_ML_PROBES": "{}",
        "FLASK_SECURE_ML_DEPLOY": json.dumps({"app": "example_app.wsgi:app", "name": "demo", "hosts": ["localhost"]}),
    }
    commands = (
        ["example_app.training", "model.npz"],
        ["flask", "--app", "example_app.wsgi", "secure-ml", "deploy", "docker"],
    )
    for command in commands:
        subprocess.run([sys.executable, "-m", *command], cwd=found, env=environ, check=True, timeout=120)
    return found


def test_files(built: Built) -> None:
    """One layer, without secrets, tools or set-user-ID bits; only root can change what the app runs."""
    image = built.image
    assert len(image.layers) == 1
    canaries = [*SECRETS.values(), PIP_SECRET.encode()]
    for member, content in image.members():
        parts = member.name.strip("/").split("/")
        assert not any(canary in content for canary in canaries), member.name
        assert not PACKAGES & set(parts), member.name
        assert not (parts[-1] in TOOLS and member.mode & 0o111 and not member.isdir()), member.name
        if is_program(content) and member.mode & 0o111 and ".so" not in parts[-1]:
            assert parts[-1].startswith("python3"), member.name
        assert not member.mode & 0o6000, member.name
        assert (member.uid, member.gid) == (0, 0) or parts[0] not in {"app", "opt", "usr", "bin", "lib", "etc"}
        assert member.issym() or parts == ["tmp"] or not member.mode & 0o002, member.name


def is_program(content: bytes) -> bool:
    """Return True for files that the kernel can execute: a binary, which names its loader."""
    return content.startswith(b"\x7fELF") and b"ld-linux" in content[:4096]


def test_configuration(built: Built) -> None:
    """Neither the configuration nor the history names a secret; the health check is there."""
    config = built.image.config["config"]
    assert config["User"] == f"{UID}:{UID}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == "demo"
    assert PIP_SECRET not in json.dumps(built.image.config)
    described = json.loads(built.buildah("inspect", "--type", "image", "localhost/demo:1"))
    assert described["Docker"]["config"]["Healthcheck"]["Test"][-1].endswith("probe.py")


def test_packages(built: Built) -> None:
    """The list of packages is CycloneDX, and has the packages of the image with their versions."""
    members = Image(built.buildah, "localhost/sbom:1").members()
    (content,) = [content for member, content in members if member.name.endswith("sbom.cdx.json")]
    listed = json.loads(content)
    assert listed["bomFormat"] == "CycloneDX"
    names = {canonical(each["name"]): each["version"] for each in listed["components"]}
    in_image = {
        name.removesuffix(".dist-info").rpartition("-")[::2]
        for member, _ in built.image.members()
        for name in [member.name.split("/")[-1]]
        if name.endswith(".dist-info") and member.name.lstrip("/").startswith("opt/venv")
    }
    assert len(in_image) > 20
    assert {canonical(name): version for name, version in in_image} == names


def canonical(name: str) -> str:
    """Return the name of a package as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_package_that_was_replaced(built: Built) -> None:
    """A wheel that has not the hash in the requirements ends the build."""
    path = built.folder / "project" / "requirements.txt"
    requirements = path.read_text()
    changed = re.sub(r"(gunicorn==\S+ --hash=sha256:)[0-9a-f]{8}", r"\g<1>00000000", requirements)
    assert changed != requirements
    path.write_text(changed)
    try:
        with pytest.raises(RuntimeError, match="DO NOT MATCH THE HASHES"):
            built.buildah.build(built.folder / "project", built.folder / "wheels", "--target", "builder")
    finally:
        path.write_text(requirements)


@pytest.fixture
def state(built: Built) -> Path:
    """Return the mounted directory: a pepper, a key file and a certificate, readable by the user of the image."""
    found = built.folder / "state"
    shutil.rmtree(found, ignore_errors=True)
    (found / "tls").mkdir(parents=True)
    (found / "pepper").write_text(RANDOM_SECRET)
    certificate = make_certificate(found)
    shutil.copy(certificate.certificate, found / "ca.pem")
    shutil.copy(certificate.certificate, found / "tls" / "tls.crt")
    shutil.copy(certificate.key, found / "tls" / "tls.key")
    return found


SETTINGS = {
    "FLASK_MODEL_FILE": "model.npz",
    "FLASK_SECURE_ML_API_KEYS": "/mnt/keys.json",
    "FLASK_SECURE_ML_API_KEY_PEPPER": "file:/mnt/pepper",
    "FLASK_SECURE_ML_PROBES": "{}",
    "FLASK_SECURE_ML_METRICS": "/metrics",
}


def created_key(state: Path, project_folder: Path) -> str:
    places = {"API_KEYS": str(state / "keys.json"), "API_KEY_PEPPER": f"file:{state / 'pepper'}"}
    environ = os.environ | SETTINGS | {f"FLASK_SECURE_ML_{name}": value for name, value in places.items()}
    command = ["flask", "--app", "example_app.wsgi", "secure-ml", "keys", "create", "--client", "c"]
    scopes = ["--scope", "predict", "--scope", "metrics"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *scopes], cwd=project_folder, env=environ, capture_output=True, check=True
    )
    for path in (state, *state.rglob("*")):
        os.chown(path, UID, UID)
    return done.stdout.decode().strip()


def test_it_serves(built: Built, state: Path) -> None:
    """A prediction over TLS: with a read-only root, its own user, no capability, and no way to get one."""
    key = created_key(state, built.folder / "project")
    built.buildah("from", "--name", "served", "localhost/demo:1")
    root = Path(built.buildah("mount", "served").strip())
    url = f"https://localhost:{PORT}"
    start = time.monotonic()
    with running(root, built.image.config["config"], SETTINGS, state, state / "tls") as container:
        sys.stdout.write(f"\nready after {time.monotonic() - start:.1f} s\n")
        status = container.status()
        assert status["Uid"] == " ".join([str(UID)] * 4)
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"

        answer = container.curl("-H", f"X-API-Key: {key}", "--json", body(), f"{url}/v1/predict")
        assert json.loads(answer)["predictions"] == [3]
        assert "secure_ml_requests_total" in container.curl("-H", f"X-API-Key: {key}", f"{url}/metrics")
        assert json.loads(container.curl(f"{url}/v1/predict", "--json", body()))["code"] == "not_authenticated"

        python = "/opt/venv/bin/python"
        assert container.inside(python, "-I", "/opt/server/probe.py").returncode == 0
        for path in ("/app/x", "/opt/x", "/etc/x", "/run/x", "/var/tmp/x"):
            done = container.inside(python, "-c", f"open({path!r}, 'w')")
            assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr, path
        assert container.inside("/bin/sh", "-c", "true").returncode != 0
        assert container.stop() == 0


def body() -> str:
    from example_app.demo import THREE

    return json.dumps({"instances": [THREE]})


def test_buildah_serves_it(built: Built, state: Path) -> None:
    """So does another runner, which has no read-only root, as the user of the image."""
    key = created_key(state, built.folder / "project")
    built.buildah("from", "--name", "other", "localhost/demo:1")
    isolated = ("run", "--isolation", "chroot")
    code = "import os; print(os.getuid(), os.getgid(), os.getcwd())"
    shown = built.buildah(*isolated, "other", "--", "/opt/venv/bin/python", "-c", code)
    assert shown.split() == [str(UID), str(UID), "/app"]

    port, config = free_port(), built.image.config["config"]
    mounts = (f"--volume={state}:/mnt", f"--volume={state / 'tls'}:/run/tls:ro")
    variables = [f"--env={name}={value}" for name, value in SETTINGS.items()]
    gunicorn = [*config["Entrypoint"], "--bind", f"127.0.0.1:{port}", *config["Cmd"]]
    process = built.buildah.start(*isolated, *mounts, *variables, "other", "--", *gunicorn)
    try:
        wait_until(lambda: accepts(port) or process.poll() is not None, "gunicorn does not listen")
        served = Served(port, Certificate(state / "ca.pem", state / "tls" / "tls.key"), state)
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        status, _, content = served.call("POST", "/v1/predict", body(), headers)
        assert (status, json.loads(content)["predictions"]) == (200, [3])
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
