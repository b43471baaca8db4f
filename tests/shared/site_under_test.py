"""The app that the tests of real servers call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joserfc.jwk import Key

from servers import Served

ISSUER = "https://as.example"
AUDIENCE = "https://api.example"


@dataclass(frozen=True)
class Site:
    """A served app, with the credentials of a caller."""

    served: Served
    api_key: str
    signing_key: Key
    keys_file: Path
    environ: dict[str, str]

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key, "Content-Type": "application/json"}
