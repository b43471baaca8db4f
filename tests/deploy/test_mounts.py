"""Files that an app needs in addition to its code."""

from __future__ import annotations

from pathlib import Path

from deployed_app import create_app, own_facts
from flask_secure_ml.deploy.facts import facts_of
from flask_secure_ml.deploy.mounts import (
    FileMount,
    public_files,
    secret_files,
    secret_variables,
    unusable_paths,
    usable,
    written_folders,
)


def test_secrets() -> None:
    """Variables by name, and files with a key each, also where two have one name."""
    facts = own_facts()
    assert secret_variables(facts) == ("INTROSPECTION_SECRET",)
    assert secret_files(facts) == (FileMount("/run/secrets/store", "store"),)
    app = create_app(
        SECURE_ML_API_KEYS="/var/lib/own/keys of app.json",
        SECURE_ML_API_KEY_PEPPER=["file:/a/pepper", "file:/b/pepper", "file:/b/../b/pepper"],
    )
    assert [each.key for each in secret_files(facts_of(app))] == ["pepper", "pepper-2", "store", "keys_of_app.json"]


def test_files_of_others() -> None:
    """Authorities and key sets are not secrets."""
    issuer = {"issuer": "https://i.example", "audience": "a", "algorithms": ["ES256"]}
    app = create_app(
        SECURE_ML_TOKEN_ISSUERS=[issuer | {"jwks_file": "/etc/i/jwks.json"}],
        SECURE_ML_API_KEYS="store",
        SECURE_ML_API_KEY_PEPPER="env:NOT_SET",
    )
    assert [each.path for each in public_files(facts_of(app))] == ["/etc/i/jwks.json", "/etc/own-model/clients.pem"]
    assert [each.path for each in secret_files(facts_of(app))] == ["/run/secrets/store"]


def test_what_cannot_be_mounted() -> None:
    """A relative path, and a variable that no environment can have, are reported."""
    app = create_app(SECURE_ML_API_KEYS="keys.json", SECURE_ML_API_KEY_PEPPER="env:NOT A NAME")
    assert unusable_paths(facts_of(app)) == ("keys.json", "NOT A NAME")
    assert secret_variables(facts_of(app)) == ("INTROSPECTION_SECRET",)
    assert [each.path for each in usable(secret_files(facts_of(app)))] == ["/run/secrets/store"]


def test_what_is_written(tmp_path: Path) -> None:
    """The directory of the audit log, and those of the request log and a store in a file."""
    (tmp_path / "store").mkdir()
    app = create_app(
        SECURE_ML_AUDIT_LOG="/var/log/own/audit",
        SECURE_ML_REQUEST_LOG=str(tmp_path / "requests.log"),
        SECURE_ML_STORE_URI=f"sqlite:{tmp_path}/store/state.db",
        SECURE_ML_STORE_PASSWORD=None,
    )
    assert written_folders(facts_of(app)) == tuple(sorted(["/var/log/own/audit", str(tmp_path), f"{tmp_path}/store"]))
    assert written_folders(own_facts()) == ()
