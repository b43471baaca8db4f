"""Base64 in its one canonical form (RFC 4648 sections 3.5 and 4): each text has one value, and each value one text."""

from __future__ import annotations

from base64 import b64encode
from binascii import a2b_base64


def encoded_length(size: int) -> int:
    """Return how many characters so many bytes have in base64."""
    return (size + 2) // 3 * 4


def decoded_size(text: str) -> int | None:
    """Return how many bytes a text has by its length and padding, without decoding; None if it is no base64."""
    padding = len(text[-2:]) - len(text[-2:].rstrip("="))
    return None if len(text) % 4 else len(text) // 4 * 3 - padding


def decode(text: str) -> bytes:
    """Return the bytes.

    :raises ValueError: characters outside the alphabet, white space included, or padding that is missing, too much,
        or has bits that the bytes do not have. The text of the error says nothing about the value.
    """
    try:
        data = a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ValueError("not base64") from None
    rest = len(data) % 3
    if len(text) != encoded_length(len(data)) or (rest and text[-4:] != b64encode(data[-rest:]).decode()):
        raise ValueError("not canonical base64")
    return data
