"""Rank 0 of an MPI farm, with workers played by the test."""

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

Player = Callable[["Stage", int, bytes], None]


class Stage:
    """A line on which a player answers, or does not answer, every message to its worker."""

    def __init__(self, players: dict[int, Player], hosts: dict[int, str] | None = None) -> None:
        self.players = players
        self.said: deque[tuple[int, bytes]] = deque()
        self.heard: dict[int, list[bytes]] = defaultdict(list)
        self.lost: set[int] = set()
        self.written_off = False
        for rank in players:
            self.say(rank, messages.HELLO, text=(hosts or {}).get(rank, "host"))

    def say(
        self, rank: int, kind: int, index: int = -1, value: float = 0.0, text: str = ""
    ) -> None:
        self.said.append((rank, messages.report(kind, index, value, text)))

    def send(self, rank: int, message: bytes) -> None:
        self.heard[rank].append(message)
        if rank not in self.lost:
            self.players[rank](self, rank, message)

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

    def play(self, tasks: Sequence[Task]) -> list[Outcome]:
        with Deadline() as deadline:
            return list(
                Coordinator(self, list(self.players), TaskQueue(tasks), deadline).outcomes()
            )


def taking(seconds: float) -> Player:
    """Return the player of a worker that reports at once that its tasks took ``seconds``."""

    def player(stage: Stage, rank: int, message: bytes) -> None:
        if message[:1] == messages.DO:
            for task in messages.tasks_in(message):
                stage.say(rank, messages.DONE, task.index, seconds)

    return player


def deaf(stage: Stage, rank: int, message: bytes) -> None:
    """Play a worker that starts its first task and never reports again."""


def dying(stage: Stage, rank: int, message: bytes) -> None:
    """Play a worker that is lost at its first task, which MPI notices."""
    stage.lost.add(rank)


def check_done(outcomes: Sequence[Outcome], tasks: Sequence[Task]) -> None:
    assert Counter(outcome.task for outcome in outcomes) == Counter(tasks)
    assert all(outcome.error is None for outcome in outcomes)


def test_all_workers_take_part_in_many_short_tasks() -> None:
    stage, tasks = Stage({rank: taking(1e-5) for rank in (1, 2, 3)}), make_tasks(10_000)
    check_done(stage.play(tasks), tasks)
    assert all(len(stage.tasks_of(rank)) > 1000 for rank in (1, 2, 3))
    # A message holds many tasks, but never more than MPI sends at once.
    assert all(len(m) < 4096 for sent in stage.heard.values() for m in sent)
    assert max(len(m) for sent in stage.heard.values() for m in sent) > 2048


def test_long_tasks_are_handed_out_one_by_one() -> None:
    stage, tasks = Stage({1: taking(10.0), 2: taking(10.0)}), make_tasks(100)
    check_done(stage.play(tasks), tasks)
    orders = [m for sent in stage.heard.values() for m in sent if m[:1] == messages.DO]
    assert [len(messages.tasks_in(order)) for order in orders] == [1] * 100


def test_tasks_behind_a_long_one_are_taken_back_for_idle_workers() -> None:
    tasks = make_tasks(300)

    def slow_at_last(stage: Stage, rank: int, message: bytes) -> None:
        """Do 100 tasks quickly, and stay at the next one until all others are done."""
        if message[:1] == messages.DO:
            queue.extend(messages.tasks_in(message))
            while queue and len(done) < 100:
                done.append(queue.popleft())
                stage.say(rank, messages.DONE, done[-1].index, 1e-5)
        elif message == messages.RECALL:
            while len(queue) > 1:
                stage.say(rank, messages.RETURNED, queue.pop().index)
            stage.say(rank, messages.SEARCHED)

    queue, done = deque[Task](), list[Task]()
    stage = Stage({1: slow_at_last, 2: taking(1e-5)})
    with Deadline() as deadline:
        outcomes = []
        for outcome in Coordinator(stage, [1, 2], TaskQueue(tasks), deadline).outcomes():
            outcomes.append(outcome)
            if len(outcomes) == len(tasks) - 1:
                # The other worker has done all tasks behind the long one.
                (long,) = queue
                stage.say(1, messages.DONE, long.index, 60.0)
    check_done(outcomes, tasks)
    assert messages.RECALL in stage.heard[1]
    assert all(outcome.attempts == 1 for outcome in outcomes)


