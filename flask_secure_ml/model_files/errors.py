"""The errors of model files.

The tree::

    ModelFileError
     +- UnreadableModel    it is missing, too large, or not a plain file
     +- UnverifiedModel    its digest or signature is missing or wrong: nothing of it was parsed
     +- UnsafeModel        it is the right file, and loading it could run code
"""

from __future__ import annotations

import os


class ModelFileError(Exception):
    """A model file cannot be used; the message has the file, what is wrong with it, and what to do next.

    These errors belong to the start of an app and name paths and digests: they are for operators, not for clients.

    :param path: the file or directory.
    :param problem: what is wrong, as a clause.
    :param remedy: what to do, as a sentence without its full stop.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str) -> None:
        self.path: str = os.fspath(path)
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{self.path}: {problem}. {remedy}.")


class UnreadableModel(ModelFileError):
    """The file is missing, too large, or not a plain file."""


class UnverifiedModel(ModelFileError):
    """The digest or the signature is missing, malformed, or of other content. Nothing of the file was parsed."""


class UnsafeModel(ModelFileError):
    """Loading the file could run code that is in it, or read files that nobody verified, and that was not allowed."""
