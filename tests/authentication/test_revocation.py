"""Revocation of tokens, callers, and everything before an instant."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.authentication import revocation
from flask_secure_ml.authentication.revocation import (
    AHEAD,
    SPACE,
    Revocation,
    Revocations,
    dump_revocation,
    parse_revocation,
)
from flask_secure_ml.errors import DependencyUnavailable, NotAuthenticated, UnusableCredential
from flask_secure_ml.principal import Principal
from flask_secure_ml.stores.base import Changes, Cursor
from flask_secure_ml.stores.memory import MemoryStore
from flask_secure_ml.stores.sqlite import SqliteStore
from flask_secure_ml.testing import FakeClock, MemorySink
from support import HTTPS, MakeApp, caller

ISSUER = "https://issuer.example"
NOW = 1_800_000_000.0
TOKEN = Principal("jwt", "alice", ISSUER, token_id="t1", issued=NOW)
KEY = Principal("api_key", "k1", issued=NOW - 1000)
OWN = Principal("own", "bob")


class Failing(MemoryStore):
    """A store that can be down, and counts polls for changes."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.down = False
        self.asked = 0

    def changes(self, space: str, cursor: Cursor | None, *, timeout: float | None = None) -> Changes:
        self.asked += 1
        self._fail()
        return super().changes(space, cursor, timeout=timeout)

    def put(self, space: str, key: str, value: bytes, **options: Any) -> bool:
        self._fail()
        return super().put(space, key, value, **options)

    def get(self, space: str, key: str) -> bytes | None:
        self._fail()
        return super().get(space, key)

    def delete(self, space: str, key: str) -> bool:
        self._fail()
        return super().delete(space, key)

    def _fail(self) -> None:
        if self.down:
            raise DependencyUnavailable("down")


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def revoked(store: MemoryStore, clock: FakeClock) -> Revocations:
    return Revocations(store, clock)


def passes(revocations: Revocations, principal: Principal) -> bool:
    try:
        revocations.check(principal)
    except NotAuthenticated:
        return False
    return True


def test_nothing_is_revoked_at_first(revoked: Revocations) -> None:
    """All verified callers are accepted."""
    assert all(passes(revoked, each) for each in (TOKEN, KEY, OWN))


@pytest.mark.parametrize(
    ("issuer", "token_id", "stays"),
    [(ISSUER, "t1", False), (ISSUER, "t2", True), ("https://other.example", "t1", True)],
    ids=["C10 this token", "another token", "another issuer's token"],
)
def test_token(revoked: Revocations, issuer: str, token_id: str, stays: bool) -> None:
    """A jti is unique with its issuer only."""
    revoked.revoke_token(issuer, token_id)
    assert passes(revoked, TOKEN) is stays


def test_token_without_jti_is_not_hit_by_accident(revoked: Revocations) -> None:
    """No revocation fits a token that has no jti."""
    revoked.revoke_token(ISSUER, "t1")
    assert passes(revoked, Principal("jwt", "alice", ISSUER, issued=NOW))


@pytest.mark.parametrize("principal", [TOKEN, KEY, OWN], ids=lambda each: each.kind)
def test_principal(revoked: Revocations, principal: Principal) -> None:
    """A caller is rejected whatever it presents, and others are not."""
    revoked.revoke_principal(principal.id)
    assert [each for each in (TOKEN, KEY, OWN) if not passes(revoked, each)] == [principal]


@pytest.mark.parametrize(
    ("options", "instant", "rejected"),
    [
        pytest.param({}, NOW - 1, {"api_key"}, id="everyone, older"),
        pytest.param({}, NOW, {"api_key", "jwt"}, id="everyone, the same second"),
        pytest.param({"issuer": ISSUER}, NOW, {"jwt"}, id="one issuer"),
        pytest.param({"issuer": "https://other.example"}, NOW, set(), id="another issuer"),
        pytest.param({"principal_id": KEY.id}, NOW, {"api_key"}, id="one caller"),
        pytest.param({"principal_id": KEY.id}, NOW - 2000, set(), id="one caller, issued later"),
        pytest.param({"principal_id": OWN.id}, NOW, {"own"}, id="a caller whose credential has no time"),
    ],
)
def test_before(revoked: Revocations, options: dict[str, str], instant: float, rejected: set[str]) -> None:
    """Credentials issued at this instant or earlier are rejected; later ones are accepted."""
    revoked.revoke_before(instant, **options)
    assert {each.kind for each in (TOKEN, KEY, OWN) if not passes(revoked, each)} == rejected


