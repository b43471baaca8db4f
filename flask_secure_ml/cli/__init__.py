"""The command group ``flask secure-ml``."""

from .context import SecureMLGroup

secure_ml: SecureMLGroup = SecureMLGroup(
    "secure-ml",
    modules={
        "anomalies": "anomalies",
        "audit": "audit",
        "check": "check",
        "deploy": "deploy",
        "keys": "keys",
        "limits": "limits",
        "model": "model",
        "openapi": "routes",
        "profile": "model",
        "revocations": "revocations",
        "routes": "routes",
        "tls": "tls",
        "why": "why",
    },
    help="Manage API keys, revocations, limits and the audit log, and inspect policies and requests.",
)

__all__ = ["secure_ml"]
