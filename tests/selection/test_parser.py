from __future__ import annotations

import pickle
import sqlite3

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryotile.errors import InvalidValue
from cryotile.points import CORE_COLUMNS, MODES
from cryotile.selection import Where

POINTS = pd.DataFrame(
    {
        "x": [0.0, 1.0, 2.0, 3.0],
        "time": np.array(["2019-01-01", "2019-06-01", "2020-01-01", "NaT"], "datetime64[ms]"),
        "uncertainty": [0.1, np.nan, 0.5, 2.0],
        "pass_id": np.array([1 << 32, 2, 3, 4]),
        "ascending": pd.array([True, False, pd.NA, True], "boolean"),
        "platform": pd.Categorical(["cryosat2", "icesat2", "cryosat2", None]),
        "mode": ["lrm", "laser", "sarin_poca", "lrm"],
        "power": np.array([-160, -155, np.nan, -150], np.float32),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("x < 2", "1100"),
        ("x <= 2", "1110"),
        ("x > 2", "0001"),
        ("x >= 2", "0011"),
        ("x == 2", "0010"),
        ("x != 2", "1101"),
        ("2 < x", "0001"),
        ("1 <= x < 3", "0110"),
        ("x in (0, 3)", "1001"),
        ("x not in [0, 3]", "0110"),
        ("-x < -1", "0011"),
        ("x - 1 == 0 or x * 2 == 6", "0101"),
        ("x / 2 >= 1", "0011"),
        ("1 / x > 0", "0111"),
        ("uncertainty < 1", "1010"),
        ("not uncertainty < 1", "0001"),
        ("uncertainty != 0.5", "1001"),
        ("not (uncertainty < 1 and x > 5)", "1111"),
        ("pass_id == 4294967296", "1000"),
        ("pass_id < 1e300", "1111"),
        ("platform == 'cryosat2'", "1010"),
        ("platform != 'cryosat2'", "0100"),
        ("not platform == 'cryosat2'", "0100"),
        ("'cryosat2' == platform", "1010"),
        ("mode in ('lrm', 'laser')", "1101"),
        ("mode not in ('lrm', 'laser')", "0010"),
        ("ascending", "1001"),
        ("not ascending", "0100"),
        ("ascending == False", "0100"),
        ("ascending != False", "1001"),
        ("time >= '2019-06-01'", "0110"),
        ("time >= '2019-05-31T23:59:60'", "0110"),
        ("'2019-01-01' < time < '2020-01-01T00:00:00.001Z'", "0110"),
        ("time < '2019-01-01T01:00+02:00'", "0000"),
        ("time == '2019-06-01'", "0100"),
        ("power > -158", "0101"),
        ("(x < 1) | (x > 2) & ~ascending", "1000"),
        ("True", "1111"),
        ("False or x == 1", "0100"),
    ],
)
def test_an_expression_selects_the_points_that_it_describes(text: str, rows: str) -> None:
    where = Where.parse(text)
    assert "".join("01"[int(b)] for b in where.mask(POINTS)) == rows
    again = Where.parse(str(where))
    assert again == where
    assert again.condition == where.condition


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "x.real > 1",
        "x[0] > 1",
        "lambda: 1",
        "[x for x in (1, 2)]",
        "(y := 3) > 1",
        "f'{x}' == platform",
        "x if ascending else y",
        "{1: 2} == x",
        "x ** 2 > 1",
        "x @ y > 1",
        "x > 1j",
        "x is None",
        "x == None",
        "x > b'1'",
        "x > ...",
        "x",
        "1",
        "",
        "   ",
        "x = 1",
        "x >",
        "x > 1; y",
        "import os",
        "x > 1\ny > 2",
        "x < 1 & y > 2",
        "~x > 1",
        "platform > 'cryosat2'",
        "platform == 'icesat-2'",
        "platform == 2",
        "platform == mode",
        "'lrm' == 'lrm'",
        "mode in 'lrm'",
        "mode in ()",
        "mode in ('lrm', 3)",
        "uncertainty == 'low'",
        "ascending > 0",
        "ascending + 1 > 1",
        "x == True",
        "time > 5",
        "time - x > 5",
        "-time > x",
        "time > 'yesterday'",
        "time > '2019-13-01'",
        "x > 1e999",
        f"x > {'9' * 4000}",
        "x > 1 or " * 600 + "x > 1",
        "not " * 900 + "ascending",
        "-" * 4000 + "x > 1",
        "(" * 300 + "x" + ")" * 300 + " > 1",
        "x > 1" + " + 1" * 60,
        "x > 1\0",
        "x > '\\d'",
        "1 is 1",
    ],
)
def test_other_expressions_than_comparisons_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Where.parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert "write" in message or "give" in message


def test_an_unknown_column_is_named_with_the_known_columns() -> None:
    with pytest.raises(InvalidValue, match=r"'coherense'.*uncertainty"):
        Where.parse("coherense > 0.6", columns=tuple(CORE_COLUMNS))
    with pytest.raises(InvalidValue, match="'coherence'"):
        Where.parse("coherence > 0.6").mask(POINTS)
    with pytest.raises(InvalidValue, match=r"'platfrom'.*platform"):
        Where.parse("platfrom == 'icesat2'", columns=tuple(CORE_COLUMNS))


