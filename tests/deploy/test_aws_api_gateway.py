"""The templates for AWS API Gateway: cfn-lint has no finding, and both sides agree."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployed_app import SETTINGS, create_app, own_facts
from flask_secure_ml import public
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.aws_api_gateway import TARGET
from programs import needs_tool

ONE_ISSUER: dict[str, Any] = {
    "SECURE_ML_TOKEN_ISSUERS": SETTINGS["SECURE_ML_TOKEN_ISSUERS"][:1],
    "SECURE_ML_MTLS_CLIENTS": [],
    "SECURE_ML_MTLS_CA_FILE": None,
}


class Loader(yaml.SafeLoader):
    """Reads the short functions of CloudFormation as their arguments."""


Loader.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node))


def one_issuer(**settings: Any) -> Facts:
    return facts_of(create_app(**ONE_ISSUER | settings))


def template(facts: Facts, name: str = "rest-api.yaml") -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(TARGET.make(facts)[name], Loader)
    return found["Resources"]  # type: ignore[no-any-return]


@needs_tool("cfn-lint")
@pytest.mark.parametrize("mtls", ["off", "required"])
def test_cfn_lint(tmp_path: Path, mtls: str) -> None:
    """No finding, also of the informational kind."""
    files = dict(TARGET.make(own_facts(client_certificates=mtls))) | dict(TARGET.make(one_issuer()))
    assert len(files) == 2
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    command = ["cfn-lint", "--include-checks", "I", "--", *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_transport() -> None:
    """TLS 1.2 at least, by the own name only, and verified certificates behind."""
    found = template(own_facts(client_certificates="required"))
    assert found["Domain"]["Properties"]["SecurityPolicy"] == "TLS_1_2"
    assert "MutualTlsAuthentication" in found["Domain"]["Properties"]
    assert "MutualTlsAuthentication" not in template(own_facts())["Domain"]["Properties"]
    assert found["Api"]["Properties"]["DisableExecuteApiEndpoint"] is True
    assert found["Method"]["Properties"]["Integration"]["Uri"].startswith("https://")


@pytest.mark.parametrize(("seconds", "milliseconds"), [(7, 7_000), (29, 29_000), (60, 29_000)])
def test_time_out(seconds: int, milliseconds: int) -> None:
    """The app's own, up to that of the gateway, with a warning beyond it."""
    facts = own_facts(request_timeout=seconds)
    assert template(facts)["Method"]["Properties"]["Integration"]["TimeoutInMillis"] == milliseconds
    assert any("29 s" in each for each in TARGET.warnings(facts)) == (seconds > 29)


@pytest.mark.parametrize("method", ["Root", "Method"])
def test_forged_headers(method: str) -> None:
    """Headers that the app trusts from a proxy are replaced."""
    parameters = template(own_facts())[method]["Properties"]["Integration"]["RequestParameters"]
    for name in ("Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert", "X-Real-IP", "Forwarded"):
        assert parameters[f"integration.request.header.{name}"] == "''"
    assert parameters["integration.request.header.X-Request-ID"] == "context.requestId"
    assert parameters["integration.request.header.X-Forwarded-Host"] == "context.domainName"
    assert parameters["integration.request.header.X-Forwarded-Proto"] == "'https'"


def test_every_path_reaches_the_app() -> None:
    """The root is not part of "{proxy+}"."""
    found = template(own_facts())
    places = {found[name]["Properties"]["ResourceId"] for name in ("Root", "Method")}
    assert places == {"Api.RootResourceId", "Everything"}
    assert found["Root"]["Properties"]["Integration"]["Uri"] == "https://${UpstreamHost}/"


def test_a_change_is_deployed() -> None:
    """CloudFormation never changes a deployment, so another template has another one, which the stage uses."""
    names = []
    for seconds in (7, 8):
        found = template(own_facts(request_timeout=seconds))
        (name,) = (name for name, each in found.items() if each["Type"] == "AWS::ApiGateway::Deployment")
        assert found["Stage"]["Properties"]["DeploymentId"] == name
        of_deployment = {"AWS::ApiGateway::Method", "AWS::ApiGateway::GatewayResponse"}
        assert set(found[name]["DependsOn"]) == {each for each in found if found[each]["Type"] in of_deployment}
        names.append(name)
    assert names[0] != names[1]


def test_reserved_headers() -> None:
    """The HTTP API rejects a mapping of these."""
    found = template(one_issuer(), "http-api.yaml")["App"]["Properties"]["RequestParameters"]
    mapped = {name.partition("header.")[2].lower() for name in found}
    assert "client-cert" in mapped
    reserved = ("forwarded", "x-amz-", "x-amzn-", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "via")
    assert not [name for name in mapped if name.startswith(reserved)]


