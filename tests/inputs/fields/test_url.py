from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError, fields

from field_loading import corpus, load, message
from flask_secure_ml.errors import ValidationFailed
from flask_secure_ml.fetch import is_public
from flask_secure_ml.inputs import Url, VettedUrl
from flask_secure_ml.inputs.fields.url import system_resolver
from flask_secure_ml.inputs.loading import Loader

PUBLIC = "93.184.215.14"
HOSTS = ["images.example.com", ".cdn.example.com"]


def answering(*addresses: str) -> Any:
    return lambda _host, _port: addresses


def url(**options: Any) -> Url:
    return Url(**({"hosts": HOSTS, "resolver": answering(PUBLIC)} | options))


@pytest.mark.parametrize("case", corpus("url"))
def test_rejects(case: dict[str, Any]) -> None:
    """Every case of ``tests/corpus/fields/url.json`` is rejected before its host is asked for."""
    field = url(resolver=lambda host, _port: pytest.fail(f"{host} was resolved"))
    assert message(field, case["value"]) == case["message"]


@pytest.mark.parametrize("case", corpus("address"))
def test_addresses_that_are_not_public(case: dict[str, Any]) -> None:
    """Every case of ``tests/corpus/fields/address.json`` is rejected, also beside a public address."""
    assert not is_public(case["value"])
    for found in ([case["value"]], [PUBLIC, case["value"]], [case["value"], PUBLIC]):
        field = url(resolver=answering(*found))
        assert message(field, "https://images.example.com/a") == "Its host has no public IP address."


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str) -> None:
    """Addresses of the internet pass, also as a gateway to IPv4 writes them."""
    assert load(url(resolver=answering(address)), "https://images.example.com/").addresses == (address,)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://images.example.com", "https://images.example.com/"),
        ("HTTPS://Images.Example.COM/A%2fb?c=D&e", "https://images.example.com/A%2fb?c=D&e"),
        ("https://images.example.com:443/a", "https://images.example.com:443/a"),
        ("https://a.cdn.example.com/a", "https://a.cdn.example.com/a"),
        ("https://a.b.cdn.example.com/a//b/../c;d=1", "https://a.b.cdn.example.com/a//b/../c;d=1"),
        ("https://xn--bcher-kva.cdn.example.com/", "https://xn--bcher-kva.cdn.example.com/"),
        ("https://images.example.com?a=/?@:", "https://images.example.com/?a=/?@:"),
    ],
)
def test_loads_an_address_and_where_it_leads(value: str, expected: str) -> None:
    """The view gets the URL in one spelling, and what to connect to."""
    found = load(url(resolver=answering(PUBLIC, PUBLIC, "1.1.1.1")), value)
    assert isinstance(found, VettedUrl)
    assert (found.url, str(found), found.port) == (expected, expected, 443)
    assert found.addresses == (PUBLIC, "1.1.1.1")
    assert found.host == urlsplit(value).hostname
    assert expected == f"https://{urlsplit(expected).netloc}{found.path}"


def test_the_resolver_is_asked_for_the_host_and_the_port() -> None:
    """Name and port are those that the fetcher will use."""
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return [PUBLIC]

    field = url(ports=[443, 8443], resolver=resolve)
    load(field, "https://IMAGES.example.com:8443/")
    load(field, "https://images.example.com/")
    assert asked == [("images.example.com", 8443), ("images.example.com", 443)]


def test_schemes_and_ports() -> None:
    """Clear text and other ports must be listed, which excludes those that are not."""
    field = url(schemes=["http", "https"])
    assert load(field, "http://images.example.com/").port == 80
    assert message(field, "http://images.example.com:443/") == "Not a port that is accepted here."
    assert message(field, "ftp://images.example.com/") == "Must begin with http:// or https://."
    assert message(url(ports=[8443]), "https://images.example.com/") == "Not a port that is accepted here."


def test_length() -> None:
    """The longest that passes is max_length."""
    value = "https://images.example.com/"
    assert load(url(max_length=len(value)), value).url == value
    assert message(url(max_length=len(value) - 1), value) == f"Must have at most {len(value) - 1} characters."