def test_a_lost_worker_is_charged_the_task_it_was_at_and_no_other() -> None:
    def lost_at_thirty(stage: Stage, rank: int, message: bytes) -> None:
        if len(stage.tasks_of(rank)) < 30:
            taking(1e-5)(stage, rank, message)
        else:
            stage.lost.add(rank)

    stage, tasks = Stage({1: lost_at_thirty, 2: taking(1e-5)}), make_tasks(2000)
    outcomes = stage.play(tasks)
    check_done(outcomes, tasks)
    assert sum(outcome.attempts - 1 for outcome in outcomes) == 1
    assert not stage.written_off


def test_a_task_that_kills_three_workers_has_failed() -> None:
    tasks = make_tasks(50)

    def dying_at_the_costliest(stage: Stage, rank: int, message: bytes) -> None:
        if message[:1] == messages.DO and tasks[0] in messages.tasks_in(message):
            stage.lost.add(rank)
        else:
            taking(1.0)(stage, rank, message)

    stage = Stage(dict.fromkeys(range(1, 5), dying_at_the_costliest))
    outcomes = {outcome.task: outcome for outcome in stage.play(tasks)}
    assert set(outcomes) == set(tasks)
    assert [task for task in tasks if outcomes[task].error is not None] == [tasks[0]]
    assert "on host host was lost" in str(outcomes[tasks[0]].error)


def test_a_silent_worker_is_written_off_and_stopped_if_it_reports_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coordinator, "SILENCE", 0.2)
    costliest, other = tasks = make_tasks(2)

    def patient(stage: Stage, rank: int, message: bytes) -> None:
        """Stay at a task until the other worker was written off and has reported again."""
        if message == messages.HEARD and stage.written_off:
            stage.say(1, messages.DONE, costliest.index, 100.0)
            stage.say(rank, messages.DONE, other.index, 1.0)
        elif message == messages.HEARD or messages.tasks_in(message) == [other]:
            stage.say(rank, messages.PROGRESS)
        else:
            taking(1.0)(stage, rank, message)

    stage = Stage({1: deaf, 2: patient})
    outcomes = stage.play(tasks)
    check_done(outcomes, tasks)
    assert [messages.tasks_in(stage.heard[1][0]), *stage.heard[1][1:]] == [
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

    stage, tasks = Stage({1: taking(1.0), 2: taking(1.0)}), make_tasks(2)
    with Deadline() as deadline:
        check_done(list(Coordinator(stage, [1, 2], Slow(tasks), deadline).outcomes()), tasks)
    assert not stage.written_off


def test_a_farm_that_lost_all_workers_names_the_last() -> None:
    stage = Stage({1: dying, 2: dying}, {1: "east", 2: "west"})
    with pytest.raises(
        CryotileError, match=r"all workers are gone, the last one: rank 2 on host west"
    ):
        stage.play(make_tasks(50))


def test_a_worker_that_leaves_in_good_order_costs_no_attempt() -> None:
    def leaving(stage: Stage, rank: int, message: bytes) -> None:
        if message[:1] == messages.DO:
            stage.say(rank, messages.LEFT, text="had enough")

    stage, tasks = Stage({1: leaving, 2: taking(1.0)}), make_tasks(50)
    outcomes = stage.play(tasks)
    check_done(outcomes, tasks)
    assert all(outcome.attempts == 1 for outcome in outcomes)


def test_a_task_that_failed_on_one_host_is_tried_on_another() -> None:
    tried: dict[int, list[int]] = defaultdict(list)

    def failing(stage: Stage, rank: int, message: bytes) -> None:
        if message[:1] == messages.DO:
            for task in messages.tasks_in(message):
                tried[task.index].append(rank)
                kind = (
                    messages.FAILED
                    if len(tried[task.index]) == 1 and task.index < 30
                    else messages.DONE
                )
                stage.say(
                    rank, kind, task.index, 20.0, "a reason" if kind == messages.FAILED else ""
                )

    stage = Stage(
        dict.fromkeys((1, 2, 3, 4), failing), {1: "east", 2: "east", 3: "west", 4: "west"}
    )
    check_done(stage.play(make_tasks(50)), make_tasks(50))
    again = [ranks for ranks in tried.values() if len(ranks) > 1]
    assert len(again) == 10
    assert all((first <= 2) != (second <= 2) for first, second in again)
