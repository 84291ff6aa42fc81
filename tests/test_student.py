"""Student's quantile without scipy, against scipy's."""

from __future__ import annotations

import numpy as np
from scipy import stats

from cryotile.student import quantile_975


def test_quantiles_are_those_of_scipy():
    dof = np.r_[1:1000, 5000, 10**6, 2**31 - 1]
    np.testing.assert_allclose(quantile_975(dof), stats.t.ppf(0.975, dof), rtol=1e-11)


def test_no_degree_of_freedom_has_no_quantile():
    assert np.isnan(quantile_975(np.array([[0]]))).all()
