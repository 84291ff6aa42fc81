"""Fits with numba over points sorted into a list of cells, against which `fit_posts` is timed.

None of them knows of passes: they give the coefficients, the formal sigma and the misfit, and no jackknife.
"""

from __future__ import annotations

import math

import numba
import numpy as np

PARAMETERS = 8  # 1, u, v, τ, u², v², uv, direction
MAX_ROUNDS = 5


def cell_list(
    x: np.ndarray, y: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray, int, int, float, float]:
    """Sort points into a dense list of cells: their order, where each cell begins, and the cells' shape and corner."""
    x0, y0 = x.min(), y.min()
    column, row = ((x - x0) / size).astype(np.int64), ((y - y0) / size).astype(np.int64)
    nx, ny = int(column.max()) + 1, int(row.max()) + 1
    number = row * nx + column
    order = np.argsort(number, kind="stable")
    start = np.zeros(nx * ny + 1, np.int64)
    np.cumsum(np.bincount(number, minlength=nx * ny), out=start[1:])
    return order, start, nx, ny, x0, y0


@numba.njit(cache=True)
def solve(a: np.ndarray, b: np.ndarray, n: int) -> bool:
    """Overwrite b with the solution, and the lower triangle of a with the factor of Cholesky."""
    for j in range(n):
        for k in range(j):
            a[j, j] -= a[j, k] * a[j, k]
        if a[j, j] <= 1e-10:
            return False
        a[j, j] = math.sqrt(a[j, j])
        for i in range(j + 1, n):
            for k in range(j):
                a[i, j] -= a[i, k] * a[j, k]
            a[i, j] /= a[j, j]
    for i in range(n):
        for k in range(i):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= a[k, i] * b[k]
        b[i] /= a[i, i]
    return True


@numba.njit(cache=True)
def variance(a: np.ndarray, n: int, column: int) -> float:
    """Return one diagonal element of the inverse, from the factor of `solve`."""
    total = 0.0
    w = np.zeros(n)
    w[column] = 1.0
    for i in range(column, n):
        for k in range(column, i):
            w[i] -= a[i, k] * w[k]
        w[i] /= a[i, i]
        total += w[i] * w[i]
    return total