@pytest.mark.parametrize("cors", [None, {"origins": ["https://app.example.com"]}])
def test_preflights(cors: dict[str, Any] | None) -> None:
    """They have no token, so the app responds to them if it has CORS."""
    found = template(one_issuer(SECURE_ML_CORS=cors), "http-api.yaml")
    keys = {
        each["Properties"]["RouteKey"]
        for each in found.values()
        if each["Type"] == "AWS::ApiGatewayV2::Route" and each["Properties"]["AuthorizationType"] == "NONE"
    }
    assert ({"OPTIONS /", "OPTIONS /{proxy+}"} <= keys) == (cors is not None)


def test_responses_of_the_gateway() -> None:
    """They are problem documents with the codes of the app."""
    found = [each for each in template(own_facts()).values() if each["Type"] == "AWS::ApiGateway::GatewayResponse"]
    codes = {}
    for each in found:
        body = json.loads(each["Properties"]["ResponseTemplates"]["application/json"])
        codes[each["Properties"]["ResponseType"]] = body["code"]
        assert body["request_id"] == "$context.requestId"
        parameters = each["Properties"]["ResponseParameters"]
        assert parameters["gatewayresponse.header.X-Error-Code"] == f"'{body['code']}'"
        assert parameters["gatewayresponse.header.Access-Control-Allow-Origin"] == "'https://app.example.com'"
    assert codes["REQUEST_TOO_LARGE"] == "payload_too_large"
    assert codes["THROTTLED"] == "rate_limited"
    assert codes["INTEGRATION_TIMEOUT"] == "prediction_timeout"


def test_log() -> None:
    """Neither a query nor a header is logged."""
    for facts, name in ((own_facts(), "rest-api.yaml"), (one_issuer(), "http-api.yaml")):
        text = TARGET.make(facts)[name]
        logged = set(re.findall(r"\$context\.[\w.]+", text))
        assert "$context.requestId" in logged
        assert not [each for each in logged if "query" in each.lower() or "header" in each.lower()]
    assert template(own_facts())["Stage"]["Properties"]["MethodSettings"][0]["DataTraceEnabled"] is False


@pytest.mark.parametrize(
    ("settings", "has_authorizer"),
    [
        (ONE_ISSUER, True),
        ({}, False),
        (ONE_ISSUER | {"SECURE_ML_API_KEYS": "/k.json", "SECURE_ML_API_KEY_PEPPER": "env:NOT_SET"}, False),
        (ONE_ISSUER | {"SECURE_ML_TOKEN_ISSUERS": SETTINGS["SECURE_ML_TOKEN_ISSUERS"][1:]}, False),
        (ONE_ISSUER | {"SECURE_ML_DPOP": "accept", "SECURE_ML_RESOURCE_URI": "https://own.example.com"}, False),
    ],
)
def test_the_authorizer_rejects_nobody_whom_the_app_accepts(settings: dict[str, Any], has_authorizer: bool) -> None:
    """It is there only where tokens of one issuer are the only credential."""
    facts = facts_of(create_app(**settings))
    assert ("http-api.yaml" in TARGET.make(facts)) == has_authorizer
    assert any("http-api.yaml is not generated" in each for each in TARGET.warnings(facts)) != has_authorizer


def test_public_routes_need_no_token() -> None:
    """Everything else does, unknown paths too."""
    found = template(one_issuer(), "http-api.yaml")
    routes = [each["Properties"] for each in found.values() if each["Type"] == "AWS::ApiGatewayV2::Route"]
    open_routes = {each["RouteKey"] for each in routes if each["AuthorizationType"] == "NONE"}
    assert {"GET /livez", "GET /v1/classes", "GET /readyz"} <= open_routes
    assert not [key for key in open_routes if "predict" in key or "whoami" in key or "metrics" in key]
    assert {each["RouteKey"] for each in routes if each["AuthorizationType"] == "JWT"} == {"$default"}


def test_braces_in_a_rule_open_no_other_path() -> None:
    """The gateway takes them for a variable, which matches private routes too."""
    app = create_app(**ONE_ISSUER | {"SECURE_ML_CORS": None})
    app.add_url_rule("/{proxy+}", endpoint="braces", view_func=public(lambda: "ok"))
    assert "/{proxy+}" in {route.rule for route in facts_of(app).routes}
    found = template(facts_of(app), "http-api.yaml")
    keys = [each["Properties"]["RouteKey"] for each in found.values() if each["Type"] == "AWS::ApiGatewayV2::Route"]
    assert keys
    assert not any("{" in key for key in keys)


def test_warnings() -> None:
    """Each limit of the gateway that the app is above."""
    sentences = " ".join(TARGET.warnings(own_facts()))
    for word in ("29 s", "10 MB", "streaming", "optional client certificates"):
        assert word in sentences
