"""Progress bars for calls that take minutes, in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Advance", "bar"]


class Advance(Protocol):
    """Move a bar on by ``count``, and show a note behind it."""

    def __call__(self, count: float = 1, note: str = "") -> object:
        """Move on."""


@contextmanager
def bar(title: str, total: float, *, shown: bool) -> Iterator[Advance]:
    """Show a bar on standard error, or in the notebook, while the context lasts.

    Parameters
    ----------
    title : str
        Text before the bar.
    total : float
        Sum of all counts at the end.
    shown : bool
        False: show nothing.

    Yields
    ------
    Advance
        Moves the bar on.
    """
    if not shown:
        yield _nothing
        return
    from tqdm.auto import tqdm

    with tqdm(desc=title, total=total, dynamic_ncols=True) as progress:

        def advance(count: float = 1, note: str = "") -> None:
            progress.set_postfix_str(note, refresh=False)
            progress.update(count)

        yield advance


def _nothing(count: float = 1, note: str = "") -> None:
    """Show nothing."""
