"""Parser of ``where`` expressions: over columns, parsed to a small tree and never evaluated as code.

>>> where = Where.parse("platform == 'cryosat2' and (uncertainty < 1 or mode in ('lrm', 'sar'))")
>>> sorted(where.columns)
['mode', 'platform', 'uncertainty']

The logic is SQL's: a comparison with a missing value (NaN, NA) is neither true nor false, nor is its negation.  Points
for which the expression is true are selected.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from cryotile.errors import InvalidValue
from cryotile.points import CATEGORIES, platform_code
from cryotile.selection.conditions import (
    Always,
    Among,
    Arithmetic,
    ColumnValue,
    Compare,
    Condition,
    Constant,
    IsTrue,
    Joined,
    Not,
    Value,
)
from cryotile.times import parse_instant

__all__ = ["Where"]

MAX_LENGTH = 4096
"""Largest number of characters in an expression."""

MAX_DEPTH = 50
"""Largest number of nested parentheses, operators and ``not``."""

FLAGS = ("ascending",)
TIMES = ("time",)


@dataclass(frozen=True)
class Where:
    """A condition on points.

    Attributes
    ----------
    text : str
        The expression in canonical form, independent of its spaces, quotes and parentheses.
    condition : Condition
        The parsed tree.
    """

    text: str
    condition: Condition = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, columns: Collection[str] | None = None) -> Where:
        """Parse an expression.

        Parameters
        ----------
        text : str
            Comparisons (chained, too) of columns with numbers, quoted texts or quoted ISO 8601 times; ``in`` and ``not
            in`` tuples or lists; ``+ - * /`` on numbers; ``and or not``, or ``& | ~`` with parentheses.
        columns : collection of str or None
            The columns of the points; None: checked when the condition is applied.

        Returns
        -------
        Where
            The condition.

        Raises
        ------
        InvalidValue
            The text is another expression (a call, an attribute, or other code), too long or too deep, or has a value
            that its column cannot hold or an unknown column.
        """
        if not isinstance(text, str):
            raise InvalidValue(f'where {text!r} is not a text; write e.g. "uncertainty < 1"')
        condition = _ExpressionParser(text).parse()
        where = cls(str(condition), condition)
        if columns is not None:
            where.check(columns)
        return where

    def __str__(self) -> str:
        return self.text

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that it needs."""
        return self.condition.columns

    def check(self, columns: Collection[str]) -> None:
        """Check that the condition can be applied to points with these columns.

        Parameters
        ----------
        columns : collection of str
            The columns of the points.

        Raises
        ------
        InvalidValue
            The condition names another column.
        """
        unknown = sorted(self.columns.difference(columns))
        if unknown:
            raise InvalidValue(
                f"column {unknown[0]!r} in {_shown(self.text)} is not a column of these points;"
                f" use {', '.join(columns)}"
            )

    def mask(self, points: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which points satisfy the condition.

        Parameters
        ----------
        points : DataFrame
            Points with all of :attr:`columns`.

        Returns
        -------
        ndarray of bool, shape (points,)
            False where it is false or undecided.

        Raises
        ------
        InvalidValue
            A column is missing.
        """
        self.check(list(points.columns))
        true, _ = self.condition.truth(points)
        return np.array(np.broadcast_to(true, len(points)))

    def possible(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which groups of points may contain a point that satisfies the condition.

        Parameters
        ----------
        table : DataFrame
            One row per group.  A value common to all its points is in the column ``<name>``, bounds are in
            ``<name>_min`` and ``<name>_max``; missing columns and values are unknown.

        Returns
        -------
        ndarray of bool, shape (rows,)
            False only where no point of the group can satisfy it.
        """
        _, false = self.condition.truth(table)
        return ~np.array(np.broadcast_to(false, len(table)))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


_SYMBOLS: Mapping[type[ast.AST], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.And: "and",
    ast.BitAnd: "and",
    ast.Or: "or",
    ast.BitOr: "or",
}

_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class _ExpressionParser:
    """Converts the text to the tree; all other kinds of Python expression are refused."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0

    def parse(self) -> Condition:
        if len(self._text) > MAX_LENGTH:
            self._refuse(f"it has {len(self._text)} characters, more than {MAX_LENGTH}")
        try:
            with warnings.catch_warnings():
                # Python only warns of likely mistakes such as 'x' is 1; here they are errors.
                warnings.simplefilter("error")
                tree = ast.parse(self._text.strip(), mode="eval")
        except SyntaxError as error:
            self._refuse(error.msg)
        except (ValueError, RecursionError, MemoryError) as error:
            self._refuse(str(error) or "it is too deep")
        return self._condition(tree.body)

    def _condition(self, node: ast.expr) -> Condition:
        self._descend()
        match node:
            case ast.BoolOp(op=op, values=values):
                found = self._joined(_SYMBOLS[type(op)], [self._condition(v) for v in values])
            case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr() as bit, right=right):
                parts = [self._condition(left), self._condition(right)]
                found = self._joined(_SYMBOLS[type(bit)], parts)
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                found = Not(self._condition(operand))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                pairs = zip(ops, pairwise([left, *comparators]), strict=True)
                found = self._joined("and", [self._pair(op, a, b) for op, (a, b) in pairs])
            case ast.Name(id=name) if name in FLAGS:
                found = IsTrue(name)
            case ast.Constant(value=bool(value)):
                found = Always(value)
            case _:
                self._refuse(f"{self._source(node)} is neither true nor false")
        self._depth -= 1
        return found

    def _joined(self, word: str, parts: list[Condition]) -> Condition:
        # Flat, so that equal conditions have one canonical text.
        flat: list[Condition] = []
        for part in parts:
            flat += part.parts if isinstance(part, Joined) and part.word == word else (part,)
        return flat[0] if len(flat) == 1 else Joined(word, tuple(flat))

    def _pair(self, op: ast.cmpop, left: ast.expr, right: ast.expr) -> Condition:
        if isinstance(op, ast.In | ast.NotIn):
            found = self._membership(left, right)
            return Not(found) if isinstance(op, ast.NotIn) else found
        symbol = _SYMBOLS.get(type(op)) or self._refuse("'is' is not supported; write == or !=")
        if isinstance(left, ast.Constant) and not isinstance(right, ast.Constant):
            left, symbol, right = right, _MIRRORED[symbol], left
        # A negation is undecided where the equality is: at missing values, as in SQL.
        if symbol == "!=":
            return Not(self._comparison("==", left, right))
        return self._comparison(symbol, left, right)

    def _membership(self, left: ast.expr, right: ast.expr) -> Condition:
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            self._refuse(
                f"{self._source(right)} is not a list; write e.g. ('lrm', 'sar') after 'in'"
            )
        found = self._joined("or", [self._comparison("==", left, e) for e in right.elts])
        parts = found.parts if isinstance(found, Joined) else (found,)
        texts = {text for part in parts if isinstance(part, Among) for text in part.texts}
        # Sorted, so that equal conditions have one canonical text.
        return Among(self._column(left), tuple(sorted(texts))) if texts else found

    def _comparison(self, symbol: str, left: ast.expr, right: ast.expr) -> Condition:
        match right:
            case ast.Constant(value=str(text)):
                return self._text_comparison(symbol, self._column(left), text)
            case ast.Constant(value=bool(flag)):
                name = self._column(left)
                if name not in FLAGS or symbol != "==":
                    self._refuse(f"only {', '.join(FLAGS)} can be == or != True or False")
                return IsTrue(name) if flag else Not(IsTrue(name))
        a, b = self._value(left), self._value(right)
        if _is_time(a) != _is_time(b):
            self._refuse("a time can only be compared with a time in quotes, e.g. '2019-04-01'")
        return Compare(symbol, a, b)

    def _text_comparison(self, symbol: str, name: str, text: str) -> Condition:
        if name in TIMES:
            return Compare(
                symbol,
                ColumnValue(name),
                Constant(parse_instant(text).to_datetime64().astype("datetime64[ms]")),
            )
        if name not in CATEGORIES:
            self._refuse(
                f"column {name!r} does not hold text; columns that do are {', '.join(CATEGORIES)}"
            )
        if symbol != "==":
            self._refuse(f"texts are not ordered: column {name!r} takes ==, != and in")
        if name == "platform":
            try:
                platform_code(text)
            except InvalidValue as error:
                self._refuse(str(error))
        elif text not in CATEGORIES[name]:
            self._refuse(f"{name} {text!r} is unknown; it is one of {', '.join(CATEGORIES[name])}")
        return Among(name, (text,))

    def _value(self, node: ast.expr) -> Value:
        self._descend()
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                found: Value = self._number(number)
            case ast.Name(id=name) if name in CATEGORIES or name in FLAGS:
                self._refuse(
                    f"column {name!r} does not hold numbers; give a value to compare it with"
                )
            case ast.Name(id=name):
                found = ColumnValue(name)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                found = self._number(-number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                found = Arithmetic("-", Constant(0), self._untimed(operand))
            case ast.BinOp(
                left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as op, right=right
            ):
                found = Arithmetic(_SYMBOLS[type(op)], self._untimed(left), self._untimed(right))
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
                self._refuse("with &, | and ~ every comparison needs parentheses")
            case _:
                self._refuse(f"{self._source(node)} is neither a column nor a value")
        self._depth -= 1
        return found

    def _number(self, number: float) -> Constant:
        if not abs(number) <= sys.float_info.max:
            self._refuse("it has a number that is not finite")
        # Above 2⁵³ numpy may keep an int as an object; a float is as precise as the columns.
        return Constant(number if abs(number) < 2**53 else float(number))

    def _untimed(self, node: ast.expr) -> Value:
        value = self._value(node)
        if _is_time(value):
            self._refuse("times can be compared, not added; write the time itself in quotes")
        return value

    def _column(self, node: ast.expr) -> str:
        if not isinstance(node, ast.Name):
            self._refuse(
                f"{self._source(node)} is not a column, and only a column can hold text or a flag"
            )
        return node.id

    def _descend(self) -> None:
        self._depth += 1
        # A limit below Python's own, which depends on the machine.
        if self._depth > MAX_DEPTH:
            self._refuse(f"it is more than {MAX_DEPTH} levels deep")

    def _source(self, node: ast.expr) -> str:
        return _shown(ast.get_source_segment(self._text.strip(), node) or type(node).__name__)

    def _refuse(self, rule: str) -> NoReturn:
        raise InvalidValue(
            f"{_shown(self._text)} cannot select points: {' '.join(rule.split())}; write comparisons of columns with"
            " numbers or quoted texts, joined by and, or, not, e.g. \"platform == 'icesat2' and uncertainty < 0.5\""
        )


def _is_time(value: Value) -> bool:
    return isinstance(value, ColumnValue) and value.name in TIMES
