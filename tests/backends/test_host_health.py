"""Broken hosts are told apart from broken tasks."""

from __future__ import annotations

from cryotile.backends.base import Attempt
from cryotile.backends.host_health import HostQuarantine
from cryotile.farm.task import Task


def two_hosts() -> HostQuarantine:
    quarantine = HostQuarantine()
    quarantine.join("east")
    quarantine.join("west")
    return quarantine


def ended(index: int, host: str, error: str | None = None, seconds: float = 0.1) -> list[Attempt]:
    return [Attempt(Task(index, 1.0), seconds, error, host)]


def fail_three(quarantine: HostQuarantine, host: str, seconds: float = 0.1) -> None:
    for index in range(3):
        assert not quarantine.learn(ended(index, host, "bad", seconds))


def test_a_host_where_three_tasks_fail_at_once_gets_no_more_until_another_has_tried_them() -> None:
    quarantine = two_hosts()
    fail_three(quarantine, "east")
    assert not quarantine.admits("east")
    assert quarantine.admits("west")
    assert not quarantine.suits("east", 0)
    assert quarantine.suits("west", 0)


def test_a_host_is_broken_if_another_does_the_tasks_that_failed_on_it() -> None:
    quarantine = two_hosts()
    fail_three(quarantine, "east")
    assert quarantine.learn(ended(1, "west")) == {"east"}
    # It is reported once, and stays broken.
    assert quarantine.learn(ended(2, "west")) == set()
    quarantine.learn(ended(9, "east"))
    assert not quarantine.admits("east")


def test_a_host_is_healthy_if_its_failed_tasks_fail_elsewhere_too() -> None:
    quarantine = two_hosts()
    fail_three(quarantine, "east")
    assert not quarantine.learn(ended(1, "west", "bad"))
    assert quarantine.admits("east")
    assert quarantine.admits("west")


def test_a_success_in_between_clears_a_host() -> None:
    quarantine = two_hosts()
    for index in range(9):
        quarantine.learn(ended(index, "east", "bad" if index % 3 else None))
    assert quarantine.admits("east")


def test_three_failures_of_one_task_tell_nothing_about_the_host() -> None:
    quarantine = two_hosts()
    for _ in range(3):
        quarantine.learn(ended(7, "east", "bad"))
    assert quarantine.admits("east")


def test_slow_failures_tell_nothing_about_the_host() -> None:
    quarantine = two_hosts()
    fail_three(quarantine, "east", seconds=60.0)
    assert quarantine.admits("east")


def test_a_single_host_always_works() -> None:
    quarantine = HostQuarantine()
    quarantine.join("east")
    fail_three(quarantine, "east")
    assert quarantine.admits("east")
    assert quarantine.suits("east", 0)


def test_a_host_continues_when_the_others_are_gone() -> None:
    quarantine = two_hosts()
    fail_three(quarantine, "east")
    quarantine.leave("west")
    assert quarantine.admits("east")
    assert quarantine.suits("east", 0)
