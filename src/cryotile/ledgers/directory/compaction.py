"""Sealing: a bucket or block of which all is settled becomes one file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from cryotile.ledgers.directory.claims import create, remove
from cryotile.ledgers.directory.layout import BUCKET, DONE, Node, Trace, look, see
from cryotile.ledgers.directory.observer import Settled, Survey

__all__ = ["seal", "seal_upwards"]


def seal_upwards(survey: Survey, node: Node) -> None:
    """Seal a settled node, and all that are settled with it."""
    settled: Node | None = node
    while settled is not None and seal(survey, settled, see(settled)):
        settled = settled.above


def seal(survey: Survey, node: Node, trace: Trace) -> bool:
    """Replace what is settled altogether by one file; False if something is open."""
    if not trace.done:
        settled = _all_settled(survey, node, trace)
        if settled is None:
            return False
        if not trace.split and node.size < BUCKET:
            # It is one file already.
            return True
        create(node.path + DONE, _record(node, settled))
    for epoch in trace.epochs:
        remove(f"{node.path}.{epoch}" if epoch else node.path)
    if trace.split:
        shutil.rmtree(node.path, ignore_errors=True)
    return True


def _all_settled(survey: Survey, node: Node, trace: Trace) -> dict[int, Settled] | None:
    """Return how each task of a node was settled, by position; None if one is open."""
    if trace.done or trace.epochs:
        settled = survey.settled(node, trace)
        return settled if len(settled) == node.count else None
    if not trace.split:
        return None
    traces, parts = look(node.path), list(node.children())
    if any(part.name not in traces for part in parts):
        return None
    settled = {}
    # The last part first: it was begun last, so most likely it is the one that is open.
    for part in reversed(parts):
        found = _all_settled(survey, part, traces[part.name])
        if found is None:
            return None
        settled |= found
    return settled


def _record(node: Node, settled: Mapping[int, tuple[str, str | None]]) -> dict[str, object]:
    """Say in short who settled what, and what failed for good."""
    by: dict[str, list[int]] = {}
    failed: dict[int, str] = {}
    for position, (host, error) in settled.items():
        by.setdefault(host, []).append(position - node.start)
        if error is not None:
            failed[position - node.start] = error
    return {"by": by, "failed": failed}