def test_undo(revoked: Revocations) -> None:
    """A revocation is undone by its key."""
    key = revoked.revoke_principal(KEY.id).key
    assert not passes(revoked, KEY)
    assert [revoked.undo(key), revoked.undo(key)] == [True, False]
    assert passes(revoked, KEY)


def test_token_revocation_ends(revoked: Revocations, store: MemoryStore, clock: FakeClock) -> None:
    """It is kept for the requested time; that of a caller for ever."""
    revoked.revoke_token(ISSUER, "t1", seconds=3600)
    revoked.revoke_principal(KEY.id)
    clock.advance(3601)
    assert [each.kind for each in revoked.list()] == ["principal"]


def test_list_is_in_the_order_of_time(revoked: Revocations, clock: FakeClock) -> None:
    """Oldest first, each with when it was made."""
    for name in ("x:b", "x:a"):
        revoked.revoke_principal(name)
        clock.advance(1)
    assert [(each.principal, each.created) for each in revoked.list()] == [("x:b", NOW), ("x:a", NOW + 1)]


def test_other_processes_see_it_within_a_second(tmp_path: Path, clock: FakeClock) -> None:
    """A revocation by one process applies in another at most half a second later."""
    one, other = (Revocations(SqliteStore(tmp_path / "s.db", clock), clock) for _ in range(2))
    assert passes(other, TOKEN)
    one.revoke_token(ISSUER, "t1")
    assert not passes(one, TOKEN)
    clock.advance(0.5)
    assert not passes(other, TOKEN)


@pytest.mark.parametrize(
    ("revoke", "words"),
    [
        pytest.param(lambda each: each.revoke_token("", "t"), "1 to", id="no issuer"),
        pytest.param(lambda each: each.revoke_token(ISSUER, ""), "1 to", id="no jti"),
        pytest.param(lambda each: each.revoke_token(ISSUER, "a\nb"), "printable", id="line break"),
        pytest.param(lambda each: each.revoke_token(ISSUER, "\ud800"), "printable", id="half a character"),
        pytest.param(lambda each: each.revoke_token(ISSUER, "t", seconds=0), "finite number", id="no time"),
        pytest.param(
            lambda each: each.revoke_token(ISSUER, "t", seconds=math.nan), "finite number", id="time that is none"
        ),
        pytest.param(lambda each: each.revoke_token(ISSUER, "t", seconds=math.inf), "finite number", id="endless time"),
        pytest.param(
            lambda each: each.revoke_token(ISSUER, "t", seconds=1e12), "an invalid time", id="time beyond the year 9999"
        ),
        pytest.param(lambda each: each.revoke_principal("x:" * 3000), "1 to", id="too long"),
        pytest.param(lambda each: each.revoke_principal("alice"), "not a principal", id="subject without issuer"),
        pytest.param(lambda each: each.revoke_before(math.nan), "seconds", id="no instant"),
        pytest.param(lambda each: each.revoke_before(-1), "seconds", id="before the epoch"),
        pytest.param(lambda each: each.revoke_before(NOW + AHEAD + 1), "in the future", id="in the future"),
        pytest.param(lambda each: each.revoke_before(NOW, issuer=""), "1 to", id="before, no issuer"),
        pytest.param(
            lambda each: each.revoke_before(NOW, principal_id="bob"), "not a principal", id="before, a subject"
        ),
        pytest.param(lambda each: each.revoke_before(NOW, issuer=ISSUER, principal_id="x:y"), "not both", id="both"),
    ],
)
def test_wrong_arguments(revoked: Revocations, revoke: Callable[[Revocations], object], words: str) -> None:
    """A revocation that could not apply, or would apply to everyone, is rejected and not stored."""
    with pytest.raises(ValueError, match=words):
        revoke(revoked)
    assert revoked.list() == ()


