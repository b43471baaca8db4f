"""Client certificates: their sources, and who may forward them (RFC 8705 section 6.5, RFC 9440)."""

from __future__ import annotations

import base64
import logging
import ssl
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from certificates import issue
from flask_secure_ml.config import Settings
from flask_secure_ml.config.fields import NetworkList
from flask_secure_ml.policy.schema import options_of
from flask_secure_ml.testing import FakeClock
from flask_secure_ml.transport.forwarded import CERTIFICATE_FORMATS, MAX_HEADER, certificate_in, environ_key
from flask_secure_ml.transport.proxy import ExchangeOpener

PROXY = "10.0.0.1"
STRANGER = "192.0.2.1"
DER = b"\x30\x03any bytes\xff\xfe"
OTHER = b"another certificate"
HEADERS = list(CERTIFICATE_FORMATS)


def pem(der: bytes = DER) -> str:
    lines = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"


def escaped(der: bytes = DER) -> str:
    return quote(pem(der), safe="")


def encoded(header: str, der: bytes = DER) -> str:
    """Return the value of a header as its proxy writes it."""
    return {
        "Client-Cert": f":{base64.b64encode(der).decode()}:",
        "X-SSL-Client-Cert": escaped(der),
        "X-Forwarded-Client-Cert": f'By=spiffe://gate;Hash=ab;Cert="{escaped(der)}"',
        "X-Amzn-Mtls-Clientcert-Leaf": quote(pem(der), safe="+/="),
    }[header]


def test_the_setting_accepts_the_headers_that_are_read() -> None:
    """SECURE_ML_CLIENT_CERTIFICATE_HEADER: each choice has a reader; the tests below find these headers removed."""
    field = options_of(Settings)["client_certificate_header"].metadata["field"]
    assert field.choices == tuple(CERTIFICATE_FORMATS)


class FakeTlsSocket(ssl.SSLSocket):
    """A TLS socket after its handshake."""

    def __init__(self, response: bytes | Exception | None) -> None:
        self.response = response

    def getpeercert(self, binary_form: bool = False) -> Any:
        assert binary_form
        if isinstance(self.response, Exception):
            raise self.response
        return self.response

    def __del__(self) -> None:
        """Do not close anything."""


def certificate_of(
    peer: str, header: str | None, connection: object = None, **sent: str
) -> tuple[bytes | None, dict[str, Any]]:
    """Return the certificate that was found, and the environ behind it."""
    environ = EnvironBuilder(base_url="https://api.example", environ_base={"REMOTE_ADDR": peer}).get_environ()
    environ.update(sent)
    if connection is not None:
        environ["gunicorn.socket"] = connection
    exchange = ExchangeOpener(NetworkList().deserialize(["10.0.0.0/8"]), FakeClock(), header).open(environ)
    return exchange.certificate, environ


@pytest.mark.parametrize("header", HEADERS)
def test_the_header_of_a_trusted_proxy(header: str) -> None:
    """MT-4: it is believed in its own format, and the app behind does not see it."""
    found, environ = certificate_of(PROXY, header, **{environ_key(header): encoded(header)})
    assert found == DER
    assert environ_key(header) not in environ


@pytest.mark.parametrize("header", HEADERS)
def test_the_header_of_a_stranger(header: str) -> None:
    """MT-4: it is removed, unread."""
    found, environ = certificate_of(STRANGER, header, **{environ_key(header): encoded(header)})
    assert found is None
    assert environ_key(header) not in environ


@pytest.mark.parametrize("configured", [None, *HEADERS])
@pytest.mark.parametrize("sent", HEADERS)
def test_only_the_configured_header_counts(configured: str | None, sent: str) -> None:
    """MT-4: a proxy that fills one header lets the others through as its client wrote them."""
    found, environ = certificate_of(PROXY, configured, **{environ_key(sent): encoded(sent)})
    assert (found == DER) is (configured == sent)
    assert environ_key(sent) not in environ


@pytest.mark.parametrize("header", HEADERS)
def test_without_the_header_there_is_no_certificate(header: str) -> None:
    """Neither a missing nor an empty header is a certificate."""
    assert certificate_of(PROXY, header)[0] is None
    assert certificate_of(PROXY, header, **{environ_key(header): ""})[0] is None


