"""One proof, several workers, real stores: it is taken exactly once (DP-13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from joserfc.jwk import Key

from flask_secure_ml.authentication.tokens.dpop import ProofChecker
from flask_secure_ml.errors import DependencyUnavailable, InvalidProof
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.stores import open_store
from flask_secure_ml.stores.base import SharedStore
from flask_secure_ml.testing import FakeClock, make_dpop_proof, make_signing_key
from proofs import NOW, TOKEN, request_of
from servers import free_port, valkey
from waits import HANG

WORKERS = 6
Open = Callable[[], SharedStore]


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def open_it(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Open]:
    """Open the store as one worker does; the workers of ``memory:`` are threads of one process and share it."""
    if request.param == "memory":
        store = open_store("memory:", None, clock)
        yield lambda: store
    elif request.param == "sqlite":
        yield lambda: open_store(f"sqlite:{tmp_path}/state", None, clock)
    else:
        with valkey(tmp_path) as server:
            yield lambda: open_store(f"valkey://{server.host}:{server.port}/0?socket_timeout={HANG}", None, clock)


@pytest.fixture
def key() -> Key:
    return make_signing_key("ES256")


def worker(store: SharedStore, clock: FakeClock) -> Callable[[str], str]:
    """Return a worker that returns its result for a proof."""
    checker = ProofChecker(("ES256",), 60, clock, store)

    def check(proof: str) -> str:
        try:
            checker.check(request_of(proof), Exchange("r", 0.0, 0.0, "", "", secure=True), TOKEN)
        except InvalidProof as error:
            return error.reason
        return "taken"

    return check


def test_one_of_many_workers_takes_a_proof(open_it: Open, clock: FakeClock, key: Key) -> None:
    """A proof that comes to all workers at once is taken by one, and later by none."""
    workers = [worker(open_it(), clock) for _ in range(WORKERS)]
    proof = make_dpop_proof(key, TOKEN, now=NOW)
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(lambda check: check(proof), workers))
    assert sorted(outcomes) == sorted(["taken", *["the proof was used before"] * (WORKERS - 1)])
    assert worker(open_it(), clock)(proof) == "the proof was used before"


def test_other_proofs_are_taken(open_it: Open, clock: FakeClock, key: Key) -> None:
    """Every worker accepts proofs that were not used before."""
    outcomes = [worker(open_it(), clock)(make_dpop_proof(key, TOKEN, now=NOW)) for _ in range(WORKERS)]
    assert set(outcomes) == {"taken"}


def test_no_server_no_proof(clock: FakeClock, key: Key) -> None:
    """While the server of the store is down, no proof is taken and the response is 503."""
    check = worker(open_store(f"valkey://127.0.0.1:{free_port()}/0", None, clock), clock)
    with pytest.raises(DependencyUnavailable):
        check(make_dpop_proof(key, TOKEN, now=NOW))
