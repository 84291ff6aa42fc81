"""The ledger in a database keeps the contract on SQLite, PostgreSQL and behind a pooler; and its own properties."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count as count_up

import pytest
from sqlalchemy import text

from cryotile.backends import open_backend
from cryotile.backends.base import STALL
from cryotile.errors import CryotileError, InvalidValue, UnwritablePath
from cryotile.farm.task import Task
from cryotile.ledgers import LEASE, Ending
from cryotile.ledgers.sql.database import Unreachable
from cryotile.ledgers.sql.ledger import SqlLedger
from cryotile.ledgers.sql.runs import count, create_run, delete_run, find_run, restart_all
from cryotile.ledgers.sql.schema import upgrade
from cryotile.ledgers.sql.statements import NOW
from cryotile.testing.backends import BackendContract, MakeBackend
from cryotile.testing.leases import OpenLedger, claim_all, ended
from cryotile.testing.ledgers import LedgerContract
from tests.support.databases import open_database, url
from tests.support.services.pgbouncer import PgBouncer
from tests.support.waiting import wait_until

__all__ = ["url"]

_numbers = count_up()


class TestSQLite(LedgerContract):
    @pytest.fixture
    def open_ledger(self, tmp_path) -> OpenLedger:
        return lambda host="here", key="run/1", lease=LEASE: SqlLedger(
            f"sqlite:///{tmp_path}/farm.db", key, lease=lease, host=host
        )


class TestPostgreSQL(LedgerContract):
    @pytest.fixture
    def open_ledger(self, postgres) -> OpenLedger:
        number = next(_numbers)
        return lambda host="here", key="run/1", lease=LEASE: SqlLedger(
            postgres.url, f"{number}/{key}", lease=lease, host=host
        )


class TestSQLiteBackend(BackendContract):
    """Without the tests of supervised children, which are those of the backend ``dir``."""

    @pytest.fixture
    def make_backend(self, tmp_path) -> MakeBackend:
        return lambda workers=2, stall=STALL: open_backend(
            f"sqlite:///{tmp_path}/farm.db?children={workers}", home=None, key="run/1", stall=stall
        )


class TestPostgreSQLBackend(BackendContract):
    """Without the tests of supervised children, which are those of the backend ``dir``."""

    @pytest.fixture
    def make_backend(self, postgres) -> MakeBackend:
        key = f"backend {next(_numbers)}/1"
        return lambda workers=2, stall=STALL: open_backend(
            f"{postgres.url}?children={workers}", home=None, key=key, stall=stall
        )


class TestPgBouncer(LedgerContract):
    """Each transaction may get another connection."""

    @pytest.fixture
    def open_ledger(self, pgbouncer) -> OpenLedger:
        number = next(_numbers)
        return lambda host="here", key="run/1", lease=LEASE: SqlLedger(
            pgbouncer.url, f"bouncer {number}/{key}", lease=lease, host=host
        )


@pytest.fixture(scope="module")
def pgbouncer(postgres) -> Iterator[PgBouncer]:
    """Return a pooler that opens three connections."""
    with PgBouncer(postgres, connections=3) as running:
        yield running


def test_a_connection_is_closed_after_a_time_without_requests(postgres):
    ledger = SqlLedger(postgres.url, f"idle {next(_numbers)}")
    ledger.enroll([Task(1, 1.0)])
    pool = ledger._database.engine.pool
    wait_until(lambda: not pool.checkedin(), lambda: "the connection stays open")
    assert [lease.task.index for lease in ledger.claim()] == [1]


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs", "beegfs"])
def test_sqlite_on_a_network_file_system_is_refused_with_the_reason(tmp_path, monkeypatch, kind):
    mounts = tmp_path / "mountinfo"
    place = str(tmp_path / "shared disk").replace(" ", "\\040")
    mounts.write_text(
        "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        f"22 21 0:9 / {place} rw shared:2 master:1 - {kind} server:/export rw\n"
    )
    monkeypatch.setattr("cryotile.files._MOUNTS", mounts)
    with pytest.raises(InvalidValue, match=f"network file system \\({kind}\\).*; use") as caught:
        SqlLedger(f"sqlite:///{tmp_path}/shared disk/farm.db", "run/1")
    assert "\n" not in str(caught.value)
    SqlLedger(f"sqlite:///{tmp_path}/shared disk of mine.db", "run/1")


@pytest.mark.parametrize(
    "spec",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x.db?children=0",
        "sqlite:///x.db?children=",
        "sqlite:///x.db?timeout=3",
        "mysql://host/name",
        "postgresql://ann:secret@host:port/name",
        "nonsense",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_a_remedy(spec):
    remedies = r"; write|name a file|leave it out|installed are"
    with pytest.raises(InvalidValue, match=remedies) as caught:
        open_backend(spec, home=None, key="k")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_database_that_refuses_for_good_is_not_retried(postgres, tmp_path):
    with pytest.raises(Unreachable, match="does not exist"):
        SqlLedger(f"{postgres.url}-that-is-not-there", "run/1").unsettled()
    with pytest.raises(UnwritablePath, match="does not exist"):
        SqlLedger(f"sqlite:///{tmp_path}/no/such/farm.db", "run/1").unsettled()


def test_a_schema_is_created_once_and_upgraded_step_by_step(url):
    with ThreadPoolExecutor(4) as pool:
        databases = list(pool.map(lambda _: open_database(url), range(4)))
    steps = [lambda c: c.execute(text("CREATE TABLE further (one integer)"))]
    for _ in range(2):
        databases[0].change(lambda c: upgrade(c, "further", steps))
    steps.append(lambda c: c.execute(text("INSERT INTO further VALUES (7)")))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda d: d.change(lambda c: upgrade(c, "further", steps)), databases))
    found = databases[1].read(lambda c: c.execute(text("SELECT one FROM further")).scalars().all())
    assert found == [7]
    with pytest.raises(CryotileError, match="upgrade cryotile"):
        databases[2].change(lambda c: upgrade(c, "further", steps[:1]))


def test_a_database_of_version_1_is_upgraded_with_its_leases(url):
    ledger, database = SqlLedger(url, "run/1"), open_database(url)
    ledger.enroll([Task(index, 1.0) for index in range(5000)])
    (lease,) = ledger.claim()

    def age(connection):
        connection.execute(text("ALTER TABLE backlog RENAME TO stock"))
        connection.execute(text("ALTER TABLE tasks RENAME COLUMN lease_count TO turns"))
        connection.execute(text("UPDATE schema_versions SET version = 1 WHERE part = 'ledger'"))

    database.change(age)
    later = SqlLedger(url, "run/1")
    assert later.settle(ended(lease)) == set()
    assert len(claim_all(later, 1000)) == 4999
    assert later.unsettled() == 4999


# What version 3 added.
_LATER_COLUMNS = {
    "runs": ("cost", "paused", "epoch"),
    "tallies": (
        "cost", "timed", "timed_cost", "timed_seconds", "timed_cost2", "timed_seconds2", "timed_product",
        "mark_at", "mark_done", "mark_seconds", "last_at", "last_done", "last_seconds",
    ),
    "failures": ("kind",),
    "workers": ("memory",),
}  # fmt: skip

# Statements of version 2, which its workers send until they end.
_OLD_SETTLE = """
UPDATE tasks SET state = 2, attempts = attempts + 1, seconds = 1, settled = 5, expires = NULL
WHERE idx = :idx AND state = 1
"""
_OLD_TALLY = """
INSERT INTO tallies (run_id, worker_id, seen, leased, done, failed, returned, attempts)
SELECT id, 77, 5, -1, 1, 0, 0, 1 FROM runs WHERE key = :key
ON CONFLICT (run_id, worker_id) DO UPDATE SET seen = excluded.seen, done = tallies.done + excluded.done
"""
_OLD_FAILURE = """
INSERT INTO failures (run_id, idx, attempt, worker_id, seconds, error, at)
SELECT id, 9, 1, 77, 1, 'no', 5 FROM runs WHERE key = :key
"""


def test_a_database_of_version_2_is_upgraded_while_workers_work(url):
    key = f"{url[-12:]}/2"
    ledger, database = SqlLedger(url, key), open_database(url)
    ledger.enroll([Task(index, 100.0 + index) for index in range(5000)])
    first, second, third, *_ = ledger.claim(6)
    ledger.settle(ended(first))

    def age(connection):
        connection.execute(text("DROP INDEX tasks_settled"))
        connection.execute(text("DROP INDEX failures_kind"))
        for table, names in _LATER_COLUMNS.items():
            for name in names:
                connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {name}"))
        for table in ("maps", "thumbnails"):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE schema_versions SET version = 2 WHERE part = 'ledger'"))

    database.change(age)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: open_database(url), range(4)))
    query = text("SELECT cost, paused, epoch FROM runs WHERE key = :key")
    row = database.read(lambda c: c.execute(query, {"key": key}).one())
    assert (row.cost, bool(row.paused), row.epoch) == (sum(range(100, 5100)), False, 0)
    settled = text(
        "SELECT sum(tallies.cost) FROM tallies JOIN runs ON runs.id = run_id WHERE key = :key"
    )
    assert database.read(lambda c: c.execute(settled, {"key": key}).scalar_one()) == first.task.cost
    # A worker of version 2 goes on beside one of version 3.
    old = (
        (_OLD_SETTLE, {"idx": second.task.index}),
        (_OLD_TALLY, {"key": key}),
        (_OLD_FAILURE, {"key": key}),
    )
    for statement, given in old:
        database.change(lambda c, s=statement, g=given: c.execute(text(s), g))
    assert ledger.settle(ended(third)) == set()
    assert len(claim_all(SqlLedger(url, key), 1000)) == 4994
    counts = count(database, find_run(database, key))
    assert (counts.done, counts.waiting, counts.paused) == (3, 0, False)


def test_other_programs_see_progress_in_a_view(url):
    ledger = SqlLedger(url, "run/1")
    ledger.enroll([Task(index, 1.0) for index in range(8)])
    done, failed, *_ = ledger.claim(4)
    ledger.settle(ended(done))
    ledger.settle(ended(failed, error="no"))
    query = text("SELECT tasks, waiting, leased, done, failed, percent_done FROM run_progress")
    (row,) = open_database(url).read(lambda c: c.execute(query).all())
    assert tuple(map(float, row)) == (8, 5, 2, 1, 0, 12.5)


def test_a_run_of_two_thousand_million_tasks_is_one_row_and_starts_at_once(url):
    database = open_database(url)
    run = create_run(database)
    ledger = SqlLedger.of_worker(database, run, 0)
    ledger.enroll_range(2**31 - 1)
    assert [lease.task.index for lease in ledger.claim(3)] == [0, 1, 2]
    assert count(database, run).waiting == 2**31 - 4
    restart_all(database, run)
    assert [lease.task.index for lease in ledger.claim(1)] == [0]
    delete_run(database, run)
    assert find_run(database, run.uuid) is None


def test_tasks_get_rows_before_the_last_ones_are_claimed(url):
    database = open_database(url)
    ledger = SqlLedger.of_worker(database, create_run(database), 0)
    ledger.enroll_range(5000)
    query = text(
        "SELECT count(*), coalesce(sum(CASE state WHEN 0 THEN 1 ELSE 0 END), 0) FROM tasks"
    )
    claimed = 0
    # Claims by 16 look ahead at two tokens of sixteen of these.
    for token in range(0, 8 * 310, 8):
        claimed += len(ledger.claim(16, token=token))
        listed, waiting = database.read(lambda connection: tuple(connection.execute(query).one()))
        # None finds too few, and waits until another worker has listed more.
        assert waiting >= 512 or listed == 5000
    assert claimed == 4960


def look_at_the_clock(database):
    return database.read(lambda connection: NOW(connection).scalar_one())


def test_tasks_settled_after_the_search_for_missing_results_began_stay_settled(url):
    ledger, database = SqlLedger(url, "run/1"), open_database(url)
    tasks = [Task(index, 1.0) for index in range(3)]
    ledger.enroll(tasks)
    (lease,) = ledger.claim()
    began = look_at_the_clock(database)
    # SQLite's clock has milliseconds; what is settled at the very tick of the look counts as settled before it.
    while look_at_the_clock(database) == began:
        pass
    ledger.settle(ended(lease))
    run = find_run(database, "run/1")
    assert run is not None
    SqlLedger.of_worker(database, run, 0).enroll(tasks, began)
    assert ledger.unsettled() == 2
    # A worker that looks now and misses the result has lost it.
    SqlLedger.of_worker(database, run, 0).enroll(tasks)
    assert ledger.unsettled() == 3


def test_a_repeated_claim_gets_the_same_leases(url):
    database = open_database(url)
    ledger = SqlLedger.of_worker(database, create_run(database), 0)
    ledger.enroll_range(50)
    leases = ledger.claim(7, token=12345)
    assert ledger.claim(7, token=12345, again=True) == leases
    assert ledger.claim(7, token=54321)[0].task.index == 7
    assert ledger.settle({"no lease": Ending(0.1)}) == {"no lease"}
