"""The command group ``flask secure-ml``."""

from flask.cli import AppGroup

from .check import check
from .keys import keys
from .model import model, profile
from .openapi import openapi
from .revocations import revoke
from .routes import routes

secure_ml: AppGroup = AppGroup("secure-ml", help="Manage API keys and look at what is protected.")
for _command in (check, keys, model, openapi, profile, revoke, routes):
    secure_ml.add_command(_command)

__all__ = ["secure_ml"]
