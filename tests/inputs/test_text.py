from __future__ import annotations

import sys
import time
from typing import Any
from unicodedata import category, combining, is_normalized, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError

from field_loading import FUZZ, corpus, load, message
from flask_secure_ml.inputs import Text
from flask_secure_ml.inputs.text import _BIDI, _CONTROLS, _DECOMPOSE_TO_MARKS

EVERY = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]


@pytest.mark.parametrize("case", corpus("text"))
def test_refuses(case: dict[str, Any]) -> None:
    """Every case of ``tests/corpus/fields/text.json`` is refused, and the message has nothing of the value."""
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
    "a\u00a0b\u2028c",
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
    """What becomes one character counts as one, what becomes eighteen as eighteen."""
    assert load(Text(2), "e\u0301" * 2) == "\u00e9" * 2
    assert load(Text(1), "\u1faf") == load(Text(1), normalize("NFD", "\u1faf")) == "\u1faf"
    assert load(Text(18, normalise="NFKC"), "\ufdfa") == normalize("NFKC", "\ufdfa")
    assert message(Text(17, normalise="NFKC"), "\ufdfa") == "Must have at most 17 characters."
    assert message(Text(2, normalise=None), "e\u0301e") == "Must have at most 2 characters."
    assert message(Text(2), "e\u0301" * 5) == "Must have at most 2 characters."
    assert message(Text(5, min_length=2), "e\u0301") == "Must have at least 2 characters."
    assert load(Text(5, min_length=2), "ab") == "ab"


def test_what_is_far_too_long_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that no normalisation makes short enough is not normalised."""
    monkeypatch.setattr("flask_secure_ml.inputs.text.normalize", lambda *_: pytest.fail("normalised"))
    assert message(Text(2), "e\u0301" * 5) == "Must have at most 2 characters."


def test_length_in_bytes() -> None:
    """Bytes are those of UTF-8, after normalisation."""
    assert load(Text(max_bytes=4), "e\u0301\u00e9") == "\u00e9\u00e9"
    assert message(Text(max_bytes=4), "\u00e9\u00e9a") == "Must have at most 4 bytes in UTF-8."


def test_controls_are_stripped_or_kept_by_policy() -> None:
    """Stripping comes before normalisation, so that nothing is left apart that belongs together."""
    assert load(Text(control="strip"), "a\x00\tb\x1b[0m\r\n") == "a\tb[0m\n"
    assert load(Text(keep="\r\n\t"), "a\r\n") == "a\r\n"
    assert message(Text(keep=""), "a\tb") == "Has a control character."
    assert load(Text(bidi="strip"), "e\u200e\u0301\u202e") == "\u00e9"
    assert load(Text(bidi="allow"), "a\u202eb") == "a\u202eb"
    assert message(Text(bidi="strip"), "\x00") == "Has a control character."
    assert message(Text(control="strip"), "\u202e") == "Has a control of writing direction."
    assert load(Text(2, control="strip", normalise=None), "\x00" * 6 + "ab") == "ab"


def test_unassigned_characters_by_policy() -> None:
    """A character of a later Unicode passes, unless the schema says no."""
    later = "\u0378"
    assert load(Text(), later) == later
    assert message(Text(unassigned="refuse"), later) == "Has a character that is not assigned."
    assert load(Text(unassigned="refuse"), "ü\ue000") == "ü\ue000"


def test_long_runs_of_marks_cost_nothing() -> None:
    """Bringing marks into order takes quadratic time, which a request must not buy."""
    hostile = "a" + "\u0301" * 200_000 + "\u0316" * 200_000
    start = time.process_time()
    assert message(Text(1_000_000), hostile) == "Has too many combining characters in a row."
    assert time.process_time() - start < 2
    assert load(Text(), "a" + "\u0316" * 30) == "a" + "\u0316" * 30
    assert load(Text(normalise=None), "a" + "\u0316" * 31) == "a" + "\u0316" * 31


def test_every_character_that_decomposes_to_marks_is_known() -> None:
    """No character that is no mark itself brings one in at its front, but for those that are counted as marks."""
    found = {ord(each) for each in EVERY if not combining(each) and combining(normalize("NFKD", each)[0])}
    assert found == _DECOMPOSE_TO_MARKS.keys()


def test_normalisation_brings_in_nothing_that_was_refused() -> None:
    """So it is enough to look before; and four characters at most become one."""
    changed = [each for each in EVERY if normalize("NFKC", each) != each]
    assert not [each for each in changed if (_CONTROLS | _BIDI) & set(normalize("NFKC", each))]
    assert max(len(normalize("NFD", each)) for each in EVERY) == 4
    assert {each for each in EVERY if category(each) == "Cc"} == _CONTROLS


def test_options_of_a_field() -> None:
    """It is required unless it says otherwise, and dumps a text."""
    schema = Schema.from_dict({"x": Text(), "y": Text(required=False), "z": Text(load_default="a")})()
    assert list(schema.validate({})) == ["x"]
    assert schema.dump({"x": "a"}) == {"x": "a"}
    assert message(Text(error_messages={"control": "No."}), "\x00") == "No."


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
        ({"unassigned": "strip"}, "unassigned must be one of"),
        ({"keep": "abc"}, "keep must be control characters"),
        ({"keep": ["\t"]}, "keep must be control characters"),
    ],
)
def test_a_wrong_definition_fails_at_once(arguments: dict[str, Any], part: str) -> None:
    """The field is refused where it is written."""
    with pytest.raises(ValueError, match=part):
        Text(**arguments)


FIELDS = [
    Text(12, max_bytes=30, normalise=form, control=control, bidi=bidi, unassigned=unassigned)
    for form in ("NFC", "NFKC", None)
    for control in ("refuse", "strip")
    for bidi in ("refuse", "strip")
    for unassigned in ("refuse", "allow")
]


@FUZZ
@given(st.text(st.characters() | st.sampled_from("\x00\u202e\u0301\ufdfa\ud800\uffff\u0f73"), max_size=20))
def test_fuzz_what_passes_is_clean(value: str) -> None:
    """Whatever is sent, what is loaded has one form, the length asked for and none of what is refused."""
    for field in FIELDS:
        try:
            found = load(field, value)
        except ValidationError:
            continue
        assert field.normalise is None or is_normalized(field.normalise, found)
        assert len(found) <= 12
        assert len(found.encode()) <= 30
        assert not set(found) & (_CONTROLS - set("\t\n") | _BIDI)
