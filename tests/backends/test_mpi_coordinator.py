"""Rank 0 of an MPI farm, with a transport on which the test answers for the workers."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from cryotile.backends.base import Attempt, TaskQueue
from cryotile.backends.deadline import Deadline
from cryotile.backends.mpi import coordinator, messages
from cryotile.backends.mpi.coordinator import Coordinator
from cryotile.errors import CryotileError
from cryotile.farm.task import Outcome, Task
from cryotile.testing.backends import make_tasks

Script = Callable[["ScriptedTransport", int, bytes], None]


class ScriptedTransport:
    """A transport on which a script answers, or does not answer, every message to its worker."""

    def __init__(self, scripts: dict[int, Script], hosts: dict[int, str] | None = None) -> None:
        self.scripts = scripts
        self.said: deque[tuple[int, bytes]] = deque()
        self.heard: dict[int, list[bytes]] = defaultdict(list)
        self.lost: set[int] = set()
        self.written_off = False
        for rank in scripts:
            self.say(rank, messages.HELLO, text=(hosts or {}).get(rank, "host"))

    def say(
        self, rank: int, kind: int, index: int = -1, value: float = 0.0, text: str = ""
    ) -> None:
        self.said.append((rank, messages.report(kind, index, value, text)))

    def send(self, rank: int, message: bytes) -> None:
        self.heard[rank].append(message)
        if rank not in self.lost:
            self.scripts[rank](self, rank, message)

    def receive(self) -> tuple[int, bytes] | None:
        return self.said.popleft() if self.said else None

    def failed(self) -> set[int]:
        return self.lost

    def write_off(self, rank: int) -> None:
        self.written_off = True

    def flush(self) -> None: ...

    def tasks_of(self, rank: int) -> list[Task]:
        return [
            task
            for message in self.heard[rank]
            if message[:1] == messages.DO
            for task in messages.tasks_in(message)
        ]

    def run(self, tasks: Sequence[Task]) -> list[Outcome]:
        with Deadline() as deadline:
            return list(
                Coordinator(self, list(self.scripts), TaskQueue(tasks), deadline).outcomes()
            )


def taking(seconds: float) -> Script:
    """Return the script of a worker that reports at once that its tasks took ``seconds``."""

    def script(transport: ScriptedTransport, rank: int, message: bytes) -> None:
        if message[:1] == messages.DO:
            for task in messages.tasks_in(message):
                transport.say(rank, messages.DONE, task.index, seconds)

    return script


def never_report(transport: ScriptedTransport, rank: int, message: bytes) -> None:
    """Start the first task and never report again."""


def be_lost(transport: ScriptedTransport, rank: int, message: bytes) -> None:
    """Be lost at the first task, which MPI notices."""
    transport.lost.add(rank)


def check_done(outcomes: Sequence[Outcome], tasks: Sequence[Task]) -> None:
    assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
    assert all(outcome.error is None for outcome in outcomes)


def test_all_workers_take_part_in_many_short_tasks() -> None:
    transport, tasks = (
        ScriptedTransport({rank: taking(1e-5) for rank in (1, 2, 3)}),
        make_tasks(10_000),
    )
    check_done(transport.run(tasks), tasks)
    assert all(len(transport.tasks_of(rank)) > 1000 for rank in (1, 2, 3))
    # A message holds many tasks, but never more than MPI sends at once.
    assert all(len(m) < 4096 for sent in transport.heard.values() for m in sent)
    assert max(len(m) for sent in transport.heard.values() for m in sent) > 2048


def test_long_tasks_are_handed_out_one_by_one() -> None:
    transport, tasks = ScriptedTransport({1: taking(10.0), 2: taking(10.0)}), make_tasks(100)
    check_done(transport.run(tasks), tasks)
    orders = [m for sent in transport.heard.values() for m in sent if m[:1] == messages.DO]
    assert [len(messages.tasks_in(order)) for order in orders] == [1] * 100


def test_tasks_behind_a_long_one_are_taken_back_for_idle_workers() -> None:
    tasks = make_tasks(300)

    def slow_at_last(transport: ScriptedTransport, rank: int, message: bytes) -> None:
        """Do 100 tasks quickly, and stay at the next one until all others are done."""
        if message[:1] == messages.DO:
            queue.extend(messages.tasks_in(message))
            while queue and len(done) < 100:
                done.append(queue.popleft())
                transport.say(rank, messages.DONE, done[-1].index, 1e-5)
        elif message == messages.RECALL:
            while len(queue) > 1:
                transport.say(rank, messages.RETURNED, queue.pop().index)
            transport.say(rank, messages.SEARCHED)

    queue, done = deque[Task](), list[Task]()
    transport = ScriptedTransport({1: slow_at_last, 2: taking(1e-5)})
    with Deadline() as deadline:
        outcomes = []
        for outcome in Coordinator(transport, [1, 2], TaskQueue(tasks), deadline).outcomes():
            outcomes.append(outcome)
            if len(outcomes) == len(tasks) - 1:
                # The other worker has done all tasks behind the long one.
                (long,) = queue
                transport.say(1, messages.DONE, long.index, 60.0)
    check_done(outcomes, tasks)
    assert messages.RECALL in transport.heard[1]
    assert all(outcome.attempts == 1 for outcome in outcomes)


def test_a_lost_worker_is_charged_the_task_it_was_at_and_no_other() -> None:
    def lost_at_thirty(transport: ScriptedTransport, rank: int, message: bytes) -> None:
        if len(transport.tasks_of(rank)) < 30:
            taking(1e-5)(transport, rank, message)
        else:
            transport.lost.add(rank)

    transport, tasks = ScriptedTransport({1: lost_at_thirty, 2: taking(1e-5)}), make_tasks(2000)
    outcomes = transport.run(tasks)
    check_done(outcomes, tasks)
    assert sum(outcome.attempts - 1 for outcome in outcomes) == 1
    assert not transport.written_off


def test_a_task_that_kills_three_workers_has_failed() -> None:
    tasks = make_tasks(50)

    def dying_at_the_costliest(transport: ScriptedTransport, rank: int, message: bytes) -> None:
        if message[:1] == messages.DO and tasks[0] in messages.tasks_in(message):
            transport.lost.add(rank)
        else:
            taking(1.0)(transport, rank, message)

    transport = ScriptedTransport(dict.fromkeys(range(1, 5), dying_at_the_costliest))
    outcomes = {outcome.task: outcome for outcome in transport.run(tasks)}
    assert set(outcomes) == set(tasks)
    assert [task for task in tasks if outcomes[task].error is not None] == [tasks[0]]
    assert "on host host was lost" in str(outcomes[tasks[0]].error)


def test_a_silent_worker_is_written_off_and_stopped_if_it_reports_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coordinator, "SILENCE", 0.2)
    costliest, other = tasks = make_tasks(2)

    def patient(transport: ScriptedTransport, rank: int, message: bytes) -> None:
        """Stay at a task until the other worker was written off and has reported again."""
        if message == messages.HEARD and transport.written_off:
            transport.say(1, messages.DONE, costliest.index, 100.0)
            transport.say(rank, messages.DONE, other.index, 1.0)
        elif message == messages.HEARD or messages.tasks_in(message) == [other]:
            transport.say(rank, messages.PROGRESS)
        else:
            taking(1.0)(transport, rank, message)

    transport = ScriptedTransport({1: never_report, 2: patient})
    outcomes = transport.run(tasks)
    check_done(outcomes, tasks)
    assert [messages.tasks_in(transport.heard[1][0]), *transport.heard[1][1:]] == [
        [costliest],
        messages.STOP,
    ]
    # The late report of the first worker does not count.
    assert [(o.task, o.attempts, o.seconds) for o in outcomes] == [
        (other, 1, 1.0),
        (costliest, 2, 1.0),
    ]


def test_a_rank_0_that_was_busy_for_long_blames_no_worker_for_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=lambda seconds: None)
    monkeypatch.setattr(coordinator, "time", clock)

    class Slow(TaskQueue):
        def settle(self, attempts: Sequence[Attempt]) -> list[Outcome]:
            clock.now += 2 * coordinator.SILENCE
            return super().settle(attempts)

    transport, tasks = ScriptedTransport({1: taking(1.0), 2: taking(1.0)}), make_tasks(2)
    with Deadline() as deadline:
        check_done(list(Coordinator(transport, [1, 2], Slow(tasks), deadline).outcomes()), tasks)
    assert not transport.written_off


def test_a_farm_that_lost_all_workers_names_the_last() -> None:
    transport = ScriptedTransport({1: be_lost, 2: be_lost}, {1: "east", 2: "west"})
    with pytest.raises(
        CryotileError, match=r"all workers are gone, the last one: rank 2 on host west"
    ):
        transport.run(make_tasks(50))


def test_a_worker_that_leaves_in_good_order_costs_no_attempt() -> None:
    def leaving(transport: ScriptedTransport, rank: int, message: bytes) -> None:
        if message[:1] == messages.DO:
            transport.say(rank, messages.LEFT, text="had enough")

    transport, tasks = ScriptedTransport({1: leaving, 2: taking(1.0)}), make_tasks(50)
    outcomes = transport.run(tasks)
    check_done(outcomes, tasks)
    assert all(outcome.attempts == 1 for outcome in outcomes)


def test_a_task_that_failed_on_one_host_is_tried_on_another() -> None:
    tried: dict[int, list[int]] = defaultdict(list)

    def failing(transport: ScriptedTransport, rank: int, message: bytes) -> None:
        if message[:1] == messages.DO:
            for task in messages.tasks_in(message):
                tried[task.index].append(rank)
                kind = (
                    messages.FAILED
                    if len(tried[task.index]) == 1 and task.index < 30
                    else messages.DONE
                )
                transport.say(
                    rank, kind, task.index, 20.0, "a reason" if kind == messages.FAILED else ""
                )

    transport = ScriptedTransport(
        dict.fromkeys((1, 2, 3, 4), failing), {1: "east", 2: "east", 3: "west", 4: "west"}
    )
    check_done(transport.run(make_tasks(50)), make_tasks(50))
    again = [ranks for ranks in tried.values() if len(ranks) > 1]
    assert len(again) == 10
    assert all((first <= 2) != (second <= 2) for first, second in again)
