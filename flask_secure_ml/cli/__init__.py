"""The command group ``flask secure-ml``."""

from .context import SecureMLGroup

secure_ml: SecureMLGroup = SecureMLGroup(
    "secure-ml",
    modules={
        "anomalies": "anomalies",
        "audit": "audit",
        "check": "check",
        "keys": "keys",
        "limits": "limits",
        "model": "model",
        "openapi": "routes",
        "profile": "model",
        "revocations": "revocations",
        "routes": "routes",
        "why": "why",
    },
    help="Manage API keys, revocations, limits and the audit log, and inspect what is protected and what happened.",
)

__all__ = ["secure_ml"]
