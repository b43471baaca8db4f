"""gunicorn over TLS with API keys and a JWKS that is served over HTTP, once for all tests of this folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from joserfc.jwk import Key

from certificates import Certificate, make_certificate
from flask_secure_ml.testing import make_key_set, make_signing_key
from published_keys import published
from servers import WORKERS, Served, gunicorn
from site_under_test import AUDIENCE, ISSUER, Site
from stored_keys import key_in_file
from support import RANDOM_SECRET


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def signing_key() -> Key:
    return make_signing_key("ES256", "served")


@pytest.fixture(scope="session")
def jwks_uri(signing_key: Key) -> Iterator[str]:
    with published(make_key_set(signing_key)) as found:
        yield found.uri


@pytest.fixture(scope="session")
def environ(tmp_path_factory: pytest.TempPathFactory, jwks_uri: str) -> dict[str, str]:
    issuer = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks_uri": jwks_uri}
    settings = {
        "API_KEYS": str(tmp_path_factory.mktemp("keys") / "keys.json"),
        "API_KEY_PEPPER": "env:PEPPER",
        "TOKEN_ISSUERS": json.dumps([issuer | {"insecure_http": True}]),
        "PLANS": json.dumps({"default": {"requests": ["100000/hour"]}, "few": {"requests": ["20/hour"]}}),
        "FAILED_AUTH_LIMITS": "[]",
        "MAX_BODY_BYTES": "20000",
    }
    return (
        dict(os.environ)
        | {"PEPPER": RANDOM_SECRET}
        | {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
    )


@pytest.fixture(scope="session")
def site(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, environ: dict[str, str], signing_key: Key
) -> Iterator[Site]:
    keys_file = Path(environ["FLASK_SECURE_ML_API_KEYS"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", environ["PEPPER"])
        api_key = key_in_file(str(keys_file))
        folder = tmp_path_factory.mktemp("gunicorn")
        with gunicorn(folder, certificate, environ, "--workers", "2", "--threads", "2") as served:
            yield Site(served, api_key, signing_key, keys_file, environ)


@pytest.fixture(scope="session")
def serve(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate, environ: dict[str, str]
) -> Iterator[Callable[[str, bool], Served]]:
    """A function that returns a server with two workers of a class, with TLS or not; each is started once."""
    with ExitStack() as running:

        @cache
        def started(worker: str, tls: bool) -> Served:
            settings = environ if tls else environ | {"FLASK_SECURE_ML_REQUIRE_TLS": "false"}
            options = ("--workers", "2", "--preload", *WORKERS[worker])
            folder = tmp_path_factory.mktemp(worker)
            return running.enter_context(gunicorn(folder, certificate if tls else None, settings, *options))

        yield started
