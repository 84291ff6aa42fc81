"""A server that the workers of a run host themselves: killed, stopped, damaged, and taken over."""

from __future__ import annotations

import json
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from cryotile.farm.http import Site, answers
from cryotile.farm.place import HOSTED
from cryotile.ledgers.http import hosted_server
from cryotile.runs.hosting import COPY, Host
from cryotile.runs.run import Run
from tests.support.command_line import LIMIT, run
from tests.support.members import SmallRun, small_run
from tests.support.small_run import make_run
from tests.support.waiting import wait_until

EVERY = 0.3

HOLD_PLACE = """
import sys
from pathlib import Path
from cryotile.runs.hosting import Host
from cryotile.runs.run import Run
with Host(Run.load(Path(sys.argv[1])), every=float(sys.argv[2])):
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def small(tmp_path: Path) -> SmallRun:
    return small_run(tmp_path, "false")


@contextmanager
def other_host(planned: Run) -> Iterator[subprocess.Popen[str]]:
    """Let another process host the server of a run until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_PLACE, str(planned.path), str(EVERY)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        try:
            yield process
        finally:
            process.kill()


def said(planned: Run) -> dict[str, Any]:
    content = json.loads((planned.path / HOSTED).read_text())
    return dict(content["said"])


def settled(planned: Run) -> tuple[int, int]:
    """Return the number of tasks that are done, and the most attempts of one, by the copy of the database."""
    with closing(sqlite3.connect(planned.path / COPY)) as copy:
        query = "SELECT count(*), max(attempts) FROM tasks WHERE state = 2"
        done, attempts = copy.execute(query).fetchone()
    return int(done), int(attempts)


def test_when_the_host_is_killed_another_worker_hosts_and_no_task_is_lost_or_repeated(
    small: SmallRun,
) -> None:
    words = ("run", "--backend", "http:1", "--serve", "--lease", 3)
    first = small.cryotile(*words, **small.hold.variables)
    small.held_member(first)
    before = said(small.run)
    second = small.cryotile(*words)
    assert second.stderr is not None
    # It found the server of the first.
    assert before["addresses"][0] in second.stderr.readline()
    first.kill()
    first.communicate()
    output, complaint = second.communicate(timeout=LIMIT)
    assert second.returncode == 0, complaint
    after = said(small.run)
    assert f"the server of {small.run.path} is at" in complaint
    assert "ssh -L" in complaint
    assert f"all {len(small.run.tasks)} tiles are there" in output
    assert after["token"] == before["token"]
    assert small.tiles() == small.expected
    assert not small.run.failed()
    done, attempts = settled(small.run)
    # Tiles that were there when the second server began need no task; those that the first worker held when it died may
    # count an attempt more.
    assert len(small.run.tasks) - 1 <= done <= len(small.run.tasks)
    assert attempts <= 2


def test_what_the_server_says_is_for_its_owner_who_reaches_its_page_by_a_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_SUBMIT_HOST", "login1")
    # A user of a Windows domain, whose name is not one that the server allows.
    monkeypatch.setenv("LOGNAME", r"ICE\ann")
    planned, lines = make_run(tmp_path), list[str]()
    # A server ends after three looks without a sign of its host: here it has time on any machine.
    with Host(planned, lines.append, every=LIMIT):
        for name in (HOSTED, COPY):
            assert stat.S_IMODE((planned.path / name).stat().st_mode) == 0o600
        base, (token, _) = hosted_server(planned.path)
        assert token.startswith("ct_")
        host, port = said(planned)["addresses"][0].removeprefix("http://").split(":")
        (line,) = lines
        assert (
            f"to see its page: ssh -L 5000:{host}:{port} login1, then http://localhost:5000/"
            in line
        )
        # A browser at the other end of the tunnel knows the server by that name.
        browser = {
            "Host": "localhost:5000", "Origin": "http://localhost:5000", "Sec-Fetch-Site": "same-origin",
            "Accept": "text/html", "Content-Type": "application/x-www-form-urlencoded",
        }  # fmt: skip
        with closing(HTTPConnection(host, int(port), timeout=LIMIT)) as tunnel:
            login = urlencode({"name": token, "password": ""})
            tunnel.request("POST", "/", login, browser)
            answer = tunnel.getresponse()
            answer.read()
            assert answer.status == 303
            cookie = str(answer.headers["Set-Cookie"]).partition(";")[0]
            tunnel.request("GET", "/", headers={**browser, "Cookie": cookie})
            assert b"Log out" in tunnel.getresponse().read()
    assert not answers(base.removesuffix("/api/v1/"))


def test_a_host_that_is_held_up_is_replaced_and_its_server_ends(tmp_path: Path) -> None:
    planned = make_run(tmp_path)
    with other_host(planned) as process:
        old = said(planned)
        process.send_signal(signal.SIGSTOP)
        with Host(planned, every=EVERY) as host:
            wait_until(
                lambda: said(planned)["addresses"] not in ([], old["addresses"]),
                lambda: "no server of the new host",
            )
            new = said(planned)
            assert new["token"] == old["token"]
            # Nothing keeps the old server alive, though the process that could end it stands still.
            wait_until(lambda: not answers(old["addresses"][0]), lambda: "the old server answers")
            process.send_signal(signal.SIGCONT)
            process.communicate("", timeout=LIMIT)
            assert process.returncode == 0
            assert said(planned) == new
            assert answers(new["addresses"][0])
            assert host.run is planned


def test_a_damaged_copy_is_named_and_the_server_begins_anew(tmp_path: Path) -> None:
    planned = make_run(tmp_path)
    (planned.path / COPY).write_bytes(b"SQLite format 3\0" + bytes(5000))
    lines: list[str] = []
    with Host(planned, lines.append, every=EVERY):
        pass
    assert f"{planned.path / COPY} is damaged: the server begins anew from the tiles" in lines


def test_a_last_copy_that_fails_is_said_and_hides_no_other_error(tmp_path: Path, caplog) -> None:
    planned = make_run(tmp_path)

    def fail() -> None:
        base, token = hosted_server(planned.path)
        Site(base, auth=token).ask("POST", "tokens", body={})
        # Neither the copy nor what the host leaves to the next one can be written.
        for name in (COPY, HOSTED):
            (planned.path / name).unlink()
            (planned.path / name / "in the way").mkdir(parents=True)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Host(planned, every=LIMIT):
        fail()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "the last copy of the server's database failed" in lines[0]
    assert "the next host waits until this one is silent" in lines[1]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ("--backend", "local", "--serve"),
            "backend 'local' has no server that its workers host; give --backend \"http\", or no --serve",
        ),
        (
            ("--backend", "http://farm:5000", "--serve"),
            "backend 'http:' has no server that its workers host; give --backend \"http\", or no --serve",
        ),
        (("--backend", "http"), "hosts a server; give its address (http://HOST:5000), or --serve"),
    ],
)
def test_without_a_server_one_line_says_what_to_give(
    tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    planned = make_run(tmp_path)
    done = run("run", planned.path, *words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
