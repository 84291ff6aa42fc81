"""The files in ``deploy/``: a server behind nginx that is reloaded, upgraded, backed up and restored at work."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import jsonschema_rs
import psycopg
import pytest
import yaml

import cryotile
from cryotile.errors import CryotileError
from cryotile.farm.task import Task
from cryotile.ledgers.base import LEASE
from cryotile.ledgers.http import HttpLedger
from tests.support import PROJECT
from tests.support.claimants import BATCH, Pool
from tests.support.databases import new_database
from tests.support.farm_server import basic
from tests.support.served_farm import Served
from tests.support.services.farm import PASSWORD, USER, add_user
from tests.support.services.gunicorn import Gunicorn
from tests.support.services.nginx import Nginx
from tests.support.services.provide import provide

DEPLOY = PROJECT / "deploy"
KEY = "deployment/1"
# Seconds between two requests of a client, so that servers start fast on two cores.
PAUSE = 0.05

# Appended to a copy of the package: the next version of the ledger's tables.
NEXT_VERSION = '''

def _note(connection: Connection) -> None:
    """Upgrade to the next version, as a test adds it."""
    connection.execute(text("ALTER TABLE tasks ADD COLUMN remark TEXT"))
    connection.execute(text("CREATE INDEX tasks_remark ON tasks (run_id, remark)"))


LEDGER_STEPS = (*LEDGER_STEPS, _note)
upgrade.__defaults__ = ("ledger", LEDGER_STEPS)
'''


class Asker:
    """A client that never repeats a request: it sees every error that a restart makes."""

    def __init__(self, nginx: Nginx) -> None:
        self.statuses: Counter[int | str] = Counter()
        self._over = threading.Event()
        self._port = urlsplit(nginx.address).port
        self._context = ssl.create_default_context(cafile=nginx.certificate)
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        connection = HTTPSConnection("localhost", self._port, timeout=60, context=self._context)
        connection.request("GET", "/api/token", headers=basic(USER, PASSWORD))
        token = basic(json.loads(connection.getresponse().read())["token"])
        while not self._over.wait(PAUSE):
            try:
                connection.request("GET", "/api/v1/runs", headers=token)
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
            except OSError as error:
                self.statuses[repr(error)] += 1
                connection.close()
        connection.close()


def test_restarts_and_an_upgrade_during_the_work_make_no_error(postgres, tmp_path, monkeypatch):
    package = tmp_path / "package" / "cryotile"
    source = Path(cryotile.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "*.c"))
    url = new_database(postgres)
    with Gunicorn(tmp_path, url, package.parent) as server, Nginx(tmp_path, server.socket) as nginx:
        add_user(url, USER)
        monkeypatch.setenv("CRYOTILE_CA_BUNDLE", str(nginx.certificate))
        address = nginx.address.replace("//", f"//{USER}:{quote(PASSWORD)}@")
        count = enroll(address)
        pool = Pool(address, KEY, pause=PAUSE)
        pool.start()
        with Asker(nginx) as asker:
            pool.go_on(20)
            # A version that cannot be loaded: the old one goes on.
            schema = package / "ledgers/sql/schema.py"
            works = schema.read_text()
            schema.write_text(works + "raise RuntimeError\n")
            assert not server.reload()
            pool.go_on(20)
            # A new version is installed: the next processes upgrade the tables while workers use them.
            schema.write_text(works + NEXT_VERSION)
            before = version(url)
            assert server.reload()
            pool.go_on(20)
            assert version(url) == before + 1
            # systemd holds the socket meanwhile.
            server.stop()
            server.start()
            pool.go_on(20)
        assert set(asker.statuses) == {200}
        server.stop()
        # Without systemd; workers repeat their requests in between.
        server.start(held=False)
        with Asker(nginx) as asker:
            pool.go_on(20)
            server.upgrade()
            pool.go_on(20)
        assert set(asker.statuses) == {200}
        pool.last.set()
        pool.join()
    assert Counter(pool.done) == Counter(range(count))
    assert pool.lost == []


def test_nginx_speaks_tls_alone_and_clients_that_are_slow_stop_nobody(postgres, tmp_path):
    source = Path(cryotile.__file__).parent.parent
    url = new_database(postgres)
    with Gunicorn(tmp_path, url, source) as server, Nginx(tmp_path, server.socket) as nginx:
        add_user(url, USER)
        place = ("localhost", urlsplit(nginx.address).port)
        with pytest.raises(CryotileError, match="certificate"):
            HttpLedger(nginx.address.replace("//", f"//{USER}:x@"), KEY).enroll([])
        trusting = ssl.create_default_context(cafile=nginx.certificate)
        with socket.create_connection(place) as plain, plain.makefile("rb") as stream:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 400 " in stream.readline()

        def request(method, path, body=b"", **headers):
            given = {"Host": f"localhost:{place[1]}", "Content-Length": len(body), **headers}
            lines = (f"{name}: {value}\r\n" for name, value in given.items())
            return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body

        def connect():
            plain = clients.enter_context(socket.create_connection(place, timeout=120))
            return clients.enter_context(trusting.wrap_socket(plain, server_hostname="localhost"))

        form = urlencode({"name": USER, "password": PASSWORD}).encode()
        whole = request("POST", "/", form, **{"Content-Type": "application/x-www-form-urlencoded"})
        # More than the threads of both processes: some stop within the body, some do not read a long answer.
        with ExitStack() as clients:
            slow = [connect() for _ in range(60)]
            for client in slow[::2]:
                client.sendall(whole[:-3])
            for client in slow[1::2]:
                client.sendall(request("GET", "/page/uplot/uPlot.iife.min.js") * 20)
            last = connect()
            last.sendall(whole)
            with last.makefile("rb") as stream:
                status, headers = read_head(stream)
            slow[0].sendall(whole[-3:])
            with slow[0].makefile("rb") as stream:
                assert read_head(stream)[0] == 303
        assert status == 303
        assert "Secure" in headers["set-cookie"]
        assert headers["strict-transport-security"].startswith("max-age=")
        assert "nginx/" not in headers["server"]


def read_head(stream):
    """Read status and headers of an answer."""
    status = int(stream.readline().split()[1])
    lines = iter(lambda: stream.readline().strip().decode(), "")
    return status, {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_during_the_work_is_restored_and_the_workers_go_on(kind, request, tmp_path):
    provide(["sqlite3", "pg_dump", "pg_restore"], ["sqlite3", "postgresql-client"])
    if kind == "sqlite":
        url, place = (
            "",
            {"/var/lib/cryotile": str(tmp_path), "=cryotile ": f"={getpass.getuser()} "},
        )
        backup, restore = ["VACUUM INTO"], ["rm -f", "install --owner"]
    else:
        url = new_database(request.getfixturevalue("postgres"))
        place = {"postgresql:///cryotile": url, "runuser -u cryotile -- ": ""}
        backup, restore = ["-- pg_dump"], ["-- pg_restore"]
    copies = tmp_path / "copies"
    copies.mkdir()
    place["/backup"] = str(copies)
    with Served(tmp_path, url) as served:
        # Short leases: those in the backup are nobody's, and expire.
        count = enroll(served.url, lease=2.0)
        pool = Pool(served.url, KEY, pause=PAUSE)
        pool.start()
        pool.go_on(30)
        settled = list(pool.done)
        carry_out(backup, place)
        pool.go_on(30)
        served.kill()
        carry_out(restore, place)
        served.start()
        pool.last.set()
        pool.join()
        runs = served.ask("GET", "/api/v1/runs", token=served.log_in())[1]["runs"]
    assert [runs[0][name] for name in ("done", "failed", "waiting", "leased")] == [count, 0, 0, 0]
    done = Counter(pool.done)
    assert set(done) == set(range(count))
    # What was settled before the backup is not done again, what was settled after it is.
    assert {done[task] for task in settled} == {1}
    assert done.total() > count


def carry_out(starts: list[str], place: dict[str, str]) -> None:
    """Carry out the commands of the page that contain some words, elsewhere than in the place that it names."""
    page = (PROJECT / "docs" / "deploy.md").read_text()
    for words in starts:
        (command,) = [line for line in page.splitlines() if words in line]
        for documented, used in place.items():
            command = command.replace(documented, used)
        subprocess.run(command, shell=True, check=True)


def test_compose_file_keeps_to_the_schema_and_names_files_that_are_there():
    # From https://github.com/compose-spec/compose-spec, schema/compose-spec.json; licence Apache-2.0.
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    validator = jsonschema_rs.validator_for(schema)
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    validator.validate(composed)
    assert not validator.is_valid({**composed, "servces": {}})
    services = composed["services"]
    mounts = [v.split(":") for s in services.values() for v in s["volumes"]]
    named = {source for source, *_ in mounts if "/" not in source}
    assert named == set(composed["volumes"])
    own = {source for source, *_ in mounts} - named - {"./farm.crt", "./farm.key"}
    assert own
    assert all((DEPLOY / source).exists() for source in own)
    assert services["farm"]["read_only"]
    assert [s["ports"] for s in services.values() if "ports" in s] == [["443:443"]]
    # Server and nginx meet at the socket that both sets of settings name.
    place = re.search(r"unix:(\S+)/farm\.sock", (DEPLOY / "nginx.conf").read_text())
    assert place is not None
    assert f"unix:{place[1]}/farm.sock" in (DEPLOY / "gunicorn.conf.py").read_text()
    assert {m[1] for m in mounts if m[0] == "socket"} == {place[1]}
    assert f"ListenStream={place[1]}/farm.sock" in (DEPLOY / "systemd/cryotile.socket").read_text()


def test_the_steps_of_the_dockerfile_are_those_that_make_image_check_carries_out():
    words = [sys.executable, str(PROJECT / ".ci" / "image"), "--list"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "USER farm" in listed
    assert listed[-1] == 'CMD ["gunicorn", "--config", "/etc/cryotile/gunicorn.conf.py"]'
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert all((PROJECT / line[1:]).exists() for line in ignored if line.startswith("!"))


def test_systemd_accepts_the_units(tmp_path):
    verify = provide(["systemd-analyze"], ["systemd"])["systemd-analyze"]
    for unit in (DEPLOY / "systemd").iterdir():
        # This machine has no /opt/cryotile.
        text = unit.read_text().replace("/opt/cryotile/bin/gunicorn", sys.executable)
        (tmp_path / unit.name).write_text(text)
    words = [verify, "verify", *map(str, tmp_path.iterdir())]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def version(url: str) -> int:
    """Return the version of the ledger's tables."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT version FROM schema_versions WHERE part = 'ledger'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def enroll(address: str, lease: float = LEASE) -> int:
    """List tasks that last until the last phase of a test; return their number."""
    count = 80 * BATCH
    HttpLedger(address, KEY, lease=lease).enroll([Task(index, 1.0) for index in range(count)])
    return count
