"""Clients and servers of the task farm, ours and the published ones, in every combination."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cryotile.backends import open_backend
from cryotile.errors import InvalidValue
from cryotile.taskfarm import TaskFarm, TaskFarmWorker, tfRuns
from cryotile.testing.backends import RecordingWork, make_tasks
from tests.support.databases import new_database
from tests.support.services.farm import PASSWORD, USER, FarmServer
from tests.support.services.seed import SeedServer, seed_client, seed_stress

WHO = (USER, PASSWORD)


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Iterator[FarmServer]:
    """Start our server on SQLite."""
    with FarmServer(tmp_path_factory.mktemp("farm")) as server:
        yield server


@pytest.fixture(scope="module")
def ours_on_postgres(postgres, tmp_path_factory) -> Iterator[FarmServer]:
    """Start our server on PostgreSQL."""
    with FarmServer(tmp_path_factory.mktemp("farm"), new_database(postgres)) as server:
        yield server


@pytest.fixture(scope="module")
def seed(request, tmp_path_factory) -> Iterator[SeedServer]:
    """Start the first server."""
    place = request.config.cache.mkdir("seed-server")
    with SeedServer(place, tmp_path_factory.mktemp("seed")) as server:
        yield server


@pytest.fixture(params=["ours", "seed"])
def api(request) -> str:
    """Return the address of the legacy API, on our server and on the first one."""
    return request.getfixturevalue(request.param).seed_url


@pytest.fixture(params=["ours", "ours_on_postgres"])
def our_api(request) -> str:
    """Return the address of the legacy API on our server, with either database."""
    return request.getfixturevalue(request.param).seed_url


@pytest.fixture(scope="module")
def programs(request) -> Path:
    """Return the directory of the published client's programs."""
    return seed_client(request.config.cache.mkdir("seed-client"))


def test_a_fresh_run_counts_nothing(api):
    farm = TaskFarm(*WHO, numTasks=5, url_base=api)
    assert re.fullmatch("[0-9a-f]{32}", farm.uuid)
    assert farm.numTasks == 5
    assert farm.numWaiting == farm.numComputing == farm.numDone == farm.percentDone == 0
    everything = farm.info("")
    assert everything["uuid"] == farm.uuid
    assert set(everything) == {
        *("id", "uuid", "numTasks", "numWaiting", "numComputing", "numDone", "percentDone")
    }


def test_a_run_is_found_by_its_uuid_and_in_the_list(api):
    farm = TaskFarm(*WHO, numTasks=5, url_base=api)
    assert TaskFarm(*WHO, uuid=farm.uuid, url_base=api).numTasks == 5
    listed = tfRuns(*WHO, url_base=api)[-1]
    assert (listed["uuid"], listed["numTasks"]) == (farm.uuid, 5)


def test_a_worker_gets_the_tasks_in_order_and_does_them(api):
    farm = TaskFarm(*WHO, numTasks=5, url_base=api)
    worker = TaskFarmWorker(*WHO, farm.uuid, url_base=api)
    seen = []
    for task in worker.tasks:
        assert worker.task == task
        worker.update(50)
        assert farm.getTaskInfo(task, "status") == "computing"
        assert farm.getTaskInfo(task, "percentCompleted") == 50
        assert farm.numComputing == 1
        worker.update(100)
        worker.done()
        seen.append(task)
    assert seen == [0, 1, 2, 3, 4]
    assert worker.task is None
    assert (farm.numDone, farm.numComputing, farm.percentDone) == (5, 0, 100)


def test_two_workers_never_have_the_same_task(api):
    farm = TaskFarm(*WHO, numTasks=6, url_base=api)
    workers = [TaskFarmWorker(*WHO, farm.uuid, url_base=api) for _ in range(2)]
    assert workers[0].worker_uuid != workers[1].worker_uuid
    seen = []
    while tasks := [worker.task for worker in workers if worker.task is not None]:
        seen += tasks
        for worker in workers:
            worker.update(100)
            worker.done()
    assert sorted(seen) == list(range(6))


def test_workers_that_start_together_all_get_a_task(our_api):
    farm = TaskFarm(*WHO, numTasks=32, url_base=our_api)
    workers = [TaskFarmWorker(*WHO, farm.uuid, url_base=our_api) for _ in range(16)]
    start = threading.Barrier(16)

    def claim(worker: TaskFarmWorker) -> int | None:
        start.wait(240)
        return worker.task

    with ThreadPoolExecutor(16) as pool:
        claimed = list(pool.map(claim, workers))
    assert None not in claimed
    assert len(set(claimed)) == 16


