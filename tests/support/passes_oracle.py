"""Fit one post by the recipe ``passes``, slowly and literally: the reference of the kernel.

Every quantity is computed from the rows of the points with dense matrices, and every change of the free
passes is a refit: no sum per pass is updated. Points carry ``u, v`` (offsets over the radius), ``tau`` (years from the
reference epoch), ``side`` (+0.5 ascending, -0.5 descending), ``phase`` (years from 1 January), ``z``,
``label`` (the pass) and ``weight``.  A pass crosses the circle in a second: its points have one ``tau`` and
one ``phase``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

Array = NDArray[np.float64]

# Columns of the design: 1, tau, u, v, u2, v2, uv, side, cos, sin, then the user's.
ONE, TAU, TERRAIN, SIDE = 0, 1, slice(2, 7), 7


@dataclass(frozen=True)
class Column:
    """A further column: one value per point and a prior of its coefficient (inf is free)."""

    column: Array
    prior: float = np.inf


@dataclass(frozen=True)
class Points:
    """The points of one post, in the order in which they were read."""

    u: Array
    v: Array
    tau: Array
    side: Array
    phase: Array
    z: Array
    label: NDArray[np.int64]
    radius: float
    weight: Array = field(default_factory=lambda: np.empty(0))
    columns: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.weight):
            object.__setattr__(self, "weight", np.ones(len(self.z)))

    def take(self, chosen: NDArray[np.bool_]) -> Points:
        """Return the chosen points alone."""
        rows = {
            name: getattr(self, name)[chosen]
            for name in ("u", "v", "tau", "side", "phase", "z", "label", "weight")
        }
        columns = tuple(replace(c, column=c.column[chosen]) for c in self.columns)
        return replace(self, **rows, columns=columns)

    def terrain(self) -> Array:
        """Return the columns u, v, u², v², uv."""
        return np.column_stack((self.u, self.v, self.u**2, self.v**2, self.u * self.v))

    def design(self) -> Array:
        """Return every column of the model."""
        season = 2 * np.pi * self.phase
        return np.column_stack(
            (
                np.ones_like(self.z),
                self.tau,
                self.terrain(),
                self.side,
                np.cos(season),
                np.sin(season),
                *(c.column for c in self.columns),
            )
        )


def terrain_prior(radius: float) -> Array:
    """Return the prior standard deviations of u, v, u², v², uv, in metres."""
    return np.array([0.3 * radius] * 2 + [0.5 * 5e-6 * radius**2] * 3)


# --- 1. points --------------------------------------------------------------------------------------


def pass_residuals(points: Points, kept: NDArray[np.bool_], e: Array) -> Array:
    """Return ``e`` less the median of the kept ``e`` of its pass (of all where none is kept)."""
    out = e.copy()
    for g in np.unique(points.label):
        own = points.label == g
        used = own & kept if (own & kept).any() else own
        out[own] = e[own] - np.median(e[used])
    return out


def pooled_sigma(points: Points, kept: NDArray[np.bool_], e: Array) -> float | None:
    """Return sigma from the |e| of passes with two or more kept points, None where they cannot tell."""
    labels, counts = np.unique(points.label[kept], return_counts=True)
    full = labels[counts >= 2]
    sizes = np.sort(np.abs(e[kept & np.isin(points.label, full)]))
    total, m = len(sizes), len(full)
    if total - m < 3:
        return None
    return max(1.4826 * float(sizes[m + (total - m) // 2]), 1e-3)


def fit_terrain(points: Points, kept: NDArray[np.bool_], weight: Array, sigma: float) -> Array:
    """Fit the terrain to deviations from the weighted means of passes; return its coefficients."""
    columns = points.terrain()
    matrix = np.diag((sigma / terrain_prior(points.radius)) ** 2)
    vector = np.zeros(5)
    for g in np.unique(points.label[kept]):
        own = kept & (points.label == g)
        if own.sum() < 2:
            continue
        w = weight[own]
        x = columns[own] - w @ columns[own] / w.sum()
        z = points.z[own] - w @ points.z[own] / w.sum()
        matrix += (x * w[:, None]).T @ x
        vector += (x * w[:, None]).T @ z
    return np.linalg.solve(matrix, vector)


def screen(points: Points) -> tuple[NDArray[np.bool_], float | None]:
    """Return which points step 1 keeps, and its sigma (None where no pass tells it)."""
    every = np.ones(len(points.z), bool)
    e = pass_residuals(points, every, points.z)
    sigma = pooled_sigma(points, every, e)
    if sigma is None:
        return every, None
    for _ in range(2):
        weight = points.weight * sigma / np.maximum(np.abs(e), sigma)
        beta = fit_terrain(points, every, weight, sigma)
        e = pass_residuals(points, every, points.z - points.terrain() @ beta)
        sigma = pooled_sigma(points, every, e)
        assert sigma is not None
    kept = np.abs(e) <= 3 * sigma
    for _ in range(6):
        beta = fit_terrain(points, kept, points.weight, sigma)
        e = pass_residuals(points, kept, points.z - points.terrain() @ beta)
        told = pooled_sigma(points, kept, e)
        if told is None:
            return every, None
        sigma = told
        before, kept = kept, np.abs(e) <= 3 * sigma
        if (before == kept).all():
            break
    return kept, sigma


# --- 2. passes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """One generalised least-squares fit at a given theta and a given set of free passes."""

    theta: float
    free: frozenset[int]
    beta: Array
    inverse: Array
    R: float
    nu: float
    loglik: float


@dataclass(frozen=True)
class Post:
    """The kept points of a post with what stays while theta and the free passes change."""

    points: Points
    sigma: float

    @property
    def labels(self) -> NDArray[np.int64]:
        """The passes with kept points."""
        return np.unique(self.points.label)

    def n(self, g: int) -> float:
        """Return the sum of weights of pass ``g``."""
        return float(self.points.weight[self.points.label == g].sum())

    @property
    def thetas(self) -> Array:
        """The 16 values of theta."""
        mean = self.points.weight.sum() / len(self.labels)
        return np.asarray(0.1 / mean * 10 ** (6 * np.arange(16) / 15))

    def prior(self, theta: float) -> Array:
        """Return sigma²/p² of every column."""
        further = [c.prior for c in self.points.columns]
        p = np.r_[terrain_prior(self.points.radius), further]
        shares = (self.sigma / p) ** 2
        return np.r_[0.0, 0.0, shares[:5], 1 / theta, 4 / theta, 4 / theta, shares[5:]]

    def means(self) -> tuple[Array, Array]:
        """Return the weighted means of the columns, shape (G, p), and of z, shape (G,), of each pass."""
        X, w = self.points.design(), self.points.weight
        rows = [self.points.label == g for g in self.labels]
        m = np.array([w[r] @ X[r] / w[r].sum() for r in rows])
        z = np.array([w[r] @ self.points.z[r] / w[r].sum() for r in rows])
        return m, z

    def fit(self, theta: float, free: frozenset[int] = frozenset()) -> Fit:
        """Fit with the offsets of ``free`` unknown and those of the others drawn from theta·sigma²."""
        p = self.points
        X, w = p.design(), p.weight
        A, b, zz, logs = np.diag(self.prior(theta)), np.zeros(X.shape[1]), 0.0, 0.0
        for g in self.labels:
            own = p.label == g
            x, z, n = X[own], p.z[own], w[own].sum()
            s, sz = w[own] @ x, w[own] @ z
            lam = 1 / n if g in free else theta / (1 + n * theta)
            logs += np.log(n) if g in free else np.log1p(n * theta)
            A += (x * w[own][:, None]).T @ x - lam * np.outer(s, s)
            b += (x * w[own][:, None]).T @ z - lam * s * sz
            zz += float(w[own] @ z**2 - lam * sz**2)
        beta = np.linalg.solve(A, b)
        R = max(zz - float(beta @ b), 0.0)
        nu = float(w.sum()) - (self.prior(theta) == 0).sum() - len(free)
        with np.errstate(divide="ignore"):
            level = nu * np.log(R) + np.linalg.slogdet(A)[1] + logs + 3 * np.log(theta)
        return Fit(theta, free, beta, np.linalg.inv(A), R, nu, -0.5 * float(level))

    def best(self, free: frozenset[int] = frozenset()) -> Fit:
        """Return the fit at the theta of largest likelihood, the smaller theta if equal."""
        return max((self.fit(float(t), free) for t in self.thetas), key=lambda f: f.loglik)

    def influence(self, fit: Fit, g: int) -> tuple[float, float]:
        """Return N_g and D_g of a pass that is not free."""
        own = self.points.label == g
        x, w = self.points.design()[own], self.points.weight[own]
        n, s = w.sum(), w @ x
        f = 1 / (1 + n * fit.theta)
        residual = float(w @ self.points.z[own] - s @ fit.beta)
        return f * residual, float(n * f - f * f * s @ fit.inverse @ s)

    # -- the search for bad passes

    def mark_round(self, theta: float, weight: Array) -> tuple[float, Array]:
        """Return the new theta and every pass's t against the others, for the weights of passes given."""
        p, G = self.points, len(self.labels)
        m, z = self.means()
        n = np.array([self.n(g) for g in self.labels])
        v = theta + 1 / n
        X = p.design()
        A, b = np.diag(self.prior(theta)), np.zeros(X.shape[1])
        for g in range(G):
            own = p.label == self.labels[g]
            w = p.weight[own]
            x = X[own] - m[g]
            A += (x * w[:, None]).T @ x + weight[g] / v[g] * np.outer(m[g], m[g])
            b += (x * w[:, None]).T @ (p.z[own] - z[g]) + weight[g] / v[g] * m[g] * z[g]
        beta = np.linalg.solve(A, b)
        h = np.einsum("gi,ij,gj->g", m, np.linalg.inv(A), m)
        q = np.maximum(1 - weight * h / v, 0.02)
        d = (z - m @ beta) / q
        a = 1 / n + h / q
        theta = max(self.thetas[0], float(np.median(d**2 / (0.455 * self.sigma**2) - a)))
        return theta, np.abs(d) / (self.sigma * np.sqrt(theta + a))

    def mark(self, M: int, weight: Array, soft: int = 0) -> frozenset[int]:
        """Return the M passes that the rounds of marking end with."""
        theta = 100 * self.thetas[0]
        for _ in range(soft):
            theta, t = self.mark_round(theta, weight)
            weight = 1 / np.maximum(t, 1)
        marked: frozenset[int] = frozenset()
        for _ in range(8):
            theta, t = self.mark_round(theta, weight)
            order = np.argsort(-t, kind="stable")[:M]
            before, marked = marked, frozenset(int(self.labels[g]) for g in order)
            weight = np.array([0.0 if g in marked else 1.0 for g in self.labels])
            if marked == before:
                break
        return marked

    def mark_greedily(self, M: int) -> frozenset[int]:
        """Free M passes one after another, each time the one of largest N²/D."""
        free: frozenset[int] = frozenset()
        for _ in range(M):
            fit = self.best(free)
            ratio = {}
            for g in self.labels:
                if g not in free:
                    N, D = self.influence(fit, g)
                    ratio[int(g)] = N * N / D if D > 0 else 0.0
            free |= {max(ratio, key=lambda g: ratio[g])}
        return free

    def take_back(self, free: frozenset[int]) -> Fit:
        """Let the passes go back that are not proven bad; return the fit with the rest free."""
        m, z = self.means()
        place = {int(g): i for i, g in enumerate(self.labels)}
        fit = self.best(free)
        while free:
            t = {}
            for g in free:
                i = place[g]
                h = m[i] @ fit.inverse @ m[i]
                scale = (fit.theta + 1 / self.n(g) + h) * fit.R / fit.nu
                t[g] = abs(z[i] - m[i] @ fit.beta) / np.sqrt(scale) if scale > 0 else 0.0
            least = min(t.values())
            L = len(self.labels) - len(free) + 1
            if least >= 2 and 2 * student.sf(least, L - 3) * L < 0.005:
                break
            free = frozenset(g for g in free if t[g] > max(least, 2))
            fit = self.best(free)
        return fit

    def search(self, formerly: frozenset[int] | None = None) -> Fit:
        """Find the bad passes; ``formerly``: those free at the first time, when this is the second."""
        G = len(self.labels)
        M = max(min(int(0.4 * G), G - 4, int(self.points.weight.sum()) - 5), 0)
        if M == 0:
            return self.best()
        if formerly is not None:
            first = np.array([0.0 if g in formerly else 1.0 for g in self.labels])
            return self.take_back(self.mark(M, first))
        starts = [self.mark(M, np.ones(G))]
        if M <= 8:
            starts += [self.mark(M, np.ones(G), soft=3), self.mark_greedily(M)]
        return self.take_back(max(starts, key=lambda marked: self.best(marked).loglik))


