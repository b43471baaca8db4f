"""The headers of the target ``kubernetes``: those that its proxies replace."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from deployed_app import SETTINGS, create_app
from flask_secure_ml.deploy.facts import facts_of
from flask_secure_ml.deploy.targets.kubernetes import TARGET
from flask_secure_ml.transport.forwarded import CERTIFICATE_FORMATS


def named(content: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        each
        for each in yaml.safe_load_all(content)
        if each and (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return dict(found)


@pytest.mark.parametrize("asked", ["off", "optional", "required"])
@pytest.mark.parametrize("header", [*CERTIFICATE_FORMATS])
def test_forged_certificates(header: str, asked: str) -> None:
    """A header with a certificate never contains a client's value, with any of the proxies."""
    app = create_app(
        SECURE_ML_CLIENT_CERTIFICATE_HEADER=header,
        SECURE_ML_DEPLOY=SETTINGS["SECURE_ML_DEPLOY"] | {"client_certificates": asked},
    )
    files = TARGET.make(facts_of(app))
    for rule in named(files["components/gateway/gateway.yaml"], "HTTPRoute", "own-model")["spec"]["rules"]:
        (clean,) = rule["filters"]
        assert {header, "Forwarded", "X-Forwarded-Host"} <= set(clean["requestHeaderModifier"]["remove"])
    given = named(files["components/ingress/ingress.yaml"], "ConfigMap", "own-model-headers")["data"]
    verified = header == "X-SSL-Client-Cert" and asked != "off"
    assert given[header] == ("$ssl_client_escaped_cert" if verified else "")
    assert any("model-api/own-model-headers" in each for each in TARGET.warn(facts_of(app)))
