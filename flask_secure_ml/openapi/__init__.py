"""The OpenAPI 3.1 description of an app, made from its policies and schemas, and the page that shows it.

Imported by apps that serve it (``SECURE_ML_OPENAPI``) and by the command ``flask secure-ml openapi``.
"""

from .document import build_document
from .page import add_openapi

__all__ = ["add_openapi", "build_document"]
