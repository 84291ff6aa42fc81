"""The ledger on a server: it keeps the contract, and a repeated request takes effect once."""

from __future__ import annotations

import json
import re
import struct
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest

from cryotile.backends import open_backend
from cryotile.backends.base import STALL
from cryotile.errors import InvalidValue
from cryotile.farm.http import Refused, Unanswered
from cryotile.farm.task import Outcome, Task
from cryotile.ledgers import LEASE
from cryotile.ledgers.http import HttpLedger, open_api
from cryotile.runs.task_map import VARIABLES, thumbnail_values
from cryotile.runs.work import complete_run
from cryotile.taskfarm.client import log_in
from cryotile.testing.backends import BackendContract, MakeBackend, RecordingWork, make_tasks
from cryotile.testing.leases import OpenLedger, at, ended, ids
from cryotile.testing.ledgers import LedgerContract
from tests.support import PROJECT
from tests.support.command_line import output_of, run_python, start
from tests.support.services.farm import PASSWORD, USER, FarmServer
from tests.support.small_run import make_run

PAGE = PROJECT / "docs" / "taskfarm-client.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[FarmServer]:
    with FarmServer(tmp_path_factory.mktemp("farm")) as server:
        yield server


@pytest.fixture
def key() -> str:
    """Return the name of a task list that no other test uses."""
    return f"{uuid.uuid4().hex}/1"


class TestHTTP(LedgerContract):
    @pytest.fixture
    def open_ledger(self, server, key) -> OpenLedger:
        # The server gives no lease of under a second.
        return lambda host="here", key="run/1", lease=LEASE, own=key: HttpLedger(
            server.url, f"{own}/{key}", lease=max(lease, 1.0), host=host
        )


class TestHTTPBackend(BackendContract):
    """Without the tests of supervised children, which are those of the backend ``dir``."""

    @pytest.fixture
    def make_backend(self, server, key) -> MakeBackend:
        return lambda workers=2, stall=STALL: open_backend(
            f"{server.url}?children={workers}", home=None, key=key, stall=stall
        )