@pytest.mark.parametrize("error", [socket.gaierror(8, "unknown"), TimeoutError(), UnicodeError("label too long")])
def test_a_host_that_does_not_resolve_is_like_one_inside(error: Exception) -> None:
    """The caller does not learn which names exist in the network of the server."""

    def failing(_host: str, _port: int) -> list[str]:
        raise error

    assert message(url(resolver=failing), "https://images.example.com/") == "Its host has no public IP address."
    assert message(url(resolver=answering()), "https://images.example.com/") == "Its host has no public IP address."


def test_the_resolver_of_the_system() -> None:
    """It is the default, and addresses that are not public are rejected."""
    assert set(system_resolver("localhost", 443)) <= {"127.0.0.1", "::1"}
    assert Url(["a.example"])._resolver is system_resolver


def test_options_of_a_field() -> None:
    """It is required by default, and dumps a string."""
    schema = Schema.from_dict({"x": url(), "y": url(required=False)})()
    assert list(schema.validate({})) == ["x"]
    value = {"x": "https://images.example.com/a"}
    assert schema.dump(schema.load(value)) == value
    assert schema.dump({"x": None}) == {"x": None}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"hosts": []}, "hosts must be names"),
        ({"hosts": "images.example.com"}, "hosts must be names"),
        ({"hosts": ["*"]}, "hosts must be names"),
        ({"hosts": ["."]}, "hosts must be names"),
        ({"hosts": [".com"], "ports": []}, "at least one"),
        ({"hosts": ["127.0.0.1"]}, "hosts must be names"),
        ({"hosts": ["localhost"]}, "hosts must be names"),
        ({"hosts": ["Images.example.com"]}, "in lower case"),
        ({"schemes": "https"}, "schemes must be"),
        ({"schemes": ["file"]}, "schemes must be"),
        ({"schemes": []}, "schemes must be"),
        ({"ports": [0]}, "ports must be"),
        ({"ports": [65_536]}, "ports must be"),
        ({"max_length": 0}, "max_length must be"),
    ],
)
def test_a_wrong_definition_fails_at_once(arguments: dict[str, Any], part: str) -> None:
    """The field is rejected where it is written."""
    with pytest.raises(ValueError, match=part):
        url(**arguments)


def test_lookups_of_a_whole_body_are_counted() -> None:
    """One body causes at most a hundred lookups over all fields, or the number in the schema."""
    asked: list[str] = []

    def resolver(host: str, _port: int) -> list[str]:
        asked.append(host)
        return [PUBLIC]

    many = Schema.from_dict({"x": fields.List(url(resolver=resolver)), "y": fields.Dict(values=url(resolver=resolver))})
    value: dict[str, Any] = {
        "x": ["https://images.example.com/"] * 60,
        "y": dict.fromkeys("abc", "https://images.example.com/"),
    }
    assert len(Loader(many()).load(value)["x"]) == 60
    value["x"] *= 1_000
    asked.clear()
    with pytest.raises(ValidationFailed) as caught:
        Loader(many()).load(value)
    assert len(asked) == 100
    assert caught.value.members["errors"][0] == {"pointer": "/x/100", "message": "Comes after 100 other URLs."}
    few = Schema.from_dict({"x": fields.List(url(max_lookups=2))})
    with pytest.raises(ValidationFailed):
        Loader(few()).load({"x": value["x"][:3]})


PIECES = st.sampled_from(
    [
        "https://",
        "http://",
        "images.example.com",
        ".cdn.example.com",
        "@",
        ":",
        "443",
        "/",
        "\\",
        "?",
        "#",
        "%",
        "127.0.0.1",
        "[::1]",
        "evil.example",
        ".",
        "\n",
        "\u3002",
        "a",
    ]
)


@given(st.lists(PIECES | st.text(max_size=2), max_size=8).map("".join))
def test_fuzz_what_passes_leads_to_an_allowed_host(value: str) -> None:
    """However a URL is put together, another parser sees the same allowed host in it."""
    try:
        found = load(url(), value)
    except ValidationError:
        return
    parts = urlsplit(value)
    assert parts.hostname == found.host
    assert found.host == "images.example.com" or found.host.endswith(".cdn.example.com")
    assert (parts.username, parts.fragment, parts.scheme) == (None, "", "https")