def test_conditions_written_differently_are_equal() -> None:
    one = Where.parse('(platform=="cryosat2")&(x<1)&(x>0)')
    other = Where.parse("platform == 'cryosat2' and x < 1 and x > 0")
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == "platform == 'cryosat2' and x < 1 and x > 0"
    assert one.columns == {"platform", "x"}
    assert Where.parse("mode in ['sar', 'lrm']") == Where.parse("mode in ('lrm', 'sar', 'lrm')")


def test_a_condition_can_be_pickled() -> None:
    where = Where.parse("mode == 'lrm' and time < '2020-01-01'")
    again = pickle.loads(pickle.dumps(where))
    assert again == where
    np.testing.assert_array_equal(again.mask(POINTS), where.mask(POINTS))


def test_times_with_an_offset_are_converted_to_utc() -> None:
    times = np.array(["2018-12-31T22:59:59.999", "2018-12-31T23:00"], "datetime64[ms]")
    where = Where.parse("time >= '2019-01-01T01:00+02:00'")
    assert where.mask(pd.DataFrame({"time": times})).tolist() == [False, True]


def test_groups_without_a_possible_point_are_pruned() -> None:
    groups = pd.DataFrame(
        {
            "platform": ["cryosat2", "icesat2", None],
            "time_min": np.array(["2015-01-01"] * 3, "datetime64[ms]"),
            "time_max": np.array(["2015-12-31"] * 3, "datetime64[ms]"),
        }
    )

    def possible(text: str) -> list[bool]:
        return Where.parse(text).possible(groups).tolist()

    assert possible("platform == 'icesat2'") == [False, True, True]
    assert possible("platform == 'icesat2' and uncertainty < 1") == [False, True, True]
    assert possible("platform == 'icesat2' or uncertainty < 1") == [True, True, True]
    assert possible("not platform == 'icesat2'") == [True, False, True]
    assert possible("time < '2015-01-01'") == [False, False, False]
    assert possible("time <= '2015-01-01'") == [True, True, True]
    assert possible("not time <= '2015-12-31'") == [False, False, False]
    assert possible("not (platform == 'icesat2' and uncertainty < 1)") == [True, True, True]
    assert possible("ascending") == [True, True, True]
    assert possible("False") == [False, False, False]


NUMBERS = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
NAMES = st.sampled_from(["x", "y", "uncertainty"])
VALUES = st.recursive(
    NUMBERS.map(lambda v: f"({v})") | NAMES,
    lambda v: st.tuples(v, st.sampled_from("+-*/"), v).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=4,
)
CONDITIONS = st.recursive(
    st.tuples(VALUES, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), VALUES).map(" ".join)
    | st.tuples(st.sampled_from(["mode == ", "mode != "]), st.sampled_from(MODES)).map(
        lambda t: f"{t[0]}'{t[1]}'"
    )
    | st.sampled_from(["mode in ('lrm', 'laser')", "mode not in ('lrm', 'sar')"]),
    lambda c: (
        c.map(lambda a: f"not ({a})")
        | st.tuples(c, st.sampled_from(["and", "or"]), c).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})")
    ),
    max_leaves=6,
)
COLUMN = st.lists(NUMBERS | st.none(), min_size=6, max_size=6)
TABLE = st.builds(
    lambda x, y, u, m: pd.DataFrame(
        {"x": x, "y": y, "uncertainty": u, "mode": pd.Series(m, dtype="object")}
    ).astype({"x": float, "y": float, "uncertainty": float}),
    COLUMN,
    COLUMN,
    COLUMN,
    st.lists(st.sampled_from([*MODES, None]), min_size=6, max_size=6),
)


@settings(max_examples=150)
@given(CONDITIONS, TABLE)
def test_missing_values_are_decided_as_a_database_does(text: str, points: pd.DataFrame) -> None:
    columns = points.astype(object).where(points.notna(), None)
    connection = sqlite3.connect(":memory:")
    connection.execute("create table points (x real, y real, uncertainty real, mode text)")
    connection.executemany("insert into points values (?, ?, ?, ?)", columns.to_numpy().tolist())
    rows = connection.execute(
        f"select rowid - 1 from points where {text} order by rowid"
    ).fetchall()
    connection.close()
    where = Where.parse(text)
    assert np.flatnonzero(where.mask(points)).tolist() == [row[0] for row in rows]
    assert Where.parse(str(where)).condition == where.condition


@settings(max_examples=150)
@given(CONDITIONS, TABLE)
def test_pruning_never_loses_a_point(text: str, points: pd.DataFrame) -> None:
    where = Where.parse(text)
    group = pd.DataFrame(
        {
            "x_min": [points["x"].min()],
            "x_max": [points["x"].max()],
            "uncertainty_min": [points["uncertainty"].min()],
            "uncertainty_max": [points["uncertainty"].max()],
            "mode": [points["mode"][0] if len(set(points["mode"])) == 1 else None],
        }
    )
    assert where.possible(group)[0] or not where.mask(points).any()
