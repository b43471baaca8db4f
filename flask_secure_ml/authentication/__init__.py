"""Who is calling: authenticators for API keys and access tokens, and the guard that asks them."""

from .api_keys.authenticator import ApiKeyAuthenticator
from .api_keys.file_store import FileKeyStore
from .api_keys.key import KeyRecord, KeyStore
from .guard import AuthenticationGuard, Authenticator
from .tokens.jwt import JwtVerifier

__all__ = [
    "ApiKeyAuthenticator",
    "AuthenticationGuard",
    "Authenticator",
    "FileKeyStore",
    "JwtVerifier",
    "KeyRecord",
    "KeyStore",
]
