"""The generated files for Apache httpd, as the program reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from deployed_app import own_facts
from flask_secure_ml import SecureML
from flask_secure_ml.deploy.facts import Facts, facts_of
from flask_secure_ml.deploy.targets.apache import TARGET, header_value, quoted, rewritten
from httpd import command, options
from programs import needs
from proxied import proxied_facts, write_target
from proxied_place import HOST, Place, make_place

pytestmark = needs("apache2")


def check(facts: Facts, folder: Path) -> str:
    """Check that the configuration is valid, and return the messages of httpd."""
    files = write_target("apache", facts, folder)
    done = subprocess.run(command(files, folder, "-t"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "Syntax OK\n"
    return (files / "apache2.conf").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.mark.parametrize(
    "more",
    [
        {"hosts": ["*.example.org", "a.example"]},
        {"hosts": ["*.example.org"]},
        {"upstreams": ["unix:/run/app.sock", "[::1]:8000"]},
        {"front_proxies": ["10.0.0.0/24", "2001:db8::/32"]},
        {"acme_email": "ops@example.com"},
        {"clear_text_port": 80},
        {"client_certificates": "off"},
        {"listen": ["127.0.0.1", "[::1]"]},
    ],
    ids=str,
)
def test_options(more: dict[str, Any], place: Place, tmp_path: Path) -> None:
    """Apache httpd accepts the file with each option of the place, without a warning."""
    check(proxied_facts(place.settings, **options(place, tmp_path) | more), tmp_path)


def test_acme(place: Place, tmp_path: Path) -> None:
    """With a contact, mod_md obtains the certificates, and still redirects nothing."""
    text = check(
        proxied_facts(place.settings, **options(place, tmp_path) | {"acme_email": "ops@example.com"}), tmp_path
    )
    assert f"MDomain {HOST}\n" in text
    assert "MDRequireHttps off" in text
    assert "SSLCertificateFile" not in text


def test_overlay(place: Place, tmp_path: Path) -> None:
    """The files of the overlay are read, those of the service inside its virtual host."""
    folder = tmp_path / "apache" / "overlay"
    folder.mkdir(parents=True)
    (folder / "server-more.conf").write_text("Define FROM_THE_OVERLAY\n")
    # ServerAlias is an error outside a virtual host.
    (folder / "site-more.conf").write_text("Define FROM_THE_SITE\nServerAlias more.example\n")
    facts = proxied_facts(place.settings, **options(place, tmp_path))
    check(facts, tmp_path)
    arguments = command(tmp_path / "apache", tmp_path, "-S")
    found = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert {"Define: FROM_THE_OVERLAY", "Define: FROM_THE_SITE"} <= set(found.splitlines())


def test_without_settings(place: Place, tmp_path: Path) -> None:
    """An app with no setting but its certificate has a configuration too."""
    app = Flask("bare")
    app.config["SECURE_ML_DEPLOY"] = options(place, tmp_path)
    SecureML(app)
    check(facts_of(app), tmp_path)


def test_quotes() -> None:
    """A quotation mark ends a string, a dollar sign begins a variable, a per cent sign a value of a request."""
    assert quoted('a"b\\c') == '"a\\"b\\\\c"'
    assert quoted("${HOME}") == '"${DOLLAR}{HOME}"'
    assert rewritten(r'^a"b\"c\\"\d${') == r'"^a\x22b\x22c\\\x22\d${DOLLAR}{"'
    assert header_value("100%") == '"100%%"'


def test_warnings() -> None:
    """Features that Apache httpd lacks are reported."""
    lacking = {"address_rate": 5, "waf": True, "acme_email": "a@b.example", "hosts": ["*.own.example"]}
    facts = own_facts(**lacking, upstream_ca="/ca.pem", upstreams=["10.0.0.1:8000", "10.0.0.1:8001"])
    sentences = " ".join(TARGET.warn(facts))
    for words in ("mod_qos", "Core Rule Set", "/var/log/apache2", "MDChallengeDns01", "not 10.0.0.1"):
        assert words in sentences, words
    fine = own_facts(access_log="/var/log/apache2/a.log", upstream_ca="/c", upstream_name="a.b", upstreams=["a.b:1"])
    assert not [sentence for sentence in TARGET.warn(fine) if "TRUSTED" not in sentence and "HEADER" not in sentence]