class _Forgetful(BaseHTTPRequestHandler):
    """Forwards requests, and closes the connection in place of the first answer to each kind of request."""

    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what = (self.command, urlsplit(self.path).path.rpartition("/")[2])
        with closing(HTTPConnection("127.0.0.1", self.server.behind)) as server:
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            content = answer.read()
        if what not in self.server.forgotten:
            self.server.forgotten.append(what)
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_PATCH(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def log_message(self, *words: object) -> None:
        """Print nothing."""


@pytest.fixture
def forgetful(server) -> Iterator[ThreadingHTTPServer]:
    """A proxy that loses the first answer to each kind of request, after the server has processed it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful) as proxy:
        proxy.behind, proxy.forgotten = server.port, []
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


def test_a_request_that_is_repeated_because_its_answer_was_lost_takes_effect_once(
    server, forgetful, key
):
    url = server.url.replace(str(server.port), str(forgetful.server_port))
    ledger, other = HttpLedger(url, key), HttpLedger(server.url, key, host="other")
    tasks = make_tasks(6)
    ledger.enroll(tasks)
    leases = ledger.claim(3)
    assert [lease.task for lease in leases] == tasks[:3]
    assert [lease.task for lease in other.claim(9)] == tasks[3:]
    good, bad, unused = leases
    assert ledger.renew(at(0.5, good, bad)) == set()
    assert ledger.settle(ended(good) | ended(bad, error="no")) == set()
    ledger.release(ids(unused))
    assert {lease.task: lease.attempt for lease in other.claim(9)} == {bad.task: 2, unused.task: 1}
    assert ledger.unsettled() == 5
    asked = [("POST", "runs"), ("POST", "leases"), ("PATCH", "leases"), ("POST", "outcomes")]
    assert [what for what in forgetful.forgotten if what[0] != "GET"] == [
        *asked,
        ("DELETE", "leases"),
    ]


def test_a_farm_survives_the_death_of_its_server(tmp_path, key):
    tasks, work = make_tasks(300), RecordingWork(tmp_path)
    outcomes: list[Outcome] = []
    with FarmServer(tmp_path) as mortal, ThreadPoolExecutor(1) as starter:
        farm = open_backend(f"{mortal.url}?children=2", home=None, key=key)
        starting: Future[None] | None = None
        for outcome in farm.run(tasks, work):
            outcomes.append(outcome)
            if len(outcomes) in (1, 150):
                # A server that is still starting would not be killed.
                if starting is not None:
                    starting.result()
                mortal.kill()
                starting = starter.submit(mortal.start)
        assert starting is not None
        starting.result()
        assert HttpLedger(mortal.url, key).unsettled() == 0
    assert sorted(outcome.task.index for outcome in outcomes) == [task.index for task in tasks]
    assert sorted(work.ended) == [task.index for task in tasks]
    assert all(outcome.error is None and outcome.attempts == 1 for outcome in outcomes)


def test_an_address_without_a_server_is_named(key):
    ledger = HttpLedger("http://a:b@127.0.0.1:9", key, patience=0.0)
    with pytest.raises(
        Unanswered, match=r"127.0.0.1:9.*refused; check that the server runs"
    ) as caught:
        ledger.claim()
    assert "\n" not in str(caught.value)
    # The password is not shown.
    assert "a:b" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://",
        "127.0.0.1:5000",
        "ftp://host/x",
        "http://[::1",
        "http://host:port",
        "http://host:99999",
    ],
)
def test_an_address_of_no_server_is_refused_without_its_password(key, address):
    given = address.replace("//", "//ann:secret@")
    with pytest.raises(InvalidValue, match=r"names no server; write http://host:5000") as caught:
        HttpLedger(given, key)
    assert f"address {address!r}" in str(caught.value)


def test_an_unknown_user_is_refused(server, key):
    with pytest.raises(Refused, match="HTTP 401: the request is not authenticated"):
        HttpLedger(server.address, key).claim()


def test_a_token_may_come_from_the_environment(server, key, monkeypatch):
    site = log_in(USER, PASSWORD, server.seed_url)
    assert site.auth is not None
    monkeypatch.setenv("CRYOTILE_TOKEN", site.auth[0])
    ledger = HttpLedger(server.address, key)
    ledger.enroll(make_tasks(3))
    assert len(ledger.claim(2)) == 2


def test_a_long_list_is_sent_in_pieces(server, key):
    tasks = [Task(index, float(index % 97)) for index in range(120_000)]
    ledger = HttpLedger(server.url, key)
    ledger.enroll(tasks)
    assert ledger.unsettled() == len(tasks)
    assert [lease.task.cost for lease in ledger.claim(100)] == [96.0] * 100


def test_status_shows_the_progress_of_the_runs_of_a_server(server, key, call):
    ledger = HttpLedger(server.url, key)
    ledger.enroll(make_tasks(1200))
    done, failed, *_ = ledger.claim(4)
    ledger.settle(ended(done) | ended(failed, error="no"))

    shown = call("status", server.url)[1]
    (row,) = (line.split("  ") for line in shown.splitlines() if key in line)
    words = [word.strip() for word in row if word.strip()]
    assert words[:6] == [key, "1,200", "1", "2", "1,197", "0"]
    lines = call("status", server.url, "--json")[1].splitlines()
    (run,) = (run for run in map(json.loads, lines) if run["key"] == key)
    assert (run["done"], run["leased"]) == (1, 2)


def test_status_watch_shows_each_change_of_the_runs_of_a_server_until_they_are_over(tmp_path):
    with FarmServer(tmp_path) as farm:
        ledger = HttpLedger(farm.url, "watched/1")
        ledger.enroll(make_tasks(2))
        one, two = ledger.claim(2)
        watch = start("status", farm.url, "--watch")
        assert watch.stdout is not None
        first = "watched/1: 0 of 2 tasks done, 2 leased, 0 waiting, 0 failed\n"
        assert watch.stdout.readline() == first
        ledger.settle(ended(one) | ended(two, error="no"))
        for attempt in (2, 3):
            (again,) = ledger.claim()
            assert again.attempt == attempt
            ledger.settle(ended(again, error="ValueError: no ice"))
        rest, complaint = watch.communicate(timeout=240)
        last = "watched/1: 1 of 2 tasks done, 0 leased, 0 waiting, 1 failed"
        assert rest.splitlines()[-1] == last
        # A failed task means exit code 1, and the message names the command that shows why, without the password.
        assert watch.returncode == 1
        assert f"see why with: cryotile status {farm.address}" in complaint
        shown = output_of("status", farm.url)
        assert f"task {two.task.index} on " in shown
        assert "ValueError: no ice" in shown


@pytest.mark.parametrize(
    ("name", "last"),
    [("count_primes.py", "17984 primes below 200000"), ("first_farm.py", "100.0 % done")],
)
def test_the_scripts_of_the_page_work_when_they_are_copied(server, tmp_path, name, last):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (script,) = (block for block in blocks if block.startswith(f"# {name}\n"))
    # The page's server, user and password are others.
    user = server.url.removeprefix("http://").partition("@")[0]
    script = script.replace("ann:secret", user).replace(
        "localhost:5000", f"127.0.0.1:{server.port}"
    )
    script = script.replace('"ann", "secret"', f'"{USER}", "{PASSWORD}"')
    (tmp_path / name).write_text(script)
    done = run_python(name, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == last
    assert len(done.stdout.splitlines()) > 10


@pytest.mark.parametrize("scheme", ["http", "taskfarm+http"])
def test_a_map_made_over_http_has_the_tiles_of_any_other(server, tmp_path, scheme, call):
    def tiles(name: str, backend: str) -> dict[str, bytes]:
        (tmp_path / name).mkdir()
        run = make_run(tmp_path / name)
        assert call("run", run.path, "--backend", backend)[0] == 0
        return {path.name: path.read_bytes() for path in (run.path / "tiles").rglob("*.arrow")}

    spec = server.url.replace("http", scheme, 1) + "?children=2"
    made = tiles("far", spec)
    assert made
    assert made == tiles("near", "serial")


def test_a_farm_sends_its_map_and_a_thumbnail_of_each_tile(server, tmp_path):
    run = make_run(tmp_path)
    complete_run(run, f"{server.url}?children=2")
    site = open_api(server.url)
    known = next(each for each in site.ask("GET", "runs")["runs"] if each["key"] == run.key)
    assert (known["name"], known["map"], known["done"]) == (run.path.name, True, len(run.tasks))
    assert site.ask("GET", f"runs/{known['run']}/map")["columns"] == run.table["ix"].tolist()
    for place, variable in enumerate(VARIABLES):
        data = _bytes(site, f"runs/{known['run']}/thumbnails?variable={variable}")
        count, ny, nx = (struct.unpack_from("<IIIdII", data)[each] for each in (1, 4, 5))
        indices = np.frombuffer(data, "<u4", count, 28).tolist()
        values = np.frombuffer(data, "u1", offset=28 + 4 * count).reshape(count, ny, nx)
        assert sorted(indices) == list(range(len(run.tasks)))
        for index, cells in zip(indices, values, strict=True):
            tile = run.tile(index)
            stored = thumbnail_values(tile, run.settings.tile_size, run.store.load(tile))
            assert np.array_equal(cells, stored[place])


def test_a_worker_reports_its_memory_when_it_renews(server, key):
    ledger = HttpLedger(server.url, key)
    ledger.enroll(make_tasks(1))
    (lease,) = ledger.claim()
    assert ledger.renew({lease.id: 0.5}) == set()
    site = open_api(server.url)
    run = next(each["run"] for each in site.ask("GET", "runs")["runs"] if each["key"] == key)
    (worker,) = site.ask("GET", f"runs/{run}/workers")["workers"]
    assert 10e6 < worker["memory"] < 100e9


def _bytes(site, path):
    answer = site.session.get(site.base + path, auth=site.auth, timeout=60)
    assert answer.status_code == 200
    return answer.content


def test_work_without_a_map_may_return_anything(server, key):
    tasks = [Task(index, 1.0) for index in range(4)]
    outcomes = list(open_backend(f"{server.url}?children=1", home=None, key=key).run(tasks, _odd))
    assert {outcome.task.index: outcome.thumbnail for outcome in outcomes} == {
        0: None, 1: None, 2: None, 3: b"3"
    }  # fmt: skip


def _odd(task, progress):
    """Return what is no thumbnail, and once what may be one."""
    return ["text", bytes(2000), b"", b"3"][task.index % 4]


def test_a_worker_of_a_paused_run_waits_and_says_so(server, key, caplog):
    ledger, site = HttpLedger(server.url, key), open_api(server.url)
    ledger.enroll(make_tasks(3))
    (first,) = ledger.claim()
    run = next(each["run"] for each in site.ask("GET", "runs")["runs"] if each["key"] == key)
    site.ask("POST", f"runs/{run}/pause", body=None)
    for _ in range(2):
        assert ledger.claim(3) == []
    assert ledger.settle(ended(first)) == set()
    assert ledger.unsettled() == 2
    assert "paused" in output_of("status", server.url)
    site.ask("POST", f"runs/{run}/resume", body=None)
    assert len(ledger.claim(3)) == 2
    said = [record.message for record in caplog.records]
    assert said == [
        "the run is paused on the server; this worker waits until it is resumed",
        "the run is resumed",
    ]
