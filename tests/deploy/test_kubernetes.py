"""The target ``kubernetes``: schemas of three releases, linters, Pod Security, and consistency with the settings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from deployed_app import METRICS_PORT, SETTINGS, create_app, own_facts, port_facts
from flask_secure_ml import SecureML, public
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.kubernetes import TARGET
from programs import needs_tool

RELEASES = ["1.31", "1.34", "1.37"]
# The fields that the published schemas of Gateway API, cert-manager, External Secrets and the operator of Prometheus
# have, as far as they are generated, with their types or allowed values; read in November 2026.
CRD_FIELDS = json.loads(Path(__file__).with_name("crd_fields.json").read_text(encoding="utf-8"))
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "int-or-string": (int, str),
}
FULL = {
    "acme_email": "ops@example.com",
    "client_certificates": "required",
    "image": f"registry.example.com/own@sha256:{'a' * 64}",
}
HOSTILE = "a\"b'c: {x} #y\n---\n- é\u2028\U0001f600\x7f %s ${X}"


def made(facts: Facts | None = None) -> dict[str, str]:
    return dict(TARGET.make(facts or own_facts(**FULL)))


def documents(files: dict[str, str]) -> Iterator[dict[str, Any]]:
    for name, content in files.items():
        if not name.endswith("values.yaml"):
            yield from (each for each in yaml.safe_load_all(content) if each)


def named(files: dict[str, str], kind: str, name: str = "own-model") -> dict[str, Any]:
    (found,) = (
        each for each in documents(files) if (each["kind"], each.get("metadata", {}).get("name")) == (kind, name)
    )
    return found


def hostile_facts() -> Facts:
    app = Flask("hostile", static_folder=None)
    app.config["SECURE_ML_REALM"] = "a realm"
    app.config["SECURE_ML_DEPLOY"] = {"streams": ['/s/"}];\n- x/<v>', "/t/{{ y }}", "/u/<v>", "/v"]}
    SecureML(app)
    for number, rule in enumerate(app.config["SECURE_ML_DEPLOY"]["streams"]):
        app.add_url_rule(rule, endpoint=f"e{number}", view_func=public(lambda **_: "ok"))
    return facts_of(app)


def bare_facts() -> Facts:
    app = Flask("bare", static_folder=None)
    SecureML(app)
    return facts_of(app)


FACTS = {
    "full": lambda: own_facts(**FULL),
    "own": own_facts,
    "bare": bare_facts,
    "hostile": hostile_facts,
    "port": port_facts,
}


@pytest.fixture(params=FACTS)
def files(request: pytest.FixtureRequest) -> dict[str, str]:
    return made(FACTS[request.param]())


@needs_tool("kubectl")
def test_kustomize(files: dict[str, str], tmp_path: Path) -> None:
    """Every overlay can be built, and every component on the base, alone and all together."""
    write(files, tmp_path)
    components = sorted({name.split("/")[1] for name in files if name.startswith("components/")})
    for number, chosen in enumerate([[], ["certificates"], components, *([each] for each in components)]):
        folder = tmp_path / "overlays" / f"test{number}"
        folder.mkdir()
        listed = {"resources": ["../../base"], "components": [f"../../components/{each}" for each in chosen]}
        kind = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
        (folder / "kustomization.yaml").write_text(json.dumps({**kind, **listed}))
    for folder in sorted((tmp_path / "overlays").iterdir()):
        done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        built = list(yaml.safe_load_all(done.stdout))
        assert {"Namespace", "Deployment", "NetworkPolicy"} <= {each["kind"] for each in built}
        if folder.name == "dev":
            assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget"} & {each["kind"] for each in built}
            assert all(each["metadata"].get("namespace", "").endswith(("-dev", "")) for each in built)


def write(files: dict[str, str], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@needs_tool("kubernetes-validate")
@pytest.mark.parametrize("release", RELEASES)
def test_schemas(release: str, tmp_path: Path) -> None:
    """Every object of Kubernetes itself has fields of the release only."""
    extended = {key.split()[0] for key in CRD_FIELDS} | {
        "kustomize.config.k8s.io/v1beta1",
        "kustomize.config.k8s.io/v1alpha1",
    }
    every = [each for factory in FACTS.values() for each in documents(made(factory()))]
    core = [each for each in every if each["apiVersion"] not in extended]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(core))
    command = ["kubernetes-validate", "--strict", "--kubernetes-version", release, str(tmp_path / "all.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stdout.count(" passed for ") + done.stderr.count(" passed for ") == len(core) > 50


def test_custom_resources(files: dict[str, str]) -> None:
    """Every object of an extension has fields that its published schema has, with their types."""
    for each in documents(files):
        known = CRD_FIELDS.get(f"{each['apiVersion']} {each['kind']}")
        if known is not None:
            check_fields(each["spec"], ".spec", known)


def check_fields(value: Any, path: str, known: dict[str, Any]) -> None:
    if isinstance(value, list):
        for each in value:
            check_fields(each, f"{path}[]", known)
    elif isinstance(value, dict):
        for name, inner in value.items():
            wanted = known.get(f"{path}.{name}") or known[f"{path}.*"]
            assert inner in wanted if isinstance(wanted, list) else isinstance(inner, TYPES[wanted]), f"{path}.{name}"
            check_fields(inner, f"{path}.{name}", known)


@needs_tool("checkov")
def test_checkov(tmp_path: Path) -> None:
    """No check fails, and the ones that are skipped have their reasons in the files."""
    core = [each for each in documents(made()) if "metadata" in each]
    (tmp_path / "all.yaml").write_text(
        yaml.safe_dump_all(each | {"metadata": each["metadata"] | {"namespace": "n"}} for each in core)
    )
    command = ["checkov", "--file", str(tmp_path / "all.yaml"), "--framework", "kubernetes", "--output", "json"]
    done = subprocess.run([*command, "--skip-download"], capture_output=True, text=True, timeout=120, check=False)
    found = json.loads(done.stdout)["results"]
    assert [(each["check_id"], each["resource"]) for each in found["failed_checks"]] == []
    skipped = {(each["check_id"], each["resource"].split(".")[-1]) for each in found["skipped_checks"]}
    assert skipped == {("CKV_K8S_35", "own-model"), ("CKV_K8S_43", "own-model-valkey")}
    assert all(each["check_result"]["suppress_comment"] for each in found["skipped_checks"])
    assert len(found["passed_checks"]) > 150


@needs_tool("yamllint")
def test_yamllint(files: dict[str, str], tmp_path: Path) -> None:
    """The style that the tool has by default, with lines of 140."""
    write(files, tmp_path)
    rules = "{extends: default, rules: {line-length: {max: 140}, octal-values: enable}}"
    done = subprocess.run(
        ["yamllint", "--strict", "-d", rules, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_pod_security(files: dict[str, str]) -> None:
    """Every pod meets the restricted standard, and has a read-only root."""
    pods = [
        each["spec"]["template"]["spec"] for each in documents(files) if each["kind"] in {"Deployment", "StatefulSet"}
    ]
    assert len(pods) == 2
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        allowed = {"name", "configMap", "secret", "emptyDir", "projected"}
        assert all(each.keys() <= allowed for each in pod["volumes"])
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert (context["allowPrivilegeEscalation"], context["privileged"]) == (False, False)
            assert context["readOnlyRootFilesystem"] is True
            assert container["resources"].keys() == {"requests", "limits"}


def test_what_the_app_is_configured_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app with the environment of the pod has the settings of the app that the files were generated from."""
    facts = own_facts()
    settings = named(made(facts), "ConfigMap", "own-model-settings")["data"]
    assert settings == facts.environment
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    app = Flask("pod", static_folder=None)
    app.config.from_prefixed_env()
    assert {key: app.config[key] for key in SETTINGS if key != "SECURE_ML_DEPLOY"} == {
        key: value for key, value in SETTINGS.items() if key != "SECURE_ML_DEPLOY"
    }