@numba.njit(cache=True)
def plane(x, y, t, z, start, nx, ny, x0, y0, size, post_x, post_y, radius, out):
    """Fit a plane at each post: a branch per point, no fastmath."""
    for j in range(post_y.size):
        for i in range(post_x.size):
            a, b = np.zeros((4, 4)), np.zeros(4)
            row = np.empty(4)
            zz = 0.0
            n = 0
            origin = np.nan
            low = max(0, int((post_y[j] - radius - y0) // size))
            high = min(ny - 1, int((post_y[j] + radius - y0) // size))
            left = max(0, int((post_x[i] - radius - x0) // size))
            right = min(nx - 1, int((post_x[i] + radius - x0) // size))
            for cy in range(low, high + 1):
                for p in range(start[cy * nx + left], start[cy * nx + right + 1]):
                    dx, dy = x[p] - post_x[i], y[p] - post_y[j]
                    if dx * dx + dy * dy < radius * radius:
                        if n == 0:
                            origin = z[p]
                        row[0], row[1], row[2], row[3] = 1.0, dx / radius, dy / radius, t[p]
                        h = z[p] - origin
                        for k in range(4):
                            b[k] += row[k] * h
                            for m in range(k + 1):
                                a[k, m] += row[k] * row[m]
                        zz += h * h
                        n += 1
            out[j, i] = np.nan
            if n >= 5:
                scores = b.copy()
                if solve(a, b, 4):
                    rss = zz
                    for k in range(4):
                        rss -= b[k] * scores[k]
                    out[j, i, 0] = b[3]
                    out[j, i, 1] = b[0] + origin
                    out[j, i, 2] = math.sqrt(max(rss, 0.0) / (n - 4) * variance(a, 4, 3))
                    out[j, i, 3] = n


@numba.njit(cache=True, fastmath=True)
def sweep(x, y, t, z, first, last, px, py, radius, origin, sums):
    """Add one run of points to 15 sums, those outside with weight 0: one loop that becomes vectors."""
    r2, per_radius = radius * radius, 1 / radius
    n = su = sv = st = sz = suu = suv = sut = suz = svv = svt = svz = stt = stz = szz = 0.0
    for p in range(first, last):
        dx, dy = x[p] - px, y[p] - py
        w = 1.0 if dx * dx + dy * dy < r2 else 0.0
        u, v, tau, h = w * dx * per_radius, w * dy * per_radius, w * t[p], w * (z[p] - origin)
        n += w
        su += u
        sv += v
        st += tau
        sz += h
        suu += u * u
        suv += u * v
        sut += u * tau
        suz += u * h
        svv += v * v
        svt += v * tau
        svz += v * h
        stt += tau * tau
        stz += tau * h
        szz += h * h
    for k, s in enumerate((n, su, sv, st, sz, suu, suv, sut, suz, svv, svt, svz, stt, stz, szz)):
        sums[k] += s


@numba.njit(cache=True)
def best_plane(x, y, t, z, start, nx, ny, x0, y0, size, post_x, post_y, radius, out):
    """Fit a plane at each post by masked sums with fastmath, each row of cells cut to the width of the circle."""
    a, b, scores, sums = np.empty((4, 4)), np.empty(4), np.empty(4), np.empty(15)
    for j in range(post_y.size):
        low = max(0, int((post_y[j] - radius - y0) // size))
        high = min(ny - 1, int((post_y[j] + radius - y0) // size))
        for i in range(post_x.size):
            sums[:] = 0
            origin = np.nan
            for cy in range(low, high + 1):
                south = y0 + cy * size
                off = max(0.0, south - post_y[j], post_y[j] - south - size)
                half = math.sqrt(max(0.0, radius * radius - off * off))
                left = max(0, int((post_x[i] - half - x0) // size))
                right = min(nx - 1, int((post_x[i] + half - x0) // size))
                first, last = start[cy * nx + left], start[cy * nx + right + 1]
                if first < last:
                    if math.isnan(origin):
                        origin = z[first]
                    sweep(x, y, t, z, first, last, post_x[i], post_y[j], radius, origin, sums)
            out[j, i] = np.nan
            n = sums[0]
            if n >= 5:
                a[0, 0], a[1, 0], a[2, 0], a[3, 0] = n, sums[1], sums[2], sums[3]
                a[1, 1], a[2, 1], a[3, 1] = sums[5], sums[6], sums[7]
                a[2, 2], a[3, 2], a[3, 3] = sums[9], sums[10], sums[12]
                b[0], b[1], b[2], b[3] = sums[4], sums[8], sums[11], sums[13]
                scores[:] = b
                if solve(a, b, 4):
                    rss = sums[14]
                    for k in range(4):
                        rss -= b[k] * scores[k]
                    out[j, i, 0] = b[3]
                    out[j, i, 1] = b[0] + origin
                    out[j, i, 2] = math.sqrt(max(rss, 0.0) / (n - 4) * variance(a, 4, 3))
                    out[j, i, 3] = n


@numba.njit(cache=True)
def robust(x, y, t, z, d, start, nx, ny, x0, y0, size, post_x, post_y, radius, out):
    """Fit 8 parameters at each post with at most five rounds of 3 × 1.4826 × MAD, points coming back, formal sigma."""
    m = PARAMETERS
    for j in range(post_y.size):
        for i in range(post_x.size):
            found = np.empty((64, m))
            heights = np.empty(64)
            n = 0
            low = max(0, int((post_y[j] - radius - y0) // size))
            high = min(ny - 1, int((post_y[j] + radius - y0) // size))
            left = max(0, int((post_x[i] - radius - x0) // size))
            right = min(nx - 1, int((post_x[i] + radius - x0) // size))
            for cy in range(low, high + 1):
                for p in range(start[cy * nx + left], start[cy * nx + right + 1]):
                    dx, dy = x[p] - post_x[i], y[p] - post_y[j]
                    if dx * dx + dy * dy < radius * radius:
                        if n == heights.size:
                            more, higher = np.empty((2 * n, m)), np.empty(2 * n)
                            more[:n], higher[:n] = found, heights
                            found, heights = more, higher
                        u, v = dx / radius, dy / radius
                        row = found[n]
                        row[0], row[1], row[2], row[3] = 1.0, u, v, t[p]
                        row[4], row[5], row[6], row[7] = u * u, v * v, u * v, d[p]
                        heights[n] = z[p]
                        n += 1
            out[j, i] = np.nan
            if n < 20:
                continue
            origin = heights[0]
            kept = np.ones(n, np.bool_)
            residuals = np.empty(n)
            a, b = np.empty((m, m)), np.empty(m)
            good = True
            for _ in range(MAX_ROUNDS + 1):
                a[:], b[:] = 0.0, 0.0
                for p in range(n):
                    if kept[p]:
                        h = heights[p] - origin
                        for k in range(m):
                            b[k] += found[p, k] * h
                            for q in range(k + 1):
                                a[k, q] += found[p, k] * found[p, q]
                good = solve(a, b, m)
                if not good:
                    break
                for p in range(n):
                    model = origin
                    for k in range(m):
                        model += found[p, k] * b[k]
                    residuals[p] = heights[p] - model
                centre = np.median(residuals[kept])
                limit = 3 * max(1e-3, 1.4826 * np.median(np.abs(residuals[kept] - centre)))
                changed = False
                for p in range(n):
                    keep = abs(residuals[p] - centre) <= limit
                    changed |= keep != kept[p]
                    kept[p] = keep
                if not changed:
                    break
            if good:
                rss, count = 0.0, 0
                for p in range(n):
                    if kept[p]:
                        rss += residuals[p] * residuals[p]
                        count += 1
                out[j, i, 0] = b[3]
                out[j, i, 1] = b[0] + origin
                out[j, i, 2] = math.sqrt(rss / max(count - m, 1) * variance(a, m, 3))
                out[j, i, 3] = count
