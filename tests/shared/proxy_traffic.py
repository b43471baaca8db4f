"""Checks of how a generated proxy handles responses: slow clients, streams, timeouts, caching, logs, outages."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

from http2_frames import CANCEL, NO_ERROR, upload
from plain_http import Answer
from proxied import CLIENT, NEIGHBOUR, Proxied
from proxied_place import HOST
from proxy_requests import CODES, PREDICTION, SMALL, assert_problem
from servers import wait_until
from slow_clients import slow_clients

LIMITED: Mapping[str, Any] = {"address_rate": 1}
"""The options that :func:`address_limits` requires."""

BEHIND: Mapping[str, Any] = {"front_proxies": [f"{CLIENT}/32"]}
"""The options that :func:`front_proxies` requires."""

REQUIRED: Mapping[str, Any] = {"client_certificates": "required"}
"""The options that :func:`required_certificates` requires."""


def slow_requests(proxied: Proxied) -> None:
    """Sixty clients that send half of their headers or bodies do not delay others: they never reach a server."""
    half = "POST /v1/seen?half-sent HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + proxied.place.key
    bodies = f"{half}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
    with slow_clients(proxied.served, half, "x", count=30), slow_clients(proxied.served, bodies, " ", count=30):
        for _ in range(20):
            assert proxied.call("POST", "/v1/predict", PREDICTION, proxied.key).status == 200
    assert not proxied.reached("half-sent")


def streams(proxied: Proxied) -> None:
    """The first part of a stream arrives before the last part is generated."""
    with proxied.asked("GET", "/v1/gated/stream", headers=proxied.key) as response:
        assert response.status == 200
        assert response.readline() == b"first\n"
        proxied.open("stream")
        assert response.read() == b"last\n"


def slow_readers(proxied: Proxied) -> None:
    """Slow readers of large responses, more than the servers have threads, do not delay others."""
    if "unbuffered" in proxied.program.can:
        return
    with ExitStack() as waiting:
        responses = [
            waiting.enter_context(proxied.asked("GET", "/v1/large/8?late", headers=proxied.key)) for _ in range(20)
        ]
        wait_until(lambda: len(proxied.reached("late")) == len(responses), "the servers wait for their clients")
        assert proxied.call("GET", "/v1/seen", headers=proxied.key).status == 200
        assert [len(response.read()) for response in responses[:2]] == [8_000_000] * 2


def time_limit(proxied: Proxied) -> None:
    """A view that takes longer than ``request_timeout`` is 504, and is not run a second time.

    A response that a client reads more slowly is complete. A client that exceeds the limit repeatedly does not take
    servers out of rotation for others.
    """
    names = [f"limit-{number}" for number in range(8)]

    def slow(name: str) -> Answer:
        return proxied.call("GET", f"/v1/slow/{name}", headers=proxied.key)

    with (
        proxied.asked("GET", "/v1/large/40", headers=proxied.key) as download,
        ThreadPoolExecutor(len(names)) as clients,
    ):
        for answer in clients.map(slow, names):
            assert_problem(answer, 504, CODES[504])
        others = [proxied.call("POST", "/v1/predict", PREDICTION, proxied.key).status for _ in range(8)]
        for name in names:
            proxied.open(name)
        assert others == [200] * len(others)
        wait_until(lambda: len(proxied.reached("/v1/slow/limit-")) >= len(names), "the views never end")
        assert len(proxied.reached("/v1/slow/limit-")) == len(names)
        assert len(download.read()) == 40_000_000


def server_header(proxied: Proxied) -> None:
    """No response contains a version, or the name of the program if that can be turned off."""
    for answer in (
        proxied.call("GET", "/v1/classes"),
        proxied.call("GET", "/v1/nothing"),
        proxied.call("GET", "/v1/seen", host="evil.example"),
    ):
        server = answer.headers.get("Server", "")
        assert not re.search(r"[0-9/]|gunicorn", server)
        assert not server or "hides server" not in proxied.program.can
        assert "X-Powered-By" not in answer.headers
        assert "Via" not in answer.headers


def access_log(proxied: Proxied) -> None:
    """Each request is logged as one JSON object with the request id of client and app, and without secrets."""
    answer = proxied.call("GET", "/v1/seen?token=in-the-query", headers=proxied.key | {"Cookie": "in-the-cookie"})
    identity = answer.headers["X-Request-ID"]
    wait_until(lambda: identity in proxied.access_log.read_text(), "the request is not in the log")
    line = next(line for line in proxied.access_log.read_text().splitlines() if identity in line)
    values = list(_leaves(json.loads(line)))
    assert identity in values
    assert "/v1/seen" in values
    everything = proxied.access_log.read_text() + proxied.log.read_text()
    assert not re.search(r"in-the-query|in-the-cookie", everything)
    assert proxied.place.key not in everything


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def cache(proxied: Proxied) -> None:
    """A public response with max-age is cached for anonymous clients; a response for a caller is never reused."""
    if "cache" not in proxied.program.can:
        return
    url = "/v1/counted?cache"
    credentials = (proxied.key, {"Authorization": "Bearer x"}, {"Cookie": "a=b"}, {"X-API-Key": "x"})
    own = [proxied.call("GET", url, headers=sent).body for sent in credentials]
    own.append(proxied.call("GET", url, client=proxied.place.trainer).body)
    assert len(set(own)) == len(own)
    first, second = proxied.call("GET", url), proxied.call("GET", url)
    assert first.body == second.body
    assert first.body not in own
    own = [proxied.call("GET", url, headers=sent).body for sent in credentials]
    own.append(proxied.call("GET", url, client=proxied.place.trainer).body)
    assert first.body not in own
    assert proxied.call("GET", url).body == first.body
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert len(second.headers.get_all("X-Request-ID") or ()) == 1
    assert "RateLimit" not in second.headers
    origin = {"Origin": "https://app.example.com"}
    for sent in ({}, origin, {}, origin):
        answer = proxied.call("GET", f"{url}&cors", headers=sent)
        assert answer.headers.get("Access-Control-Allow-Origin") == sent.get("Origin")
    # Error responses to one caller are not served to others.
    rejected = proxied.call("GET", f"{url}&rejected", headers={"Accept": "application/x-nothing"})
    assert_problem(rejected, 406, "not_acceptable")
    assert proxied.call("GET", f"{url}&rejected").status == 200
    file = proxied.call("GET", "/v1/weights?cache", headers={"Accept": "application/x-npy"})
    assert file.body.startswith(b"\x93NUMPY")
    assert proxied.call("GET", "/v1/weights?cache").json == {"weights": [0.25, 0.5]}
    # Each of the two servers has its own counters.
    scarce = "/v1/scarce?cache"
    assert 429 in [proxied.call("GET", f"{scarce}&{number}").status for number in range(4)]
    limited = f"{scarce}&limited"
    assert proxied.call("GET", limited).status == 429
    assert 200 in [proxied.call("GET", limited, source=NEIGHBOUR).status for _ in range(2)]
    visitors = [proxied.call("GET", "/v1/visitor?cache") for _ in range(2)]
    assert visitors[0].headers["Set-Cookie"] != visitors[1].headers["Set-Cookie"]
    for path in ("/v1/seen", "/v1/whoami"):
        answers = [proxied.call("GET", path, headers=proxied.key) for _ in range(2)]
        assert answers[0].status == 200
        assert proxied.call("GET", path).status == 401
    odd = [
        proxied.call("GET", "/v1//counted"),
        proxied.call("GET", "/v1/./counted"),
        proxied.call("GET", "/v1/%63ounted"),
    ]
    assert first.body not in [answer.body for answer in odd]


def http2(proxied: Proxied) -> None:
    """HTTP/2 is used if the program supports it, and a client gets the complete response to a body that was not read.

    The reset that follows is not an error (RFC 9113 section 8.1). Whether curl then reports the response or the reset
    depends on which one it reads first, so rejections of this test are read frame by frame.
    """
    to = f"{HOST}:{proxied.served.port}"
    command = [
        *["curl", "--silent", "--show-error", "--http2", "--cacert", str(proxied.place.trusted), "--max-time", "20"],
        *["--connect-to", f"{to}:127.0.0.1:{proxied.served.port}", "--write-out", "\n%{http_version} %{http_code}"],
        *["--header", f"X-API-Key: {proxied.place.key}", "--json", json.dumps(PREDICTION)],
    ]
    done = subprocess.run([*command, f"https://{to}/v1/predict?http2"], capture_output=True, text=True, check=False)
    version = "2" if "http2" in proxied.program.can else "1.1"
    assert (done.stderr, done.stdout.splitlines()[-1]) == ("", f"{version} 200")
    wait_until(lambda: len(proxied.reached("http2")) == 1, "the request is not in the log of a server")
    if version == "2":
        _rejected_uploads(proxied, to)
    assert len(proxied.reached("http2")) == 1


def _rejected_uploads(proxied: Proxied, to: str) -> None:
    fields = {":method": "POST", ":scheme": "https", ":authority": to, ":path": "/v1/predict?http2"}
    fields |= {"x-api-key": proxied.place.key, "content-type": "application/json"}
    unknown = fields | {":authority": "evil.example"}
    expected = [
        (fields, SMALL + 1, {413}),
        (unknown, 1, {400, 403, 404, 421}),
        # More than the first window of HTTP/2, and less than the default limit of nginx.
        (unknown, 100_000, {400, 403, 404, 421}),
    ]
    for sent, size, statuses in expected:
        with proxied.connected(protocol="h2") as channel:
            assert channel.selected_alpn_protocol() == "h2"
            ended = upload(channel, sent, size)
        document = json.loads(ended.body)
        assert document["status"] in statuses
        assert document["code"] == CODES.get(document["status"], document["code"])
        assert ended.reset in {None, CANCEL if "cancels" in proxied.program.can else NO_ERROR}


def steering_responses(proxied: Proxied) -> None:
    """A response header cannot make the proxy serve another file or mark the server as failed."""
    for _ in range(3):
        answer = proxied.call("GET", "/v1/steered", headers=proxied.key)
        assert (answer.status, answer.body) == (200, b"steered")


def only_local_metrics(proxied: Proxied) -> None:
    """On the public port, the paths of the proxy's metrics are handled by the app."""
    for path in ("/nginx_status", "/stats", "/stats/prometheus", "/server-status", "/clusters"):
        answer = proxied.call("GET", path)
        assert answer.status == HTTPStatus.UNAUTHORIZED


