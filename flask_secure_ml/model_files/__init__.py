"""Loading model files: verified before parsing, and rejected if loading them could run code or read other files."""

from .files import (
    ModelFileError,
    UnreadableModel,
    UnsafeModel,
    UnverifiedModel,
    read_directory,
    read_file,
    verified_copy,
)
from .formats import KINDS, Finding, find_code
from .integrity import SignatureVerifier, directory_digest, file_digest, read_digest
from .loading import load_verified, load_verified_copy, load_verified_directory

__all__ = [
    "KINDS",
    "Finding",
    "ModelFileError",
    "SignatureVerifier",
    "UnreadableModel",
    "UnsafeModel",
    "UnverifiedModel",
    "directory_digest",
    "file_digest",
    "find_code",
    "load_verified",
    "load_verified_copy",
    "load_verified_directory",
    "read_digest",
    "read_directory",
    "read_file",
    "verified_copy",
]
