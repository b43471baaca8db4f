"""The clients of the example authorization server, with their scopes and the hashes of their secrets."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hmac import compare_digest
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from authlib.oauth2.rfc6749 import ClientMixin

from .files import PRIVATE, write

BASIC = "client_secret_basic"
GRANT = "client_credentials"
SECRET_BYTES = 32
SCOPES = ("predict", "metrics")


class ClientsError(Exception):
    """The file of clients cannot be used. The message has a remedy."""


@dataclass(frozen=True)
class Client(ClientMixin):
    """One registered client, with the interface that Authlib requires.

    :param secret_sha256: the hash of its secret, in hexadecimal. Secrets are 32 random bytes, so a slow hash is not
        needed against guessing.
    :param scopes: the scopes that its tokens can have; without any, it gets no token.
    :param opaque: its tokens are random strings, not JWTs.
    :param introspects: it is a resource server, which may introspect tokens.
    """

    client_id: str
    secret_sha256: str
    scopes: tuple[str, ...] = ()
    opaque: bool = False
    introspects: bool = False

    def get_client_id(self) -> str:
        """Return the id of the client."""
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        """Return the requested scopes, or all scopes of the client if it requests none (RFC 6749 section 3.3).

        The grant has already rejected other scopes.
        """
        return " ".join(dict.fromkeys((scope or "").split())) or " ".join(self.scopes)

    def check_client_secret(self, client_secret: str) -> bool:
        """Return True if the secret is correct, comparing in constant time."""
        return compare_digest(_hash(client_secret), self.secret_sha256)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Return True for HTTP Basic only, because secrets in a body are more likely to be logged."""
        return method == BASIC

    def check_grant_type(self, grant_type: str) -> bool:
        """Return True for client credentials, if the client has scopes."""
        return grant_type == GRANT and bool(self.scopes)


# The clients of the demo: two that call the API, and the API itself.
DEMO = (
    Client("demo", "", scopes=SCOPES),
    Client("demo-opaque", "", scopes=SCOPES, opaque=True),
    Client("models", "", introspects=True),
)


def create_clients(path: Path, clients: Iterable[Client] = DEMO) -> dict[str, str]:
    """Write the file of clients with new secrets, replacing the previous one.

    :param clients: the clients; their hashes are ignored.
    :return: the secrets by client; they are not stored.
    """
    made = {each.client_id: secrets.token_hex(SECRET_BYTES) for each in clients}
    entries = [asdict(each) | {"secret_sha256": _hash(made[each.client_id])} for each in clients]
    write(path, json.dumps({"clients": entries}, indent=2).encode(), PRIVATE)
    return made


def load_clients(path: Path) -> Mapping[str, Client]:
    """Return the clients by id.

    :raises ClientsError: the file is missing or invalid.
    """
    try:
        entries = json.loads(path.read_bytes())["clients"]
        clients = [Client(**entry | {"scopes": tuple(entry["scopes"])}) for entry in entries]
    except OSError as error:
        raise ClientsError(
            f"cannot read {path}: {error.strerror}; python -m example_app.auth_setup creates it"
        ) from None
    except (KeyError, TypeError, ValueError):
        raise ClientsError(f"{path} is not a file of clients; delete it and start again") from None
    return {each.client_id: each for each in clients}


def authenticate_basic(clients: Mapping[str, Client], headers: Mapping[str, str]) -> Client | None:
    """Return the client that a request authenticates with HTTP Basic (RFC 6749 section 2.3.1); None if there is none.

    Authlib's own method raises on bytes that are not UTF-8, does not decode a plus sign to a space, and reveals whether
    the id or the secret was wrong.
    """
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    try:
        name, colon, secret = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    if scheme.lower() != "basic" or not colon:
        return None
    client = clients.get(unquote_plus(name), _NOBODY)
    return client if client.check_client_secret(unquote_plus(secret)) else None


def beyond(client: Client, scope: str | None, known: Sequence[str] = SCOPES) -> bool:
    """Return True if a client requests a scope for which it is not registered."""
    return not set((scope or "").split()) <= set(client.scopes) & set(known)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


# No secret has this hash, and comparing it takes as long as for a real client.
_NOBODY: Any = Client("", "0" * 64)
