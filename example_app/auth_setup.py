"""The state directory of the example authorization server, and the command that creates it.

``python -m example_app.auth_setup STATE`` creates clients with new secrets and prints the secrets as JSON;
``python -m example_app.auth_setup STATE --rotate`` rotates the signing key, also while the server is running.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .auth_clients import create_clients
from .auth_keys import SigningKeys, SigningKeysError
from .files import private_directory

ISSUER = "https://127.0.0.1:9443"
RESOURCE = "https://127.0.0.1:8443"


@dataclass(frozen=True)
class Config:
    """The settings of the server.

    :param issuer: its own URL, which is the ``iss`` of its tokens.
    :param resources: the URLs of the APIs for which it issues tokens; the first is the default.
    :param state: its directory, which only its owner can access.
    """

    issuer: str
    resources: tuple[str, ...]
    state: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Return the settings in ``AUTH_ISSUER``, ``AUTH_RESOURCES`` (separated by spaces) and ``AUTH_STATE``."""
        resources = tuple(environ.get("AUTH_RESOURCES", "").split()) or (RESOURCE,)
        return cls(environ.get("AUTH_ISSUER") or ISSUER, resources, Path(environ.get("AUTH_STATE") or ".demo"))

    @property
    def clients(self) -> Path:
        """The file with the clients."""
        return self.state / "auth_clients.json"

    @property
    def keys(self) -> Path:
        """The file with the signing keys."""
        return self.state / "auth_keys.json"

    @property
    def tokens(self) -> Path:
        """The database of issued tokens."""
        return self.state / "auth_tokens.db"


def prepare(config: Config) -> dict[str, str]:
    """Create the files of the server: clients with new secrets, and a signing key if there is none.

    :return: the secrets by client.
    """
    private_directory(config.state)
    SigningKeys(config.keys).ensure()
    return create_clients(config.clients)


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    :return: the exit status.
    """
    parser = ArgumentParser(prog="python -m example_app.auth_setup", description=__doc__.partition("\n")[0])
    parser.add_argument("state", type=Path, help="the directory of the authorization server")
    parser.add_argument("--rotate", action="store_true", help="only rotate the signing key")
    given = parser.parse_args(arguments)
    config = Config(ISSUER, (RESOURCE,), given.state.resolve())
    try:
        print(SigningKeys(config.keys).rotate() if given.rotate else json.dumps(prepare(config)))
    except (OSError, SigningKeysError) as error:
        print(f"auth_setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