def broken_off(proxied: Proxied) -> None:
    """A POST whose server dies while handling it is not retried, and the client gets a problem document.

    This test ends when both servers are available again, also for the proxy.
    """
    answer = proxied.call("POST", "/v1/crash/once", PREDICTION, proxied.key)
    assert answer.status in {502, 503}
    assert_problem(answer, answer.status, CODES[answer.status])
    assert (proxied.place.gates / "once").read_text() == "run\n"

    def workers() -> set[int]:
        answers = [proxied.call("GET", "/v1/seen", headers=proxied.key) for _ in range(6)]
        return {answer.json["worker"] for answer in answers if answer.status == 200}

    wait_until(lambda: len(workers()) == len(proxied.upstreams), "the server does not come back")


def servers_stopped(proxied: Proxied) -> None:
    """If one server is stopped, all requests go to the other one; if both are, clients get a problem document.

    This stops the servers, so it is the last test of a backend.
    """

    def is_served() -> bool:
        answer = proxied.call("POST", "/v1/predict", PREDICTION, proxied.key)
        if answer.status != 200:
            assert_problem(answer, 502, CODES[502])
        return answer.status == 200

    proxied.upstreams[0].close()
    if "late" in proxied.program.can:
        wait_until(lambda: all(is_served() for _ in range(4)), "requests still go to the server that is down")
    for _ in range(10):
        assert is_served()

    for server in proxied.upstreams:
        server.close()
    for method, body in (("GET", None), ("POST", PREDICTION)):
        answer = proxied.call(method, "/v1/predict", body, proxied.key)
        assert answer.status in {502, 503}
        assert_problem(answer, answer.status, CODES[answer.status])


