"""The OpenAPI 3.1 document of an app, generated from its policies and schemas, and the documentation page.

This package is imported only by apps that set ``SECURE_ML_OPENAPI`` and by the command ``flask secure-ml openapi``.
"""

from .document import build_document
from .page import add_openapi

__all__ = ["add_openapi", "build_document"]
