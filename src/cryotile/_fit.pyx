# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel: least squares at every post of a rectangle, over points sorted into cells.

The kernel reports and never raises; :mod:`cryotile.fit` validates, sorts and documents.

Invariants
----------
- What is written for a post depends on the points in its circle and on their order alone: neither other points, nor
  other posts, nor the number of either reach a sum.
- Every sum runs over points, and over passes, in the order in which the circle gathers them.
- Only ``left_out`` solves; leaving out an empty pass is the fit itself, so fit and jackknife cannot differ.
"""

import numpy as np

from libc.math cimport NAN, floor, fmax, sqrt
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t
from libc.string cimport memset

CELLS_PER_RADIUS = 4  # smaller cells cost more look-ups than the points that they save

cdef enum:
    MAX_BANDS = 16  # rows of cells that a circle can touch: 2 · 4 + 2, and what rounding may add
    MAX_MODES = 16
    MOMENTS = 16    # of a pass: (1, u, v, τ) by (u, v, τ, z)

# A column whose rms spread is under 1e-6 of its scale (radius, year) is constant to rounding.
cdef double LEAST_VARIANCE = 1e-12

# Years, 0.03 s: a span of exactly the least one passes its gate whatever the rounding of two times.
cdef double SPAN_ROUNDING = 1e-9

# Radii.  fit.py refuses coordinates whose rounding exceeds a quarter of it, so that no narrowing loses a point.
cdef double SLACK = 4e-6


cdef enum:  # cryotile.outputs.Status
    OK = 0
    NO_POINTS = 2
    TOO_FEW_POINTS = 3
    TOO_SHORT_SPAN = 4
    TOO_FEW_PASSES = 5
    SINGULAR = 6

cdef enum:  # cryotile.outputs.Term
    MAJORITY_MODE = 1

cdef struct Post:
    double c0, c1, dhdt, elevation
    double dhdt_sigma, dhdt_sigma_formal, elevation_sigma
    double misfit_rms, centroid_distance
    double time_start, time_end
    int32_t data_count, pass_count, terms
    int8_t status

POST = np.dtype(
    [
        *[
            (name, np.float64)
            for name in (
                "c0", "c1", "dhdt", "elevation", "dhdt_sigma", "dhdt_sigma_formal", "elevation_sigma",
                "misfit_rms", "centroid_distance", "time_start", "time_end",
            )
        ],
        *[(name, np.int32) for name in ("data_count", "pass_count", "terms")],
        ("status", np.int8),
    ],
    align=True,
)

cdef struct Gates:
    double radius, min_span, min_tolerance
    int32_t min_points, min_passes

cdef struct Cells:
    # Points row by row of cells: row i holds cells row_start[i]..row_start[i+1], cell j points cell_start[j]..cell_start[j+1].
    const double *points       # (n, 4): x, y, τ, z
    const int32_t *passes
    const uint8_t *modes
    const int64_t *row_y
    const int64_t *row_start
    const int64_t *cell_x
    const int64_t *cell_start
    int64_t rows
    double size

cdef struct Band:
    # One row of cells under the posts of one y: the circle's half width in it, and the cells it covered last.
    double half_width
    int64_t first, last, low, high

cdef struct Circle:
    # The points of one post, contiguous; (n + 1, 4), since the sweep writes one row past those inside.
    double *rows               # u, v, τ, z; from `centre` on, about their means
    int32_t *passes            # code; from `number_passes` on, number within the post
    uint8_t *modes
    int64_t count

cdef struct PassSums:
    double *moments            # (passes, MOMENTS)
    int64_t *counts
    int32_t *number            # pass code → number within the post, −1 elsewhere
    int32_t *codes
    int32_t passes

cdef struct Plane:
    double cu, cv, ct, level   # level: at the post, at τ = 0
    double rate_variance       # of ċ per unit variance of the heights
    bint determined


cdef int64_t find_row(const Cells *cells, int64_t y) noexcept nogil:
    # First row whose cell number is at least y.
    cdef int64_t low = 0, high = cells.rows, middle
    while low < high:
        middle = (low + high) // 2
        if cells.row_y[middle] < y:
            low = middle + 1
        else:
            high = middle
    return low


cdef int find_bands(const Cells *cells, double y, double radius, Band *bands) noexcept nogil:
    # The rows of cells that the circles of one row of posts touch.
    cdef int n = 0
    cdef double slack = SLACK * radius, reach = radius + slack
    cdef int64_t row = find_row(cells, <int64_t>floor((y - reach) / cells.size))
    cdef int64_t last = <int64_t>floor((y + reach) / cells.size)
    cdef double south, off
    while row < cells.rows and cells.row_y[row] <= last and n < MAX_BANDS:
        south = cells.row_y[row] * cells.size
        off = fmax(0.0, fmax(south - y, y - south - cells.size) - slack)
        bands[n].half_width = sqrt(fmax(0.0, reach * reach - off * off)) + slack
        bands[n].first = bands[n].low = bands[n].high = cells.row_start[row]
        bands[n].last = cells.row_start[row + 1]
        n += 1
        row += 1
    return n


cdef void move_band(const Cells *cells, Band *band, double x) noexcept nogil:
    # The cells low..high are those under the circle at x.  They are walked to from the last post's, a step or two away.
    cdef int64_t west = <int64_t>floor((x - band.half_width) / cells.size)
    cdef int64_t east = <int64_t>floor((x + band.half_width) / cells.size)
    while band.low < band.last and cells.cell_x[band.low] < west:
        band.low += 1
    while band.low > band.first and cells.cell_x[band.low - 1] >= west:
        band.low -= 1
    while band.high < band.last and cells.cell_x[band.high] <= east:
        band.high += 1
    while band.high > band.first and cells.cell_x[band.high - 1] > east:
        band.high -= 1


cdef void gather(
    const Cells *cells, const Band *bands, int n_bands, double x, double y, double radius, Circle *circle
) noexcept nogil:
    # Every point seen is written and only those inside advance the count: no branch to mispredict.
    cdef double r2 = radius * radius, scale = 1.0 / radius, dx, dy
    cdef const double *point
    cdef double *row
    cdef int64_t i, k = 0
    cdef int b
    for b in range(n_bands):
        for i in range(cells.cell_start[bands[b].low], cells.cell_start[bands[b].high]):
            point = cells.points + 4 * i
            dx = point[0] - x
            dy = point[1] - y
            row = circle.rows + 4 * k
            row[0] = dx * scale
            row[1] = dy * scale
            row[2] = point[2]
            row[3] = point[3]
            circle.passes[k] = cells.passes[i]
            circle.modes[k] = cells.modes[i]
            k += dx * dx + dy * dy < r2
    circle.count = k


cdef int keep_majority_mode(Circle *circle) noexcept nogil:
    # Returns the flag of what it did.  Ties go to the mode that comes first.
    cdef int64_t counts[MAX_MODES]
    cdef int64_t i, k = 0
    cdef int j, mode, best = 0
    memset(counts, 0, sizeof(counts))
    for i in range(circle.count):
        counts[circle.modes[i]] += 1
    for mode in range(1, MAX_MODES):
        if counts[mode] > counts[best]:
            best = mode
    if counts[best] == circle.count:
        return 0
    for i in range(circle.count):
        for j in range(4):
            circle.rows[4 * k + j] = circle.rows[4 * i + j]
        circle.passes[k] = circle.passes[i]
        k += circle.modes[i] == best
    circle.count = k
    return MAJORITY_MODE


cdef void number_passes(Circle *circle, PassSums *sums) noexcept nogil:
    # Codes become numbers in order of appearance, so that sums and memory follow the post and not the tile.
    cdef int64_t i
    cdef int32_t code, number
    sums.passes = 0
    for i in range(circle.count):
        code = circle.passes[i]
        number = sums.number[code]
        if number < 0:
            number = sums.number[code] = sums.passes
            sums.codes[number] = code
            sums.counts[number] = 0
            sums.passes += 1
        circle.passes[i] = number
        sums.counts[number] += 1
    for number in range(sums.passes):
        sums.number[sums.codes[number]] = -1


cdef void centre(Circle *circle, double *mean) noexcept nogil:
    cdef int64_t i
    cdef int j
    for j in range(4):
        mean[j] = 0
    for i in range(circle.count):
        for j in range(4):
            mean[j] += circle.rows[4 * i + j]
    for j in range(4):
        mean[j] /= circle.count
    for i in range(circle.count):
        for j in range(4):
            circle.rows[4 * i + j] -= mean[j]


cdef void sum_passes(const Circle *circle, PassSums *sums) noexcept nogil:
    # Lanes run over the moments, not over points: each sum has one order, whatever the width of a vector.
    cdef const double *row
    cdef double *m
    cdef double u, v, t
    cdef int64_t i
    cdef int j
    memset(sums.moments, 0, sums.passes * MOMENTS * sizeof(double))
    for i in range(circle.count):
        row = circle.rows + 4 * i
        m = sums.moments + MOMENTS * circle.passes[i]
        u = row[0]
        v = row[1]
        t = row[2]
        for j in range(4):
            m[j] += row[j]
        for j in range(4):
            m[4 + j] += u * row[j]
        for j in range(4):
            m[8 + j] += v * row[j]
        for j in range(4):
            m[12 + j] += t * row[j]


cdef Plane left_out(
    const double *total, const double *part, double n_total, double n_part, const double *mean, double min_tolerance
) noexcept nogil:
    # Centred normal equations of all but `part`, solved by LDLᵀ; the tolerance 1 − R² of column k is 1 / (A_kk A⁻¹_kk).
    cdef Plane plane
    cdef double n = n_total - n_part, least = LEAST_VARIANCE * n_total
    cdef double su = total[0] - part[0], sv = total[1] - part[1], st = total[2] - part[2], sz = total[3] - part[3]
    cdef double mu = su / n, mv = sv / n, mt = st / n, mz = sz / n
    cdef double auu = total[4] - part[4] - su * mu
    cdef double auv = total[5] - part[5] - su * mv
    cdef double aut = total[6] - part[6] - su * mt
    cdef double avv = total[9] - part[9] - sv * mv
    cdef double avt = total[10] - part[10] - sv * mt
    cdef double att = total[14] - part[14] - st * mt
    cdef double bu = total[7] - part[7] - su * mz
    cdef double bv = total[11] - part[11] - sv * mz
    cdef double bt = total[15] - part[15] - st * mz
    cdef double du = 1 / auu
    cdef double lv = auv * du, lt = aut * du
    cdef double dv = 1 / (avv - lv * auv)
    cdef double avt_u = avt - lt * auv
    cdef double ltv = avt_u * dv
    cdef double dt = 1 / (att - lt * aut - ltv * avt_u)
    cdef double ltu = lt - lv * ltv
    cdef double largest
    bv -= lv * bu
    bt -= lt * bu + ltv * bv
    plane.ct = bt * dt
    plane.cv = bv * dv - ltv * plane.ct
    plane.cu = bu * du - lv * plane.cv - lt * plane.ct
    plane.level = (
        mean[3] + mz - plane.cu * (mean[0] + mu) - plane.cv * (mean[1] + mv) - plane.ct * (mean[2] + mt)
    )
    plane.rate_variance = dt
    # Written so that NaN (a constant column divides by zero) is not determined.
    largest = 1 / min_tolerance
    plane.determined = (
        n >= 4 and auu > least and avv > least and att > least
        and dv > 0 and dt > 0
        and auu * (du + lv * lv * dv + ltu * ltu * dt) <= largest
        and avv * (dv + ltv * ltv * dt) <= largest
        and att * dt <= largest
    )
    return plane


cdef void jackknife(
    const PassSums *sums, const double *total, double n, const double *mean, double min_tolerance, const Plane *fit, Post *post
) noexcept nogil:
    # A pass without which the fit is not determined carries it alone: its error cannot be told, and sigma stays NaN.
    cdef Plane plane
    cdef double rate = 0, level = 0, difference
    cdef double factor = (sums.passes - 1.0) / sums.passes
    cdef int32_t g
    if sums.passes < 2:
        return
    for g in range(sums.passes):
        plane = left_out(total, sums.moments + MOMENTS * g, n, sums.counts[g], mean, min_tolerance)
        if not plane.determined:
            return
        difference = plane.ct - fit.ct
        rate += difference * difference
        difference = plane.level - fit.level
        level += difference * difference
    post.dhdt_sigma = sqrt(factor * rate)
    post.elevation_sigma = sqrt(factor * level)


cdef double residual_sum_of_squares(const Circle *circle, const Plane *fit) noexcept nogil:
    # From residuals, not from moments: exact data would lose half their digits in the difference.
    cdef const double *row
    cdef double residual, rss = 0
    cdef int64_t i
    for i in range(circle.count):
        row = circle.rows + 4 * i
        residual = row[3] - fit.cu * row[0] - fit.cv * row[1] - fit.ct * row[2]
        rss += residual * residual
    return rss


cdef void find_span(const Circle *circle, Post *post) noexcept nogil:
    cdef double t, first = circle.rows[2], last = first
    cdef int64_t i
    for i in range(circle.count):
        t = circle.rows[4 * i + 2]
        first = t if t < first else first
        last = t if t > last else last
    post.time_start = first
    post.time_end = last


cdef void fit_plane(const Circle *circle, PassSums *sums, const Gates *gates, const double *mean, Post *post) noexcept nogil:
    cdef double total[MOMENTS]
    cdef double nothing[MOMENTS]
    cdef double n = circle.count, rss
    cdef Plane fit
    cdef int32_t g
    cdef int j
    memset(total, 0, sizeof(total))
    memset(nothing, 0, sizeof(nothing))
    sum_passes(circle, sums)
    for g in range(sums.passes):
        for j in range(MOMENTS):
            total[j] += sums.moments[MOMENTS * g + j]
    fit = left_out(total, nothing, n, 0, mean, gates.min_tolerance)
    if not fit.determined:
        post.status = SINGULAR
        return
    post.status = OK
    post.c0 = fit.cu
    post.c1 = fit.cv
    post.dhdt = fit.ct
    post.elevation = fit.level
    rss = residual_sum_of_squares(circle, &fit)
    post.misfit_rms = sqrt(rss / n)
    if n > 4:
        post.dhdt_sigma_formal = sqrt(rss / (n - 4) * fit.rate_variance)
    post.centroid_distance = gates.radius * sqrt(mean[0] * mean[0] + mean[1] * mean[1])
    jackknife(sums, total, n, mean, gates.min_tolerance, &fit, post)


cdef void fit_circle(Circle *circle, PassSums *sums, const Gates *gates, bint one_mode, Post *post) noexcept nogil:
    # Gates in the order of their cost; the first that fails is the status.
    cdef double mean[4]
    if not one_mode:
        post.terms = keep_majority_mode(circle)
    post.data_count = <int32_t>circle.count
    if circle.count == 0:
        post.status = NO_POINTS
        return
    find_span(circle, post)
    number_passes(circle, sums)
    post.pass_count = sums.passes
    if circle.count < gates.min_points:
        post.status = TOO_FEW_POINTS
    elif post.time_end - post.time_start < gates.min_span - SPAN_ROUNDING:
        post.status = TOO_SHORT_SPAN
    elif sums.passes < gates.min_passes:
        post.status = TOO_FEW_PASSES
    else:
        centre(circle, mean)
        fit_plane(circle, sums, gates, mean, post)


cdef void clear(Post *post) noexcept nogil:
    post.c0 = post.c1 = post.dhdt = post.elevation = NAN
    post.dhdt_sigma = post.dhdt_sigma_formal = post.elevation_sigma = NAN
    post.misfit_rms = post.centroid_distance = post.time_start = post.time_end = NAN
    post.data_count = post.pass_count = post.terms = 0
    post.status = NO_POINTS


cdef void fit_rows(
    const Cells *cells, const double[::1] post_x, const double[::1] post_y,
    const Gates *gates, bint one_mode, Circle *circle, PassSums *sums, Post[:, ::1] posts
) noexcept nogil:
    cdef Band bands[MAX_BANDS]
    cdef int n_bands, b
    cdef Py_ssize_t i, j
    for j in range(post_y.shape[0]):
        n_bands = find_bands(cells, post_y[j], gates.radius, bands)
        for i in range(post_x.shape[0]):
            for b in range(n_bands):
                move_band(cells, &bands[b], post_x[i])
            gather(cells, bands, n_bands, post_x[i], post_y[j], gates.radius, circle)
            clear(&posts[j, i])
            fit_circle(circle, sums, gates, one_mode, &posts[j, i])


def fit_plane_posts(
    const double[:, ::1] points,
    const int32_t[::1] passes,
    const uint8_t[::1] modes,
    const int64_t[::1] row_y,
    const int64_t[::1] row_start,
    const int64_t[::1] cell_x,
    const int64_t[::1] cell_start,
    const double[::1] post_x,
    const double[::1] post_y,
    *,
    int pass_total,
    bint one_mode,
    double cell_size,
    double radius,
    double min_span,
    double min_tolerance,
    int min_points,
    int min_passes,
):
    cdef int64_t n = points.shape[0]
    result = np.empty((post_y.shape[0], post_x.shape[0]), dtype=POST)
    cdef Post[:, ::1] posts = result
    cdef double[:, ::1] circle_rows = np.empty((n + 1, 4))
    cdef int32_t[::1] circle_passes = np.empty(n + 1, dtype=np.int32)
    cdef uint8_t[::1] circle_modes = np.empty(n + 1, dtype=np.uint8)
    cdef double[:, ::1] moments = np.empty((pass_total + 1, MOMENTS))
    cdef int64_t[::1] counts = np.empty(pass_total + 1, dtype=np.int64)
    cdef int32_t[::1] numbers = np.full(pass_total + 1, -1, dtype=np.int32)
    cdef int32_t[::1] codes = np.empty(pass_total + 1, dtype=np.int32)
    cdef Cells cells = Cells(
        &points[0, 0], &passes[0], &modes[0], &row_y[0], &row_start[0], &cell_x[0], &cell_start[0],
        row_y.shape[0], cell_size,
    )
    cdef Gates gates = Gates(radius, min_span, min_tolerance, min_points, min_passes)
    cdef Circle circle = Circle(&circle_rows[0, 0], &circle_passes[0], &circle_modes[0], 0)
    cdef PassSums sums = PassSums(&moments[0, 0], &counts[0], &numbers[0], &codes[0], 0)
    with nogil:
        fit_rows(&cells, post_x, post_y, &gates, one_mode, &circle, &sums, posts)
    return result
