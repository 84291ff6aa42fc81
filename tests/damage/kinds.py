"""Every kind of file that a run and a point DB have; a file that is of none, or of two, fails a test."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_HEX = r"[0-9a-f]+"

POINT_DB = {
    "description": r"cryotile\.json",
    "copy of the description": r"log/cryotile\.json",
    "commit": r"log/\d{8}/commit\.json",
    "squares": r"log/\d{8}/squares\.parquet",
    "checkpoint: granules": r"log/\d{8}/all-granules\.parquet",
    "checkpoint: fragments": r"log/\d{8}/all-fragments\.parquet",
    "checkpoint: squares": r"log/\d{8}/all-squares\.parquet",
    "fragment": rf"chunks/.+/{_HEX}-\d+\.parquet",
    "marker of a writer": rf"writers/{_HEX}",
    "set aside": r"log-set-aside/.+|.+\.damaged-\d+(/.+)?",
    "ingest: settings": rf"ingests/{_HEX}/ingest\.toml",
    "ingest: granules": rf"ingests/{_HEX}/granules\.parquet",
    "ingest: batch that is done": rf"ingests/{_HEX}/done/.+\.json",
    "ingest: batch that failed": rf"ingests/{_HEX}/failed/.+\.json",
    "ingest: journal": rf"ingests/{_HEX}/journal/\d+/.+\.jsonl",
    "ingest: heartbeat": rf"ingests/{_HEX}/journal/\d+/.+\.heartbeat",
}

RUN = {
    "settings": r"run\.toml",
    "mask": r"mask\.npz",
    "task list": r"generations/\d+/tasks\.parquet",
    "origin of a task list": r"generations/\d+/generation\.json",
    "tile": r"tiles/[^/]+\.arrow",
    "failed tile": r"failed/.+\.json",
    "journal": r"journal/\d+/.+\.jsonl",
    "heartbeat": r"journal/\d+/.+\.heartbeat",
    "ledger: tasks": r"farm/[^/]+/\d+/tasks",
    "ledger: claim": r"farm/[^/]+/\d+/\d+\.r?\d+",
    "ledger: settled unit": r"farm/[^/]+/\d+/\d+\.done",
    "ledger: hint": r"farm/[^/]+/\d+/again/\d+",
    "submission: tasks": r"jobs/\d+/tasks\.json",
    "submission: script": r"jobs/\d+/job\.sh",
    "validation: tile": r"validation/tiles/[^/]+/[^/]+\.arrow",
    "validation: map": r"validation/[^/]+\.nc",
    "validation: picture": r"validation/[^/]+\.png",
    "validation: numbers": r"validation/validation\.json",
    "validation: journal": r"validation/journal/.+\.jsonl",
    "set aside": r".+\.damaged-\d+(/.+)?",
}

INERT = (
    *("heartbeat", "ledger: hint", "submission: script", "set aside"),
    *("validation: map", "validation: picture", "validation: numbers"),
    "validation: journal",
    *("ingest: heartbeat", "ingest: journal", "ingest: batch that failed"),
)
"""Kinds whose content no number depends on and which are hardly read: two damages to each are enough."""

DIRECTORIES = (
    *("generations", "generations/0001", "tiles", "failed", "journal", "journal/0002", "farm"),
    *("jobs", "validation"),
)
"""Directories of a run in whose place a file is put."""


def files_of(root: Path) -> list[str]:
    """Return the files below a directory, relative to it."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def by_kind(names: Iterable[str], kinds: dict[str, str]) -> dict[str, list[str]]:
    """Group files by their kind; each must be of exactly one."""
    found: dict[str, list[str]] = {}
    for name in names:
        fitting = [kind for kind, pattern in kinds.items() if re.fullmatch(pattern, name)]
        assert len(fitting) == 1, (
            f"{name} is of {fitting or 'no'} kind: add one to tests/damage/kinds.py"
        )
        found.setdefault(fitting[0], []).append(name)
    return found