def test_clock_of_the_issuer_may_be_ahead(revoked: Revocations) -> None:
    """An instant within the leeway catches tokens that say they come from the future."""
    revoked.revoke_before(NOW + AHEAD, issuer=ISSUER)
    assert not passes(revoked, replace(TOKEN, issued=NOW + 20))


def test_before_never_goes_back(revoked: Revocations) -> None:
    """A second, earlier instant would accept tokens that the first rejects; this requires an undo."""
    key = revoked.revoke_before(NOW).key
    with pytest.raises(ValueError, match=f"undo {key} first"):
        revoked.revoke_before(NOW - 2000)
    assert not passes(revoked, KEY)
    revoked.revoke_before(NOW + 1)
    revoked.revoke_before(NOW - 2000, issuer=ISSUER)
    revoked.undo(key)
    revoked.revoke_before(NOW - 2000)
    assert passes(revoked, KEY)


def test_reason_says_which_revocation(revoked: Revocations) -> None:
    """The log identifies the revocation to undo; the client gets the response for any invalid credential."""
    for record, principal in (
        (revoked.revoke_token(ISSUER, "t1"), TOKEN),
        (revoked.revoke_principal(KEY.id), KEY),
        (revoked.revoke_before(NOW, principal_id=OWN.id), OWN),
    ):
        with pytest.raises(NotAuthenticated) as caught:
            revoked.check(principal)
        assert caught.value.reason == f"revoked: {record} (revocation {record.key})"
        assert type(caught.value) is UnusableCredential


def test_outage_of_the_store(clock: FakeClock) -> None:
    """The last known state is used for a minute; then all are rejected, because a revocation could be missed."""
    store = Failing(clock)
    revoked = Revocations(store, clock)
    revoked.revoke_token(ISSUER, "t1")
    assert not passes(revoked, TOKEN)
    store.down = True
    clock.advance(59)
    assert [passes(revoked, each) for each in (TOKEN, KEY)] == [False, True]
    clock.advance(1)
    with pytest.raises(DependencyUnavailable) as caught:
        revoked.check(KEY)
    assert ("Retry-After", "1") in caught.value.extra_headers
    store.down = False
    clock.advance(0.5)
    assert [passes(revoked, each) for each in (TOKEN, KEY)] == [False, True]


def test_store_that_was_never_reached(clock: FakeClock) -> None:
    """All credentials are rejected, and revocations cannot be added, listed or undone."""
    store = Failing(clock)
    store.down = True
    revoked = Revocations(store, clock)
    actions: list[Callable[[], object]] = [
        lambda: revoked.check(OWN),
        lambda: revoked.revoke_token(ISSUER, "t1"),
        lambda: revoked.revoke_principal(KEY.id),
        lambda: revoked.revoke_before(NOW),
        lambda: revoked.undo("x"),
        revoked.list,
    ]
    for action in actions:
        with pytest.raises(DependencyUnavailable):
            action()


def test_request_costs_no_look_into_the_store(clock: FakeClock) -> None:
    """The store is polled twice a second, however many requests there are."""
    store = Failing(clock)
    revoked = Revocations(store, clock)
    revoked.revoke_principal(KEY.id)
    for _ in range(1000):
        passes(revoked, TOKEN)
    assert store.asked == 1
    clock.advance(0.5)
    passes(revoked, TOKEN)
    assert store.asked == 2


