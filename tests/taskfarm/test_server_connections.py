"""Clients that send or read slowly, or not as HTTP says: the server goes on answering others at once."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.support.farm_server import basic
from tests.support.served_farm import Served

# More than the threads of all processes.
MANY = 60

# Seconds for an answer; with all threads taken there would be none.
PROMPT = 120.0

SMALL = """
import sys
from cryotile.cli import main
from cryotile.taskfarm.server import app, connections
app._CONNECTIONS, connections._REQUEST, connections._LONGEST_REST = 6, 0.2, 2000
sys.argv = ["cryotile", *sys.argv[1:], "--processes", "1"]
main()
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def farm(request, tmp_path_factory) -> Iterator[Served]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").url
    with Served(tmp_path_factory.mktemp("farm"), url) as server:
        server.token = server.log_in()
        yield server


def request(farm, method, path, body=b"", **headers):
    """Return the bytes of a request."""
    given = {"Host": "here", **basic(farm.token), "Content-Length": len(body), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def connections(farm, count=1, window=0):
    """Connect several times; with a small window the client takes little of what it does not read."""
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(stack.enter_context(socket.socket()))
            if window:
                made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            made[-1].settimeout(PROMPT)
            made[-1].connect(("127.0.0.1", farm.port))
        yield made


def answer(stream):
    """Read one answer; return its status, headers and body."""
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    return status, headers, stream.read(int(headers.get("content-length", 0)))


def is_prompt(farm):
    with connections(farm) as (client,), client.makefile("rb") as stream:
        client.sendall(request(farm, "GET", "/api/v1/runs"))
        return answer(stream)[0] == 200


def test_clients_that_send_nothing_stop_nobody(farm):
    with connections(farm, MANY):
        assert is_prompt(farm)


def test_clients_that_stop_within_the_headers_stop_nobody(farm):
    whole = request(farm, "GET", "/api/v1/runs")
    with connections(farm, MANY) as clients:
        for number, client in enumerate(clients):
            client.sendall(whole[: number % (len(whole) - 1) + 1])
        assert is_prompt(farm)
        # Their requests are answered as soon as the rest arrives.
        for number, client in enumerate(clients):
            client.sendall(whole[number % (len(whole) - 1) + 1 :])
        for client in clients:
            with client.makefile("rb") as stream:
                assert answer(stream)[0] == 200


def test_clients_that_stop_within_the_body_stop_nobody(farm):
    body = json.dumps({"count": 3, "name": "x" * 100}).encode()
    whole = request(farm, "POST", "/api/v1/runs", body, **{"Content-Type": "application/json"})
    with connections(farm, MANY) as clients:
        for number, client in enumerate(clients):
            client.sendall(whole[: -1 - number])
        assert is_prompt(farm)
        clients[3].sendall(whole[-4:])
        with clients[3].makefile("rb") as stream:
            assert answer(stream)[0] == 201


def test_clients_that_do_not_read_stop_nobody_and_may_read_later(farm):
    asked = 30
    with connections(farm, MANY, window=4096) as clients:
        for client in clients:
            client.sendall(request(farm, "GET", "/api/v1/openapi.json") * asked)
        assert is_prompt(farm)
        with clients[0].makefile("rb") as stream:
            for _ in range(asked):
                status, _, body = answer(stream)
                assert (status, json.loads(body)["openapi"]) == (200, "3.1.0")


def test_requests_sent_at_once_are_answered_in_order(farm):
    paths = ("/healthz", "/api/v1/runs", "/nosuch", "/healthz")
    sent = b"".join(request(farm, "GET", path) for path in paths)
    with connections(farm) as (client,), client.makefile("rb") as stream:
        # Cut within the second request.
        client.sendall(sent[:-400])
        client.sendall(sent[-400:])
        assert [answer(stream)[0] for _ in paths] == [200, 200, 404, 200]


def test_a_client_that_waits_to_be_invited_is_invited(farm):
    body = b'{"count": 3}'
    head = {"Content-Type": "application/json", "Expect": "100-continue"}
    whole = request(farm, "POST", "/api/v1/runs", body, **head)
    with connections(farm) as (client,), client.makefile("rb") as stream:
        client.sendall(whole[: -len(body)])
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        client.sendall(body)
        assert answer(stream)[0] == 201


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        ({"Content-Length": 10**9, "Content-Type": "application/json"}, 413),
        ({"Content-Length": "0", "Transfer-Encoding": "chunked"}, 400),
        ({"X-Long": "x" * 70_000}, 431),
        ({"Content-Length": "ten"}, 400),
        ({"Content-Length": "-1"}, 400),
        ({"X\x00": "1"}, 400),
    ],
)
def test_a_refused_request_ends_the_connection_with_an_answer(farm, refused, status):
    # What follows is part of the refused body, and no second request.
    hidden = request(farm, "POST", "/api/run", b'{"numTasks": 1}')
    before = len(farm.ask("GET", "/api/runs", token=farm.token)[1]["data"])
    with connections(farm) as (client,), client.makefile("rb") as stream:
        client.sendall(request(farm, "POST", "/api/v1/runs", **refused) + hidden)
        found, headers, body = answer(stream)
        assert found == status
        assert json.loads(body)["error"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert stream.read() == b""
    assert len(farm.ask("GET", "/api/runs", token=farm.token)[1]["data"]) == before


def test_a_body_without_a_length_is_refused(farm):
    sent = request(farm, "POST", "/api/v1/runs").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    with connections(farm) as (client,), client.makefile("rb") as stream:
        client.sendall(sent + b"c\r\n" + b'{"count": 3}' + b"\r\n0\r\n\r\n")
        status, _, body = answer(stream)
        assert status == 411
        assert "Content-Length" in json.loads(body)["error"]
        assert stream.read() == b""


def test_a_client_that_asks_to_close_is_closed_and_stops_nobody(farm):
    with connections(farm, MANY) as clients:
        for client in clients:
            client.sendall(request(farm, "GET", "/healthz", Connection="close"))
        assert is_prompt(farm)
        with clients[0].makefile("rb") as stream:
            assert answer(stream)[0] == 200
            assert stream.read() == b""


class SmallServed(Served):
    """A server with small limits."""

    program = ("-c", SMALL)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Iterator[Served]:
    with SmallServed(tmp_path_factory.mktemp("small")) as server:
        server.token = server.log_in()
        yield server


def test_beyond_the_limit_the_connection_that_waits_longest_is_closed(small):
    with connections(small, 20) as clients:
        assert is_prompt(small)
        assert clients[0].recv(1) == b""
        clients[-1].sendall(request(small, "GET", "/healthz"))
        with clients[-1].makefile("rb") as stream:
            assert answer(stream)[0] == 200


def test_a_request_that_does_not_arrive_in_time_is_dropped(small):
    with connections(small) as (client,):
        client.sendall(b"GET ")
        assert client.recv(1) == b""


def test_a_client_that_leaves_too_much_of_an_answer_is_disconnected(small):
    with connections(small, window=2048) as (client,):
        client.sendall(request(small, "GET", "/api/v1/openapi.json") * 100)
        received = 0
        with suppress(ConnectionResetError):
            while piece := client.recv(512):
                received += len(piece)
        assert received < 100 * 10_000
