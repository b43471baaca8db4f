"""Who is calling: authenticators for API keys and access tokens, and the guard that asks them."""

from .api_keys import ApiKeyAuthenticator
from .base import AuthenticationGuard, Authenticator
from .file_key_store import FileKeyStore
from .jwt import JwtVerifier
from .key_store import KeyRecord, KeyStore

__all__ = [
    "ApiKeyAuthenticator",
    "AuthenticationGuard",
    "Authenticator",
    "FileKeyStore",
    "JwtVerifier",
    "KeyRecord",
    "KeyStore",
]