SOUND = Revocation("before", principal="x:y", instant=NOW, created=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"kind": "other"}, id="unknown kind"),
        pytest.param({"issuer": 5}, id="issuer that is no text"),
        pytest.param({"token_id": None}, id="jti that is no text"),
        pytest.param({"instant": True}, id="instant that is no number"),
        pytest.param({"instant": None}, id="no instant"),
        pytest.param({"instant": -1}, id="instant before the epoch"),
        pytest.param({"instant": 1e300}, id="instant that no calendar has"),
        pytest.param({"created": "1"}, id="created as text"),
        pytest.param({"expires": "never"}, id="expires as text"),
        pytest.param({"more": 1}, id="unknown member"),
        pytest.param({"expires": ...}, id="missing member"),
    ],
)
def test_record_of_another_form(changes: dict[str, Any], revoked: Revocations, store: MemoryStore) -> None:
    """A record that is not exactly right rejects everyone: who is meant is not known."""
    members = {
        name: value for name, value in (json.loads(dump_revocation(SOUND)) | changes).items() if value is not ...
    }
    check_damage(revoked, store, json.dumps(members).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"{", b"\xff"], ids=repr)
def test_record_that_is_none(raw: bytes, revoked: Revocations, store: MemoryStore) -> None:
    """The same for bytes that are not a record."""
    check_damage(revoked, store, raw)


def check_damage(revoked: Revocations, store: MemoryStore, raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  each parser says it in its own words
        parse_revocation(raw)
    store.put(SPACE, SOUND.key, raw)
    for action in (lambda: revoked.check(OWN), revoked.list, lambda: revoked.revoke_before(NOW, principal_id="x:y")):
        with pytest.raises(DependencyUnavailable) as caught:
            action()
        assert "damaged" in caught.value.reason
    revoked.undo(SOUND.key)
    assert passes(revoked, OWN)


def test_record_survives_the_store(revoked: Revocations, clock: FakeClock) -> None:
    """The listed records are those that were revoked."""
    made = [
        revoked.revoke_token(ISSUER, "t1", seconds=60),
        revoked.revoke_principal("https://issuer.example#ada"),
        revoked.revoke_before(NOW - 0.5),
    ]
    assert sorted(revoked.list(), key=str) == sorted(made, key=str)
    assert [each.expires for each in made] == [NOW + 60, None, None]


def test_names_of_records_do_not_meet() -> None:
    """Each part of the name is significant; the time of the revocation is not."""
    records = [
        Revocation("token", "a", "b"),
        Revocation("token", "ab", ""),
        Revocation("token", "b", "a"),
        Revocation("principal", principal="a"),
        Revocation("before", principal="a"),
        Revocation("before", issuer="a"),
        Revocation("before"),
    ]
    assert len({each.key for each in records}) == len(records)
    assert replace(records[-1], instant=5.0, created=6.0).key == records[-1].key


def test_app_rejects_what_was_revoked(protected: MakeApp, sink: MemorySink) -> None:
    """C10: the same 401 as for every bad credential, with the reason in the log only; the API is on the state."""
    app = protected()
    client = app.test_client()
    ask = {"base_url": HTTPS, "headers": caller("ada")}
    assert client.get("/x", **ask).status_code == 404
    key = app.extensions["secure_ml"].revocations.revoke_principal("test:ada").key
    response = client.get("/x", **ask)
    assert response.status_code == 401
    assert b"revo" not in response.data
    assert key in sink.records[-1]["reason"]
    assert client.get("/x", base_url=HTTPS, headers=caller("bob")).status_code == 404


def test_said_again_for_a_shorter_time(clock: FakeClock) -> None:
    """Only undo lets a token in again: a shorter time does not replace a longer one, a longer one does."""
    store = MemoryStore(clock)
    revocations = Revocations(store, clock)
    for seconds in (3600, 5, 7200):
        revocations.revoke_token("https://i.example", "t", seconds=seconds)
    clock.advance(7100)
    assert len(revocations.list()) == 1
    clock.advance(200)
    assert revocations.list() == ()


# --- as records change -----------------------------------------------------------------------------------


class Counted:
    """Counts parses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records = 0

        def parse(raw: bytes) -> Revocation:
            self.records += 1
            return parse_revocation(raw)

        monkeypatch.setattr(revocation, "parse_revocation", parse)

    def take(self) -> int:
        """Return how many records were parsed since the last time."""
        found, self.records = self.records, 0
        return found


def test_change_costs_one_record(store: MemoryStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many revocations there are, in the process that revokes as in the others."""
    counted = Counted(monkeypatch)
    one, other = Revocations(store, clock), Revocations(store, clock)
    for number in range(2000):
        record = Revocation("token", ISSUER, f"other {number}")
        store.put(SPACE, record.key, dump_revocation(record))
    assert passes(one, TOKEN)
    assert passes(other, TOKEN)
    assert counted.take() == 3 * 2000
    key = one.revoke_token(ISSUER, "t1").key
    # What is written is parsed first: a record that cannot be read rejects everyone.
    assert counted.take() == 1
    assert not passes(one, TOKEN)
    assert counted.take() == 1
    clock.advance(0.5)
    assert not passes(other, TOKEN)
    assert counted.take() == 1
    other.undo(key)
    assert passes(other, TOKEN)
    clock.advance(0.5)
    assert passes(one, TOKEN)
    assert counted.take() == 0


KINDS: list[tuple[str, str, str]] = [
    ("token", ISSUER, "t1"),
    ("token", ISSUER, "t2"),
    ("principal", "", TOKEN.id),
    ("principal", "", KEY.id),
    ("before", "", ""),
    ("before", ISSUER, ""),
    ("before", "", KEY.id),
    ("before", "", OWN.id),
]


@given(steps=st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(["revoke", "undo", "wait"])), max_size=40))
def test_index_follows_its_records(steps: list[tuple[tuple[str, str, str], str]]) -> None:
    """After any changes it rejects the same tokens as one built from all records."""
    clock = FakeClock(NOW)
    store = MemoryStore(clock)
    old = Revocations(store, clock)
    for (kind, issuer, name), step in steps:
        record = Revocation(
            kind,
            issuer,
            name if kind == "token" else "",
            "" if kind == "token" else name,
            instant=clock.now() if kind == "before" else 0,
        )
        if step == "revoke":
            store.put(SPACE, record.key, dump_revocation(record), seconds=5 if kind == "token" else None)
        elif step == "undo":
            store.delete(SPACE, record.key)
        else:
            clock.advance(1)
        principals = (TOKEN, replace(TOKEN, token_id="t2"), KEY, OWN, replace(KEY, issued=NOW + 3))
        old._snapshot.invalidate()
        new = Revocations(store, clock)
        assert [passes(old, each) for each in principals] == [passes(new, each) for each in principals]


