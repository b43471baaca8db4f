"""Apps that are mounted beneath the guards, behind each proxy: both sides have the body limits of their policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from every_proxy_program import PROGRAMS
from httpd import open_folder
from programs import every_proxy
from proxied import Program, proxied

SETTINGS = {
    "SECURE_ML_MOUNTS": ["/v1/mounted"],
    "SECURE_ML_POLICIES": {"/v1/mounted/*": {"caps": {"max_body_bytes": 6_000_000}}},
}


@every_proxy
@pytest.mark.parametrize("program", PROGRAMS)
def test_body_limits(program: Program) -> None:
    """A body between the default limit and that of the policy reaches the app; a larger one is 413."""
    with open_folder() as folder, proxied(Path(folder), program, settings=SETTINGS) as found:
        headers = found.key | {"Content-Type": "application/octet-stream"}
        for path in ("/v1/mounted", "/v1/mounted/deep/path"):
            # Nothing is mounted there, so the app responds with 404.
            assert found.call("POST", path, b"1" * 6_000_000, headers).status == 404
            assert found.call("POST", path, b"1" * 6_000_001, headers).status == 413
        assert found.call("POST", "/v1/other", b"1" * 5_000_000, headers).status == 413
