"""The command group ``flask secure-ml``."""

from .context import SecureMLGroup

secure_ml: SecureMLGroup = SecureMLGroup(
    "secure-ml",
    modules={
        "check": "check",
        "keys": "keys",
        "model": "model",
        "openapi": "routes",
        "profile": "model",
        "revocations": "revocations",
        "routes": "routes",
    },
    help="Manage API keys and revocations, and inspect what is protected.",
)

__all__ = ["secure_ml"]
