"""GitLab CI: tests, policies, dependencies and image."""

from __future__ import annotations

from collections.abc import Mapping

from ..ci import image_name, registry, tools
from ..facts import Facts
from ..target import Target

# Replace these tags by the digests that your registry shows.
BUILDER = "docker.io/library/alpine:3.22"
TRIVY = "docker.io/aquasec/trivy:0.72.0"
# The variant with a shell, which GitLab jobs require.
GRYPE = "docker.io/anchore/grype:debug"


def make(facts: Facts) -> Mapping[str, str]:
    """Return the pipeline."""
    options = facts.options
    content = TARGET.render(
        "secure-ml.gitlab-ci.yml",
        facts,
        tools=tools,
        image=image_name(options),
        registry=registry(options),
        builder=BUILDER,
        trivy=TRIVY,
        grype=GRYPE,
    )
    return {"secure-ml.gitlab-ci.yml": content}


TARGET = Target(
    name="gitlab-ci",
    summary="a pipeline: tests, policies, dependencies, image scans, SBOM and signatures",
    overlay=".gitlab-ci.yml, which includes this file",
    make=make,
    advice=("gitlab-ci: install with  include: [{{local: {folder}/secure-ml.gitlab-ci.yml}}]  in .gitlab-ci.yml",),
)