def test_a_task_set_back_to_waiting_is_handed_out_next(api):
    farm = TaskFarm(*WHO, numTasks=6, url_base=api)
    worker = TaskFarmWorker(*WHO, farm.uuid, url_base=api)
    for _ in range(3):
        assert worker.task is not None
        worker.update(100)
        worker.done()
    farm.setTaskInfo(1, "status", "waiting")
    assert farm.numWaiting == 1
    assert worker.task == 1


def test_a_task_left_below_100_percent_stays_computing_until_a_restart_of_all(api):
    farm = TaskFarm(*WHO, numTasks=2, url_base=api)
    worker = TaskFarmWorker(*WHO, farm.uuid, url_base=api)
    assert worker.task == 0
    worker.update(99.5)
    worker.done()
    assert farm.getTaskInfo(0, "")["status"] == "computing"
    assert worker.task == 1
    worker.update(100)
    worker.done()
    assert worker.task is None
    farm.restart()
    assert farm.getTaskInfo(1, "status") == "done"
    farm.restart(everything=True)
    assert farm.numDone == 0
    assert worker.task == 0


def test_a_deleted_run_is_unknown(api):
    farm = TaskFarm(*WHO, numTasks=2, url_base=api)
    farm.delete()
    with pytest.raises(RuntimeError, match="HTTP 404"):
        farm.info("numDone")
    assert farm.uuid not in [run["uuid"] for run in tfRuns(*WHO, url_base=api)]


def test_invalid_calls_are_refused(api):
    farm = TaskFarm(*WHO, numTasks=2, url_base=api)
    worker = TaskFarmWorker(*WHO, farm.uuid, url_base=api)
    assert worker.task == 0
    with pytest.raises(ValueError, match="percentage 101 is invalid: it must be between 0 and 100"):
        worker.update(101)
    with pytest.raises(RuntimeError, match="task 2 does not exist; this run has tasks 0 to 1"):
        farm.getTaskInfo(2, "status")
    with pytest.raises(RuntimeError, match="HTTP 404"):
        farm.info("bogus")
    with pytest.raises(RuntimeError, match="HTTP 400"):
        farm.setTaskInfo(0, "bogus", 1)
    with pytest.raises(RuntimeError, match="HTTP 401"):
        TaskFarm(USER, "wrong", numTasks=2, url_base=api)
    with pytest.raises(RuntimeError, match="neither numTasks nor uuid is given"):
        TaskFarm(*WHO, url_base=api)


def test_without_a_current_task_nothing_is_updated(api):
    farm = TaskFarm(*WHO, numTasks=2, url_base=api)
    worker = TaskFarmWorker(*WHO, farm.uuid, url_base=api)
    worker.update(100)
    worker.done()
    assert farm.info("numDone") == farm.info("numComputing") == 0


def test_a_token_replaces_user_and_password(ours):
    farm = TaskFarm(*WHO, numTasks=2, url_base=ours.seed_url)
    same = TaskFarm(farm.token_auth.username, "", uuid=farm.uuid, url_base=ours.seed_url)
    assert same.numTasks == 2


def test_an_address_needs_no_final_slash(ours):
    farm = TaskFarm(*WHO, numTasks=1, url_base=ours.seed_url.rstrip("/"))
    assert farm.url("runs") == f"{ours.seed_url}runs"


def test_a_wrong_address_is_an_immediate_error():
    with pytest.raises(ConnectionError, match=r"refused.*check that the server runs"):
        TaskFarm(*WHO, numTasks=2, url_base="http://127.0.0.1:9/api/")


# The talk's example; only the lines outside its loop are ours.
TALK = """
    from {package} import TaskFarm, TaskFarmWorker
    import sys
    base, uuid, user, secret = sys.argv[1:]
    tf = TaskFarmWorker(user, secret, uuid, url_base=base)
    for t in tf.tasks:
        print(t)
        tf.update(50)
        tf.update(100)
        tf.done()
"""


