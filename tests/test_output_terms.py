"""The terms for scores, as users write them, and which of two are the stricter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.config import checks
from flask_secure_ml.policy.options import NO_TERMS, OutputTerms
from flask_secure_ml.policy.policy import Policy


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"round": 0}, OutputTerms(round=0)),
        ({"round": 15, "top_k": 1}, OutputTerms(round=15, top_k=1)),
        ({"label_only": True, "nan": "null"}, OutputTerms(label_only=True, nan="null")),
        ({"label_only": False, "nan": "refuse"}, OutputTerms(nan="refuse")),
        ({"round": None, "top_k": None, "nan": None}, NO_TERMS),
    ],
    ids=str,
)
def test_what_users_write(written: Any, expected: OutputTerms) -> None:
    """Each term has its name and its value."""
    assert OutputTerms.build(written) == expected
    assert Policy.build(outputs=written).outputs == expected


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
        OutputTerms.build(written)
    with pytest.raises(ValueError, match=f"outputs .*{fault}"):
        Policy.build(outputs=written)


@pytest.mark.parametrize("written", [{"round": 16}, {}, "round", False, None], ids=str)
def test_mistakes_in_plans_are_told(written: Any) -> None:
    """With the name of the plan. A plan frees no route, so false is a mistake there."""
    with pytest.raises(ValueError, match="plan 'free' that has outputs that must"):
        checks.plans({"free": {"outputs": written}})
    assert checks.plans({"free": {"outputs": {"round": 1}}})["free"].outputs == OutputTerms(round=1)


def test_false_frees_a_route() -> None:
    """False says that the answers are not the model's; nothing said means no terms of the route's own."""
    assert Policy.build(outputs=False).outputs is None
    assert Policy.build().outputs is NO_TERMS


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (NO_TERMS, NO_TERMS, NO_TERMS),
        (OutputTerms(round=2), NO_TERMS, OutputTerms(round=2)),
        (OutputTerms(round=2), OutputTerms(round=0), OutputTerms(round=0)),
        (OutputTerms(top_k=5), OutputTerms(top_k=3), OutputTerms(top_k=3)),
        (OutputTerms(round=3), OutputTerms(top_k=1), OutputTerms(round=3, top_k=1)),
        (OutputTerms(label_only=True), NO_TERMS, OutputTerms(label_only=True)),
        (OutputTerms(nan="null"), NO_TERMS, OutputTerms(nan="null")),
        (OutputTerms(nan="null"), OutputTerms(nan="refuse"), OutputTerms(nan="refuse")),
    ],
    ids=str,
)
def test_the_stricter_wins_term_by_term(one: OutputTerms, other: OutputTerms, both: OutputTerms) -> None:
    """Fewer decimals, smaller k, no scores if either says so."""
    assert one.stricter(other) == other.stricter(one) == both


def test_what_the_terms_do() -> None:
    """NaN may pass where it is allowed and nothing is ranked; each of three terms shapes."""
    assert [OutputTerms(nan=nan).allows_nan for nan in (None, "refuse", "null")] == [False, False, True]
    assert not OutputTerms(nan="null", top_k=1).allows_nan
    assert [each.shapes for each in (OutputTerms(round=0), OutputTerms(top_k=1), OutputTerms(label_only=True))] == [
        True, True, True,
    ]  # fmt: skip
    assert not OutputTerms(nan="refuse").shapes


_terms = st.builds(
    OutputTerms,
    round=st.none() | st.integers(0, 15),
    top_k=st.none() | st.integers(1, 9),
    label_only=st.booleans(),
    nan=st.sampled_from([None, "refuse", "null"]),
)


@given(_terms, _terms, _terms)
def test_fuzz_strictness_is_a_join(one: OutputTerms, two: OutputTerms, three: OutputTerms) -> None:
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
