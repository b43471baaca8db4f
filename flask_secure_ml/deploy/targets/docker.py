"""Docker: an image of the app without shell, package manager and secrets, and its ``.dockerignore``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .. import containers
from ..facts import Facts
from ..mounts import secret_files, warnings
from ..target import Target
from .gunicorn import values

_SPECIAL = re.compile(r"([\\*?\[\]])")

CYCLONEDX = "7.5.0"
"""The version of cyclonedx-bom that creates the SBOM of the image."""


def make(facts: Facts) -> Mapping[str, str]:
    """Return the Dockerfile, the files that it copies, and the ignore file."""
    server = values(
        facts,
        bind=f"0.0.0.0:{containers.PORT}",
        certificate=f"{containers.TLS_FOLDER}/tls.crt",
        key=f"{containers.TLS_FOLDER}/tls.key",
        client_ca=containers.client_ca(facts),
    )
    # Probes of an orchestrator have no client certificate.
    server["cert_reqs"] = min(server["cert_reqs"], 1)
    return {
        "Dockerfile": TARGET.render("Dockerfile", facts, cyclonedx=CYCLONEDX, place=containers),
        "Dockerfile.dockerignore": TARGET.render("Dockerfile.dockerignore", facts, secrets=list(_secrets(facts))),
        "gunicorn.conf.py": TARGET.render("gunicorn.conf.py", facts, **server),
        "probe.py": TARGET.render("probe.py", facts, place=containers),
    }


def _secrets(facts: Facts) -> Iterator[str]:
    """Yield patterns of secrets inside the project."""
    for each in secret_files(facts):
        if not each.path.startswith(("/", "..")) and each.path.isprintable():
            yield "**/" + _SPECIAL.sub(r"\\\1", each.path)


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings."""
    if "@sha256:" not in facts.options.base_image:
        yield (
            f"base_image {facts.options.base_image} has no digest, so builds are not reproducible; append"
            " '@sha256:...' as 'docker buildx imagetools inspect' prints it"
        )
    yield from warnings(facts, image=True)


TARGET = Target(
    name="docker",
    summary="a Dockerfile for a small image without shell or secrets, its .dockerignore and a probe",
    overlay="overlay.py",
    make=make,
    advice=(
        "docker: list the app's packages, flask-secure-ml and gunicorn in  {options.requirements}",
        "docker: build with  docker build -f {folder}/Dockerfile --build-arg FILES={folder} -t {options.image} .",
        "docker: packages:  docker build -f {folder}/Dockerfile --build-arg FILES={folder} --target sbom -o . .",
    ),
    warn=warn,
)
