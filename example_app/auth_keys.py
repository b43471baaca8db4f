"""The signing keys of the example authorization server, and their rotation: ``python -m example_app.auth_setup``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from .files import PRIVATE, write

ALGORITHM = "ES256"
CURVE = "P-256"
PUBLISHED = 3
"""The maximum number of published keys: the signing key and the public parts of earlier ones."""


class SigningKeysError(Exception):
    """The file of keys cannot be used. The message has a remedy."""


class SigningKeys:
    """The keys in one file, newest first: the first one signs, all are published.

    The file is read for each use, so that all workers see a rotation at once. A busy server would cache it.

    :param path: the file, which only its owner can read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def ensure(self) -> None:
        """Create the first key if there is none."""
        if not self._path.exists():
            self._write([])

    def rotate(self) -> str:
        """Create a new signing key. Existing tokens stay valid, because the previous key stays published.

        :return: the ``kid`` of the new key.
        :raises SigningKeysError: the file is missing or invalid.
        """
        return self._write(self.public()["keys"])

    def signing(self) -> KeySet:
        """Return a key set with only the newest key; with a set, the token's header gets the ``kid``.

        :raises SigningKeysError: the file is missing or invalid.
        """
        return KeySet([self._read()[0]])

    def public(self) -> dict[str, Any]:
        """Return the public JWK Set (RFC 7517), without private parts.

        :raises SigningKeysError: the file is missing or invalid.
        """
        return {"keys": [each.as_dict(private=False) for each in self._read()]}

    def _read(self) -> list[ECKey]:
        try:
            keys = [ECKey.import_key(each) for each in json.loads(self._path.read_bytes())["keys"]]
        except OSError as error:
            raise SigningKeysError(
                f"cannot read {self._path}: {error.strerror}; python -m example_app.auth_setup creates it"
            ) from None
        except (JoseError, KeyError, TypeError, ValueError):
            keys = []
        if not keys or not keys[0].is_private:
            raise SigningKeysError(f"{self._path} is not a file of signing keys; delete it and start again")
        return keys

    def _write(self, others: list[dict[str, Any]]) -> str:
        key = ECKey.generate_key(CURVE, {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
        keys = [key.as_dict(private=True), *others][:PUBLISHED]
        write(self._path, json.dumps({"keys": keys}).encode(), PRIVATE)
        return str(key.kid)
