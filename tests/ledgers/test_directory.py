"""The ledger in a directory keeps the contract, and so do its files when a worker dies at any step."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from pathlib import Path

import pytest

from cryotile.errors import UnwritablePath
from cryotile.farm.task import Task
from cryotile.ledgers import LEASE
from cryotile.ledgers.directory.layout import UNIT, publish_list
from cryotile.ledgers.directory.ledger import DirLedger
from cryotile.ledgers.directory.observer import LedgerObserver
from cryotile.testing.leases import (
    OpenLedger,
    at,
    await_claim,
    await_tasks,
    claim_all,
    ended,
    ids,
)
from cryotile.testing.ledgers import LedgerContract

SETTLED = 255

STEPS = ("open", "write", "mkdir", "rename", "unlink", "rmdir", "utime", "fsync")


class TestDir(LedgerContract):
    @pytest.fixture
    def open_ledger(self, tmp_path) -> OpenLedger:
        return lambda host="here", key="run/1", lease=LEASE: DirLedger(
            tmp_path, key, lease=lease, host=host
        )


def tasks_of(count: int) -> list[Task]:
    return [Task(number, float(count - number)) for number in range(count)]


def files(home: Path) -> list[str]:
    """Return the files of the only list of the only key."""
    (listed,) = (home / "farm").glob("*/0000")
    return sorted(
        str(path.relative_to(listed)) for path in listed.rglob("*") if path.name != "tasks"
    )


def settled_units(count: int) -> list[str]:
    """Return the files of a list after ``count`` tasks, all of them, are settled."""
    return [*(f"{number:06d}.done" for number in range(-(-count // UNIT))), "again"]


def test_a_settled_unit_is_one_file(tmp_path):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(600))
    for n in (1, 20, 300):
        for _ in range(5):
            ledger.settle(ended(*ledger.claim(n)))
    ledger.settle(ended(*claim_all(ledger)))
    assert files(tmp_path) == settled_units(600)


def test_a_unit_whose_tasks_were_claimed_one_by_one_is_one_file_when_it_is_settled(tmp_path):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(600))
    for _ in range(UNIT):
        ledger.settle(ended(*ledger.claim()))
    assert files(tmp_path) == ["000000.done", "again"]


def test_there_are_at_most_two_files_a_task(tmp_path):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(200))
    # The largest number: each task is claimed alone, its second attempt is running, and none is settled.
    ledger.settle(ended(*claim_all(ledger), error="no"))
    claim_all(ledger)
    assert (
        sum(not (tmp_path / "farm" / "run_1" / "0000" / name).is_dir() for name in files(tmp_path))
        <= 2 * 200
    )


def test_tiny_tasks_share_a_file(tmp_path):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(1024))
    claim_all(ledger, 512)
    assert files(tmp_path) == [*(f"{number:06d}.0" for number in range(1024 // UNIT)), "again"]


def count_calls(monkeypatch) -> Counter[str]:
    """Count the calls to the file system from now on."""
    calls: Counter[str] = Counter()

    def counted(name: str):
        original = getattr(os, name)

        def call(*args, **options):
            calls[name] += 1
            return original(*args, **options)

        return call

    for name in ("scandir", "listdir", "stat", "open", "mkdir", "unlink"):
        monkeypatch.setattr(os, name, counted(name))
    return calls


def test_a_new_worker_reads_little_of_a_long_run_that_is_nearly_over(tmp_path, monkeypatch):
    tasks = tasks_of(100_000)
    root = tmp_path / "farm" / "run_1"
    root.mkdir(parents=True)
    publish_list(str(root), 0, tasks)
    settled = 100_000 * 95 // 100 // UNIT
    for unit in range(settled):
        (root / "0000" / f"{unit:06d}.done").touch()
    calls = count_calls(monkeypatch)
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks[-5000:])
    (lease,) = ledger.claim()
    assert lease.task.index == settled * UNIT
    assert sum(calls.values()) < 60


def test_a_worker_with_an_old_view_does_not_claim_settled_tasks(tmp_path):
    late, quick = DirLedger(tmp_path, "run/1"), DirLedger(tmp_path, "run/1")
    late.enroll(tasks_of(600))
    (held,) = late.claim()
    while leases := quick.claim(300):
        quick.settle(ended(*leases))
    while leases := late.claim(300):
        pytest.fail(f"claimed {len(leases)} settled tasks")
    late.settle(ended(held))
    assert files(tmp_path) == settled_units(600)


def test_a_claim_on_an_old_view_of_the_files_fails(tmp_path, monkeypatch):
    late, quick = DirLedger(tmp_path, "run/1"), DirLedger(tmp_path, "run/1")
    late.enroll(tasks_of(600))
    while leases := quick.claim(300):
        quick.settle(ended(*leases))
    # As if a file server answered with the state before the first claim.
    monkeypatch.setattr(late._observer, "is_compacted", lambda unit: False)
    monkeypatch.setattr("cryotile.ledgers.directory.layout.look", lambda directory: {})
    for n in (600, 20, 1):
        assert late.claim(n) == []
    assert files(tmp_path) == settled_units(600)


def test_no_clock_is_compared_with_another(tmp_path):
    holder = DirLedger(tmp_path, "run/1", lease=1.0)
    holder.enroll(tasks_of(1))
    (lease,) = holder.claim()
    (claim,) = tmp_path.glob("farm/*/0000/000000.0")
    other = DirLedger(tmp_path, "run/1", lease=1.0)
    # The file server's clock may be years off; only changes of the time count.
    for year in (0, 4_000_000_000, 1, 3_999_999_999):
        os.utime(claim, (year, year))
        assert other.claim() == []
    assert holder.renew(at(0.5, lease)) == set()
    assert [lease.task.index for lease in await_claim(other)] == [0]


def test_tasks_of_a_dead_worker_of_this_machine_are_claimed_at_once(tmp_path):
    script = f"""
        import os, signal
        from pathlib import Path
        from cryotile.ledgers.directory.ledger import DirLedger
        from cryotile.farm.task import Task
        ledger = DirLedger(Path({str(tmp_path)!r}), "run/1")
        ledger.enroll([Task(n, 1.0) for n in range(40)])
        leases = ledger.claim(20)
        ledger.renew({{leases[0].id: 0.0}})
        os.kill(os.getpid(), signal.SIGKILL)
        """
    dead = subprocess.run([sys.executable, "-c", textwrap.dedent(script)])
    assert dead.returncode == -signal.SIGKILL
    leases = claim_all(DirLedger(tmp_path, "run/1"), 40)
    assert sorted(lease.task.index for lease in leases) == list(range(40))
    # Its tasks come first, because they are the costliest.
    assert [(lease.task.index, lease.attempt) for lease in leases[:2]] == [(0, 2), (1, 1)]


@pytest.mark.parametrize("content", [b"", b'\n{"host":"a","proc', b"\n[1]\n"])
def test_a_claim_whose_first_line_was_cut_short_is_given_up_after_a_lease(tmp_path, content):
    ledger = DirLedger(tmp_path, "run/1", lease=0.3)
    ledger.enroll(tasks_of(5))
    (tmp_path / "farm" / "run_1" / "0000" / "000000.0").write_bytes(content)
    assert ledger.claim(5) == []
    leases = await_claim(ledger)
    assert [(lease.task.index, lease.attempt) for lease in leases] == [(n, 1) for n in range(5)]
    ledger.settle(ended(*leases))
    assert ledger.unsettled() == 0


def test_a_worker_that_stalls_before_the_first_line_of_its_claim_loses_it(
    tmp_path,
):
    ledgers = [DirLedger(tmp_path, "run/1", lease=0.3, host=host) for host in "ab"]
    ledgers[0].enroll(tasks_of(5))
    (lease,) = ledgers[0].claim()
    claim = tmp_path / "farm" / "run_1" / "0000" / "000000.0"
    line = claim.read_bytes()
    claim.write_bytes(b"")
    taken = await_tasks(ledgers[1], 5)
    claim.write_bytes(line)
    assert ledgers[0].renew(at(0.5, lease)) == ids(lease)
    assert ledgers[0].settle(ended(lease)) == ids(lease)
    assert ledgers[1].unsettled() == 5
    assert ledgers[1].settle(ended(*taken)) == set()
    assert ledgers[0].unsettled() == 0


def test_a_line_cut_short_by_a_full_disk_affects_no_other_line(tmp_path):
    ledger = DirLedger(tmp_path, "run/1", lease=0.3)
    ledger.enroll(tasks_of(5))
    leases = ledger.claim(5)
    with (tmp_path / "farm" / "run_1" / "0000" / "000000.0").open("ab") as claim:
        claim.write(b'\n{"done":[0,1')
    assert ledger.unsettled() == 5
    ledger.settle(ended(*leases[2:4]))
    assert ledger.unsettled() == 3


def test_a_claim_prevented_by_a_full_disk_blocks_no_other_claim(tmp_path, monkeypatch):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(1))

    def full(descriptor, path, line):
        os.close(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("cryotile.ledgers.directory.claims._write", full)
        with pytest.raises(UnwritablePath, match="No space left"):
            ledger.claim()
    # On this machine and on others, before a lease expires.
    assert len(DirLedger(tmp_path, "run/1", host="there").claim()) == 1


def test_files_of_the_file_system_itself_are_ignored(tmp_path):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(20))
    held = ledger.claim()
    root = tmp_path / "farm" / "run_1" / "0000"
    for directory in (root, root / "again"):
        (directory / ".nfs000000000123").touch()
        (directory / "core.4711~").touch()
    leases = claim_all(ledger) + held
    assert sorted(lease.task.index for lease in leases) == list(range(20))
    ledger.settle(ended(*leases))
    assert DirLedger(tmp_path, "run/1").unsettled() == 0


def test_the_record_of_a_settled_unit_may_be_lost(tmp_path):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(5))
    ledger.settle(ended(*ledger.claim(5)))
    (tmp_path / "farm" / "run_1" / "0000" / "000000.done").write_bytes(b'\n{"by":{"a":')
    other = DirLedger(tmp_path, "run/1")
    assert other.unsettled() == 0
    assert other.outcomes_elsewhere([1]) == {}


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [delete, truncate, zero])
def test_the_tasks_of_a_damaged_list_are_listed_again(tmp_path, caplog, damage):
    early = DirLedger(tmp_path, "run/1")
    early.enroll(tasks_of(5))
    early.settle(ended(*early.claim(2)))
    path = tmp_path / "farm" / "run_1" / "0000" / "tasks"
    damage(path)
    late = DirLedger(tmp_path, "run/1")
    assert late.unsettled() == 0
    assert f"{path} " in caplog.text
    late.enroll(tasks_of(5)[2:])
    assert late.unsettled() == 3
    # A worker that read the list before goes on with it.
    assert sorted(lease.task.index for lease in early.claim(3)) == [2, 3, 4]
    late.settle(ended(*late.claim(5)))
    assert late.unsettled() == 0


def test_claims_made_while_a_worker_looks_are_not_taken_for_lost(tmp_path, monkeypatch):
    """A claim that is absent at one look, and has a later one at the next, is read again before it counts as lost."""
    ledger, reader = DirLedger(tmp_path, "run/1"), DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(6))
    ledger.claim(2)
    count = LedgerObserver.count

    def count_late(observer, unit):
        monkeypatch.undo()
        ledger.claim(2)
        ledger.claim(2)
        return count(observer, unit)

    monkeypatch.setattr(LedgerObserver, "count", count_late)
    assert reader.claim(6) == []


def test_tasks_of_a_claim_that_is_lost_wait_again(tmp_path):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(6))
    first, lost, last = ledger.claim(2), ledger.claim(2), ledger.claim(2)
    (tmp_path / "farm" / "run_1" / "0000" / "000000.1").unlink()
    ledger.settle(ended(*first, *last))
    other = DirLedger(tmp_path, "run/1")
    assert other.unsettled() == 2
    again = other.claim(2)
    assert {lease.task for lease in again} == {lease.task for lease in lost}
    other.settle(ended(*again))
    assert other.unsettled() == 0


def test_a_line_that_was_altered_or_is_of_another_file_says_nothing(tmp_path):
    ledger = DirLedger(tmp_path, "run/1")
    ledger.enroll(tasks_of(300))
    claims = [tmp_path / "farm" / "run_1" / "0000" / f"00000{unit}.0" for unit in (0, 1)]
    one, other = ledger.claim(256), ledger.claim(44)
    ledger.settle(ended(*one[:3], *other[:4]))
    contents = [claim.read_bytes() for claim in claims]
    claims[0].write_bytes(contents[0].replace(b'"done":[0,1,2]', b'"done":[0,1,3]'))
    assert DirLedger(tmp_path, "run/1").unsettled() == 300 - 4
    claims[0].write_bytes(contents[1])
    claims[1].write_bytes(contents[0])
    assert DirLedger(tmp_path, "run/1").unsettled() == 300


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "farm").touch()
    with pytest.raises(UnwritablePath, match="farm/run_1 cannot be written"):
        DirLedger(tmp_path, "run/1").enroll(tasks_of(1))


def die_before(step: int) -> None:
    """Let this process be killed before its change number ``step`` of the file system."""
    left = [step]

    def counted(name: str):
        original = getattr(os, name)

        def call(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        return call

    for name in STEPS:
        setattr(os, name, counted(name))


def live(home: Path, notes: mmap.mmap) -> None:
    """Do everything a worker does; note how often each task was started, and whether it was settled."""
    ledger = DirLedger(home, "run/1", lease=0.3)
    ledger.enroll(tasks_of(34))
    failures = 2
    for n in (1, 2, 4, 3, 1, 1, 2, 1, 9, 1, 1, 20, 20):
        leases = ledger.claim(n)
        for lease in leases[:1]:
            notes[lease.task.index] += 1
            ledger.renew(at(0.0, lease))
        if failures:
            failures -= 1
            ledger.settle(ended(leases.pop(0), error="no"))
        if n == 3:
            ledger.release(ids(*leases))
            continue
        ledger.settle(ended(*leases))
        for lease in leases:
            notes[lease.task.index] = SETTLED


def run_until(step: int, home: Path) -> tuple[int, bytes]:
    """Run :func:`live` in a process that dies at a step; return its exit code and its notes."""
    notes = mmap.mmap(-1, 34)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        code = 1
        try:
            die_before(step)
            live(home, notes)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), notes[:]


def test_a_worker_may_die_at_every_step(tmp_path, monkeypatch):
    # Processes die here, not machines, so fsync would only cost time.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for step in itertools.count(1):
        home = tmp_path / str(step)
        code, notes = run_until(step, home)
        survivor = DirLedger(home, "run/1", lease=0.1)
        survivor.enroll([task for task in tasks_of(34) if notes[task.index] != SETTLED])
        leases = []
        while survivor.unsettled():
            found = await_claim(survivor)
            assert not survivor.settle(ended(*found))
            leases += found
        # A claim that finds nothing removes hints to units that were settled by another way.
        assert not survivor.claim()
        # Settled tasks are not repeated, none is done twice, and only started tasks are charged.
        again = [lease.task.index for lease in leases]
        assert len(again) == len(set(again)), f"step {step}"
        assert SETTLED not in [notes[index] for index in again], f"step {step}"
        assert all(lease.attempt <= 1 + notes[lease.task.index] for lease in leases), f"step {step}"
        assert set(files(home)) <= {"000000.done", "again"}, f"step {step}"
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert step > 100


@pytest.mark.parametrize("size", [1, 10, 300])
def test_a_worker_with_little_time_claims_the_costliest_tasks_that_fit(tmp_path, size):
    ledger, other = DirLedger(tmp_path, "run/1"), DirLedger(tmp_path, "run/1")
    tasks = tasks_of(1000)
    ledger.enroll(tasks)
    # Also of the tasks that were handed back only those that fit.
    ledger.release(ids(*ledger.claim(20)))
    claimed: list[Task] = []
    while leases := ledger.claim_fitting(size, lambda task: task.cost < 700.5):
        claimed += [lease.task for lease in leases]
        ledger.settle(ended(*leases))
    assert sorted(claimed, key=lambda task: -task.cost) == tasks[300:]
    # Within a file, tasks keep the order of the list.
    assert claimed == tasks[300:] or size > 1
    assert [lease.task for lease in claim_all(other, size)] == tasks[:300] or size > 1
    assert other.unsettled() == 300


def test_only_returned_tasks_that_fit_are_claimed(tmp_path):
    first, ledger = DirLedger(tmp_path, "run/1"), DirLedger(tmp_path, "run/1")
    tasks = tasks_of(10)
    first.enroll(tasks)
    leases = first.claim(10)
    # A claim of which a task is settled stays, and its returned tasks are claimed from it.
    first.settle(ended(leases[9]))
    first.release(ids(*leases[:9]))
    found: list[Task] = []
    while claimed := ledger.claim_fitting(2, lambda task: task.cost < 5.5):
        found += [lease.task for lease in claimed]
    assert found == tasks[5:9]
    assert [lease.task for lease in claim_all(first, 2)] == tasks[:5]