def run_talk(python: object, package: str, api: str) -> list[int]:
    """Run the talk's example with a Python, and return the tasks that it did."""
    farm, ours = TaskFarm(*WHO, numTasks=7, url_base=api), package.startswith("cryotile")
    script = textwrap.dedent(TALK).format(package=package)
    done = subprocess.run(
        [str(python), "-c", script, api, farm.uuid, *WHO],
        # The published client has an environment of its own.
        env={**os.environ, "PYTHONPATH": os.environ["PYTHONPATH"] if ours else ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (farm.numDone, farm.percentDone) == (7, 100)
    return [int(line) for line in done.stdout.split()]


def test_the_talks_example_runs_with_the_published_client_on_our_server(our_api, programs):
    assert run_talk(programs / "python", "taskfarm_worker", our_api) == list(range(7))


def test_the_talks_example_runs_with_our_client_after_a_change_of_its_import_line(api):
    assert run_talk(sys.executable, "cryotile.taskfarm", api) == list(range(7))


STRESS = """
import multiprocessing, stress, sys

# The stress test fails if a client gets no task, so no client finishes its first task before all have one.
all_at_work = multiprocessing.Barrier(4)

class Worker(stress.TaskFarmWorker):
    waited = False

    def done(self):
        if not self.waited:
            all_at_work.wait()
            self.waited = True
        super().done()

stress.TaskFarmWorker = Worker
print(stress.stress(*sys.argv[1:], 60, 4).ntasks.sum())
"""


def test_the_published_stress_test_runs_on_our_server(our_api, request):
    places = seed_stress(request.config.cache.mkdir("seed-client"))
    done = subprocess.run(
        [sys.executable, "-c", STRESS, *WHO, our_api],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "60"


def test_the_published_manager_manages_runs_on_our_server(our_api, programs):
    farm = TaskFarm(*WHO, numTasks=3, url_base=our_api)
    worker = TaskFarmWorker(*WHO, farm.uuid, url_base=our_api)
    for _ in range(2):
        assert worker.task is not None
        worker.update(100)
        worker.done()

    def manage(*words: str) -> str:
        command = [programs / "manageTF", "-b", our_api, "-u", USER, "-p", PASSWORD, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert manage("--list").split("\n")[-2].split()[1:] == [farm.uuid, "3"]
    assert f"{farm.uuid} 3 (0,0,2) 66.66" in manage("--info", farm.uuid)
    manage("--reset", farm.uuid)
    assert farm.numDone == 2
    manage("--reset-all", farm.uuid)
    assert farm.numDone == 0
    manage("--delete", farm.uuid)
    assert farm.uuid not in manage("--list")


def seed_spec(server: FarmServer | SeedServer) -> str:
    """Return the spec of a backend with two children that uses the legacy API."""
    user = f"{USER}:{PASSWORD.replace(' ', '%20')}"
    return f"taskfarm+http://{user}@{server.address.removeprefix('http://')}?children=2"


@pytest.mark.parametrize("server", ["ours", "seed"])
def test_the_legacy_api_is_enough_to_do_a_list_of_tasks(request, server, tmp_path, caplog):
    spec = seed_spec(request.getfixturevalue(server))
    tasks, work = make_tasks(12), RecordingWork(tmp_path, {7: ("raise", 99), 10: ("kill", 1)})
    outcomes = list(open_backend(spec, home=tmp_path, key="run/1").run(tasks, work))
    assert {outcome.task for outcome in outcomes} == set(tasks)
    assert [outcome.task.index for outcome in outcomes if outcome.error] == [7]
    assert work.started.count(7) == 3
    assert work.started.count(10) == 2
    assert len(work.ended) == 11
    assert "has no leases" in caplog.text


def test_tasks_of_a_dead_worker_are_done_by_the_next_command(seed, tmp_path):
    tasks = make_tasks(6)
    dead = open_backend(seed_spec(seed), home=tmp_path, key="run/1")
    dead.ledger.enroll(tasks)
    stranded = {lease.task for lease in dead.ledger.claim(2)}
    work = RecordingWork(tmp_path)

    def run(left: list) -> set:
        backend = open_backend(seed_spec(seed), home=tmp_path, key="run/1")
        return {outcome.task for outcome in backend.run(left, work)}

    assert run(tasks) == set(tasks) - stranded
    # The missing tasks become a new run on the server.
    assert run(sorted(stranded, key=lambda task: -task.cost)) == stranded
    assert sorted(work.ended) == [task.index for task in tasks]


def test_two_workers_of_one_list_share_a_run(seed, tmp_path):
    tasks = make_tasks(6)
    one, other = (open_backend(seed_spec(seed), home=tmp_path, key="run/1") for _ in range(2))
    one.ledger.enroll(tasks)
    other.ledger.enroll(tasks)
    leases = [lease for _ in range(3) for each in (one, other) for lease in each.ledger.claim()]
    assert [lease.task for lease in leases] == tasks


def test_the_legacy_api_needs_a_user_and_a_directory(tmp_path):
    with pytest.raises(InvalidValue, match="names no user"):
        open_backend("taskfarm+http://localhost:5000", home=tmp_path, key="run/1")
    with pytest.raises(InvalidValue, match="needs a directory"):
        open_backend("taskfarm+http://a:b@localhost:5000", home=None, key="run/1")