def test_no_value_can_leave_its_string() -> None:
    """The app gets the exact value of every setting."""
    app = create_app(SECURE_ML_REALM="x")
    facts = facts_of(app)
    hostile = {f"FLASK_{HOSTILE[0]}": HOSTILE, "FLASK_Y": "'", "FLASK_Z": "\\u0041", "FLASK_N": "null"}
    files = made(
        Facts(**{name: getattr(facts, name) for name in facts.__dataclass_fields__} | {"environment": hostile})
    )
    assert named(files, "ConfigMap", "own-model-settings")["data"] == hostile


def test_streams() -> None:
    """A rule is matched exactly, or by its unambiguous leading segments; never more than the rule."""
    files = made(hostile_facts())
    rules = named(files, "HTTPRoute", "model-api")["spec"]["rules"]
    paths = [(rule["matches"][0]["path"]["type"], rule["matches"][0]["path"]["value"]) for rule in rules]
    assert paths[-1] == ("PathPrefix", "/")
    assert ("Exact", "/v") in paths
    assert ("PathPrefix", "/u") in paths
    assert all(set(value) <= set("/abcdefghijklmnopqrstuvwxyz") for _, value in paths)


def test_limits_of_the_proxy() -> None:
    """The largest body and the time-outs are those of the app."""
    facts = own_facts(**FULL, request_timeout=90)
    files = made(facts)
    notes = {
        name.partition("/")[2]: value for name, value in named(files, "Ingress")["metadata"]["annotations"].items()
    }
    assert notes["proxy-body-size"] == str(facts.max_body_bytes) == "16777216"
    assert notes["proxy-read-timeout"] == notes["proxy-send-timeout"] == "95"
    assert (notes["ssl-redirect"], notes["proxy-ssl-verify"], notes["backend-protocol"]) == ("false", "on", "HTTPS")
    assert notes["auth-tls-verify-client"] == "on"
    streams = named(files, "Ingress", "own-model-streams")
    assert streams["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert streams["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/v1/stream"
    rules = named(files, "HTTPRoute")["spec"]["rules"]
    assert [rule["timeouts"]["request"] for rule in rules] == ["0s", "95s"]
    deployment = named(files, "Deployment")["spec"]
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] > 95
    assert "replicas" not in deployment
    assert named(files, "HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2


def test_secrets_and_files() -> None:
    """Variables and files are where the settings look for them, from a secret or, for authorities, a ConfigMap."""
    app = create_app(
        SECURE_ML_API_KEYS="/etc/keys.json",
        SECURE_ML_API_KEY_PEPPER=["file:/run/secrets/pepper", "file:/run/old/pepper"],
        SECURE_ML_AUDIT_LOG="/var/log/own",
    )
    files = made(facts_of(app))
    pod = named(files, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert [each["name"] for each in container["env"]] == ["INTROSPECTION_SECRET"]
    found = {}
    for mount in container["volumeMounts"]:
        for source in volumes[mount["name"]].get("projected", {}).get("sources", []):
            ((kind, content),) = source.items()
            for item in content["items"]:
                path = mount["mountPath"] if "subPath" in mount else f"{mount['mountPath']}/{item['path']}"
                assert mount.get("subPath", item["path"]) == item["path"]
                assert mount["readOnly"] is True
                found[path] = (kind, item["key"])
    assert found == {
        "/etc/keys.json": ("secret", "keys.json"),
        "/etc/own-model/clients.pem": ("configMap", "clients.pem"),
        "/run/old/pepper": ("secret", "pepper"),
        "/run/secrets/pepper": ("secret", "pepper-2"),
        "/run/secrets/store": ("secret", "store"),
    }
    assert {"name": "state-1", "mountPath": "/var/log/own"} in container["volumeMounts"]
    listed = [each["secretKey"] for each in named(files, "ExternalSecret", "own-model-secrets")["spec"]["data"]]
    assert listed == ["INTROSPECTION_SECRET", "keys.json", "pepper", "pepper-2", "store"]


def test_public_certificates() -> None:
    """With acme_email, the gateway and the Ingress each obtain their own; inside the cluster none is obtained."""
    files = made()
    gateway, ingress = named(files, "Issuer", "own-model-acme"), named(files, "Issuer", "own-model-acme-ingress")
    assert [*gateway["spec"]["acme"]["solvers"][0]["http01"]] == ["gatewayHTTPRoute"]
    assert [*ingress["spec"]["acme"]["solvers"][0]["http01"]] == ["ingress"]
    annotation = "cert-manager.io/issuer"
    assert named(files, "Ingress")["metadata"]["annotations"][annotation] == "own-model-acme-ingress"
    assert annotation not in named(files, "Ingress", "own-model-streams")["metadata"]["annotations"]
    assert "acme" not in files["components/certificates/certificates.yaml"]
    assert not any("acme" in content for content in made(own_facts()).values())


def test_hostile_references() -> None:
    """Whatever a reference contains, it is a name, a path, or left out."""
    references = ["env:A}\n    - x: ${B}", 'file:/run/a/"b {c', "file:/run/d\n- e"]
    files = made(facts_of(create_app(SECURE_ML_API_KEYS="store", SECURE_ML_API_KEY_PEPPER=references)))
    (container,) = named(files, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in container["env"]] == ["INTROSPECTION_SECRET"]
    assert "/run/a" in [each["mountPath"] for each in container["volumeMounts"]]
    listed = [each["secretKey"] for each in named(files, "ExternalSecret", "own-model-secrets")["spec"]["data"]]
    assert listed == ["INTROSPECTION_SECRET", "_b__c", "store"]


def test_probes() -> None:
    """The kubelet probes over TLS with a host that the app knows; an app without probes gets the port probed."""
    (container,) = named(made(), "Deployment")["spec"]["template"]["spec"]["containers"]
    found = container["livenessProbe"]["httpGet"], container["readinessProbe"]["httpGet"]
    assert [each["path"] for each in found] == ["/livez", "/readyz"]
    assert {each["scheme"] for each in found} == {"HTTPS"}
    assert found[0]["httpHeaders"] == [{"name": "Host", "value": "own.example.com"}]
    (container,) = named(made(bare_facts()), "Deployment", "model-api")["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["tcpSocket"] == {"port": "https"}


def test_pods_start_again_with_other_settings() -> None:
    """The template has a digest of the settings."""
    one, other = (named(made(facts_of(create_app(SECURE_ML_REALM=each))), "Deployment") for each in "ab")
    assert one["spec"]["template"]["metadata"]["annotations"] != other["spec"]["template"]["metadata"]["annotations"]


@pytest.mark.parametrize(("facts", "name", "number"), [(own_facts, "https", 8443), (port_facts, "metrics", 9100)])
def test_metrics(facts: Callable[[], Facts], name: str, number: int) -> None:
    """Prometheus may connect to the port where the app serves them, with the credential that is required there."""
    files = made(facts())
    ports = named(files, "Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert {"name": name, "containerPort": number} in ports
    assert name in {each["name"] for each in named(files, "Service")["spec"]["ports"]}
    (endpoint,) = named(files, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] == name
    assert endpoint["authorization"]["type"] == ("ApiKey" if name == "https" else "Bearer")
    assert ("tlsConfig" in endpoint) == (endpoint["scheme"] == "https") == (name == "https")
    (rule,) = named(files, "NetworkPolicy", "allow-prometheus")["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": name}]


def test_metrics_that_stay_in_the_pod() -> None:
    """Prometheus cannot scrape loopback, and a warning names the setting."""
    facts = facts_of(create_app(**METRICS_PORT | {"SECURE_ML_METRICS_LISTEN": "127.0.0.1:9100"}))
    assert not any(name.startswith("components/monitoring") for name in made(facts))
    assert any("0.0.0.0:9100" in each for each in TARGET.warn(facts))


def test_warnings() -> None:
    """Settings that the app lacks there, and none for an app that has them all."""
    found = "\n".join(TARGET.warn(bare_facts()))
    assert all(each in found for each in ("SECURE_ML_PROBES", "TRUSTED_PROXIES", "STORE_URI", "no digest"))
    own = {"image": FULL["image"], "client_certificates": "off"}
    app = create_app(SECURE_ML_CLIENT_CERTIFICATE_HEADER=None, SECURE_ML_DEPLOY=SETTINGS["SECURE_ML_DEPLOY"] | own)
    assert list(TARGET.warn(facts_of(app))) == []
    (found,) = TARGET.warn(own_facts(**FULL))
    assert "model-api/own-model-headers" in found
    app = create_app(
        SECURE_ML_CLIENT_CERTIFICATE_HEADER="Client-Cert", SECURE_ML_DEPLOY=SETTINGS["SECURE_ML_DEPLOY"] | FULL
    )
    assert any("SECURE_ML_CLIENT_CERTIFICATE_HEADER" in each for each in TARGET.warn(facts_of(app)))
    app = create_app(SECURE_ML_STORE_URI="redis://user:word@h/0", SECURE_ML_STORE_PASSWORD=None)
    assert any("SECURE_ML_STORE_URI may contain a secret" in each for each in TARGET.warn(facts_of(app)))
    app = create_app(SECURE_ML_SENTRY_DSN="env:SENTRY_DSN")
    assert any("the server of Sentry" in each for each in TARGET.warn(facts_of(app)))
