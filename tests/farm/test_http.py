"""Requests that are repeated while a server does not answer."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cryotile.errors import InvalidValue
from cryotile.farm import http
from cryotile.farm.http import Site, Unanswered
from cryotile.ledgers.http import open_api
from cryotile.taskfarm import TaskFarm


class Handler(BaseHTTPRequestHandler):
    """Answers with the statuses and headers of a list, one after another, and then with success."""

    answers: list[tuple[int, dict[str, str]]]
    authorization: str | None
    asked: str

    def do_GET(self) -> None:
        Handler.authorization, Handler.asked = self.headers["Authorization"], self.path
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        body = b'{"uuid": "u", "numTasks": 5}'
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    """Serve; return the address."""
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Record pauses in place of making them."""
    made: list[float] = []
    monkeypatch.setattr(http.time, "sleep", made.append)
    return made


@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_repeated_request_waits_as_long_as_the_server_asks(address, pauses, status):
    Handler.answers = [(status, {"Retry-After": "7"}), (status, {}), (status, {"Retry-After": "x"})]
    assert Site(address).ask("GET", "runs") == {"uuid": "u", "numTasks": 5}
    first, second, third = pauses
    assert 7 < first < 8
    assert second < 1
    assert third < 1


def test_retry_after_may_be_a_date_by_the_clock_of_the_server(address, pauses, monkeypatch):
    monkeypatch.setattr(Handler, "date_time_string", lambda self: "Fri, 31 Dec 1999 23:59:50 GMT")
    Handler.answers = [(503, {"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"})]
    Site(address).ask("GET", "runs")
    assert 10 < pauses[0] < 11


def test_a_server_that_asks_for_more_patience_than_there_is_is_unanswered_at_once(address, pauses):
    Handler.answers = [(429, {"Retry-After": "40"})]
    with pytest.raises(Unanswered, match="HTTP 429"):
        Site(address).ask("GET", "runs", patience=10)
    assert pauses == []


def test_the_legacy_client_waits_as_long_as_the_server_asks(address, pauses):
    Handler.answers = []
    farm = TaskFarm("token", "", uuid="u", url_base=address)
    Handler.answers = [(503, {"Retry-After": "3"})]
    assert farm.info("numTasks") == 5
    assert 3 < pauses[0] < 4


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_that_is_no_authority_is_refused(tmp_path, monkeypatch, content):
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("CRYOTILE_CA_BUNDLE", str(file))
    with pytest.raises(InvalidValue, match=r"authority\.pem' is not the file of a certificate"):
        open_api("https://127.0.0.1:1")


def test_names_and_passwords_are_sent_in_utf_8(address):
    Handler.answers = []
    Site(address, auth=("zoë", "pass€")).ask("GET", "runs")
    assert Handler.authorization == "Basic " + b64encode("zoë:pass€".encode()).decode()


def test_each_address_is_reached_by_the_proxy_that_the_environment_names_for_it(
    address, monkeypatch
):
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    places = iter([("http://moved.invalid", None), (address, None)])
    site = Site("http://farm.invalid", find=lambda: next(places))
    Handler.answers = [(401, {}), (401, {})]
    site.ask("GET", "runs")
    # A proxy is sent the whole address.
    assert Handler.asked == "/runs"
    assert site.base == address
    Handler.answers = []
    Site("http://farm.invalid").ask("GET", "runs")
    assert Handler.asked == "http://farm.invalid/runs"
