"""The target ``compose``: its schema, the privileges of services, and nginx and the app with its certificates."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from certificates import Certificate
from deployed_app import METRICS_PORT, create_app, own_facts, port_facts
from flask_secure_ml import SecureML
from flask_secure_ml.deploy.containers import VALKEY_ACL
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.compose import SUBNET, TARGET
from programs import needs, needs_tool
from servers import accepts, free_port, gunicorn, started
from support import RANDOM_SECRET

HOSTILE = "a\"b'c: {x} #y\n---\n- é\u2028\U0001f600 $X ${Y} $$"


def made(facts: Facts | None = None) -> dict[str, str]:
    return dict(TARGET.make(facts or own_facts()))


def services(facts: Facts | None = None) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(made(facts)["compose.yaml"])["services"]
    return found


def bare_facts() -> Facts:
    app = Flask("bare", static_folder=None)
    SecureML(app)
    return facts_of(app)


def full_facts() -> Facts:
    return facts_of(
        create_app(
            SECURE_ML_API_KEYS="/etc/keys.json",
            SECURE_ML_API_KEY_PEPPER="file:/run/secrets/pepper",
            SECURE_ML_AUDIT_LOG="/var/log/own",
        )
    )


FACTS = {"own": own_facts, "bare": bare_facts, "full": full_facts, "port": port_facts}


@pytest.fixture(params=FACTS)
def facts(request: pytest.FixtureRequest) -> Facts:
    return FACTS[request.param]()


def write(files: dict[str, str], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@needs_tool("check-jsonschema")
def test_schema(tmp_path: Path) -> None:
    """The file matches the Compose specification."""
    for name, facts in FACTS.items():
        (tmp_path / f"{name}.yaml").write_text(made(facts())["compose.yaml"])
    command = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@needs_tool("yamllint")
def test_yamllint(facts: Facts, tmp_path: Path) -> None:
    """The style that the tool has by default, with lines of 140."""
    write(made(facts), tmp_path)
    rules = "{extends: default, rules: {line-length: {max: 140}, octal-values: enable}}"
    done = subprocess.run(["yamllint", "--strict", "-d", rules, str(tmp_path)], capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "")


def test_every_service_is_hardened(facts: Facts) -> None:
    """A read-only root, no capabilities except CHOWN of "setup", no new privileges, and limits."""
    found = services(facts)
    assert {"setup", "app", "proxy", "store"} <= found.keys()
    for name, service in found.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pids_limit"] <= 512
        assert service.get("cap_add", []) == (["CHOWN"] if name == "setup" else [])
        assert "privileged" not in service
        assert name == "setup" or {"mem_limit", "healthcheck"} <= service.keys()
        assert not [mount for mount in service.get("volumes", []) if "docker.sock" in str(mount)]
    assert found["setup"]["network_mode"] == "none"


@pytest.mark.parametrize(
    "settings",
    [
        {"SECURE_ML_SENTRY_DSN": "env:SENTRY_DSN"},
        {
            "SECURE_ML_AUDIT_CHECKPOINT_SINKS": ["syslog+udp://logs.example.com"],
            "SECURE_ML_AUDIT_LOG": "/var/log/own",
        },
        {"SECURE_ML_STORE_PASSWORD": "vault:secret/model#store"},
    ],
    ids=min,
)
def test_servers_elsewhere(settings: dict[str, Any]) -> None:
    """The app is in a network from which it reaches them; without any, it is not."""
    bare: dict[str, Any] = {"SECURE_ML_TOKEN_ISSUERS": []}
    for more, expected in ((settings, True), ({}, False)):
        description = yaml.safe_load(made(facts_of(create_app(**bare, **more)))["compose.yaml"])
        assert ("outside" in description["services"]["app"]["networks"]) is expected


def test_networks(facts: Facts) -> None:
    """Only nginx can be reached from outside, only nginx and the app share a network, only the app and the store."""
    description = yaml.safe_load(made(facts)["compose.yaml"])
    members: dict[str, set[str]] = {}
    for name, service in description["services"].items():
        for network in service.get("networks", []):
            members.setdefault(network, set()).add(name)
    assert members["proxy"] == {"app", "proxy"}
    assert members["store"] == {"app", "store"}
    assert all(description["networks"][name]["internal"] for name in ("proxy", "store", "metrics"))
    published = {name: each["ports"] for name, each in description["services"].items() if "ports" in each}
    assert published.keys() <= {"proxy", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in published.get("grafana", []))
    assert ("outside" in members) == bool([each for each in facts.destinations if each.purpose != "store"])
    assert description["networks"]["proxy"]["ipam"]["config"] == [{"subnet": f"${{PROXY_SUBNET:-{SUBNET}}}"}]
    environment = description["services"]["app"]["environment"]
    assert environment["FLASK_SECURE_ML_TRUSTED_PROXIES"] == f'["${{PROXY_SUBNET:-{SUBNET}}}"]'


def test_everything_that_is_mounted_is_described(facts: Facts) -> None:
    """Each volume, file and secret of a service is declared, and each generated file is there."""
    files = made(facts)
    description = yaml.safe_load(files["compose.yaml"])
    for service in description["services"].values():
        assert {mount.split(":")[0] for mount in service.get("volumes", [])} <= description["volumes"].keys()
        for kind in ("configs", "secrets"):
            names = {each["source"] if isinstance(each, dict) else each for each in service.get(kind, [])}
            assert names <= description.get(kind, {}).keys()
    places = [each["file"] for kind in ("configs",) for each in description[kind].values()]
    of_others = re.compile(r"\./(files|secrets)/|\.\./(prometheus|grafana)/")
    assert {place.removeprefix("./") for place in places if not of_others.match(place)} <= files.keys()


def test_settings() -> None:
    """The app has its own settings, except for the store and the proxy of these services."""
    facts = own_facts()
    environment = services(replace(facts, environment=dict(facts.environment) | {"FLASK_X": HOSTILE}))["app"][
        "environment"
    ]
    found = {name: value.replace("$$", "$") for name, value in environment.items()}
    assert found["FLASK_X"] == HOSTILE
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", environment["FLASK_X"])
    changed = {f"FLASK_SECURE_ML_{name}" for name in ("STORE_URI", "STORE_PASSWORD", "TRUSTED_PROXIES")}
    assert {name: value for name, value in facts.environment.items() if name not in changed}.items() <= found.items()
    assert found["FLASK_SECURE_ML_STORE_URI"].startswith("rediss://model@store:6379/0?ssl_ca_certs=/run/tls/")
    assert environment["INTROSPECTION_SECRET"] == "${INTROSPECTION_SECRET:?is a secret of the app}"


@pytest.mark.parametrize("header", [None, "Client-Cert", "X-Forwarded-Client-Cert", "X-SSL-Client-Cert"])
def test_the_header_of_certificates(header: str | None) -> None:
    """nginx sends verified certificates in the header that the app reads, whatever header the app reads elsewhere."""
    files = made(facts_of(create_app(SECURE_ML_CLIENT_CERTIFICATE_HEADER=header)))
    environment = yaml.safe_load(files["compose.yaml"])["services"]["app"]["environment"]
    read = environment["FLASK_SECURE_ML_CLIENT_CERTIFICATE_HEADER"]
    assert f"proxy_set_header {read} $client_certificate;" in files["nginx/nginx.conf"]
    assert files["nginx/nginx.conf"] == made(own_facts())["nginx/nginx.conf"]


def test_no_header_of_certificates() -> None:
    """Without client certificates, nginx forwards none."""
    files = made(own_facts(client_certificates="off"))
    assert 'proxy_set_header X-SSL-Client-Cert "";' in files["nginx/nginx.conf"]
    assert "$client_certificate;" not in files["nginx/nginx.conf"]


@pytest.mark.parametrize(
    ("settings", "has_outside"),
    [
        ({"SECURE_ML_TOKEN_ISSUERS": []}, False),
        ({"SECURE_ML_TOKEN_ISSUERS": [], "SECURE_ML_SENTRY_DSN": "env:DSN"}, True),
        (
            {"SECURE_ML_TOKEN_ISSUERS": [], "SECURE_ML_API_KEYS": "store", "SECURE_ML_API_KEY_PEPPER": "vault:a/b#c"},
            True,
        ),
        ({"SECURE_ML_TOKEN_ISSUERS": [], "RATELIMIT_STORAGE_URI": "redis://limits.example.com/0"}, True),
        (
            {
                "SECURE_ML_TOKEN_ISSUERS": [],
                "SECURE_ML_AUDIT_LOG": "/var/log/own",
                "SECURE_ML_AUDIT_CHECKPOINT_SINKS": ["https://witness.example.com/x"],
            },
            True,
        ),
    ],
    ids=["none", "sentry", "vault", "limits", "checkpoints"],
)
def test_servers_outside(settings: dict[str, Any], has_outside: bool) -> None:
    """The app can connect to every server outside that its settings name."""
    assert ("outside" in services(facts_of(create_app(**settings)))["app"]["networks"]) == has_outside


def test_hostile_references() -> None:
    """Whatever a reference contains, it is a name, a path, or left out with a warning."""
    odd = ['/run/a"b $c', "/run/d\n- e", "/run/f:g"]
    references = ["env:A}\n    - x: ${B}", *(f"file:{path}" for path in odd)]
    facts = facts_of(create_app(SECURE_ML_API_KEYS="store", SECURE_ML_API_KEY_PEPPER=references))
    app = services(facts)["app"]
    assert [each["target"] for each in app["secrets"]] == ['/run/a"b $$c']
    assert [name for name, value in app["environment"].items() if value.startswith("${")] == ["INTROSPECTION_SECRET"]
    found = "\n".join(TARGET.warn(facts))
    assert all(json.dumps(each) in found for each in (*odd[1:], references[0].removeprefix("env:")))


def test_secrets() -> None:
    """Files with secrets are where the settings look for them; the store has a password of its own."""
    app = services(full_facts())["app"]
    assert {each["target"] for each in app["secrets"]} == {"/etc/keys.json", "/run/secrets/pepper"}
    assert {each["target"] for each in app["configs"]} == {"/etc/own-model/clients.pem"}
    assert "state-1:/var/log/own" in app["volumes"]
    # The store of another deployment has other authorities.
    uri = "rediss://model@h/0?ssl_ca_certs=/etc/own/valkey.pem"
    app = services(facts_of(create_app(SECURE_ML_STORE_URI=uri)))["app"]
    assert {each["target"] for each in app["configs"]} == {"/etc/own-model/clients.pem"}


def test_metrics_on_a_port() -> None:
    """They are scraped there, with the token of the port."""
    (job,) = yaml.safe_load(made(port_facts())["prometheus.yml"])["scrape_configs"]
    assert (job["scheme"], job["metrics_path"], job["authorization"]["type"]) == ("http", "/metrics", "Bearer")
    assert job["static_configs"] == [{"targets": ["app:9100"]}]
    facts = facts_of(create_app(**METRICS_PORT | {"SECURE_ML_METRICS_LISTEN": "127.0.0.1:9100"}))
    assert "prometheus.yml" not in made(facts)
    assert any("0.0.0.0:9100" in each for each in TARGET.warn(facts))


@needs("promtool")
@pytest.mark.parametrize("name", ["own", "port"])
def test_prometheus(name: str, tmp_path: Path) -> None:
    """Prometheus reads its configuration, with the alerts."""
    write(made(FACTS[name]()), tmp_path)
    config = (tmp_path / "prometheus.yml").read_text()
    (tmp_path / "ca.crt").touch()
    (tmp_path / "key").touch()
    config = config.replace("/run/trust/ca.crt", str(tmp_path / "ca.crt"))
    (tmp_path / "prometheus.yml").write_text(config.replace("/run/secrets/metrics-key", str(tmp_path / "key")))
    done = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


VOLUMES = ("authority", "app", "proxy", "store", "store-data", "trust")


def set_up(folder: Path) -> Path:
    """Run the service ``setup`` as it runs in its container."""
    (folder / "setup.py").write_text(made()["setup.py"].replace("UID = 10001", f"UID = {os.getuid()}"))
    for name in VOLUMES:
        (folder / "volumes" / name).mkdir(parents=True, exist_ok=True)
    # As in the image, without what the user of the tests has.
    subprocess.run([sys.executable, str(folder / "setup.py"), str(folder / "volumes")], check=True, timeout=60)
    return folder / "volumes"


def test_setup(tmp_path: Path) -> None:
    """It creates missing files, keeps existing ones, and does not share the key of the authority."""
    volumes = set_up(tmp_path)
    before = {path: path.read_bytes() for path in volumes.rglob("*") if path.is_file()}
    names = sorted(str(path.relative_to(volumes)) for path in before)
    assert names == [
        "app/ca.crt",
        "app/store-password",
        "app/tls.crt",
        "app/tls.key",
        "authority/ca.crt",
        "authority/ca.key",
        "proxy/tls.crt",
        "proxy/tls.key",
        "store/ca.crt",
        "store/tls.crt",
        "store/tls.key",
        "store/users.acl",
        "trust/ca.crt",
    ]
    assert stat.S_IMODE((volumes / "authority" / "ca.key").stat().st_mode) == 0o400
    assert before[volumes / "app" / "store-password"] not in before[volumes / "store" / "users.acl"]
    digest = hashlib.sha256(before[volumes / "app" / "store-password"]).hexdigest()
    assert f"user model on #{digest} {VALKEY_ACL}\n" in before[volumes / "store" / "users.acl"].decode()
    set_up(tmp_path)
    assert {path: path.read_bytes() for path in volumes.rglob("*") if path.is_file()} == before
    (volumes / "proxy" / "tls.crt").unlink()
    set_up(tmp_path)
    assert (volumes / "proxy" / "tls.crt").read_bytes() != before[volumes / "proxy" / "tls.crt"]
    assert (volumes / "app" / "tls.crt").read_bytes() == before[volumes / "app" / "tls.crt"]


@needs("nginx")
@needs("curl")
def test_nginx_and_the_app(tmp_path: Path) -> None:
    """With these certificates, nginx verifies the app and a client verifies nginx; the app's own 401 gets through."""
    volumes = set_up(tmp_path)
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    port, clear, status = free_port(), free_port(), free_port()
    certificate = Certificate(volumes / "app" / "tls.crt", volumes / "app" / "tls.key")
    settings = {"STORE_URI": "memory:", "STORE_PASSWORD": "null", "MTLS_CA_FILE": str(volumes / "trust" / "ca.crt")}
    environ = os.environ | {f"FLASK_SECURE_ML_{name}": value for name, value in settings.items()}
    environ["INTROSPECTION_SECRET"] = RANDOM_SECRET
    (tmp_path / "scratch").mkdir()
    with gunicorn(tmp_path, certificate, environ, app="deployed_app:serve_app()") as served:
        facts = own_facts(client_certificates="off", port=port, clear_text_port=clear, status_port=status)
        config = made(facts)["nginx/nginx.conf"]
        places = {
            '"/tmp/': f'"{tmp_path}/scratch/',
            "app:8443": f"127.0.0.1:{served.port}",
            "/run/tls": str(volumes / "proxy"),
            "/run/trust": str(volumes / "trust"),
            "/dev/stdout": str(tmp_path / "access.log"),
            "user nginx;": "user root;",
            "0.0.0.0": "127.0.0.1",
        }
        for old, new in places.items():
            assert old in config
            config = config.replace(old, new)
        (tmp_path / "nginx.conf").write_text(config)
        (tmp_path / "problems.conf").write_text(made(facts)["nginx/problems.conf"])
        (tmp_path / "overlay").mkdir()
        command = ["nginx", "-c", str(tmp_path / "nginx.conf"), "-g", f"daemon off; pid {tmp_path}/nginx.pid;"]
        with started(command, partial(accepts, port), tmp_path / "nginx.log"):
            assert curl(port, volumes, "/livez") == {"status": "ok"}
            assert curl(port, volumes, "/v1/whoami")["code"] == "not_authenticated"


