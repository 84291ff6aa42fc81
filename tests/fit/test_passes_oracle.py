"""The slow reference of the recipe ``passes``: against fixed numbers and against dense covariance matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.passes_oracle import (
    FIXED_POSTS,
    SIDE,
    TAU,
    TERRAIN,
    Column,
    Points,
    Post,
    Result,
    deltas,
    dense_covariance,
    fit_heights,
    fit_passes,
    fit_window,
    fixed_post,
    total_sigma,
)


def weighted(points: Points) -> Points:
    """Return the points with unequal weights and a further column under a prior."""
    i = np.arange(len(points.z))
    return replace(
        points,
        weight=1 + 0.5 * np.sin(i),
        columns=(Column(np.cos(3 * i), prior=0.2),),
    )


@pytest.fixture(scope="module", params=[False, True], ids=["equal", "weighted"])
def post(request: pytest.FixtureRequest) -> Post:
    points = fixed_post()
    points = replace(points, z=points.z - points.z.mean())
    return Post(weighted(points) if request.param else points, sigma=0.15)


@pytest.mark.parametrize("case", FIXED_POSTS)
def test_the_fixed_post_has_the_numbers_of_the_definition(case: tuple[float, float]) -> None:
    dhdt, sigma, ci95, passes, free, points, theta, noise, elevation = FIXED_POSTS[case]
    result = fit_passes(fixed_post(*case))
    assert (result.passes, len(result.fit.free), result.kept.sum()) == (passes, free, points)
    found = (result.dhdt, result.fit.theta, result.sigma, result.elevation)
    np.testing.assert_allclose(found, (dhdt, theta, noise, elevation), rtol=0, atol=6e-10)
    # The inverse of the normal matrix is known to some ten digits.
    found = (result.dhdt_sigma, result.dhdt_ci95)
    np.testing.assert_allclose(found, (sigma, ci95), rtol=0, atol=2e-9)


def test_a_plane_falling_half_a_metre_a_year_falls_half_a_metre_a_year() -> None:
    points = fixed_post()
    x, y = points.u * points.radius, points.v * points.radius
    result = fit_passes(replace(points, z=900 + 0.01 * x - 0.004 * y - 0.5 * points.tau))
    assert result.dhdt == pytest.approx(-0.5, abs=1e-6)
    assert result.elevation == pytest.approx(900, abs=1e-3)
    assert (len(result.fit.free), result.kept.all()) == (0, True)


@pytest.mark.parametrize("theta", [0.05, 2.0, 300.0])
def test_a_fit_is_generalised_least_squares_with_the_dense_covariance(
    post: Post, theta: float
) -> None:
    points, fit, other = post.points, post.fit(theta), post.fit(0.7 * theta)
    X, z = points.design(), points.z

    def dense(t: float) -> tuple[np.ndarray, np.ndarray, float, float]:
        V = dense_covariance(points, t)
        inverse = np.linalg.inv(V)
        A = X.T @ inverse @ X + np.diag(post.prior(t))
        beta = np.linalg.solve(A, X.T @ inverse @ z)
        R = float(z @ inverse @ z - beta @ X.T @ inverse @ z)
        nu = points.weight.sum() - 2
        logs = nu * np.log(R) + np.linalg.slogdet(A)[1] + np.linalg.slogdet(V)[1] + 3 * np.log(t)
        return A, beta, R, -0.5 * float(logs)

    A, beta, R, loglik = dense(theta)
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(fit.inverse, np.linalg.inv(A), rtol=1e-6, atol=1e-12)
    assert pytest.approx(fit.R, rel=1e-9) == R
    # The likelihood is known up to a constant.
    assert fit.loglik - other.loglik == pytest.approx(loglik - dense(0.7 * theta)[3], abs=1e-7)


def test_a_free_pass_has_an_offset_of_infinite_spread(post: Post) -> None:
    free = frozenset({3, 9})
    fit = post.fit(1.5, free)
    V = np.linalg.inv(dense_covariance(post.points, 1.5, big=1e7, free=free))
    X = post.points.design()
    A = X.T @ V @ X + np.diag(post.prior(1.5))
    np.testing.assert_allclose(
        fit.beta, np.linalg.solve(A, X.T @ V @ post.points.z), rtol=0, atol=1e-4
    )


def test_influence_is_the_change_when_a_pass_gets_an_offset_of_its_own(post: Post) -> None:
    fit = post.fit(1.5)
    for g in (0, 5, 10):
        N, D = post.influence(fit, g)
        # Freeing a pass reduces R by N²/D.
        assert pytest.approx(N * N / D, rel=1e-6) == fit.R - post.fit(1.5, frozenset({g})).R
        Z = (post.points.label == g).astype(float)
        V = np.linalg.inv(dense_covariance(post.points, 1.5))
        X, z = post.points.design(), post.points.z
        assert pytest.approx(Z @ V @ (z - X @ fit.beta), abs=1e-7) == N
        assert pytest.approx(Z @ V @ Z - Z @ V @ X @ fit.inverse @ X.T @ V @ Z, rel=1e-7) == D


def test_the_jackknife_is_the_dense_fit_without_the_rows(post: Post) -> None:
    fit = post.fit(1.5, frozenset({9}))
    for g, delta in deltas(post, fit).items():
        rest = post.points.take(post.points.label != g)
        V = np.linalg.inv(dense_covariance(rest, 1.5, big=1e7, free=frozenset({9})))
        X = rest.design()
        beta = np.linalg.solve(X.T @ V @ X + np.diag(post.prior(1.5)), X.T @ V @ rest.z)
        np.testing.assert_allclose(delta[TAU], beta[TAU] - fit.beta[TAU], rtol=0, atol=1e-5)


def test_a_window_over_all_time_is_the_whole_fit(post: Post) -> None:
    fit = post.fit(1.5, frozenset({9}))
    window, change = fit_window(post, fit, -np.inf, np.inf)
    np.testing.assert_array_equal(window.beta, fit.beta)
    assert change.keys() == deltas(post, fit).keys()


def test_a_window_knows_only_its_own_passes(post: Post) -> None:
    fit = post.fit(1.5, frozenset({9}))
    window, change = fit_window(post, fit, -3.0, 4.0)
    assert set(change) == {2, 3, 4, 5, 6, 7, 8}
    spoiled = replace(
        post, points=replace(post.points, z=post.points.z + 100 * (post.points.label < 2))
    )
    again, _ = fit_window(spoiled, fit, -3.0, 4.0)
    np.testing.assert_array_equal(window.beta, again.beta)


def test_heights_are_the_dense_fit_with_a_constant_for_each_bin(post: Post) -> None:
    points, free = post.points, frozenset({9})
    fit = post.fit(1.5, free)
    heights = fit_heights(post, fit, {int(g): int(g) // 3 for g in post.labels})
    assert heights.bins.tolist() == [0, 1, 2, 3]
    bins = np.column_stack([(points.label // 3 == k) & (points.label != 9) for k in heights.bins])
    terrain = np.column_stack((points.terrain(), points.design()[:, SIDE]))
    terrain = np.column_stack((terrain, *(c.column for c in points.columns)))
    X = np.column_stack((bins, terrain))
    V = np.linalg.inv(dense_covariance(points, 1.5, big=1e7, free=free))
    shares = post.prior(1.5)
    A = X.T @ V @ X + np.diag(np.r_[np.zeros(4), shares[TERRAIN], shares[SIDE], shares[10:]])
    beta = np.linalg.solve(A, X.T @ V @ points.z)
    np.testing.assert_allclose(heights.height, beta[:4], rtol=0, atol=1e-4)
    R = points.z @ V @ points.z - beta @ X.T @ V @ points.z
    s2 = R / (points.weight.sum() - 4 - 1)
    np.testing.assert_allclose(heights.covariance, s2 * np.linalg.inv(A)[:4, :4], rtol=1e-3)


def test_the_sigma_of_a_total_deletes_a_pass_at_every_post() -> None:
    def fit(step: float) -> Result:
        points = fixed_post()
        return fit_passes(replace(points, z=points.z + step * points.u))

    results, areas = [fit(0.0), fit(3.0), fit(-2.0)], [1.0, 2.5, 0.5]
    sigma, dof, change = total_sigma(results, areas)
    points = fixed_post()
    assert sorted(change) == list(range(11))
    for g in range(11):
        total = 0.0
        for result, area, step in zip(results, areas, (0.0, 3.0, -2.0), strict=True):
            z = points.z + step * points.u - result.mean
            kept = replace(points, z=z).take(result.kept & (points.label != g))
            total += area * (Post(kept, result.sigma).fit(result.fit.theta).beta[TAU] - result.dhdt)
        assert change[g] == pytest.approx(total, abs=1e-9)
    assert sigma == pytest.approx(np.sqrt(sum(c**2 for c in change.values())))
    assert 1 < dof <= 11
    # The posts share their passes, so their errors do not average out.
    assert sigma > 0.9 * sum(a * r.dhdt_sigma for a, r in zip(areas, results, strict=True))
