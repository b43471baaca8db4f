"""The :class:`FilePath` field: the path of a file within one folder, chosen by the client.

It prevents path traversal (CWE-22), links out of the folder (CWE-59), and names that a command would parse as an option
or that are special to a shell (CWE-88).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from . import AnyField, checked_count, required_by_default

# Each part begins with a letter, a digit or an underscore, so it is neither hidden, nor "..", nor an option.
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_SUFFIX = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9._-]*")
_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "invalid": "Not the name of a file.",
    "max_length": "Must have at most {max_length} characters.",
    "suffix": "Must end with {suffixes}.",
    "file": "There is no such file.",
}


class FilePath(AnyField):
    """The path of an existing file, relative to a folder, such as ``iris/v2.onnx``.

    Path segments consist of ASCII letters, digits, ``.``, ``_`` and ``-``, and do not begin with ``.`` or ``-``. Links
    are followed, but not out of the folder. A path that does not exist, is not a file, or is outside the folder gets
    the same error.

    :param folder: the folder. It is resolved at each load, so it may be replaced as a whole.
    :param suffixes: the allowed endings of the name, such as ``[".onnx"]``; None allows any.
    :param max_length: the maximum length of the path in characters.
    :raises TypeError, ValueError: the definition is invalid.

    Loaded as the resolved :class:`pathlib.Path`. Required unless ``required=False`` or ``load_default`` is given.
    Only trusted users may write to the folder: a file could be replaced by a link after the check.
    """

    default_error_messages = _MESSAGES

    def __init__(
        self, folder: str | Path, *, suffixes: Collection[str] | None = None, max_length: int = 255, **options: Any
    ) -> None:
        self.folder: Path = Path(folder)
        self.suffixes: tuple[str, ...] | None = None if suffixes is None else _checked_suffixes(suffixes)
        self.max_length: int = checked_count("max_length", max_length)
        super().__init__(**required_by_default(options))

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_kwargs: Any) -> Path:
        if type(value) is not str:
            raise self.make_error("invalid")
        if len(value) > self.max_length:
            raise self.make_error("max_length", max_length=self.max_length)
        if not _PATH.fullmatch(value):
            raise self.make_error("invalid")
        if self.suffixes is not None and not value.endswith(self.suffixes):
            raise self.make_error("suffix", suffixes=" or ".join(self.suffixes))
        return self._within_folder(value)

    def _within_folder(self, value: str) -> Path:
        try:
            folder = self.folder.resolve(strict=True)
            found = (folder / value).resolve(strict=True)
            is_file = found.is_file()
        except (OSError, RuntimeError):
            # A symlink loop raises RuntimeError before Python 3.13.
            raise self.make_error("file") from None
        if not is_file or not found.is_relative_to(folder):
            raise self.make_error("file")
        return found

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_kwargs: Any) -> Any:
        """Return the path relative to the folder, as a client sends it."""
        return None if value is None else Path(value).relative_to(self.folder.resolve()).as_posix()


def _checked_suffixes(suffixes: Collection[str]) -> tuple[str, ...]:
    found = () if isinstance(suffixes, str) else tuple(suffixes)
    if not found or not all(isinstance(each, str) and _SUFFIX.fullmatch(each) for each in found):
        raise ValueError("suffixes must be a list such as ['.onnx']")
    return found
