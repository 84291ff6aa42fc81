"""Expressions that select points, such as ``platform == 'cryosat2' and uncertainty < 1``."""

from __future__ import annotations

from cryotile.selection.parser import Where

__all__ = ["Where"]
