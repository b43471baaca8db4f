"""The :class:`Text` field: strings in one Unicode normalisation form, without invisible or control characters.

Lone surrogates and noncharacters (Unicode 16.0, sections 2.4 and 23.7) are always rejected. Control characters
(category Cc), bidirectional formatting characters (UAX 9, section 2) and other invisible characters are handled
according to the options.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal
from unicodedata import category, combining, normalize

from marshmallow import fields

from . import checked_count, required_by_default

_CONTROLS = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
_BIDI = frozenset(map(chr, (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_SURROGATE = re.compile("[\ud800-\udfff]")
_NONCHARACTER = re.compile(
    "[\ufdd0-\ufdef" + "".join(chr(plane * 0x10000 + low) for plane in range(17) for low in (0xFFFE, 0xFFFF)) + "]"
)
# Sorting combining characters takes quadratic time, so runs of them are limited as in the Stream-Safe Text Format
# (UAX 15, section 12). The five are not combining characters themselves, but decompose into some.
_RUN = re.compile(rb"[^\0]{31}")
_DECOMPOSE_TO_MARKS = dict.fromkeys((0x0F73, 0x0F75, 0x0F81, 0xFF9E, 0xFF9F), "\u0301")
# The maximum number of characters that compose into one: a string more than this many times too long stays too long.
_SHRINKS = 4
_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "invalid": "Not a string.",
    "min_length": "Must have at least {min_length} characters.",
    "max_length": "Must have at most {max_length} characters.",
    "max_bytes": "Must have at most {max_bytes} bytes in UTF-8.",
    "surrogate": "Has half of a surrogate pair.",
    "control": "Has a control character.",
    "bidi": "Has a control of writing direction.",
    "invisible": "Has an invisible character.",
    "noncharacter": "Has a code point that is not a character.",
    "unassigned": "Has a character that is not assigned.",
    "combining": "Has too many combining characters in a row.",
}


class Text(fields.String):
    """A string in one Unicode form.

    :param max_length: the maximum length in characters (code points), after normalisation.
    :param min_length: the minimum length in characters.
    :param max_bytes: the maximum length in bytes of UTF-8, after normalisation.
    :param normalise: the normalisation form (UAX 15): NFC, NFKC, or None to load the string as sent. With a form, more
        than 30 combining characters in a row are rejected, because sorting them takes quadratic time.
    :param control: ``reject`` or ``strip`` control characters other than those in ``keep``.
    :param keep: control characters that are allowed.
    :param bidi: ``reject``, ``strip`` or ``allow`` bidirectional formatting characters, which can make a string look
        like another one.
    :param invisible: ``reject``, ``strip`` or ``allow`` other characters that a model reads but people do not see,
        such as tag characters and zero-width spaces, and the line and paragraph separators, which ``strip`` replaces
        by a newline (a space if ``keep`` has none). Joiners, variation selectors and flags are allowed where scripts
        and emoji need them, see :mod:`flask_secure_ml.inputs.fields.text`.
    :param unassigned: ``reject`` or ``allow`` characters that are unassigned in this Python's version of Unicode, such
        as new emoji.
    :raises TypeError, ValueError: the definition is invalid.

    Required unless ``required=False`` or ``load_default`` is given, and loaded as a :class:`str`.
    """

    default_error_messages = _MESSAGES
    # For this class, not for subclasses: the result depends only on the value.
    loads_by_value_alone = True

    def __init__(
        self,
        max_length: int = 1_000,
        *,
        min_length: int = 0,
        max_bytes: int | None = None,
        normalise: Literal["NFC", "NFKC"] | None = "NFC",
        control: Literal["reject", "strip"] = "reject",
        keep: str = "\t\n",
        bidi: Literal["reject", "strip", "allow"] = "reject",
        invisible: Literal["reject", "strip", "allow"] = "reject",
        unassigned: Literal["reject", "allow"] = "allow",
        **options: Any,
    ) -> None:
        self.max_length: int = checked_count("max_length", max_length)
        self.min_length: int = min_length and checked_count("min_length", min_length)
        self.max_bytes: int | None = None if max_bytes is None else checked_count("max_bytes", max_bytes)
        if self.min_length > self.max_length:
            raise ValueError("min_length must not be greater than max_length")
        self.normalise: Literal["NFC", "NFKC"] | None = _one_of("normalise", normalise, ("NFC", "NFKC", None))
        self.unassigned: str = _one_of("unassigned", unassigned, ("reject", "allow"))
        self.control: str = _one_of("control", control, ("reject", "strip"))
        self.bidi: str = _one_of("bidi", bidi, ("reject", "strip", "allow"))
        self.invisible: str = _one_of("invisible", invisible, ("reject", "strip", "allow"))
        self._separator = "\n" if "\n" in keep else " "
        policies = {"control": (self.control, _CONTROLS - _kept(keep)), "bidi": (self.bidi, _BIDI)}
        self._rejected = {key: those for key, (policy, those) in policies.items() if policy == "reject"}
        self._stripped = {ord(each): None for policy, those in policies.values() if policy == "strip" for each in those}
        super().__init__(**required_by_default(options))

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_kwargs: Any) -> str:
        if type(value) is not str:
            raise self.make_error("invalid")
        self._check_longest(value, self.max_length * _SHRINKS)
        text = self._normal(self._clean(value))
        self._check_longest(text, self.max_length)
        if len(text) < self.min_length:
            raise self.make_error("min_length", min_length=self.min_length)
        if self.max_bytes is not None and len(text.encode()) > self.max_bytes:
            raise self.make_error("max_bytes", max_bytes=self.max_bytes)
        return text

    def _check_longest(self, text: str, longest: int) -> None:
        if len(text) > longest:
            raise self.make_error("max_length", max_length=self.max_length)

    def _clean(self, text: str) -> str:
        if self._stripped:
            text = text.translate(self._stripped)
        characters = set(text)
        for key, rejected in self._rejected.items():
            if characters & rejected:
                raise self.make_error(key)
        if text.isascii():
            return text
        self._check_assigned(text, characters)
        return self._visible(text)

    def _visible(self, text: str) -> str:
        if self.invisible == "reject" and is_hiding(text):
            raise self.make_error("invisible")
        return without(text, self._separator) if self.invisible == "strip" else text

    def _check_assigned(self, text: str, characters: Collection[str]) -> None:
        if _SURROGATE.search(text):
            raise self.make_error("surrogate")
        if _NONCHARACTER.search(text):
            raise self.make_error("noncharacter")
        if self.unassigned == "reject" and "Cn" in map(category, characters):
            raise self.make_error("unassigned")

    def _normal(self, text: str) -> str:
        if self.normalise is None or text.isascii():
            return text
        if _has_long_run(text):
            raise self.make_error("combining")
        return normalize(self.normalise, text)


def _has_long_run(text: str) -> bool:
    # In most strings, the set of distinct characters has no combining mark.
    if not any(map(combining, "".join(set(text)).translate(_DECOMPOSE_TO_MARKS))):
        return False
    return _RUN.search(bytes(map(combining, text.translate(_DECOMPOSE_TO_MARKS)))) is not None


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}")
    return value


def _kept(keep: str) -> frozenset[str]:
    if not isinstance(keep, str) or not _CONTROLS.issuperset(keep):
        raise ValueError("keep must be control characters, such as '\\t\\n'")
    return frozenset(keep)


_JOINERS = "\u200c\u200d"
_SELECTORS = "\ufe00-\ufe0f"
_LETTER_SELECTORS = "\u180b-\u180f\U000e0100-\U000e01ef"
_SEPARATORS = "\u2028\u2029"
_NEVER = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u200b"
    f"{_SEPARATORS}"
    "\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_FLAG = "\U0001f3f4" + "(?:{})\U000e007f".format(
    "|".join("".join(chr(0xE0000 + ord(letter)) for letter in region) for region in ("gbeng", "gbsct", "gbwls"))
)
_SUSPECT = re.compile(f"[{_JOINERS}{_SELECTORS}{_LETTER_SELECTORS}{_NEVER}]")
_KINDS = re.compile(
    f"(?P<joiner>[{_JOINERS}])|(?P<selector>[{_SELECTORS}])|(?P<letter_selector>[{_LETTER_SELECTORS}])"
    f"|(?P<flag>{_FLAG})|(?P<never>[{_NEVER}])"
)
# Letters without case, marks, and symbols such as emoji.
_JOINED = frozenset({"Lo", "Lm", "Mn", "Mc", "Me", "So", "Sk"})
_SELECTABLE_ASCII = frozenset("0123456789#*")


def is_hiding(text: str) -> bool:
    """Return True if a string has an invisible character where it is not needed."""
    return _SUSPECT.search(text) is not None and any(not needed for _, needed in _parts(text))


def without(text: str, separator: str) -> str:
    """Return a string without unneeded invisible characters.

    :param separator: the replacement for line and paragraph separators.
    """
    if _SUSPECT.search(text) is None:
        return text
    return "".join(part if needed else separator if part in _SEPARATORS else "" for part, needed in _parts(text))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a string in pieces, each with a flag for needed ones.

    Whether a piece is needed depends on the last needed character before it, so removing pieces does not change the
    result for others.
    """
    end, before = 0, ""
    for found in _KINDS.finditer(text):
        start = found.start()
        if start > end:
            yield text[end:start], True
            before = text[start - 1]
        end = found.end()
        needed = _is_needed(found.lastgroup, before, text[end : end + 1])
        yield found[0], needed
        before = text[end - 1] if needed else before
    yield text[end:], True


def _is_needed(kind: str | None, before: str, after: str) -> bool:
    if kind == "joiner":
        return (_is_joined(before) or _is_joined(after)) and not _SUSPECT.match(after)
    if kind == "flag":
        return True
    if kind == "never" or not before or _SUSPECT.match(before):
        return False
    if kind == "letter_selector":
        return category(before) in {"Lo", "Lm"}
    return before in _SELECTABLE_ASCII or not (before.isascii() or category(before)[0] in "ZC")


def _is_joined(character: str) -> bool:
    return bool(character) and category(character) in _JOINED
