"""Who is calling: authenticators for API keys and access tokens, and the guard that asks them."""

from .api_keys import ApiKeyAuthenticator
from .base import AuthenticationGuard, Authenticator
from .jwt import JwtAuthenticator
from .key_store import FileKeyStore, KeyRecord, KeyStore

__all__ = [
    "ApiKeyAuthenticator",
    "AuthenticationGuard",
    "Authenticator",
    "FileKeyStore",
    "JwtAuthenticator",
    "KeyRecord",
    "KeyStore",
]
