"""The terms for scores, as users write them, and which of two are the stricter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.config import checks
from flask_secure_ml.policy.options import NO_TERMS, ScoreOptions
from flask_secure_ml.policy.policy import Policy


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"round": 0}, ScoreOptions(round=0)),
        ({"round": 15, "top_k": 1}, ScoreOptions(round=15, top_k=1)),
        ({"label_only": True, "nan": "null"}, ScoreOptions(label_only=True, nan="null")),
        ({"label_only": False, "nan": "refuse"}, ScoreOptions(nan="refuse")),
        ({"round": None, "top_k": None, "nan": None}, NO_TERMS),
    ],
    ids=str,
)
def test_what_users_write(written: Any, expected: ScoreOptions) -> None:
    """Each term has its name and its value."""
    assert ScoreOptions.build(written) == expected
    assert Policy.build(scores=written).scores == expected


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ({}, "at least one term"),
        ([], "an object"),
        ("round", "an object"),
        (True, "an object"),
        ({"rounds": 3}, "no term 'rounds'"),
        ({1: 3}, "no term '1'"),
        ({"round": -1}, "round, from 0 to 15"),
        ({"round": 16}, "round, from 0 to 15"),
        ({"round": 2.0}, "round"),
        ({"round": True}, "round"),
        ({"round": "2"}, "round"),
        ({"top_k": 0}, "top_k, 1 or more"),
        ({"top_k": False}, "top_k"),
        ({"label_only": 1}, "label_only"),
        ({"label_only": None}, "label_only"),
        ({"nan": "keep"}, "'refuse' or 'null'"),
        ({"nan": ["null"]}, "'refuse' or 'null'"),
    ],
    ids=str,
)
def test_mistakes_are_told(written: Any, fault: str) -> None:
    """A term that means nothing is an error where it is written, never one that shapes nothing."""
    with pytest.raises(ValueError, match=fault):
        ScoreOptions.build(written)
    with pytest.raises(ValueError, match=f"scores .*{fault}"):
        Policy.build(scores=written)


@pytest.mark.parametrize("written", [{"round": 16}, {}, "round", False, None], ids=str)
def test_mistakes_in_plans_are_told(written: Any) -> None:
    """With the name of the plan. A plan frees no route, so false is a mistake there."""
    with pytest.raises(ValueError, match="plan 'free' that has scores that must"):
        checks.plans({"free": {"scores": written}})
    assert checks.plans({"free": {"scores": {"round": 1}}})["free"].scores == ScoreOptions(round=1)


def test_false_frees_a_route() -> None:
    """False says that the answers are not the model's; nothing said means no terms of the route's own."""
    assert Policy.build(scores=False).scores is None
    assert Policy.build().scores is NO_TERMS


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (NO_TERMS, NO_TERMS, NO_TERMS),
        (ScoreOptions(round=2), NO_TERMS, ScoreOptions(round=2)),
        (ScoreOptions(round=2), ScoreOptions(round=0), ScoreOptions(round=0)),
        (ScoreOptions(top_k=5), ScoreOptions(top_k=3), ScoreOptions(top_k=3)),
        (ScoreOptions(round=3), ScoreOptions(top_k=1), ScoreOptions(round=3, top_k=1)),
        (ScoreOptions(label_only=True), NO_TERMS, ScoreOptions(label_only=True)),
        (ScoreOptions(nan="null"), NO_TERMS, ScoreOptions(nan="null")),
        (ScoreOptions(nan="null"), ScoreOptions(nan="refuse"), ScoreOptions(nan="refuse")),
    ],
    ids=str,
)
def test_the_stricter_wins_term_by_term(one: ScoreOptions, other: ScoreOptions, both: ScoreOptions) -> None:
    """Fewer decimals, smaller k, no scores if either says so."""
    assert one.stricter(other) == other.stricter(one) == both


def test_what_the_terms_do() -> None:
    """NaN may pass where it is allowed and nothing is ranked; each of three terms shapes."""
    assert [ScoreOptions(nan=nan).allows_nan for nan in (None, "refuse", "null")] == [False, False, True]
    assert not ScoreOptions(nan="null", top_k=1).allows_nan
    assert [each.shapes for each in (ScoreOptions(round=0), ScoreOptions(top_k=1), ScoreOptions(label_only=True))] == [
        True, True, True,
    ]  # fmt: skip
    assert not ScoreOptions(nan="refuse").shapes


_terms = st.builds(
    ScoreOptions,
    round=st.none() | st.integers(0, 15),
    top_k=st.none() | st.integers(1, 9),
    label_only=st.booleans(),
    nan=st.sampled_from([None, "refuse", "null"]),
)


@given(_terms, _terms, _terms)
def test_fuzz_strictness_is_a_join(one: ScoreOptions, two: ScoreOptions, three: ScoreOptions) -> None:
    """Order and repetition change nothing, and adding terms never makes any term weaker."""
    both = one.stricter(two)
    assert both == two.stricter(one)
    assert one.stricter(one) == one
    assert both.stricter(three) == one.stricter(two.stricter(three))
    for each in (one, two):
        assert both.stricter(each) == both
        assert both.round is not None or each.round is None
        assert both.label_only >= each.label_only
        assert both.shapes >= each.shapes
