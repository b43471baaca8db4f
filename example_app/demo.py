"""The whole example in one command: ``python -m example_app.demo``, which ``make demo`` runs.

It trains the model, creates a certificate and an API key, serves over HTTPS and prints a command that calls the API.
Environment variables: ``HOST``, ``PORT`` and ``DEMO_STATE`` (the directory for all files that it creates, ``.demo``).
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from flask_secure_ml.deploy import dev_certificate
from flask_secure_ml.observe.audit.keys import APP_KEYS, make_keys

from . import model
from .files import PRIVATE, private_directory, write
from .keys import KeysError, fresh_key
from .server import Address, Server, ServerError

# A handwritten three from the test data: 8 by 8 pixels, 0 is white and 16 is black.
THREE = (
    *(0, 1, 9, 15, 13, 4, 0, 0),
    *(0, 5, 12, 4, 10, 6, 0, 0),
    *(0, 0, 0, 3, 15, 2, 0, 0),
    *(0, 0, 0, 15, 13, 1, 0, 0),
    *(0, 0, 0, 2, 9, 14, 2, 0),
    *(0, 0, 0, 0, 0, 11, 8, 0),
    *(0, 0, 10, 6, 4, 11, 7, 0),
    *(0, 0, 8, 15, 16, 9, 1, 0),
)
PEPPER_BYTES = 32


@dataclass(frozen=True)
class Api:
    """The settings of the example API, ready to start.

    :param state: the directory for all files that the demo creates.
    :param authority: the certificate that clients trust.
    :param key: an API key.
    :param tls: the environment variables of gunicorn for the certificate.
    :param settings: the environment variables of the API.
    :param verify: the command that verifies the audit log.
    """

    state: Path
    authority: Path
    key: str
    tls: Mapping[str, str]
    settings: Mapping[str, str]
    verify: str = ""


def main(environ: Mapping[str, str], run: Callable[[Mapping[str, str]], None] | None = None) -> int:
    """Run a demo until it ends or is interrupted.

    :param run: the demo; it must stop its servers when an exception is raised.
    :return: the exit status: 0 at the end or after Ctrl-C or a termination signal, 1 if the demo failed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        (run or _run)(environ)
    except KeyboardInterrupt:
        say("Stopped.")
    except (model.ModelError, KeysError, ServerError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    """Print a message and flush it, because the output may be a pipe."""
    print(text, flush=True)


def curl_command(address: Address, authority: Path, key: str, environ: Mapping[str, str]) -> str:
    """Return a shell command that requests a prediction, and works in any directory."""
    words = [*curl(authority, environ), "-H", f"X-API-Key: {key}", "-H", "Content-Type: application/json"]
    return shlex.join([*words, "-d", payload(), f"{address.url}/v1/predict"])


def curl(authority: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the words with which every curl command begins."""
    words = ["curl", "--cacert", str(authority)]
    if any(environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        words += ["--noproxy", "*"]
    return words


def payload() -> str:
    """Return a request body with one image."""
    return json.dumps({"instances": [THREE]}, separators=(",", ":"))


def prepare(environ: Mapping[str, str], host: str) -> Api:
    """Train the model, create a certificate and an API key, and report each step.

    :param host: the host on which the API will listen.
    """
    state = private_directory(Path(environ.get("DEMO_STATE", "") or ".demo").resolve())
    trained = _model(state)
    issued = _certificate(state, host)
    pepper = _pepper(state)
    key, keys = fresh_key(state, pepper)
    log, verify = _audit_log(state)
    say("Created a new API key with the scopes predict and metrics; keys from earlier starts no longer work.")
    settings = {
        "FLASK_MODEL_FILE": str(trained),
        "FLASK_SECURE_ML_API_KEYS": str(keys),
        "FLASK_SECURE_ML_API_KEY_PEPPER": f"file:{pepper}",
        "FLASK_SECURE_ML_STORE_URI": f"sqlite:{state / 'state.db'}",
        "FLASK_SECURE_ML_OPENAPI": "public",
        "FLASK_SECURE_ML_AUDIT_LOG": str(log),
        "FLASK_SECURE_ML_AUDIT_CHECKPOINT_SINKS": json.dumps([f"file:{state / 'audit-checkpoints'}"]),
    }
    tls = {"SECURE_ML_SERVE_CERTIFICATE": str(issued.certificate), "SECURE_ML_SERVE_PRIVATE_KEY": str(issued.key)}
    return Api(state, issued.authority, key, tls, settings, verify)


def _run(environ: Mapping[str, str]) -> None:
    address = Address.parse(environ.get("HOST", ""), environ.get("PORT", ""))
    address.check_free()
    api = prepare(environ, address.host)
    say("Starting gunicorn ...")
    with Server(address, {**environ, **api.tls, **api.settings}) as server:
        server.wait_until_ready(api.authority)
        _welcome(address, curl_command(address, api.authority, api.key, environ), api.verify)
        server.wait()


def _model(state: Path) -> Path:
    path = state / "model.npz"
    if not path.exists() or not model.digest_path(path).exists():
        say("Training a digits classifier (a few seconds) ...")
        # Importing scikit-learn takes a second, and only the first start needs it.
        from .training import train

        model.save(train(), path)
    trained = model.load(path, model.trained_digest(path))
    say(f"Model ready: {float(trained.accuracy):.1%} accuracy on the test images.")
    return path


def _certificate(state: Path, host: str) -> dev_certificate.DevCertificate:
    found = dev_certificate.ensure(state, [host], datetime.now(UTC))
    say(f"{'Created' if found.created else 'Kept'} the development certificate; its authority is {found.authority}")
    return found


def _audit_log(state: Path) -> tuple[Path, str]:
    """Return the directory of the audit log, which is created once, and the command that verifies it.

    In production, keep the verification key and the checkpoints on another machine.
    """
    log, key = state / "audit", state / "audit-verification.key"
    if not (log / APP_KEYS).exists():
        key.unlink(missing_ok=True)
        make_keys(log, key, "demo/audit")
    words = [sys.executable, "-m", "flask", "secure-ml", "audit", "verify", str(log), "--key", str(key)]
    return log, shlex.join([*words, "--checkpoint-from", str(state / "audit-checkpoints")])


def _pepper(state: Path) -> Path:
    path = state / "pepper"
    if not path.exists():
        write(path, secrets.token_hex(PEPPER_BYTES).encode(), PRIVATE)
    return path


def _welcome(address: Address, curl: str, verify: str) -> None:
    say(f"\nServing on {address.url} (Ctrl-C to stop). Request a prediction in another terminal:\n")
    say(f"{curl}\n")
    say(f"Read and try the API in a browser, which warns about the development certificate: {address.url}/docs\n")
    say(f"Verify the audit log of all requests with its last checkpoint (one per minute):\n\n{verify}\n")
    say("The request log follows, one line of JSON per request:")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(os.environ))
