"""The credential in the ``Authorization`` header (RFC 9110 section 11.6.2, RFC 6750 section 2.1)."""

from __future__ import annotations

import re

from flask import Request

from ..errors import MalformedRequest

# A comma, then a scheme and its credentials: how servers join two Authorization headers. The parameters of
# Digest do not match, because "name=value" has no space after the name.
_SECOND_CREDENTIAL = re.compile(r", *[!#$%&'*+.^_`|~0-9A-Za-z-]+ +[^ =]")
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def authorization(request: Request) -> tuple[str, str] | None:
    """Return the lower-case scheme and the credentials of the ``Authorization`` header (RFC 9110 section 11.6.2).

    :returns: None when the header is absent or empty.
    :raises MalformedRequest: control characters, bytes beyond ASCII, or two credentials.
    """
    header: str = request.environ.get("HTTP_AUTHORIZATION", "").strip(" ")
    if not header:
        return None
    if not (header.isascii() and header.isprintable()):
        raise MalformedRequest("the Authorization header has characters that are not printable ASCII")
    if _SECOND_CREDENTIAL.search(header):
        raise MalformedRequest("two Authorization headers, or two credentials in one")
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), rest.strip(" ")


def single_value(request: Request, scheme: str) -> str | None:
    """Return the one value that follows a scheme in ``Authorization``, or None for another scheme or no header.

    :param scheme: in lower case.
    :raises MalformedRequest: no value, several values or a comma after the scheme (RFC 6750 section 3.1).
    """
    found = authorization(request)
    if found is None or found[0] != scheme:
        return None
    if not found[1] or " " in found[1] or "," in found[1]:
        raise MalformedRequest(f"the scheme {scheme} needs exactly one value after it")
    return found[1]


def token68(request: Request, scheme: str) -> str | None:
    """Return the token that follows a scheme, or None for another scheme or no header (RFC 6750 section 2.1).

    :param scheme: in lower case.
    :raises MalformedRequest: the value is not one b64token.
    """
    token = single_value(request, scheme)
    if token is not None and not _B64TOKEN.fullmatch(token):
        raise MalformedRequest(f"the value after {scheme} has characters that no token has")
    return token