@pytest.mark.parametrize("header", [None, *HEADERS])
def test_the_socket_of_a_client(header: str | None) -> None:
    """The certificate of the connection is the client's, whatever headers it sends."""
    sent = {environ_key(each): encoded(each, OTHER) for each in HEADERS}
    assert certificate_of(STRANGER, header, FakeTlsSocket(DER), **sent)[0] == DER


@pytest.mark.parametrize("header", [None, *HEADERS])
def test_the_socket_of_a_trusted_proxy_names_nobody(header: str | None) -> None:
    """The proxy's own certificate would make all of its clients one."""
    assert certificate_of(PROXY, header, FakeTlsSocket(DER))[0] is None


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param(FakeTlsSocket(None), id="no certificate shown"),
        pytest.param(FakeTlsSocket(ValueError("handshake not done yet")), id="no handshake"),
        pytest.param(FakeTlsSocket(OSError("not connected")), id="client gone"),
        pytest.param(object(), id="clear text"),
    ],
)
def test_sockets_without_a_certificate(connection: object) -> None:
    """None of them has a certificate or raises an error."""
    assert certificate_of(STRANGER, None, connection)[0] is None


def test_a_malformed_header_is_logged_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    """The operator of the proxy learns which header is malformed; the log does not quote it."""
    with caplog.at_level(logging.WARNING):
        found, _ = certificate_of(PROXY, "Client-Cert", HTTP_CLIENT_CERT="canary")
    assert found is None
    (record,) = caplog.records
    assert "Client-Cert" in record.getMessage()
    assert PROXY in record.getMessage()
    assert "canary" not in caplog.text


B64 = base64.b64encode(DER).decode()


@pytest.mark.parametrize(
    ("header", "value"),
    [
        pytest.param("Client-Cert", f" :{B64}: ", id="space around the byte sequence"),
        pytest.param("X-SSL-Client-Cert", quote(pem(), safe="+/="), id="PEM with its own characters kept"),
        pytest.param("X-SSL-Client-Cert", quote(pem().replace("\n", "\r\n"), safe=""), id="PEM with CR LF"),
        pytest.param("X-SSL-Client-Cert", escaped().removesuffix("%0A"), id="PEM without its last line end"),
        pytest.param("X-Forwarded-Client-Cert", f"Cert={escaped()}", id="unquoted value"),
        pytest.param("X-Forwarded-Client-Cert", f'Cert="{pem()}"', id="quoted and not escaped"),
        pytest.param(
            "X-Forwarded-Client-Cert", f'Subject="CN=\\"a,b;c\\"";Cert="{escaped()}";URI=;DNS=a;DNS=b', id="many pairs"
        ),
        pytest.param(
            "X-Forwarded-Client-Cert", f'Hash=1;Cert="{escaped(OTHER)}", Hash=2;Cert="{escaped()}"', id="last element"
        ),
        pytest.param(
            "X-Forwarded-Client-Cert",
            f'Subject="O=\\"x\\", Cert=\\"{escaped(OTHER)}\\"";Cert="{escaped()}"',
            id="an element inside quotes is none",
        ),
    ],
)
def test_accepted_spellings(header: str, value: str) -> None:
    """The forms that proxies may send."""
    assert certificate_in(header, value) == DER


