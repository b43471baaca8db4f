"""The options for scores, as users write them, and which of two are the stricter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from flask_secure_ml import ConfigError
from flask_secure_ml.config.plans import Plan
from flask_secure_ml.policy.options import NO_SCORE_OPTIONS, ScoreOptions
from flask_secure_ml.policy.policy import Policy
from flask_secure_ml.policy.schema import load_options, sentences


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"round": 0}, ScoreOptions(round=0)),
        ({"round": 15, "top_k": 1}, ScoreOptions(round=15, top_k=1)),
        ({"label_only": True, "nan": "null"}, ScoreOptions(label_only=True, nan="null")),
        ({"label_only": False, "nan": "reject"}, ScoreOptions(nan="reject")),
        ({"round": None, "top_k": None, "nan": None}, NO_SCORE_OPTIONS),
    ],
    ids=str,
)
def test_what_users_write(written: Any, expected: ScoreOptions) -> None:
    """Each option has its name and its value."""
    assert load_options(ScoreOptions, written) == expected
    assert Policy.build(scores=written).scores == expected


WHOLE = "must be a whole number"


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ({}, ": is empty; it must have at least one of round, top_k, label_only, nan"),
        ([], ": must be an object"),
        ("round", ": must be an object"),
        (True, ": must be an object"),
        ({"rounds": 3}, ".rounds: is not known; did you mean round?"),
        ({1: 3}, "[1]: is not known; choose from round, top_k, label_only, nan"),
        ({"round": -1}, f".round: {WHOLE} from 0 to 15, not -1"),
        ({"round": 16}, f".round: {WHOLE} from 0 to 15, not 16"),
        ({"round": 2.0}, f".round: {WHOLE}"),
        ({"round": True}, f".round: {WHOLE}"),
        ({"round": "2"}, f".round: {WHOLE}"),
        ({"top_k": 0}, f".top_k: {WHOLE}, 1 or more, not 0"),
        ({"top_k": False}, f".top_k: {WHOLE}"),
        ({"label_only": 1}, ".label_only: must be true or false"),
        ({"label_only": None}, ".label_only: must be true or false"),
        ({"nan": "keep"}, ".nan: must be one of 'reject', 'null', not 'keep'"),
        ({"nan": ["null"]}, ".nan: must be one of 'reject', 'null', not a list"),
    ],
    ids=str,
)
def test_mistakes_are_rejected(written: Any, fault: str) -> None:
    """An option without effect is an error at once, never one that masks nothing."""
    with pytest.raises(ConfigError) as caught:
        Policy.build(scores=written)
    assert [each.startswith(f"scores{fault}") for each in caught.value.problems] == [True]


@pytest.mark.parametrize("written", [{"round": 16}, {}, "round", False, None], ids=str)
def test_mistakes_in_plans_are_rejected(written: Any) -> None:
    """With the name of the plan. A plan exempts no route, so false is a mistake there."""
    with pytest.raises(ValidationError) as caught:
        load_options(Plan, {"scores": written})
    assert [line.startswith("scores") for line in sentences(caught.value.messages)] == [True]
    assert load_options(Plan, {"scores": {"round": 1}}).scores == ScoreOptions(round=1)


def test_false_exempts_a_route() -> None:
    """False: the responses are not the model's. Without the option, the route has none of its own."""
    assert Policy.build(scores=False).scores is None
    assert Policy.build().scores is NO_SCORE_OPTIONS


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (NO_SCORE_OPTIONS, NO_SCORE_OPTIONS, NO_SCORE_OPTIONS),
        (ScoreOptions(round=2), NO_SCORE_OPTIONS, ScoreOptions(round=2)),
        (ScoreOptions(round=2), ScoreOptions(round=0), ScoreOptions(round=0)),
        (ScoreOptions(top_k=5), ScoreOptions(top_k=3), ScoreOptions(top_k=3)),
        (ScoreOptions(round=3), ScoreOptions(top_k=1), ScoreOptions(round=3, top_k=1)),
        (ScoreOptions(label_only=True), NO_SCORE_OPTIONS, ScoreOptions(label_only=True)),
        (ScoreOptions(nan="null"), NO_SCORE_OPTIONS, ScoreOptions(nan="null")),
        (ScoreOptions(nan="null"), ScoreOptions(nan="reject"), ScoreOptions(nan="reject")),
    ],
    ids=str,
)
def test_the_stricter_wins_option_by_option(one: ScoreOptions, other: ScoreOptions, both: ScoreOptions) -> None:
    """Fewer decimals, smaller k, no scores if either has none."""
    assert one.stricter(other) == other.stricter(one) == both


def test_what_the_options_do() -> None:
    """NaN is allowed only without ranking; each of three options masks."""
    assert [ScoreOptions(nan=nan).allows_nan for nan in (None, "reject", "null")] == [False, False, True]
    assert not ScoreOptions(nan="null", top_k=1).allows_nan
    assert [each.masks for each in (ScoreOptions(round=0), ScoreOptions(top_k=1), ScoreOptions(label_only=True))] == [
        True, True, True,
    ]  # fmt: skip
    assert not ScoreOptions(nan="reject").masks


_options = st.builds(
    ScoreOptions,
    round=st.none() | st.integers(0, 15),
    top_k=st.none() | st.integers(1, 9),
    label_only=st.booleans(),
    nan=st.sampled_from([None, "reject", "null"]),
)


@given(_options, _options, _options)
def test_fuzz_strictness_is_a_join(one: ScoreOptions, two: ScoreOptions, three: ScoreOptions) -> None:
    """Order and repetition have no effect, and adding options never weakens the result."""
    both = one.stricter(two)
    assert both == two.stricter(one)
    assert one.stricter(one) == one
    assert both.stricter(three) == one.stricter(two.stricter(three))
    for each in (one, two):
        assert both.stricter(each) == both
        assert both.round is not None or each.round is None
        assert both.label_only >= each.label_only
        assert both.masks >= each.masks
