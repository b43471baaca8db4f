"""Characters that no reader sees and a model does: where they are text, and where something is hidden in them.

A model reads what its user does not: tag characters spell out ASCII (U+E0000 to U+E007F), rows of variation selectors
spell out bytes, and a zero-width space within a word takes it past a filter. What is meant here is every character
that is ignored when text is shown (Default_Ignorable_Code_Point, UAX 44, section 5), the line and the paragraph
separator (categories Zl and Zp), and interlinear annotations. The controls of writing direction have a policy of their
own, and format characters that are seen, such as the Arabic sign of a number, are text.

Four kinds are text where writing needs them:

* joiners (U+200C, U+200D) beside a letter of a script without case, such as Arabic or Devanagari, a mark or a symbol,
  and not beside one another (UAX 31, section 2.3, asks more of their neighbours);
* the variation selectors 1 to 16, one after what is seen and is no ASCII letter (UTS 51, section 1.4.3);
* further variation selectors, one after an ideograph (UTS 37), and Mongolian ones, one after a letter;
* the flags of England, Scotland and Wales, which are made of tag characters (UTS 51, appendix C).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import category

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
    "|".join("".join(chr(0xE0000 + ord(letter)) for letter in place) for place in ("gbeng", "gbsct", "gbwls"))
)
_SUSPECT = re.compile(f"[{_JOINERS}{_SELECTORS}{_LETTER_SELECTORS}{_NEVER}]")
_KINDS = re.compile(
    f"(?P<joiner>[{_JOINERS}])|(?P<selector>[{_SELECTORS}])|(?P<letter_selector>[{_LETTER_SELECTORS}])"
    f"|(?P<flag>{_FLAG})|(?P<never>[{_NEVER}])"
)
# Letters without case, marks, and symbols as emoji are.
_JOINED = frozenset({"Lo", "Lm", "Mn", "Mc", "Me", "So", "Sk"})
_SELECTABLE_ASCII = frozenset("0123456789#*")


def is_hiding(text: str) -> bool:
    """Tell whether a text has an invisible character where it is not needed."""
    return _SUSPECT.search(text) is not None and any(not needed for _, needed in _parts(text))


def without(text: str, separator: str) -> str:
    """Return a text without the invisible characters that it does not need.

    :param separator: what takes the place of a line or paragraph separator.
    """
    if _SUSPECT.search(text) is None:
        return text
    return "".join(part if needed else separator if part in _SEPARATORS else "" for part, needed in _parts(text))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a text in pieces, and of each whether it is needed.

    What comes before a character is the last that is needed, so nothing that is taken out leaves a new doubt.
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