# --- 3. points once more ----------------------------------------------------------------------------


def screen_again(
    points: Points, kept: NDArray[np.bool_], fit: Fit, sigma: float
) -> NDArray[np.bool_]:
    """Return which points step 3 keeps."""
    r = points.z - points.design() @ fit.beta
    out = kept.copy()
    for g in np.unique(points.label):
        own = points.label == g
        used = own & kept
        theta = 1e6 if g in fit.free else fit.theta
        n = points.weight[used].sum()
        offset = theta * (points.weight[used] @ r[used]) / (1 + n * theta)
        bound = np.where(kept[own], 1.0, np.sqrt(1 + theta / (1 + n * theta)))
        out[own] = np.abs(r[own] - offset) <= 3 * sigma * bound
    return out


# --- 4. rate ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What the recipe says about one post; units m and years."""

    fit: Fit
    kept: NDArray[np.bool_]
    sigma: float
    deltas: dict[int, Array]
    mean: float

    @property
    def dhdt(self) -> float:
        return float(self.fit.beta[TAU])

    @property
    def passes(self) -> int:
        return len(self.deltas)

    def jackknife(self, column: int) -> float:
        """Return the standard error of a coefficient by deleting each pass that is not free."""
        return float(np.sqrt(sum(d[column] ** 2 for d in self.deltas.values())))

    @property
    def dhdt_sigma(self) -> float:
        return self.jackknife(TAU)

    @property
    def dhdt_ci95(self) -> float:
        return float(student.ppf(0.975, self.passes - 1)) * self.dhdt_sigma

    @property
    def dhdt_sigma_formal(self) -> float:
        return float(np.sqrt(self.fit.R / self.fit.nu * self.fit.inverse[TAU, TAU]))

    @property
    def elevation(self) -> float:
        return float(self.fit.beta[ONE]) + self.mean

    @property
    def noise_sigma(self) -> float:
        return float(np.sqrt(self.fit.R / self.fit.nu))

    @property
    def pass_offset_sigma(self) -> float:
        return float(np.sqrt(self.fit.theta)) * self.noise_sigma