def address_limits(proxied: Proxied) -> None:
    """An IP address far above its rate gets 429 from the proxy without reaching the app; others are not affected."""
    answers = [proxied.call("GET", "/v1/classes?limits") for _ in range(25)]
    limited = [answer for answer in answers if answer.status == 429]
    assert answers[0].status == 200
    assert limited
    assert_problem(limited[0], 429, CODES[429])
    assert int(limited[0].headers["Retry-After"]) > 0
    assert len(proxied.reached("limits")) <= len(answers) - len(limited)
    assert proxied.call("GET", "/v1/classes?limits", source=NEIGHBOUR).status == 200


def required_certificates(proxied: Proxied) -> None:
    """Without a certificate of the authority, no request reaches the app."""
    assert proxied.call("GET", "/v1/whoami?mine", client=proxied.place.trainer).status == 200
    for client in (None, proxied.place.stranger):
        try:
            answer = proxied.call("GET", "/v1/whoami?uncertified", headers=proxied.key, client=client)
        except (ssl.SSLError, ConnectionError):
            continue
        assert_problem(answer, 401, "not_authenticated")
    wait_until(lambda: bool(proxied.reached("mine")), "the request is not in the log of a server")
    assert not proxied.reached("uncertified")


def front_proxies(proxied: Proxied) -> None:
    """Behind a load balancer, the client is the last address that is not the balancer's; others are not trusted."""
    chain = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
    seen = proxied.call("GET", "/v1/seen", headers=proxied.key | chain | {"X-Request-ID": "forged-by-the-client"})
    assert "forged" not in seen.headers["X-Request-ID"]
    assert (seen.json["address"], seen.json["scheme"]) == ("203.0.113.9", "https")
    assert "198.51.100.7" not in str(seen.json["headers"])
    assert proxied.call("GET", "/v1/seen", headers=proxied.key | chain, source=NEIGHBOUR).json["address"] == NEIGHBOUR


def network_limits(proxied: Proxied, count: int = 18) -> None:
    """All addresses of an IPv6 /64 network share a limit; other networks have separate limits.

    :param count: the number of requests that exceed the limit.
    """

    def status(address: str) -> int:
        return proxied.call("GET", "/v1/classes?network", headers={"X-Forwarded-For": address}).status

    for network in ("2001:db8:1:2", "2001:db8:0:0"):
        statuses = [status(f"{network}:{number}:a:b:c") for number in range(1, count + 1)]
        assert statuses[0] == 200
        assert 429 in statuses, network
        assert status("2001:db8:1:3:1:a:b:c") == 200
    assert status("203.0.113.7") == 200
