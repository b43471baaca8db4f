"""AUTHENTICATE: who is calling. Authenticators for API keys, access tokens and certificates, and the guard over them.

What an app does not use is not imported: ``setup`` imports each authentication method where the settings turn it on.
"""

from .guard import AuthenticationGuard, Authenticator

__all__ = ["AuthenticationGuard", "Authenticator"]