def deltas(post: Post, fit: Fit) -> dict[int, Array]:
    """Return beta without a pass less beta, for each pass that is not free, by refitting."""
    out = {}
    for g in post.labels:
        if g not in fit.free:
            rest = replace(post, points=post.points.take(post.points.label != g))
            out[int(g)] = rest.fit(fit.theta, fit.free).beta - fit.beta
    return out


def fit_passes(points: Points) -> Result:
    """Fit one post by steps 1 to 4 (gates are the caller's)."""
    mean = float(points.z.mean())
    weight = points.weight / points.weight.mean()
    points = replace(points, z=points.z - mean, weight=weight)
    kept, told = screen(points)
    sigma = 0.3 if told is None else told
    post = Post(points.take(kept), sigma)
    fit = post.search()
    if told is not None:
        again = screen_again(points, kept, fit, sigma)
        if (again != kept).any():
            kept = again
            post = Post(points.take(kept), sigma)
            fit = post.search(fit.free)
    return Result(fit, kept, sigma, deltas(post, fit), mean)


# --- what follows from the same fit -----------------------------------------------------------------


def fit_window(post: Post, fit: Fit, start: float, end: float) -> tuple[Fit, dict[int, Array]]:
    """Refit the passes whose mean time is in [start, end), theta and free passes held; return fit and deltas."""
    times = {g: post.points.tau[post.points.label == g].mean() for g in post.labels}
    chosen = [g for g in post.labels if start <= times[g] < end]
    rest = replace(post, points=post.points.take(np.isin(post.points.label, chosen)))
    free = fit.free & {int(g) for g in chosen}
    window = rest.fit(fit.theta, free)
    return window, deltas(rest, window)


