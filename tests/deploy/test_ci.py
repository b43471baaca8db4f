"""The workflow of GitHub and the pipeline of GitLab, read by the programs that are made for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployed_app import own_facts
from flask_secure_ml.config.deployment import DeployOptions
from flask_secure_ml.deploy.ci import TOOLS, image_name, registry, tools
from flask_secure_ml.deploy.targets import targets
from flask_secure_ml.deploy.targets.github_actions import ACTIONS
from programs import needs_tool

HOSTILE = "deployed_app:create_app(name='id')"


def written(tmp_path: Path, target: str, **options: Any) -> Path:
    ((name, content),) = targets()[target].make(own_facts(**options)).items()
    path = tmp_path / name
    path.write_text(content)
    return path


def workflow(tmp_path: Path, **options: Any) -> Any:
    return yaml.safe_load(written(tmp_path, "github-actions", **options).read_text())


@needs_tool("zizmor")
@pytest.mark.parametrize("model", [None, "models/digits.npz"])
def test_zizmor(tmp_path: Path, model: str | None) -> None:
    """No finding, also of the pedantic kind."""
    path = written(tmp_path, "github-actions", model=model)
    command = ["zizmor", "--offline", "--no-progress", "--persona=pedantic", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_tool("actionlint")
@pytest.mark.parametrize("model", [None, "models/digits.npz"])
def test_actionlint(tmp_path: Path, model: str | None) -> None:
    """There are no findings, except for runner names that this release does not know."""
    path = written(tmp_path, "github-actions", model=model)
    done = subprocess.run(["actionlint", str(path)], capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if "[runner-label]" not in line] == []


@needs_tool("check-jsonschema")
@pytest.mark.parametrize("model", [None, "models/digits.npz"])
@pytest.mark.parametrize(
    ("target", "schema"), [("github-actions", "vendor.github-workflows"), ("gitlab-ci", "vendor.gitlab-ci")]
)
def test_schemas(tmp_path: Path, target: str, schema: str, model: str | None) -> None:
    """The files have the structure that the schemas ask for."""
    path = written(tmp_path, target, model=model)
    options = ["--data-transform", "gitlab-ci"] if target == "gitlab-ci" else []
    done = subprocess.run(
        ["check-jsonschema", "--builtin-schema", schema, *options, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_actions_are_pinned(tmp_path: Path) -> None:
    """Every action by a commit of 40 digits, with the tag of its release beside it."""
    text = written(tmp_path, "github-actions", model="m").read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert len(uses) >= len(ACTIONS)
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each) for each in uses)
    assert {each.partition("@")[0] for each in uses} == {repository for repository, _, _ in ACTIONS.values()}


def test_least_rights(tmp_path: Path) -> None:
    """No job may write to the repository, and only the one that signs has an identity."""
    found = workflow(tmp_path)
    assert found["permissions"] == {}
    rights = {name: job["permissions"] for name, job in found["jobs"].items()}
    assert {name for name, right in rights.items() if "id-token" in right} == {"publish"}
    assert {right["contents"] for right in rights.values()} == {"read"}
    assert all(job["timeout-minutes"] for job in found["jobs"].values())


def test_no_expression_in_a_script(tmp_path: Path) -> None:
    """An expression in a script is code there; variables are not."""
    steps = [step for job in workflow(tmp_path, app=HOSTILE)["jobs"].values() for step in job["steps"]]
    scripts = [step["run"] for step in steps if "run" in step]
    assert scripts
    assert not [script for script in scripts if "${{" in script or "create_app" in script]


def test_tools_have_releases(tmp_path: Path) -> None:
    """Only pytest and the requirements of the app are installed without a version."""
    for target in ("github-actions", "gitlab-ci"):
        text = written(tmp_path, target, model="m").read_text()
        assert "pip-audit==" in text
        assert not re.search(rf"({'|'.join(TOOLS)})(?!==)\s*$", text, re.MULTILINE)
    assert tools("checkov") == f"checkov=={TOOLS['checkov']}"


@pytest.mark.parametrize("target", ["github-actions", "gitlab-ci"])
def test_without_a_model(tmp_path: Path, target: str) -> None:
    """There is no model to sign."""
    assert "model_signing" not in written(tmp_path, target).read_text()
    assert "model_signing sign" in written(tmp_path, target, model="m.npz").read_text()


def test_the_identity_of_a_pipeline(tmp_path: Path) -> None:
    """Only the jobs of a release can sign, with the variable that Sigstore's clients read in GitLab."""
    found = yaml.safe_load(written(tmp_path, "gitlab-ci", model="m.npz").read_text())
    signing = {name: job for name, job in found.items() if isinstance(job, dict) and "id_tokens" in job}
    assert signing.keys() == {"publish", "model"}
    for job in signing.values():
        assert job["id_tokens"] == {"SIGSTORE_ID_TOKEN": {"aud": "sigstore"}}
        assert job["rules"] == [{"if": "$CI_COMMIT_TAG =~ /^v/"}]


