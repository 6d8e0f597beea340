"""Laws of the hosts: requests for other hosts and from pages of other hosts are refused."""

import json
import socket

import httpx
import pytest
from running import Serve, Served
from starlette.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from farfeel.serve.hosts import Hosts
from farfeel.serve.limits import Refusal

OWN = ["127.0.0.1", "localhost", "[::1]", "LOCALHOST", "localhost."]
FOREIGN = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "192.168.0.7",
    "",
    "localhost@evil",
    "a b",
]


def is_accepted(hosts: Hosts, host: str, origin: str | None = None) -> bool:
    raw = [(b"host", host.encode())] + ([] if origin is None else [(b"origin", origin.encode())])
    try:
        hosts.check(Headers(raw=raw))
    except Refusal as refusal:
        return refusal.status != 403
    return True


@pytest.mark.parametrize("port", ["", ":80", ":7860"])
def test_the_names_of_this_machine_are_accepted_and_no_others(port: str) -> None:
    assert all(is_accepted(Hosts(), name + port) for name in OWN)
    assert not any(is_accepted(Hosts(), name + port) for name in FOREIGN)
    assert not is_accepted(Hosts(), "localhost:7860:1")


def test_further_names_are_accepted_when_the_operator_names_them() -> None:
    assert is_accepted(Hosts(["emotions.example"]), "Emotions.example:8000")
    assert not is_accepted(Hosts(["emotions.example"]), "x.emotions.example")
    assert is_accepted(Hosts(["fe80::1"]), "[fe80:0:0::1]:7860")


def test_a_server_for_other_machines_accepts_addresses_but_no_unknown_names() -> None:
    """An address cannot be rebound. A name can."""
    hosts = Hosts(["0.0.0.0"], any_address=True)
    assert is_accepted(hosts, "192.168.0.7:7860")
    assert is_accepted(hosts, "[2001:db8::1]:7860")
    assert not is_accepted(hosts, "evil.example:7860")


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        (None, True),
        ("http://localhost:7860", True),
        ("https://localhost:7860", True),
        ("http://localhost:3000", False),
        ("http://localhost", False),
        ("http://127.0.0.1:7860", False),
        ("http://evil.example:7860", False),
        ("http://localhost:7860.evil.example", False),
        ("null", False),
        ("", False),
        ("file://localhost:7860", False),
        ("http://[", False),
    ],
)
def test_only_the_own_page_is_accepted(origin: str | None, accepted: bool) -> None:
    assert is_accepted(Hosts(), "localhost:7860", origin) == accepted


def test_requests_for_other_hosts_get_one_sentence_on_every_route(server: Served) -> None:
    for route in ("/v1/health", "/v1/model", "/metrics", "/openapi.json", "/", "/ui/", "/v1/predict"):
        for headers in ({"Host": f"evil.example:{server.port}"}, {"Origin": "http://evil.example"}):
            response = httpx.get(f"{server.url}{route}", headers=headers)
            assert response.status_code == 403
            assert "evil.example" in response.json()["detail"]
    assert httpx.get(f"{server.url}/v1/health", headers={"Host": f"localhost:{server.port}"}).status_code == 200


def test_a_foreign_page_cannot_send_a_recording(server: Served) -> None:
    response = httpx.post(
        f"{server.url}/v1/predict", files={"file": ("a", bytes(10**6))}, headers={"Origin": "http://evil.example"}
    )
    assert response.status_code == 403
    server.require_nothing_left()


def test_a_foreign_page_cannot_open_a_stream(server: Served) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    for address, origin in ((url, "http://evil.example"), (url, "null"), ("ws://evil.example/v1/stream", None)):
        with (
            socket.create_connection(("127.0.0.1", server.port)) as connection,
            pytest.raises(InvalidStatus) as refused,
        ):
            connect(address, sock=connection, origin=origin)  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
    with connect(url, origin=server.url) as stream:  # type: ignore[arg-type]
        stream.send(json.dumps({"sample_rate": 16000}))
        assert json.loads(stream.recv())["ready"]
    server.require_nothing_left()


def test_a_key_does_not_replace_the_check_of_the_page(serve: Serve) -> None:
    """A browser sends the password of basic authentication with the requests of foreign pages, too."""
    with serve(key="secret") as served:
        headers = {"Authorization": "Bearer secret", "Origin": "http://evil.example"}
        assert httpx.get(f"{served.url}/v1/model", headers=headers).status_code == 403
