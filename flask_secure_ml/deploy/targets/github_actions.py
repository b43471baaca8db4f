"""GitHub Actions: tests, policies, dependencies, image and model, with actions pinned by commit."""

from __future__ import annotations

from collections.abc import Mapping

from ..ci import PYTHON, image_name, registry, tools
from ..facts import Facts
from ..target import Target

ACTIONS = {
    "checkout": ("actions/checkout", "3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1"),
    "setup-python": ("actions/setup-python", "5fda3b95a4ea91299a34e894583c3862153e4b97", "v7.0.0"),
    "upload-artifact": ("actions/upload-artifact", "bbbca2ddaa5d8feaa63e36b76fdaad77386f024f", "v7.0.0"),
    "download-artifact": ("actions/download-artifact", "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c", "v8.0.1"),
    "upload-sarif": (
        "github/codeql-action/upload-sarif",
        "8aad20d150bbac5944a9f9d289da16a4b0d87c1e",
        "v4.36.2",
    ),
    "trivy": ("aquasecurity/trivy-action", "ed142fd0673e97e23eac54620cfb913e5ce36c25", "v0.36.0"),
    "grype": ("anchore/scan-action", "e1165082ffb1fe366ebaf02d8526e7c4989ea9d2", "v7.4.0"),
    "cosign": ("sigstore/cosign-installer", "6f9f17788090df1f26f669e9d70d6ae9567deba6", "v4.1.2"),
}
"""Actions with the commit and tag of a release; a tag can be moved, a commit cannot."""


def uses(name: str) -> str:
    """Return the value of ``uses:``."""
    repository, commit, tag = ACTIONS[name]
    return f"{repository}@{commit} # {tag}"


def make(facts: Facts) -> Mapping[str, str]:
    """Return the workflow."""
    options = facts.options
    content = TARGET.render(
        "secure-ml.yml",
        facts,
        uses=uses,
        tools=tools,
        python=PYTHON,
        image=image_name(options),
        registry=registry(options),
    )
    return {"secure-ml.yml": content}


TARGET = Target(
    name="github-actions",
    summary="a workflow: tests, policies, dependencies, image scans, SBOM and signatures",
    overlay="another workflow in .github/workflows",
    make=make,
    advice=(
        "github-actions: install with  mkdir -p .github/workflows && cp {folder}/secure-ml.yml .github/workflows/",
        "github-actions: check with  actionlint && zizmor .github/workflows",
    ),
)