@pytest.mark.parametrize(
    ("image", "name", "host"),
    [
        ("registry.example.com/a/b:1.0", "registry.example.com/a/b", "registry.example.com"),
        ("registry.example.com:5000/b", "registry.example.com:5000/b", "registry.example.com:5000"),
        ("a/b:latest", "a/b", "docker.io"),
        ("b", "b", "docker.io"),
        ("localhost/b@sha256:" + "0" * 64, "localhost/b", "localhost"),
    ],
)
def test_images(image: str, name: str, host: str) -> None:
    """The tag is that of the build, and the registry is where ``docker login`` goes."""
    options = DeployOptions(image=image)
    assert (image_name(options), registry(options)) == (name, host)


APP = """
from flask import Flask
from flask_secure_ml import SecureML, protect

def create_app():
    app = Flask(__name__, static_folder=None)
    app.config.update(
        SECURE_ML_API_KEYS="store",
        SECURE_ML_API_KEY_PEPPER="env:PEPPER_OF_PRODUCTION",
        SECURE_ML_STORE_URI="rediss://valkey.example.invalid/0",
        SECURE_ML_STORE_PASSWORD="file:/run/secrets/store-of-production",
        SECURE_ML_AUDIT_LOG="/var/lib/own-model/audit",
        SECURE_ML_AUDIT_CHECKPOINT_SINKS=["https://witness.example.com/x"],
        SECURE_ML_TRUSTED_PROXIES=["10.0.0.0/24"],
        SECURE_ML_MTLS_CLIENTS=[{"client": "trainer", "san_dns": "trainer.example.com"}],
        SECURE_ML_MTLS_CA_FILE="/etc/own-model/clients.pem",
        SECURE_ML_CLIENT_CERTIFICATE_HEADER="X-SSL-Client-Cert",
    )
    SecureML(app)

    @app.post("/predict")
    @protect(scopes=["predict"])
    def predict():
        return {}

    return app
"""


def commands(tmp_path: Path, target: str) -> list[str]:
    """Return the commands of a pipeline that check the app and its files."""
    text = written(tmp_path, target).read_text()
    return [each.split(" &&")[0] for each in re.findall(r"(?:flask secure-ml|checkov --) ?[^\n]*", text)]


@pytest.mark.parametrize("target", ["github-actions", "gitlab-ci"])
def test_the_jobs_need_no_secrets(tmp_path: Path, target: str) -> None:
    """The commands of the pipeline pass on a machine that has only the code of the app."""
    (tmp_path / "app.py").write_text(APP)
    flask = [sys.executable, "-m", "flask", "--app", "app", "secure-ml"]
    subprocess.run([*flask, "deploy", target, "docker", "nginx"], cwd=tmp_path, check=True, capture_output=True)
    found = [each for each in commands(tmp_path, target) if each.startswith("flask ") and "check" in each]
    assert len(found) == 2
    for each in found:
        arguments = each.removeprefix("flask secure-ml ").split()
        done = subprocess.run([*flask, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "secure-ml.sarif").exists()


@needs_tool("checkov")
def test_the_scan_passes(tmp_path: Path) -> None:
    """checkov, as both pipelines run it, has no finding in any generated file, if images are pinned by digest."""
    digest = f"@sha256:{'a' * 64}"
    pinned = {"image": f"registry.example.com/own{digest}", "base_image": f"docker.io/library/python:3.12{digest}"}
    facts = own_facts(**pinned, acme_email="ops@example.com")
    for name, each in targets().items():
        for path, content in each.make(facts).items():
            file = tmp_path / "deploy" / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    names = ("github-actions", "gitlab-ci")
    (command,) = {each for name in names for each in commands(tmp_path, name) if each.startswith("checkov ")}
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Failed checks: 0" in done.stdout
