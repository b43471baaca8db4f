"""The text of an API key: how it is made, told from noise, and hashed.

A key reads ``sml_<id>_<secret><checksum>``: 12 characters that name it, 43 random ones (256 bits) and 6 that
hold a CRC-32 of all before, so that a scanner for leaked secrets can tell a key from noise. All are base62.
Only an HMAC-SHA-256 of the whole text under the pepper is stored; a slow hash would add nothing against 256
random bits and cost each request 100 ms.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
import zlib

from ..secrets import SecretRing

ALPHABET = string.digits + string.ascii_letters
NOBODY = f"sml_{'-' * 12}_{'0' * 49}"
"""Takes the place of a text that is no key, so that it costs as much as one; no key has such an id."""

_FORM = re.compile(r"sml_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")
_SCHEME = "hmac-sha256:"
NO_HASH = _SCHEME + "0" * 64


def new_key() -> str:
    """Return the text of a new key; it is nowhere else, so hand it out or lose it."""
    body = f"sml_{_random(12)}_{_random(43)}"
    return body + checksum(body)


def has_form(text: str) -> bool:
    """Tell whether a text is as long as a key and has its characters; the checksum is not looked at."""
    return _FORM.fullmatch(text) is not None


def key_id(text: str) -> str | None:
    """Return the id of a key, or None for a text that is not in the form of a key or has a wrong checksum."""
    return id_part(text) if has_form(text) and checksum(text[:-6]) == text[-6:] else None


def id_part(text: str) -> str:
    """Return what is the id in a text that has the form of a key."""
    return text[4:16]


def checksum(body: str) -> str:
    """Return the CRC-32 of a key without its last six characters, in base62."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def hash_key(text: str, pepper: bytes) -> str:
    """Return what is stored of a key."""
    return _SCHEME + hmac.digest(pepper, text.encode(), "sha256").hex()


class KeyHasher:
    """Hashes keys under every secret of a ring.

    The secrets are read for every key, so a changed file counts at once. What is kept is the HMAC after it has taken
    in the secret: setting that up would be more than half of the work.

    :param pepper: the secrets, newest first.
    """

    def __init__(self, pepper: SecretRing) -> None:
        self._pepper = pepper
        self._keyed: tuple[tuple[bytes, ...], list[hmac.HMAC]] = ((), [])

    def hashes(self, text: str) -> list[str]:
        """Return :func:`hash_key` of a text under each secret, newest first, always under all of them.

        :raises ValueError: a secret cannot be read.
        """
        secrets_now = self._pepper.read()
        read, keyed = self._keyed
        if read != secrets_now:
            keyed = [hmac.new(secret, digestmod="sha256") for secret in secrets_now]
            self._keyed = (secrets_now, keyed)
        raw = text.encode()
        return [_finish(each.copy(), raw) for each in keyed]


def _finish(keyed: hmac.HMAC, raw: bytes) -> str:
    keyed.update(raw)
    return _SCHEME + keyed.hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
