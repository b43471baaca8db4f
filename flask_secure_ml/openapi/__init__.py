"""The OpenAPI 3.1 description of an app, made from its policies and schemas, and the page that shows it."""

from .document import build_document
from .page import add_openapi

__all__ = ["add_openapi", "build_document"]
