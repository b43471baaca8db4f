"""Checkpoints: the root of the index, signed, in the note format of C2SP (tlog-checkpoint and signed-note)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .tree import Tree

_ED25519 = b"\x01"
_HASH_BYTES = 4
# At most sixteen extension lines: otherwise the time for a file of unfinished notes grows quadratically.
_NOTE = re.compile(
    r"^(?P<text>(?P<origin>[^\n]+)\n(?P<size>0|[1-9][0-9]{0,17})\n(?P<root>[A-Za-z0-9+/]{43}=)\n(?:[^\n]+\n){0,16})"
    r"\n(?P<signatures>(?:\N{EM DASH} [^\n ]+ [A-Za-z0-9+/=]+\n)+)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size and root of the index."""

    size: int
    root: bytes


def sign(tree: Tree, origin: str, key: Ed25519PrivateKey) -> str:
    """Return the signed note for a tree."""
    body = f"{origin}\n{tree.size}\n{_encoded(tree.root())}\n"
    public = key.public_key().public_bytes_raw()
    signature = _encoded(_key_hash(origin, public) + key.sign(body.encode()))
    return f"{body}\n\N{EM DASH} {origin} {signature}\n"


def notes_in(content: str, verifier: str) -> Iterator[Checkpoint | None]:
    """Yield the checkpoint of each note in a file; None for a note without a valid signature of this key.

    :param verifier: the verifier key of the notes.
    :raises ValueError: the verifier key is invalid.
    """
    name, public = _parsed(verifier)
    for note in _NOTE.finditer(content):
        valid = note["origin"] == name and any(
            _verifies(public, name, note["text"], line) for line in note["signatures"].splitlines()
        )
        yield Checkpoint(int(note["size"]), b64decode(note["root"])) if valid else None


def verifier_key(origin: str, key: Ed25519PrivateKey) -> str:
    """Return the verifier key (signed-note), which contains the origin and the public key."""
    public = key.public_key().public_bytes_raw()
    return f"{origin}+{_key_hash(origin, public).hex()}+{_encoded(_ED25519 + public)}"


def public_key(verifier: str) -> Ed25519PublicKey:
    """Return the public key in a verifier key.

    :raises ValueError: it has another format.
    """
    return Ed25519PublicKey.from_public_bytes(_parsed(verifier)[1])


def origin_of(verifier: str) -> str:
    """Return the origin in a verifier key.

    :raises ValueError: it has another format.
    """
    return _parsed(verifier)[0]


def _parsed(verifier: str) -> tuple[str, bytes]:
    name, _, rest = verifier.partition("+")
    hashed, _, encoded = rest.partition("+")
    key = b64decode(encoded, validate=True)
    if key[:1] != _ED25519 or _key_hash(name, key[1:]).hex() != hashed:
        raise ValueError("it has no valid verifier key")
    return name, key[1:]


def _verifies(public: bytes, name: str, signed: str, line: str) -> bool:
    _, signer, encoded = line.split(" ")
    try:
        signature = b64decode(encoded, validate=True)
        if signer != name or signature[:_HASH_BYTES] != _key_hash(name, public):
            return False
        Ed25519PublicKey.from_public_bytes(public).verify(signature[_HASH_BYTES:], signed.encode())
    except (ValueError, InvalidSignature):
        return False
    return True


def _key_hash(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_HASH_BYTES]


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()
