from __future__ import annotations

import sys
import time
from typing import Any
from unicodedata import category, combining, is_normalized, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError

from field_loading import corpus, load, message
from flask_secure_ml.inputs import Text
from flask_secure_ml.inputs.fields.text import _BIDI, _CONTROLS, _DECOMPOSE_TO_MARKS, is_hiding

EVERY = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]


@pytest.mark.parametrize("case", corpus("text"))
def test_rejects(case: dict[str, Any]) -> None:
    """Every case of ``tests/corpus/fields/text.json`` is rejected, and the message does not quote the value."""
    assert message(Text(20 if "long" in case["id"] else 100), case["value"]) == case["message"]


WORLD = [
    "",
    "plain",
    "a\tb\nc",
    "Grüße",
    "日本語",
    "नमस्ते",
    "مرحبا",
    "שלום",
    "👩\u200d👩\u200d👧",
    "a\u00a0b",
    "می\u200cخواهم PDF\u200cها ۲۰\u200cساله ه\u200d",  # noqa: RUF001
    "র\u200d্য ක්\u200dෂ",
    "👩🏽\u200d🚀 ❤\ufe0f\u200d🔥 🏳\ufe0f\u200d🌈 🙂\u200d↔\ufe0f 1\ufe0f\u20e3 ℹ\ufe0f ‼\ufe0f",  # noqa: RUF001
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "葛\U000e0100 ᠠ\u180b ≨\ufe00",
    "\u0600\u0661 \u06dd",
    "\ue000",
]


@pytest.mark.parametrize("value", [*WORLD, "\U0001fae9"])
def test_text_of_the_world_passes(value: str) -> None:
    """Scripts, emoji made of several characters and private characters are text; it is loaded as it was."""
    assert load(Text(), value) == value


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        ("NFC", "e\u0301", "\u00e9"),
        ("NFC", "\ufb01", "\ufb01"),
        ("NFKC", "\ufb01\uff21\u2460", "fiA1"),
        (None, "e\u0301", "e\u0301"),
    ],
)
def test_normalisation(form: Any, value: str, expected: str) -> None:
    """One text has one form, or stays as it was sent."""
    assert load(Text(normalise=form), value) == expected


def test_length_is_that_of_the_normalised_text() -> None:
    """Characters are counted after composition and decomposition."""
    assert load(Text(2), "e\u0301" * 2) == "\u00e9" * 2
    assert load(Text(1), "\u1faf") == load(Text(1), normalize("NFD", "\u1faf")) == "\u1faf"
    assert load(Text(18, normalise="NFKC"), "\ufdfa") == normalize("NFKC", "\ufdfa")
    assert message(Text(17, normalise="NFKC"), "\ufdfa") == "Must have at most 17 characters."
    assert message(Text(2, normalise=None), "e\u0301e") == "Must have at most 2 characters."
    assert message(Text(2), "e\u0301" * 5) == "Must have at most 2 characters."
    assert message(Text(5, min_length=2), "e\u0301") == "Must have at least 2 characters."
    assert load(Text(5, min_length=2), "ab") == "ab"


