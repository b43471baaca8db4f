"""The keys of an audit log: the keys of the app, and the verification key on another machine.

The app can seal the first key of a stream and sign checkpoints. Only the verification key can unseal it, so an attacker
who compromises the app cannot compute the codes of records that were already written.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .checkpoint import origin_of, public_key, verifier_key
from .records import canonical

log: logging.Logger = logging.getLogger(__name__)

APP_KEYS = "keys.json"
KEY_BYTES = 32
_PUBLIC_BYTES = 32
# The key is used once, so its nonce is fixed (RFC 8439 section 2.8).
_NONCE = bytes(12)
_SEAL = b"flask-secure-ml audit: sealed stream key"
_HEADER = b"flask-secure-ml audit: stream header\n"
_RATCHET = b"flask-secure-ml audit: next key\n"
_ORIGIN = re.compile(r"[A-Za-z0-9._/-]{1,128}")


class KeyFileError(ValueError):
    """A key file is missing or damaged; the message says what to do."""


def next_key(key: bytes | bytearray) -> bytes:
    """Return the key of the next record, from which this one cannot be computed."""
    return sha256(_RATCHET + key).digest()


def mac_of(key: bytes | bytearray, record: bytes) -> str:
    """Return the code of a record under its key: HMAC-SHA-256 (RFC 2104), in hexadecimal."""
    return hmac.digest(key, record, "sha256").hex()


@dataclass(frozen=True)
class AppKeys:
    """The keys that the app needs to write the log.

    :param origin: the name of the log, in checkpoints.
    """

    origin: str
    sealing: X25519PublicKey = field(repr=False)
    signing: Ed25519PrivateKey = field(repr=False)
    digest: bytes = field(repr=False)

    def seal(self, key: bytes | bytearray, header: Mapping[str, Any]) -> str:
        """Return a key of a stream, sealed to the verification key (X25519, HKDF, ChaCha20-Poly1305).

        :param header: the stream, segment and number of the record; authenticated with it.
        """
        ephemeral = X25519PrivateKey.generate()
        public = ephemeral.public_key().public_bytes_raw()
        secret = _derived(ephemeral.exchange(self.sealing), public + self.sealing.public_bytes_raw())
        return _encoded(public + ChaCha20Poly1305(secret).encrypt(_NONCE, bytes(key), canonical(header)))

    def sign_header(self, header: Mapping[str, Any], sealed: str) -> str:
        """Return the signature of a segment's header, so that only the app can start a stream."""
        return _encoded(self.signing.sign(_HEADER + canonical({**header, "sealed": sealed})))

    def digest_of(self, body: bytes) -> str:
        """Return the HMAC-SHA-256 of an input, in hexadecimal."""
        # Copying a keyed object takes half as long as creating one. The computation releases the GIL.
        found = self._keyed.copy()
        found.update(body)
        return found.hexdigest()

    @cached_property
    def _keyed(self) -> hmac.HMAC:
        return hmac.new(self.digest, digestmod=sha256)


@dataclass(frozen=True)
class VerificationKey:
    """Unseals keys and verifies signatures; never stored on the machine of the app."""

    origin: str
    verifier: str
    sealing: X25519PrivateKey = field(repr=False)

    def unseal(self, sealed: str, header: Mapping[str, Any]) -> bytes | None:
        """Return a key of a stream; None if it was not sealed to this key for this header."""
        try:
            data = b64decode(sealed, validate=True)
            public, ciphertext = data[:_PUBLIC_BYTES], data[_PUBLIC_BYTES:]
            shared = self.sealing.exchange(X25519PublicKey.from_public_bytes(public))
            secret = _derived(shared, public + self.sealing.public_key().public_bytes_raw())
            return ChaCha20Poly1305(secret).decrypt(_NONCE, ciphertext, canonical(header))
        except (ValueError, TypeError, InvalidTag):
            return None

    def verifies(self, signature: str, header: Mapping[str, Any], sealed: str) -> bool:
        """Return True if the app signed the header of a segment."""
        try:
            signed = _HEADER + canonical({**header, "sealed": sealed})
            public_key(self.verifier).verify(b64decode(signature, validate=True), signed)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def make_keys(folder: Path, verification_key: Path, origin: str) -> str:
    """Create the directory of a log with the keys of the app, and the verification key; return the verifier key.

    :raises ValueError: the origin has invalid characters, or the verification key would be inside the directory.
    :raises FileExistsError: the keys already exist.
    """
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("the origin must have 1 to 128 letters, digits and ._/-")
    if folder.resolve() in verification_key.resolve().parents:
        raise ValueError("the verification key must not be in the log directory: anyone who reads it can forge records")
    sealing, signing = X25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    verifier = verifier_key(origin, signing)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / APP_KEYS).exists():
        raise FileExistsError(
            f"{folder / APP_KEYS} already exists, so this log can be used; for a new one, choose another directory"
        )
    _write(verification_key, {"origin": origin, "sealing": sealing.private_bytes_raw(), "verifier": verifier})
    try:
        _write(
            folder / APP_KEYS,
            {
                "origin": origin,
                "sealing": sealing.public_key().public_bytes_raw(),
                "signing": signing.private_bytes_raw(),
                "digest": os.urandom(KEY_BYTES),
            },
        )
    except OSError:
        verification_key.unlink()
        raise
    return verifier


def load_app_keys(folder: Path) -> AppKeys:
    """Return the keys of the app.

    :raises KeyFileError: the file is missing or damaged.
    """
    path = folder / APP_KEYS
    if not path.exists():
        raise KeyFileError(
            f"{path} does not exist; create it with: flask secure-ml audit init {folder} --verification-key PATH"
        )
    found = _read(path)
    if path.stat().st_mode & 0o077:
        log.warning("%s can be read or written by users other than its owner; run chmod 600", path)
    try:
        return AppKeys(
            str(found["origin"]),
            X25519PublicKey.from_public_bytes(b64decode(found["sealing"])),
            Ed25519PrivateKey.from_private_bytes(b64decode(found["signing"])),
            b64decode(found["digest"]),
        )
    except (KeyError, TypeError, ValueError):
        raise KeyFileError(f"{path} is damaged") from None


def load_verification_key(path: Path) -> VerificationKey:
    """Return the verification key.

    :raises KeyFileError: the file is missing or damaged.
    """
    found = _read(path)
    try:
        verifier = str(found["verifier"])
        sealing = X25519PrivateKey.from_private_bytes(b64decode(found["sealing"]))
        return VerificationKey(origin_of(verifier), verifier, sealing)
    except (KeyError, TypeError, ValueError):
        raise KeyFileError(f"{path} is not the verification key of an audit log") from None


def _derived(shared: bytes, context: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=_SEAL + context).derive(shared)


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()


def _write(path: Path, members: Mapping[str, str | bytes]) -> None:
    encoded = {name: _encoded(each) if isinstance(each, bytes) else each for name, each in members.items()}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps(encoded, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(descriptor)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise KeyFileError(f"{path} is damaged") from None
    if not isinstance(found, dict):
        raise KeyFileError(f"{path} is damaged")
    return found
