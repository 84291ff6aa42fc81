"""Formulas as MathML, which browsers draw without a script, a font from elsewhere, or a network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def _write(translator: Any, node: nodes.Element, display: str) -> None:
    formula = convert(node.astext().strip(), display=display)
    if display == "block":
        formula = f'<p style="overflow-x: auto">{formula}</p>\n'
    translator.body.append(formula)
    raise nodes.SkipNode


def visit_inline(translator: Any, node: nodes.Element) -> None:
    """Write a formula within a sentence."""
    _write(translator, node, "inline")


def visit_block(translator: Any, node: nodes.Element) -> None:
    """Write a formula in a line of its own."""
    _write(translator, node, "block")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