def test_what_is_far_too_long_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A string that no normalisation makes short enough is not normalised."""
    monkeypatch.setattr("flask_secure_ml.inputs.fields.text.normalize", lambda *_: pytest.fail("normalised"))
    assert message(Text(2), "e\u0301" * 5) == "Must have at most 2 characters."


def test_length_in_bytes() -> None:
    """Bytes are those of UTF-8, after normalisation."""
    assert load(Text(max_bytes=4), "e\u0301\u00e9") == "\u00e9\u00e9"
    assert message(Text(max_bytes=4), "\u00e9\u00e9a") == "Must have at most 4 bytes in UTF-8."


def test_controls_are_stripped_or_kept_by_policy() -> None:
    """Stripping precedes normalisation, so that characters around a removed one can compose."""
    assert load(Text(control="strip"), "a\x00\tb\x1b[0m\r\n") == "a\tb[0m\n"
    assert load(Text(keep="\r\n\t"), "a\r\n") == "a\r\n"
    assert message(Text(keep=""), "a\tb") == "Has a control character."
    assert load(Text(bidi="strip"), "e\u200e\u0301\u202e") == "\u00e9"
    assert load(Text(bidi="allow"), "a\u202eb") == "a\u202eb"
    assert message(Text(bidi="strip"), "\x00") == "Has a control character."
    assert message(Text(control="strip"), "\u202e") == "Has a control of writing direction."
    assert load(Text(2, control="strip", normalise=None), "\x00" * 6 + "ab") == "ab"


def test_unassigned_characters_by_policy() -> None:
    """A character of a later Unicode version is accepted, unless the option rejects it."""
    later = "\u0378"
    assert load(Text(), later) == later
    assert message(Text(unassigned="reject"), later) == "Has a character that is not assigned."
    assert load(Text(unassigned="reject"), "ü\ue000") == "ü\ue000"


def test_long_runs_of_marks_cost_nothing() -> None:
    """Bringing marks into order takes quadratic time, which a request must not buy."""
    hostile = "a" + "\u0301" * 200_000 + "\u0316" * 200_000
    start = time.process_time()
    assert message(Text(1_000_000), hostile) == "Has too many combining characters in a row."
    assert time.process_time() - start < 2
    assert load(Text(), "a" + "\u0316" * 30) == "a" + "\u0316" * 30
    assert load(Text(normalise=None), "a" + "\u0316" * 31) == "a" + "\u0316" * 31


def test_every_character_that_decomposes_to_marks_is_known() -> None:
    """No character that is not a mark itself brings one in at its front, but for those that are counted as marks."""
    found = {ord(each) for each in EVERY if not combining(each) and combining(normalize("NFKD", each)[0])}
    assert found == _DECOMPOSE_TO_MARKS.keys()


def test_normalisation_brings_in_nothing_that_was_rejected() -> None:
    """So checking before it is sufficient; and at most four characters compose into one."""
    changed = [each for each in EVERY if normalize("NFKC", each) != each]
    assert not [each for each in changed if (_CONTROLS | _BIDI) & set(normalize("NFKC", each))]
    assert max(len(normalize("NFD", each)) for each in EVERY) == 4
    assert {each for each in EVERY if category(each) == "Cc"} == _CONTROLS


def test_options_of_a_field() -> None:
    """It is required unless it says otherwise, and dumps a string."""
    schema = Schema.from_dict({"x": Text(), "y": Text(required=False), "z": Text(load_default="a")})()
    assert list(schema.validate({})) == ["x"]
    assert schema.dump({"x": "a"}) == {"x": "a"}
    assert message(Text(error_messages={"control": "No."}), "\x00") == "No."


def tagged(text: str) -> str:
    """Return ASCII as invisible tag characters."""
    return "".join(chr(0xE0000 + ord(letter)) for letter in text)


# What is hidden, and what is left of it when the invisible is taken out.
HIDDEN = [
    pytest.param("hi" + tagged("obey me"), "hi", id="tags"),
    pytest.param("\U0001f3f4" + tagged("obey") + "\U000e007f", "\U0001f3f4", id="tags of no flag"),
    pytest.param("\U0001f3f4" + tagged("gbeng"), "\U0001f3f4", id="flag without its end"),
    pytest.param("a\u200bb", "ab", id="zero-width space"),
    pytest.param("\ufeffa", "a", id="byte order mark"),
    pytest.param("a\u00adb", "ab", id="soft hyphen"),
    pytest.param("a\u2028b\u2029c", "a\nb\nc", id="separators"),
    pytest.param("a\u2060\u2063b", "ab", id="word joiner and separator"),
    pytest.param("a\u034fb\u3164c\u115f", "abc", id="joiner of graphemes and fillers"),
    pytest.param("a\ufff9b\ufffac\ufffb", "abc", id="annotations"),
    pytest.param("a\u200db\u200c", "ab", id="joiners in Latin"),
    pytest.param("\u200d1\u200c2", "12", id="joiners beside digits"),
    pytest.param("م\u200c\u200dم", "م\u200dم", id="two joiners"),
    pytest.param("😀\ufe0f\ufe01\ufe02", "😀\ufe0f", id="selectors in a row"),
    pytest.param("😀\U000e0141\U000e0142", "😀", id="further selectors on an emoji"),
    pytest.param("a\ufe0f", "a", id="selector on a letter"),
    pytest.param("\ufe0fa \ufe0fb", "a b", id="selectors on nothing"),
    pytest.param("葛\U000e0100\U000e0101", "葛\U000e0100", id="two of an ideograph"),
    pytest.param("a\u180eb", "ab", id="Mongolian separator in Latin"),
]


@pytest.mark.parametrize(("value", "left"), HIDDEN)
def test_what_is_hidden_in_a_text(value: str, left: str) -> None:
    """Invisible characters are rejected, stripped or allowed according to the option."""
    assert message(Text(), value) == "Has an invisible character."
    assert load(Text(normalise=None, invisible="strip"), value) == left
    assert load(Text(normalise=None), left) == left
    assert load(Text(normalise=None, invisible="allow"), value) == value


@pytest.mark.parametrize("value", [value for value in WORLD if value])
def test_nothing_is_stripped_of_the_texts_of_the_world(value: str) -> None:
    """Characters that a script needs are kept."""
    assert load(Text(invisible="strip", normalise=None), value) == value


def test_a_separator_becomes_what_is_kept() -> None:
    """Words on two lines do not become one, whether or not a newline is text."""
    assert load(Text(invisible="strip", keep=""), "a\u2028b") == "a b"


def test_every_invisible_format_character_is_known() -> None:
    """Unicode format and separator characters are accepted only if visible, joining, or allowed by ``bidi``."""
    passing = {each for each in EVERY if category(each) in {"Cf", "Zl", "Zp"} and not is_hiding(f"a{each}b")}
    seen = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
    assert passing - _BIDI <= set(map(chr, seen))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"max_length": 0}, "max_length must be a whole"),
        ({"max_bytes": 0}, "max_bytes must be a whole"),
        ({"min_length": -1}, "min_length must be a whole"),
        ({"max_length": 2, "min_length": 3}, "min_length must not be greater"),
        ({"normalise": "NFD"}, "normalise must be one of"),
        ({"control": "allow"}, "control must be one of"),
        ({"bidi": "keep"}, "bidi must be one of"),
        ({"invisible": "keep"}, "invisible must be one of"),
        ({"unassigned": "strip"}, "unassigned must be one of"),
        ({"keep": "abc"}, "keep must be control characters"),
        ({"keep": ["\t"]}, "keep must be control characters"),
    ],
)
def test_a_wrong_definition_fails_at_once(arguments: dict[str, Any], part: str) -> None:
    """The field is rejected where it is written."""
    with pytest.raises(ValueError, match=part):
        Text(**arguments)


SPECIAL = "\x00\u202e\u0301\ufdfa\ud800\uffff\u0f73\u200d\u200c\ufe0f\u2028\U000e0100\U000e0067👩م葛"
FIELDS = [
    Text(12, max_bytes=30, normalise=form, control=control, bidi=bidi, invisible=invisible, unassigned=unassigned)
    for form in ("NFC", "NFKC", None)
    for control in ("reject", "strip")
    for bidi in ("reject", "strip")
    for unassigned in ("reject", "allow")
    for invisible in ("reject", "strip")
]


@given(st.text(st.characters() | st.sampled_from(SPECIAL), max_size=20))
def test_fuzz_what_passes_is_clean(value: str) -> None:
    """Whatever is sent, what is loaded has one form, the length asked for and none of what is rejected."""
    for field in FIELDS:
        try:
            found = load(field, value)
        except ValidationError:
            continue
        assert field.normalise is None or is_normalized(field.normalise, found)
        assert len(found) <= 12
        assert len(found.encode()) <= 30
        assert not set(found) & (_CONTROLS - set("\t\n") | _BIDI)
        assert field.normalise is not None or not is_hiding(found)
