"""AUTHENTICATE: authenticators for API keys, access tokens and certificates, and the guard that calls them.

An app imports only what it uses: ``setup`` imports each authentication method only if the settings turn it on.
"""

from .guard import AuthenticationGuard, Authenticator

__all__ = ["AuthenticationGuard", "Authenticator"]
