"""Student's quantile without scipy, against scipy's."""

from __future__ import annotations

import numpy as np
from scipy import stats

from cryotile.fit.student import quantile_975, quantile_at


def test_quantiles_are_those_of_scipy():
    dof = np.r_[1:1000, 5000, 10**6, 2**31 - 1]
    np.testing.assert_allclose(quantile_975(dof), stats.t.ppf(0.975, dof), rtol=1e-11)


def test_no_degree_of_freedom_has_no_quantile():
    assert np.isnan(quantile_975(np.array([[0]]))).all()


def test_quantiles_of_broken_degrees_are_those_of_scipy():
    dof = np.r_[5:60:0.25]
    for probability in (0.75, 0.975):
        expected = stats.t.ppf(probability, dof)
        found = quantile_at(float(stats.norm.ppf(probability)), dof)
        np.testing.assert_allclose(found, expected, rtol=1.1e-4)
        np.testing.assert_allclose(found[dof >= 20], expected[dof >= 20], rtol=1e-6)
