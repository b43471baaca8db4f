"""The command group ``flask secure-ml``."""

from .context import SecureMLGroup

secure_ml: SecureMLGroup = SecureMLGroup(
    "secure-ml",
    modules={
        "check": "check",
        "keys": "keys",
        "limits": "limits",
        "model": "model",
        "openapi": "routes",
        "profile": "model",
        "revocations": "revocations",
        "routes": "routes",
    },
    help="Manage API keys, revocations and limits, and inspect what is protected.",
)

__all__ = ["secure_ml"]