def dense_covariance(
    points: Points, theta: float, big: float = 0.0, free: frozenset[int] = frozenset()
) -> Array:
    """Return V of all points over sigma²: 1/weight, theta within a pass, theta + ``big`` within a free one."""
    same = points.label[:, None] == points.label[None, :]
    level = np.where(np.isin(points.label, list(free)), big, theta)
    return np.diag(1 / points.weight) + np.where(same, level[:, None], 0.0)


@dataclass(frozen=True)
class Heights:
    """Heights of bins relative to the fitted surface, in metres."""

    bins: NDArray[np.int64]
    height: Array
    covariance: Array
    dof: int


def fit_heights(post: Post, fit: Fit, bin_of_pass: dict[int, int]) -> Heights:
    """Return the height of each bin that holds a pass that is not free, by METHOD's formula."""
    p = post.points
    X = np.column_stack((p.terrain(), p.design()[:, SIDE], *(c.column for c in p.columns)))
    shares = post.prior(fit.theta)
    A, b, zz = np.diag(np.r_[shares[TERRAIN], shares[SIDE], shares[10:]]), np.zeros(X.shape[1]), 0.0
    bins: dict[int, list[int]] = {}
    for g in post.labels:
        own = p.label == g
        w, n = p.weight[own], post.n(g)
        s, sz = w @ X[own], w @ p.z[own]
        lam = 1 / n if g in fit.free else fit.theta / (1 + n * fit.theta)
        A += (X[own] * w[:, None]).T @ X[own] - lam * np.outer(s, s)
        b += (X[own] * w[:, None]).T @ p.z[own] - lam * s * sz
        zz += float(w @ p.z[own] ** 2 - lam * sz**2)
        if g not in fit.free:
            bins.setdefault(bin_of_pass[int(g)], []).append(int(g))
    names = sorted(bins)
    W, q, z = np.zeros(len(names)), np.zeros((len(names), X.shape[1])), np.zeros(len(names))
    for k, name in enumerate(names):
        for g in bins[name]:
            own = p.label == g
            f = 1 / (1 + post.n(g) * fit.theta)
            W[k] += f * post.n(g)
            q[k] += f * p.weight[own] @ X[own]
            z[k] += f * p.weight[own] @ p.z[own]
        q[k] /= W[k]
        z[k] /= W[k]
        A -= W[k] * np.outer(q[k], q[k])
        b -= W[k] * q[k] * z[k]
        zz -= W[k] * z[k] ** 2
    beta = np.linalg.solve(A, b)
    free_columns = sum(np.isinf(c.prior) for c in p.columns)
    nu = float(p.weight.sum()) - len(names) - free_columns - len(fit.free)
    s2 = (zz - beta @ b) / nu
    covariance = s2 * (np.diag(1 / W) + q @ np.linalg.inv(A) @ q.T)
    return Heights(np.array(names), z - q @ beta, covariance, len(post.labels) - len(fit.free) - 1)