def test_renewed_revocation_never_lets_in(store: MemoryStore, clock: FakeClock) -> None:
    """While a record takes the position of another one, every reader finds one of the two."""
    revocations = Revocations(store, clock)
    record = revocations.revoke_principal(KEY.id)
    assert not passes(revocations, KEY)
    index = revocations._snapshot.read()
    found: list[object] = []

    class Watching(dict[Any, Revocation]):
        def __setitem__(self, key: Any, value: Revocation) -> None:
            found.append(self.get(key))
            super().__setitem__(key, value)

        def pop(self, *_: object) -> Any:
            found.append(None)

    index._principals = Watching(index._principals)
    revocations.revoke_principal(KEY.id)
    assert not passes(revocations, KEY)
    assert found == [record]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "principal", "issuer": ISSUER},
        {"kind": "principal", "principal": ""},
        {"kind": "token", "issuer": ISSUER},
        {"kind": "token", "issuer": ISSUER, "token_id": "t"},
        {"kind": "token", "principal": "", "token_id": "t"},
        {"token_id": "t"},
        {"issuer": ISSUER},
    ],
    ids=str,
)
def test_record_that_names_too_much_or_too_little(
    changes: dict[str, str], revoked: Revocations, store: MemoryStore
) -> None:
    """It would be ambiguous."""
    check_damage(revoked, store, json.dumps(json.loads(dump_revocation(SOUND)) | changes).encode())


def test_record_under_the_key_of_another(revoked: Revocations, store: MemoryStore) -> None:
    """Undoing that one would take this one away."""
    store.put(SPACE, "x", dump_revocation(SOUND))
    with pytest.raises(DependencyUnavailable) as caught:
        revoked.check(OWN)
    assert "damaged" in caught.value.reason
    store.delete(SPACE, "x")
    revoked._snapshot.invalidate()
    assert passes(revoked, OWN)
