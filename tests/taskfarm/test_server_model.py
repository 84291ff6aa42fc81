"""Random calls of both APIs in random order, checked against a model of a run in memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.support.farm_server import Farm, sqlite_farm

__all__ = ["sqlite_farm"]

SIZE, ATTEMPTS = 6, 2
WORKER = {"uuid": "w", "host": "here", "pid": 7}
TASKS = strategies.integers(0, SIZE - 1)
LEASES = strategies.integers(0, 99)


@dataclass
class Task:
    """A task of the model."""

    state: str = "waiting"
    lease: str | None = None
    lasts: bool | None = None
    """Whether the lease is still valid; None without one."""
    attempts: int = 0
    started: bool = False
    percent: float = 0.0
    touched: bool = False

    def back(self, *, charged: bool) -> None:
        self.state, self.lease, self.lasts = "waiting", None, None
        self.attempts += charged
        self.started = False

    def is_leased_under(self, lease: str) -> bool:
        return self.state == "leased" and self.lease == lease


class Machine(RuleBasedStateMachine):
    """A run of six tasks, and its model."""

    farm: Farm

    @initialize()
    def enroll(self):
        settings = {"count": SIZE, "attempts": ATTEMPTS}
        self.run = self.farm.ask("POST", "/api/v1/runs", settings).json["run"]
        self.tasks = [Task() for _ in range(SIZE)]
        self.leases: list[tuple[int, str]] = []

    def _claimable(self, n: int) -> list[int]:
        """Return the tasks that a claim gets: tasks that were claimed or changed before come first."""
        chosen = self._waiting()[:n]
        if len(chosen) < n:
            for task in self.tasks:
                task.touched = True
            chosen += [index for index in self._waiting() if index not in chosen][: n - len(chosen)]
        if not chosen:
            for task in self.tasks:
                if task.state == "leased" and task.lasts is False:
                    task.back(charged=task.started)
            chosen = self._waiting()[:n]
        return sorted(chosen)

    def _waiting(self) -> list[int]:
        return [
            index
            for index, task in enumerate(self.tasks)
            if task.state == "waiting" and task.touched
        ]

    def _lease(self, index: int, lease: str | None) -> None:
        task = self.tasks[index]
        task.state, task.lease, task.lasts, task.started, task.percent = (
            "leased",
            lease,
            True,
            False,
            0.0,
        )

    @rule(n=strategies.integers(1, 3))
    def claim(self, n):
        given = self.farm.ask(
            "POST", f"/api/v1/runs/{self.run}/leases", {"worker": WORKER, "n": n}
        ).json
        expected = self._claimable(n)
        assert [lease["task"] for lease in given["leases"]] == expected
        for lease in given["leases"]:
            assert lease["attempt"] == self.tasks[lease["task"]].attempts + 1
            self._lease(lease["task"], lease["lease"])
            self.leases.append((lease["task"], lease["lease"]))

    @rule()
    def claim_by_the_legacy_api(self):
        expected = self._claimable(1)
        claimed = self.farm.claim(self.run)
        assert [claimed] == (expected or [None])
        if expected:
            self._lease(claimed, "legacy")

    @rule(which=LEASES, fraction=strategies.sampled_from([None, 0.0, 0.5]))
    def renew(self, which, fraction):
        if not self.leases:
            return
        index, lease = self.leases[which % len(self.leases)]
        body = [{"lease": lease, "fraction": fraction}]
        lost = self.farm.ask("PATCH", f"/api/v1/runs/{self.run}/leases", body).json["lost"]
        task = self.tasks[index]
        assert lost == ([] if task.is_leased_under(lease) else [lease])
        if not lost:
            task.lasts = True
            if fraction is not None:
                task.started, task.percent = True, 100 * fraction

    @rule(which=LEASES, error=strategies.sampled_from([None, "boom"]))
    def settle(self, which, error):
        if not self.leases:
            return
        index, lease = self.leases[which % len(self.leases)]
        body = [{"lease": lease, "seconds": 1, "error": error}]
        lost = self.farm.ask("POST", f"/api/v1/runs/{self.run}/outcomes", body).json["lost"]
        task = self.tasks[index]
        assert lost == ([] if task.lease == lease else [lease])
        if task.is_leased_under(lease):
            task.attempts = min(task.attempts + 1, ATTEMPTS)
            task.lasts, task.started = None, False
            if error is None:
                task.state, task.percent = "done", 100.0
            else:
                task.state = "waiting" if task.attempts < ATTEMPTS else "failed"

    @rule(which=LEASES)
    def release(self, which):
        if not self.leases:
            return
        index, lease = self.leases[which % len(self.leases)]
        self.farm.ask("DELETE", f"/api/v1/runs/{self.run}/leases", [lease])
        task = self.tasks[index]
        if task.is_leased_under(lease):
            task.back(charged=False)
            task.percent = 0.0

    @rule(index=TASKS, percent=strategies.sampled_from([0.0, 30.0, 100.0]))
    def put_percent(self, index, percent):
        assert self.farm.put(self.run, index, percentCompleted=percent) == 204
        task = self.tasks[index]
        task.percent, task.touched = percent, True
        if task.lasts is False:
            task.lasts = True

    @rule(index=TASKS, status=strategies.sampled_from(["waiting", "computing", "done"]))
    def put_status(self, index, status):
        assert self.farm.put(self.run, index, status=status) == 204
        task = self.tasks[index]
        if status == "computing" and task.state == "leased":
            task.lasts = None if task.lasts is None else True
        elif status == "done":
            task.lasts = None
        else:
            task.lease = task.lasts = None
        task.touched = True
        task.state, task.started = {"computing": "leased"}.get(status, status), False

    @rule()
    def expire(self):
        self.farm.expire()
        for task in self.tasks:
            if task.lasts:
                task.lasts = False

    @rule(everything=strategies.booleans())
    def restart(self, everything):
        self.farm.ask("POST", f"/api/runs/{self.run}/restart?all={everything}")
        if everything:
            self.tasks = [Task() for _ in range(SIZE)]
        for task in self.tasks:
            if task.state == "leased" and not task.lasts:
                task.back(charged=task.started)
            elif task.state == "failed":
                task.back(charged=False)
                task.attempts, task.percent = 0, 0.0

    @invariant()
    def counts_are_those_of_the_model(self):
        seen = self.farm.ask("GET", f"/api/v1/runs/{self.run}").json
        expected = Counter(task.state for task in self.tasks)
        for state in ("waiting", "leased", "done", "failed"):
            assert seen[state] == expected[state], state
        percent = sum(
            100.0 if task.state == "done" else task.percent * (task.state != "failed")
            for task in self.tasks
        )
        assert abs(self.farm.info(self.run)["percentDone"] - percent / SIZE) < 1e-9


def test_a_run_agrees_with_its_model(sqlite_farm):
    sqlite_farm.worker()
    Machine.farm = sqlite_farm
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40, stateful_step_count=25, suppress_health_check=list(HealthCheck)
        ),
    )