def total_sigma(
    results: Sequence[Result], areas: Sequence[float]
) -> tuple[float, float, dict[int, float]]:
    """Return sigma, degrees of freedom and deltas of Σ area·dhdt, each pass deleted at all posts at once."""
    change: dict[int, float] = {}
    for result, area in zip(results, areas, strict=True):
        for g, delta in result.deltas.items():
            change[g] = change.get(g, 0.0) + area * float(delta[TAU])
    squares = np.array([c**2 for c in change.values()])
    return float(np.sqrt(squares.sum())), float(squares.sum() ** 2 / (squares**2).sum()), change


def fixed_post(pass_step: float = 0.0, outlier: float = 0.0) -> Points:
    """Return the fixed post of 11 passes, without random numbers, with one bad pass and one outlier, in metres."""
    radius, rows = 2000.0, []
    for g in range(11):
        tau = -4.6 + 0.92 * g + 0.1 * np.sin(5 * g)
        ascending = g % 3 != 1
        azimuth = np.deg2rad(62.0 if ascending else 121.0)
        d = 1500 * np.sin(2.1 * g + 0.3)
        for i in range(2 + 5 * g % 8):
            a = 1200 * np.sin(1.7 * i + g)
            x = a * np.cos(azimuth) - d * np.sin(azimuth)
            y = a * np.sin(azimuth) + d * np.cos(azimuth)
            z = 900 + 0.01 * x - 0.004 * y + 1e-7 * x * y - 0.5 * tau
            z += 0.15 * np.cos(2 * np.pi * tau) + 0.25 * np.sin(97 * g + 1)
            z += (
                0.2 * np.sin(131 * i + 37 * g) + pass_step * (g == 9) + outlier * ((g, i) == (4, 1))
            )
            rows.append((x / radius, y / radius, tau, 0.5 if ascending else -0.5, z, g))
    u, v, tau, side, z, label = (np.array(c) for c in zip(*rows, strict=True))
    return Points(u, v, tau, side, tau, z, label.astype(np.int64), radius)


