"""Heights of a region by refitting every post without each pass, with dense matrices: the reference of their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tests.support.passes_oracle import ONE, SIDE, TAU, TERRAIN, Points, Post, fit_passes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Departures:
    """The rate of a post, how far its heights are from its straight line, and both without each pass.

    Attributes
    ----------
    rate, level : float
        m/yr, and the height at the reference epoch, m.
    rates : mapping of int to float
        Change of the rate without a pass.
    seen : mapping of int to float
        Departure of the height of each bin from the straight line at the time that the same equations give it, m.
    changes : mapping of int to mapping
        Its change without a pass, reduced by the leverage of the pass.
    lost : mapping of int to int
        The bin that a pass alone has seen.
    """

    rate: float
    level: float
    rates: Mapping[int, float]
    seen: Mapping[int, float]
    changes: Mapping[int, Mapping[int, float]]
    lost: Mapping[int, int]


def precision(points: Points, theta: float, free: frozenset[int]) -> Array:
    """Return the inverse of the covariance of points over sigma², passes of unknown offset in the limit."""
    inverse = np.diag(points.weight)
    for g in np.unique(points.label):
        own = np.where(points.label == g, points.weight, 0.0)
        share = 1 / own.sum() if g in free else theta / (1 + own.sum() * theta)
        inverse -= share * np.outer(own, own)
    return inverse


def bins_and_terrain(
    post: Post, theta: float, free: frozenset[int], bins: Array
) -> tuple[NDArray[np.int64], Array, Array]:
    """Return the bins that passes which are not free hold, and the equations of them and of the terrain, on whose right
    stand heights and times."""
    points = post.points
    place = np.digitize(points.tau, bins) - 1
    bound = ~np.isin(points.label, list(free))
    names = np.unique(place[bound])
    held = (place[:, None] == names) & bound[:, None]
    design = np.column_stack((held, points.terrain(), points.design()[:, SIDE]))
    weighed = design.T @ precision(points, theta, free)
    prior = post.prior(theta)
    own = np.r_[np.zeros(names.size), prior[TERRAIN], prior[SIDE]]
    return names, weighed @ design + np.diag(own), weighed @ np.column_stack((points.z, points.tau))


def departures(points: Points, bins: Array) -> Departures:
    """Fit a post, and fit it again without the points of each pass; theta, the prior and the free passes are kept."""
    result = fit_passes(points)
    shifted = replace(points, z=points.z - result.mean)
    post = Post(shifted.take(result.kept), result.sigma)
    fit = result.fit
    names, equations, right = bins_and_terrain(post, fit.theta, fit.free, bins)
    solved, times = np.linalg.solve(equations, right).T
    level = fit.beta[ONE]
    seen = {
        int(b): float(solved[k] - level - fit.beta[TAU] * times[k]) for k, b in enumerate(names)
    }
    rates, changes, lost = {}, {}, {}
    for g, delta in result.deltas.items():
        rest = replace(post, points=post.points.take(post.points.label != g))
        left, without, right = bins_and_terrain(rest, fit.theta, fit.free, bins)
        again, times_again = np.linalg.solve(without, right).T
        stays = np.r_[np.isin(names, left), np.ones(len(equations) - names.size, bool)]
        # What is left of the equations if a bin that is lost has any height.
        inner, across = equations[np.ix_(stays, stays)], equations[np.ix_(stays, ~stays)]
        inner = inner - across @ np.linalg.solve(equations[np.ix_(~stays, ~stays)], across.T)
        change = again - solved[stays] - fit.beta[TAU] * (times_again - times[stays])
        reduction = np.sqrt(change @ without @ change / (change @ inner @ change))
        rates[g] = float(delta[TAU])
        moved = delta[ONE] + delta[TAU] * times_again
        changes[g] = {int(b): reduction * change[k] - moved[k] for k, b in enumerate(left)}
        for b in np.setdiff1d(names, left).tolist():
            lost[g] = b
            line = delta[ONE] + delta[TAU] * times[: names.size][names == b][0]
            both = seen[b] * (seen[b] - line)
            kept = np.sign(seen[b]) * np.sqrt(both) if both > 0 else seen[b]
            changes[g][b] = -kept - line
    return Departures(float(fit.beta[TAU]), result.elevation, rates, seen, changes, lost)


def region_heights(
    posts: Sequence[Departures], areas: Sequence[float], bins: Array
) -> tuple[Array, dict[int, Array]]:
    """Return the height of a region in each bin, and by how much each pass changes it, as the product defines them."""
    middles, total = (bins[:-1] + bins[1:]) / 2, sum(areas)
    height = np.full(middles.size, np.nan)
    change = {g: np.full(middles.size, np.nan) for post in posts for g in post.rates}
    pairs = list(zip(posts, areas, strict=True))
    for b, tau in enumerate(middles):
        seen = [(post, a) for post, a in pairs if b in post.seen]
        area = sum(a for _, a in seen)
        alone = {g: sum(a for p, a in seen if p.lost.get(g) == b) for g in change}
        if not seen or max(alone.values()) > area * (1 - 1e-9):
            continue
        mean = sum(a * post.seen[b] for post, a in seen) / area
        height[b] = sum(a * post.rate for post, a in pairs) * tau + total * mean
        for g in change:
            moved = sum(
                a * (post.changes[g][b] + (mean if post.lost.get(g) == b else 0.0))
                for post, a in seen
                if g in post.changes
            )
            rate = sum(a * post.rates.get(g, 0.0) for post, a in pairs)
            left = area - alone[g]
            change[g][b] = rate * tau + total * moved / left * np.sqrt(left / area)
    return height, change
