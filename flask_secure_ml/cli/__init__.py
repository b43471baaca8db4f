"""The command group ``flask secure-ml``."""

from .check import check
from .context import SecureMLGroup
from .keys import keys
from .model import model, profile
from .revocations import revocations
from .routes import openapi, routes

secure_ml: SecureMLGroup = SecureMLGroup(
    "secure-ml", help="Manage API keys and revocations, and inspect what is protected."
)
for _command in (check, keys, model, openapi, profile, revocations, routes):
    secure_ml.add_command(_command)

__all__ = ["secure_ml"]
