"""The Merkle tree of RFC 6962 section 2.1, limited to appending and the root hash."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + leaf).digest()


class Tree:
    """An append-only tree.

    :param size: the number of leaves.
    :param hashes: the roots of its complete subtrees, largest first; one for each set bit of the size.
    """

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size: int = size
        self.hashes: list[bytes] = list(hashes)
        if len(self.hashes) != size.bit_count() or any(len(each) != sha256().digest_size for each in self.hashes):
            raise ValueError("the hashes do not match the size of the tree")

    def append(self, leaf: bytes) -> None:
        """Append a leaf."""
        node, size = leaf_hash(leaf), self.size
        while size & 1:
            node = _node(self.hashes.pop(), node)
            size >>= 1
        self.hashes.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the Merkle tree hash."""
        if not self.hashes:
            return sha256().digest()
        root = self.hashes[-1]
        for each in reversed(self.hashes[:-1]):
            root = _node(each, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
