"""The variables of a fit: quantiles of Student's t compared with printed tables."""

from __future__ import annotations

import numpy as np
import pytest

from cryotile.fit.variables import student_quantile

# From Abramowitz and Stegun, Handbook of Mathematical Functions (1964), table 26.10, to six decimals.
TABLE = {
    0.975: {1: 12.706205, 2: 4.302653, 4: 2.776445, 9: 2.262157, 30: 2.042272, 120: 1.979930},
    0.75: {1: 1.0, 2: 0.816497, 5: 0.726687, 30: 0.682756},
}


@pytest.mark.parametrize("probability", TABLE)
def test_quantiles_equal_those_of_the_table(probability):
    table = TABLE[probability]
    found = student_quantile(probability, np.array(list(table)))
    np.testing.assert_allclose(found, list(table.values()), rtol=0, atol=6e-7)


def test_the_quantile_of_fractional_degrees_lies_between_those_of_its_neighbours():
    below, found, above = student_quantile(0.975, np.array([2.0, 2.5, 3.0]))
    assert below > found > above


def test_many_degrees_are_nearly_normal_and_cost_no_memory():
    assert student_quantile(0.975, np.array([2**31 - 1])) == pytest.approx(1.959963985, rel=1e-9)


def test_the_quantile_without_degrees_of_freedom_is_nan():
    found = student_quantile(0.975, np.array([[0, 1, 0]]))
    assert found.shape == (1, 3)
    assert np.isnan(found).tolist() == [[True, False, True]]