CHAIN = quote(pem() + pem(OTHER), safe="")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        pytest.param("Client-Cert", B64, id="no colons"),
        pytest.param("Client-Cert", f":{B64}", id="one colon"),
        pytest.param("Client-Cert", "::", id="empty byte sequence"),
        pytest.param("Client-Cert", f":{B64}:, :{B64}:", id="two byte sequences"),
        pytest.param("Client-Cert", f":{B64}:,:{B64}:", id="two header lines joined"),
        pytest.param("Client-Cert", f":{B64}:;a=1", id="parameter"),
        pytest.param("Client-Cert", f":{B64} :", id="space inside"),
        pytest.param("Client-Cert", ":YWI:", id="padding missing"),
        pytest.param("Client-Cert", ":YWI_:", id="alphabet of URLs"),
        pytest.param("Client-Cert", ":====:", id="only padding"),
        pytest.param("Client-Cert", f'"{B64}"', id="a string"),
        pytest.param("Client-Cert", escaped(), id="another header's format"),
        pytest.param("X-SSL-Client-Cert", f":{B64}:", id="format of RFC 9440"),
        pytest.param("X-SSL-Client-Cert", CHAIN, id="two certificates"),
        pytest.param("X-SSL-Client-Cert", escaped() + "," + escaped(), id="two header lines with PEM"),
        pytest.param("X-SSL-Client-Cert", quote("x" + pem(), safe=""), id="text before"),
        pytest.param("X-SSL-Client-Cert", quote(pem() + "x", safe=""), id="text after"),
        pytest.param("X-SSL-Client-Cert", escaped().replace("CERTIFICATE", "PUBLIC%20KEY"), id="another kind of PEM"),
        pytest.param("X-SSL-Client-Cert", escaped().replace("%0A", "%FF"), id="percent beyond ASCII"),
        pytest.param("X-SSL-Client-Cert", escaped().replace("%0A", "\xa0"), id="byte beyond ASCII"),
        pytest.param("X-SSL-Client-Cert", escaped().replace("%0A", "%0"), id="half an escape"),
        pytest.param("X-SSL-Client-Cert", escaped().replace("%20", "+"), id="plus for a space"),
        pytest.param("X-Forwarded-Client-Cert", "Hash=ab", id="no Cert"),
        pytest.param("X-Forwarded-Client-Cert", f'Cert="{escaped()}",Hash=ab', id="no Cert in the last element"),
        pytest.param("X-Forwarded-Client-Cert", f'Cert="{escaped()}",', id="empty last element"),
        pytest.param("X-Forwarded-Client-Cert", f'Cert="{escaped()}";', id="empty last pair"),
        pytest.param("X-Forwarded-Client-Cert", f'Cert="{escaped()}";Cert="{escaped()}"', id="Cert twice"),
        pytest.param("X-Forwarded-Client-Cert", f'Cert="{escaped()}";cert="{escaped()}"', id="Cert twice in any case"),
        pytest.param("X-Forwarded-Client-Cert", f'Cert="{escaped()}', id="quote not closed"),
        pytest.param("X-Forwarded-Client-Cert", f'Cert="{escaped()}"x', id="text after the quote"),
        pytest.param("X-Forwarded-Client-Cert", f'Chain="{escaped()}"', id="only the chain"),
        pytest.param("X-Forwarded-Client-Cert", 'Cert=""', id="empty Cert"),
        pytest.param("X-Forwarded-Client-Cert", escaped(), id="no pair"),
        *[pytest.param(header, encoded(header, bytes(MAX_HEADER)), id=f"{header} above the cap") for header in HEADERS],
    ],
)
def test_malformed_headers(header: str, value: str) -> None:
    """Any other form is not a certificate."""
    with pytest.raises(ValueError):  # noqa: PT011  the door treats every kind alike
        certificate_in(header, value)


@pytest.mark.parametrize("header", HEADERS)
def test_a_real_certificate(header: str) -> None:
    """One of usual size fits, byte by byte."""
    der = issue("CN=trainer,O=Example").der
    assert certificate_in(header, encoded(header, der)) == der


@pytest.mark.parametrize("header", HEADERS)
@given(data=st.data())
def test_any_value(header: str, data: st.DataObject) -> None:
    """Any value is a certificate or none, without errors."""
    whole = encoded(header)
    at = data.draw(st.integers(0, len(whole)))
    value = whole[:at] + data.draw(st.text(st.characters(max_codepoint=255), max_size=4)) + whole[at:]
    found, _ = certificate_of(PROXY, header, **{environ_key(header): value})
    assert found is None or isinstance(found, bytes)


@pytest.mark.parametrize(
    "value", [pytest.param(" " * 15_000 + '"', id="spaces"), pytest.param('A="' + "\\a" * 8_000, id="escapes")]
)
def test_long_nonsense_is_rejected_in_linear_time(value: str) -> None:
    """The patterns do not go back and forth over a long value: this would take minutes."""
    with pytest.raises(ValueError, match="not a list of elements"):
        certificate_in("X-Forwarded-Client-Cert", "Hash=" + value)
