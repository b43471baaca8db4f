"""The target ``systemd``: its rating, the translation of settings, and gunicorn with socket activation."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certificates import make_certificate
from deployed_app import SETTINGS, create_app, own_facts
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets import gunicorn
from flask_secure_ml.deploy.targets.systemd import TARGET, quoted
from programs import needs
from servers import PATIENCE, Served
from support import RANDOM_SECRET

HIGHEST_EXPOSURE = 2.0
HOSTILE = "a\"b'c \\ %h %% $HOME ${X}\n[Service]\nExecStart=/bin/sh\té\U0001f600\x7f # ; \\x41"


def made(facts: Facts | None = None) -> dict[str, str]:
    return dict(TARGET.make(facts or own_facts()))


def lines(unit: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{name}=")]


def unquoted(value: str) -> str:
    """Return a quoted string as parsed by systemd: C escapes, then specifiers."""
    assert value.startswith('"')
    assert value.endswith('"')
    assert not re.search(r'(?<!\\)"', value[1:-1])
    plain = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), value[1:-1].encode())
    return re.sub("%(.)", lambda match: {"%": "%", "d": "/run/credentials/own"}[match[1]], plain.decode())


def listening() -> Facts:
    """Return the facts of an app with metrics on a port of their own."""
    return facts_of(create_app(SECURE_ML_METRICS=None, SECURE_ML_METRICS_LISTEN="127.0.0.1:9100"))


def test_the_port_of_metrics() -> None:
    """gunicorn binds it itself, so the unit allows exactly this one."""
    (service,) = (content for name, content in made(listening()).items() if name.endswith(".service"))
    assert lines(service, "SocketBindDeny") == ["any"]
    assert lines(service, "SocketBindAllow") == ["tcp:9100"]
    (service,) = (content for name, content in made().items() if name.endswith(".service"))
    assert lines(service, "SocketBindAllow") == []


@needs("systemd-analyze")
def test_verify_and_rate(tmp_path: Path) -> None:
    """systemd reads the units without a remark, and rates the exposure below 2."""
    app = create_app(SECURE_ML_REALM="x", SECURE_ML_AUDIT_LOG="/srv/audit log")
    facts = facts_of(app)
    hostile = Facts(
        **{name: getattr(facts, name) for name in facts.__dataclass_fields__} | {"environment": {"FLASK_X": HOSTILE}}
    )
    made_for = (own_facts(), hostile, own_facts(bind="unix:/run/own/own.sock"), listening())
    for number, each in enumerate(made_for):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = made(each)
        (name,) = (name for name in files if name.endswith(".service"))
        for path, content in files.items():
            (folder / path).write_text(re.sub(r"/opt/[a-z-]+/venv/bin/python", sys.executable, content))
        units = [str(folder / path) for path in files if path.endswith((".service", ".socket"))]
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        rated = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", str(folder / name)],
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", rated.stdout)
        assert found is not None
        assert float(found[1]) < HIGHEST_EXPOSURE


def test_the_port_of_the_metrics() -> None:
    """It is the only one that the service binds itself; otherwise gunicorn could not start."""
    (unit,) = (each for name, each in made().items() if name.endswith(".service"))
    assert (lines(unit, "SocketBindDeny"), lines(unit, "SocketBindAllow")) == (["any"], [])
    facts = facts_of(create_app(SECURE_ML_METRICS_LISTEN="127.0.0.1:9100"))
    (unit,) = (each for name, each in made(facts).items() if name.endswith(".service"))
    assert (lines(unit, "SocketBindDeny"), lines(unit, "SocketBindAllow")) == (["any"], ["tcp:9100"])


@pytest.mark.parametrize("value", [HOSTILE, "", " a  b ", "%d", '"', "\\"])
def test_quoting(value: str) -> None:
    """No value can end its line or its quotes, or act as a specifier or an escape."""
    found = quoted(value)
    assert found.isascii()
    assert found.isprintable()
    assert unquoted(found) == value


def test_settings() -> None:
    """The service has those of the app, with secrets where systemd copies them to."""
    unit = made()["own-model.service"]
    found = dict(unquoted(line).split("=", 1) for line in lines(unit, "Environment") if line.startswith('"'))
    wanted = dict(own_facts().environment)
    assert found == wanted | {"FLASK_SECURE_ML_STORE_PASSWORD": "file:/run/credentials/own/store"}
    assert lines(unit, "LoadCredential") == ["store:/run/secrets/store"]
    assert lines(unit, "EnvironmentFile") == ["/etc/own-model/secrets.env"]


def test_credentials() -> None:
    """Each file with a secret is one, in lists and objects too, but not the file of API keys, which workers watch."""
    app = create_app(
        SECURE_ML_TRUSTED_PROXIES=[],
        SECURE_ML_CLIENT_CERTIFICATE_HEADER=None,
        SECURE_ML_API_KEYS="/var/lib/own-model/keys.json",
        SECURE_ML_API_KEY_PEPPER=["file:/etc/own/new", "file:/etc/own/../own/old"],
        SECURE_ML_DEPLOY=SETTINGS["SECURE_ML_DEPLOY"] | {"certificate_key": "/etc/own/tls.key"},
        SECURE_ML_TOKEN_ISSUERS=[
            {
                "issuer": "https://i.example",
                "audience": "a",
                "introspection_uri": "https://i.example/introspect",
                "client_id": "a",
                "client_secret": "file:/etc/own/client",
            }
        ],
    )
    unit = made(facts_of(app))["own-model.service"]
    assert sorted(lines(unit, "LoadCredential")) == [
        "client:/etc/own/client",
        "gunicorn.key:/etc/own/tls.key",
        "new:/etc/own/new",
        "old:/etc/own/old",
        "store:/run/secrets/store",
    ]
    found = dict(unquoted(line).split("=", 1) for line in lines(unit, "Environment") if line.startswith('"'))
    folder = "file:/run/credentials/own"
    assert json.loads(found["FLASK_SECURE_ML_API_KEY_PEPPER"]) == [f"{folder}/new", f"{folder}/old"]
    assert json.loads(found["FLASK_SECURE_ML_TOKEN_ISSUERS"])[0]["client_secret"] == f"{folder}/client"
    assert found["FLASK_SECURE_ML_API_KEYS"] == "/var/lib/own-model/keys.json"
    assert "--keyfile %d/gunicorn.key" in lines(unit, "ExecStart")[0]


@pytest.mark.parametrize(
    ("bind", "listen"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("[::1]:8000", "[::1]:8000"),
        ("app1.internal:8000", "8000"),
        ("localhost:8000", "127.0.0.1:8000"),
        ("unix:/run/own/own.sock", "/run/own/own.sock"),
    ],
)
def test_socket(bind: str, listen: str) -> None:
    """Only a proxy in the group can connect to a Unix socket."""
    unit = made(own_facts(bind=bind))["own-model.socket"]
    assert lines(unit, "ListenStream") == [listen]
    assert (lines(unit, "SocketMode") == ["0660"]) == bind.startswith("unix:")


@contextmanager
def started(folder: Path, *before: str) -> Iterator[Served]:
    """Start the command of the unit as systemd does, and wait until it reports that it is ready.

    :param before: a program that starts it, with its arguments.
    """
    certificate = make_certificate(folder)
    settings = {
        "STORE_URI": "memory:",
        "STORE_PASSWORD": "null",
        "TRUSTED_PROXIES": "[]",
        "CLIENT_CERTIFICATE_HEADER": "null",
        "MTLS_CA_FILE": str(certificate.certificate),
    }
    changed = {
        "app": "deployed_app:serve_app()",
        "certificate": str(certificate.certificate),
        "client_certificates": "off",
    }
    app = create_app(
        SECURE_ML_TRUSTED_PROXIES=[],
        SECURE_ML_CLIENT_CERTIFICATE_HEADER=None,
        SECURE_ML_DEPLOY=SETTINGS["SECURE_ML_DEPLOY"] | changed,
    )
    facts = facts_of(app)
    (folder / "gunicorn.conf.py").write_text(gunicorn.TARGET.make(facts)["gunicorn.conf.py"])
    (folder / "gunicorn.key").write_bytes(certificate.key.read_bytes())
    (command,) = lines(made(facts)["own-model.service"], "ExecStart")
    places = {"%d": str(folder), "/opt/own-model/venv/bin/python": sys.executable, "/etc/own-model": str(folder)}
    for old, new in places.items():
        assert old in command
        command = command.replace(old, new)
    # The socket is descriptor 3, and the environment names the process that it is for.
    start = (
        "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); os.set_inheritable(3, True)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"
    )
    environ = os.environ | {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
    environ["INTROSPECTION_SECRET"] = RANDOM_SECRET
    with (
        (folder / "log").open("wb") as log,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        notified.bind(str(folder / "notify"))
        notified.settimeout(PATIENCE)
        process = subprocess.Popen(
            [*before, sys.executable, "-c", start, str(listener.fileno()), *shlex.split(command)],
            env=environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            cwd=Path(__file__).parents[1] / "shared",
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
        )
        try:
            assert notified.recv(4096).startswith(b"READY=1\n")
            yield Served(listener.getsockname()[1], certificate, folder / "log")
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0


def test_gunicorn_on_the_socket(tmp_path: Path) -> None:
    """With the command of the unit and a socket as of systemd, gunicorn reports that it is ready, and serves there."""
    with started(tmp_path) as served:
        assert served.call("GET", "/livez")[0] == 200
        assert served.call("GET", "/v1/whoami")[0] == 401


@needs("strace")
@needs("systemd-analyze")
def test_system_calls(tmp_path: Path) -> None:
    """gunicorn and the app work while every system call denied by the unit fails as configured."""
    unit = made()["own-model.service"]
    allowed: set[str] = set()
    for line in lines(unit, "SystemCallFilter"):
        names = {name for each in line.removeprefix("~").split() for name in system_calls(each)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    denied = sorted(system_calls("@known") - allowed)
    assert {"mount", "ptrace", "setuid", "chown", "bpf"} <= set(denied)
    inject = f"inject={','.join(f'?{name}' for name in denied)}:error={lines(unit, 'SystemCallErrorNumber')[0]}"
    trace = tmp_path / "trace"
    with started(tmp_path, "strace", "-D", "-f", "-qq", "-o", str(trace), "-e", inject, "-e", "trace=all") as served:
        assert served.call("GET", "/livez")[0] == 200
        assert served.call("GET", "/v1/whoami")[0] == 401
    found = trace.read_text(errors="replace")
    # A page that is written and then run, which MemoryDenyWriteExecute denies.
    assert not re.search(r"(mmap|mprotect)\([^)]*PROT_WRITE\|PROT_EXEC|mprotect\([^)]*PROT_EXEC", found)


def system_calls(name: str) -> set[str]:
    """Return the system calls of a set of systemd, with those of the sets in it."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    found = [line.strip() for line in done.stdout.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return {each for inner in found for each in system_calls(inner)}
