"""API keys in the standard schemes that many clients send: ``Authorization: Bearer`` and ``Authorization: Basic``.

Each is a separate authenticator for the same keys, and used only if ``SECURE_ML_API_KEY_SCHEMES`` names it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import NoReturn

from flask import Request

from ...errors import MalformedRequest, NotAuthenticated
from ...exchange import Exchange
from ...policy.cors import is_own_origin
from ...principal import Principal
from ..guard import single_value, token68
from ..throttle import UNLIMITED, Calls
from .authenticator import ApiKeyAuthenticator
from .key import PREFIX

MAX_BASIC = 1024
"""The maximum number of characters after ``Basic``; a key and a long user name need about a third of it."""

_OWN_SITE = frozenset({"same-origin", "none"})


class BearerKeys:
    """Accepts ``Authorization: Bearer <key>``, as clients of the OpenAI API send it.

    A value with the prefix of a key, even an invalid one, is treated as a key and never passed to a token verifier.

    :param alone: no other authenticator uses this scheme, so every value is treated as a key.
    """

    name = "api_key_bearer"
    challenge = "Bearer"

    def __init__(self, keys: ApiKeyAuthenticator, *, alone: bool) -> None:
        self._keys = keys
        self._alone = alone

    def find(self, request: Request, exchange: Exchange) -> str | None:
        """Return the key.

        :raises MalformedRequest: the value after ``Bearer`` is not one b64token.
        """
        value = token68(request, "bearer")
        return value if value is None or self._alone or value.startswith(PREFIX) else None

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        """Return the principal of the key; raises as :meth:`ApiKeyAuthenticator.verify` does."""
        return self._keys.verify(credential, exchange)


class BasicKeys:
    """Accepts a key as the password of ``Authorization: Basic`` (RFC 7617); the user name is ignored.

    :param alone: no other authenticator uses this scheme, so every password is treated as a key.
    """

    name = "api_key_basic"
    challenge = 'Basic charset="UTF-8"'

    def __init__(self, keys: ApiKeyAuthenticator, *, alone: bool) -> None:
        self._keys = keys
        self._alone = alone

    def find(self, request: Request, exchange: Exchange) -> str | None:
        """Return the key.

        :raises MalformedRequest: the value is malformed, or a browser sent it for a page of another site.
        """
        value = single_value(request, "basic")
        if value is None:
            return None
        try:
            password = _password(value)
        except MalformedRequest:
            if self._alone:
                raise
            return None
        if not (self._alone or password.startswith(PREFIX)):
            return None
        if _is_of_another_site(request):
            raise MalformedRequest("Basic credentials in a cross-site request of a browser")
        return password

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        """Return the principal of the key; raises as :meth:`ApiKeyAuthenticator.verify` does."""
        return self._keys.verify(credential, exchange)


def _is_of_another_site(request: Request) -> bool:
    """Return True if a browser sent its stored password in a request that a page of another site made.

    Old browsers, and all browsers over clear text, do not send ``Sec-Fetch-Site``. They send ``Origin`` with requests
    that can change state.
    """
    site, origin = request.environ.get("HTTP_SEC_FETCH_SITE"), request.environ.get("HTTP_ORIGIN")
    if site is not None:
        return site not in _OWN_SITE
    return origin is not None and not is_own_origin(origin, request.scheme, request.host)


def _password(value: str) -> str:
    """Return the password in Basic credentials.

    :raises MalformedRequest: they are too long, not canonical base64 or not UTF-8, or have a control character or no
        colon.
    """
    if len(value) > MAX_BASIC:
        raise MalformedRequest("the value after Basic is too long")
    try:
        raw = b64decode(value, validate=True)
        text = raw.decode()
    except ValueError:
        raise MalformedRequest("the value after Basic is not the base64 of UTF-8") from None
    if b64encode(raw).decode() != value:
        raise MalformedRequest("the value after Basic is not canonical base64")
    if any(ord(each) < ord(" ") or "\x7f" <= each <= "\x9f" for each in text):
        raise MalformedRequest("the value after Basic has a control character")
    _, colon, password = text.partition(":")
    if not colon:
        raise MalformedRequest("the value after Basic has no colon")
    return password


class KeysAreNoTokens:
    """Rejects API keys that are sent as access tokens, so that they never reach an introspection endpoint."""

    def accepts(self, token: str) -> bool:
        """Return True if a string has the prefix of an API key."""
        return token.startswith(PREFIX)

    def verify(self, token: str, calls: Calls = UNLIMITED) -> NoReturn:
        """Reject it.

        :raises NotAuthenticated: always.
        """
        raise NotAuthenticated("an API key was sent as an access token")
