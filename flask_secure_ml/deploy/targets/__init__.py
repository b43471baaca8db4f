"""The targets of ``flask secure-ml deploy``, one module for each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from ..target import Target

MODULES = (
    "gunicorn",
    "nginx",
    "envoy",
    "haproxy",
    "caddy",
    "apache",
    "kong",
    "aws_api_gateway",
    "docker",
    "kubernetes",
    "systemd",
    "compose",
    "prometheus",
    "grafana",
    "github_actions",
    "gitlab_ci",
)
"""The modules with a ``TARGET``, in the order of ``deploy all``."""


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    found = (cast("Target", import_module(f".{name}", __package__).TARGET) for name in MODULES)
    return {target.name: target for target in found}