FIXED_POSTS = {
    # step of pass 9, outlier (m): dhdt, sigma, ci95, passes, free, points, theta, sigma of step 1, elevation
    (0, 0): (
        *(-0.510091284, 0.030225639, 0.067346920, 11, 0, 57),
        *(1.929824561, 0.166117484, 899.979110929),
    ),
    (5, 0): (
        *(-0.522114900, 0.031827477, 0.071998756, 10, 1, 57),
        *(1.929824561, 0.166117484, 899.950200041),
    ),
    (50, 20): (
        *(-0.522516555, 0.031100962, 0.070355263, 10, 1, 56),
        *(1.964285714, 0.166111873, 899.941806115),
    ),
    (0, 20): (
        *(-0.510360544, 0.029842132, 0.066492414, 11, 0, 56),
        *(1.964285714, 0.166111873, 899.971100167),
    ),
}
"""What the definition of the recipe gives for :func:`fixed_post` with a bad pass and an outlier, m and m/yr."""


def points_around(
    frame: pd.DataFrame,
    x: float,
    y: float,
    radius: float,
    epoch: str,
    *,
    weight: Array | None = None,
    columns: Mapping[str, float] | None = None,
) -> Points:
    """Return the points of a table within a radius of a post, as :func:`cryotile.fit_posts` takes them.

    Parameters
    ----------
    frame : DataFrame
        Columns ``x, y, time, elevation, pass_id, ascending``.
    x, y, radius : float
        The circle, metres.
    epoch : str
        Reference epoch.
    weight : ndarray, shape (points,), or None
        Of each point of the table.
    columns : mapping of str to float
        Point column → prior of its coefficient; it is centred on its median.
    """
    inside = ((frame["x"] - x) ** 2 + (frame["y"] - y) ** 2 < radius**2).to_numpy()
    near = frame[inside]
    label = near["pass_id"].to_numpy(np.int64)
    seconds = (near["time"] - pd.Timestamp(epoch)).dt.total_seconds().to_numpy()
    tau = seconds / 31_557_600
    for g in np.unique(label):
        tau[label == g] = tau[label == g].mean()
    january = (pd.Timestamp(epoch) - pd.Timestamp(pd.Timestamp(epoch).year, 1, 1)).total_seconds()
    further = tuple(
        Column(near[name].to_numpy() - np.median(near[name]), prior)
        for name, prior in (columns or {}).items()
    )
    return Points(
        u=((near["x"] - x) / radius).to_numpy(),
        v=((near["y"] - y) / radius).to_numpy(),
        tau=tau,
        side=near["ascending"].to_numpy(np.float64) - 0.5,
        phase=tau + january / 31_557_600,
        z=near["elevation"].to_numpy(),
        label=label,
        radius=radius,
        weight=np.ones(len(near)) if weight is None else weight[inside],
        columns=further,
    )