def curl(port: int, volumes: Path, path: str) -> dict[str, Any]:
    url = f"https://own.example.com:{port}{path}"
    command = ["curl", "--silent", "--noproxy", "*", "--cacert", str(volumes / "trust" / "ca.crt")]
    done = subprocess.run(
        [*command, "--connect-to", f"own.example.com:{port}:127.0.0.1:{port}", url], capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_socket_of_the_machine() -> None:
    """Checkpoints cannot be sent there from a container."""
    sinks = {"SECURE_ML_AUDIT_CHECKPOINT_SINKS": ["syslog+unix:/dev/log"], "SECURE_ML_AUDIT_LOG": "/var/log/own"}
    assert any("/dev/log" in each for each in TARGET.warn(facts_of(create_app(**sinks))))


def test_warnings() -> None:
    """Options without effect here are reported."""
    found = "\n".join(TARGET.warn(own_facts(waf=True, acme_email="a@example.com")))
    assert "ModSecurity" in found
    assert "proxy-tls" in found
    assert any(SUBNET in each for each in TARGET.warn(bare_facts()))
    assert list(TARGET.warn(own_facts())) == []


def test_the_rights_of_the_store() -> None:
    """They are those that the page on stores lists, for state and for limits."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "shared_state.rst").read_text(encoding="utf-8")
    blocks = re.findall(r"ACL SETUSER \w+ on >password (.*?)\n\n", page, re.DOTALL)
    assert len(blocks) == 2
    listed = {word for block in blocks for word in block.split() if word.startswith("+")}
    assert {word for word in VALKEY_ACL.split() if word.startswith("+")} == listed
