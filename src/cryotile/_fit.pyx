# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel: least squares at every post of a rectangle, over points sorted into cells.

The kernel reports and never raises; :mod:`cryotile.fit` validates, sorts and documents.

Invariants
----------
- What is written for a post depends on the points in its circle and on their order alone: neither other points, nor
  other posts, nor the number of either reach a sum.
- Every sum runs over points, and over passes, in the order in which the circle meets them.
- Only ``left_out`` solves; leaving out nothing is the fit itself, so fit and jackknife cannot differ.
"""

import numpy as np

from libc.math cimport INFINITY, NAN, sqrt
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t
from libc.string cimport memset

from cryotile._circle cimport (
    CELLS_IN_RADIUS, MAX_BANDS, Band, Cells, Circle, find_bands, move_band, select_points,
)

cdef extern from "_moments.h" nogil:
    void sum_moments(
        const double *points, const int64_t *index, const int32_t *passes, int64_t count,
        const double *origin, const double *scale, double *moments, double *span,
    ) noexcept

CELLS_PER_RADIUS = CELLS_IN_RADIUS

cdef enum:
    MAX_MODES = 16

cdef enum:  # cryotile.outputs.Status
    OK = 0
    NO_POINTS = 2
    TOO_FEW_POINTS = 3
    TOO_SHORT_SPAN = 4
    TOO_FEW_PASSES = 5
    SINGULAR = 6

cdef enum:  # cryotile.outputs.Term
    MAJORITY_MODE = 1

cdef enum:  # places among the moments of a pass, as _moments.h leaves them; VU is UV again
    U, V, T, Z, UU, UV, UT, UZ, VU, VV, VT, VZ, TT, TZ, ZZ, N, MOMENTS

# A column whose rms spread is under 1e-6 of its scale (radius, year) is constant to rounding.
cdef double LEAST_VARIANCE = 1e-12

# Years, 0.03 s: a span of exactly the least one passes its gate whatever the rounding of two times.
cdef double SPAN_ROUNDING = 1e-9

# Share of the variance below which what moments leave to residuals has too few digits.
cdef double LEAST_MISFIT = 1e-6

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
    double min_span, min_tolerance
    int32_t min_points, min_passes

cdef struct Sums:
    # Moments are about `origin`, a place, time and height amid the points, in units of radius, radius, year, metre.
    double origin[4]
    double total[MOMENTS]
    double span[2]             # first and last time, years
    double *moments            # (passes, MOMENTS)
    int32_t *codes             # (passes,)
    int32_t *numbers           # pass code → its number within the post, −1 elsewhere
    int32_t *point_passes      # number of each point's pass
    int32_t passes

cdef struct Plane:
    double cu, cv, ct, level   # level: at the post, at τ = 0
    double rate_variance       # of ct per unit variance of the heights
    double rss                 # residual sum of squares, to LEAST_MISFIT
    double tss                 # total sum of squares
    bint determined


cdef int keep_majority_mode(const uint8_t *modes, Circle *circle) noexcept nogil:
    # Returns the flag of what it did.  Ties go to the mode that comes first.
    cdef int64_t counts[MAX_MODES]
    cdef int64_t i, k = 0
    cdef int mode, best = 0
    memset(counts, 0, sizeof(counts))
    for i in range(circle.count):
        counts[modes[circle.index[i]]] += 1
    for mode in range(1, MAX_MODES):
        if counts[mode] > counts[best]:
            best = mode
    if counts[best] == circle.count:
        return 0
    for i in range(circle.count):
        circle.index[k] = circle.index[i]
        k += modes[circle.index[k]] == best
    circle.count = k
    return MAJORITY_MODE


cdef void find_origin(const Cells *cells, const Circle *circle, double *origin) noexcept nogil:
    # The mean of up to 16 of the points.  Anywhere amid the points would do: moments about such an origin lose at most a
    # factor n of precision when they are centred, those about the post lose all of it where the points lie close together.
    cdef int64_t taken = min(circle.count, <int64_t>16), i
    cdef int j
    for j in range(4):
        origin[j] = 0
    for i in range(taken):
        for j in range(4):
            origin[j] += cells.points[4 * circle.index[i * circle.count // taken] + j]
    for j in range(4):
        origin[j] /= taken


cdef void number_passes(const Cells *cells, const Circle *circle, Sums *sums) noexcept nogil:
    # Codes become numbers in order of appearance, so that sums and memory follow the post and not the tile.
    cdef int64_t i
    cdef int32_t code, number, passes = 0
    for i in range(circle.count):
        code = cells.passes[circle.index[i]]
        number = sums.numbers[code]
        if number < 0:
            number = sums.numbers[code] = passes
            sums.codes[number] = code
            passes += 1
        sums.point_passes[i] = number
    for number in range(passes):
        sums.numbers[sums.codes[number]] = -1
    sums.passes = passes


cdef void sum_passes(const Cells *cells, const Circle *circle, Sums *sums) noexcept nogil:
    cdef double scale[4]
    cdef int32_t g
    cdef int j
    scale[0] = scale[1] = 1 / circle.radius
    scale[2] = scale[3] = 1
    number_passes(cells, circle, sums)
    find_origin(cells, circle, sums.origin)
    sums.span[0] = INFINITY
    sums.span[1] = -INFINITY
    memset(sums.moments, 0, sums.passes * MOMENTS * sizeof(double))
    sum_moments(
        cells.points, circle.index, sums.point_passes, circle.count, sums.origin, scale, sums.moments, sums.span
    )
    memset(sums.total, 0, sizeof(sums.total))
    for g in range(sums.passes):
        for j in range(MOMENTS):
            sums.total[j] += sums.moments[MOMENTS * g + j]


cdef inline Plane left_out(
    const Sums *sums, const double *part, const Circle *circle, double min_tolerance
) noexcept nogil:
    # Centred normal equations of all but `part`, solved by LDLᵀ; the tolerance 1 − R² of column k is 1 / (A_kk A⁻¹_kk).
    cdef Plane plane
    cdef double m[MOMENTS]
    cdef double per_n, per_radius = 1 / circle.radius, least = LEAST_VARIANCE * circle.count
    cdef double auu, auv, aut, avv, avt, att, bu, bv, bt, du, dv, dt, lv, lt, ltv, ltu
    cdef int j
    for j in range(MOMENTS):
        m[j] = sums.total[j] - part[j]
    per_n = 1 / m[N]
    auu = m[UU] - m[U] * m[U] * per_n
    auv = m[UV] - m[U] * m[V] * per_n
    aut = m[UT] - m[U] * m[T] * per_n
    avv = m[VV] - m[V] * m[V] * per_n
    avt = m[VT] - m[V] * m[T] * per_n
    att = m[TT] - m[T] * m[T] * per_n
    bu = m[UZ] - m[U] * m[Z] * per_n
    bv = m[VZ] - m[V] * m[Z] * per_n
    bt = m[TZ] - m[T] * m[Z] * per_n
    du = 1 / auu
    lv = auv * du
    lt = aut * du
    dv = 1 / (avv - lv * auv)
    avt -= lt * auv
    ltv = avt * dv
    dt = 1 / (att - lt * aut - ltv * avt)
    bv -= lv * bu
    bt -= lt * bu + ltv * bv
    plane.ct = bt * dt
    plane.cv = bv * dv - ltv * plane.ct
    plane.cu = bu * du - lv * plane.cv - lt * plane.ct
    plane.level = (
        sums.origin[3] + m[Z] * per_n
        - plane.cu * ((sums.origin[0] - circle.x) * per_radius + m[U] * per_n)
        - plane.cv * ((sums.origin[1] - circle.y) * per_radius + m[V] * per_n)
        - plane.ct * (sums.origin[2] + m[T] * per_n)
    )
    plane.rate_variance = dt
    plane.tss = m[ZZ] - m[Z] * m[Z] * per_n
    plane.rss = plane.tss - bu * bu * du - bv * bv * dv - bt * bt * dt
    ltu = lt - lv * ltv
    # Written so that NaN, which a constant column brings, is not determined.
    plane.determined = (
        m[N] >= 4 and auu > least and avv > least and att > least and dv > 0 and dt > 0
        and auu * (du + lv * lv * dv + ltu * ltu * dt) * min_tolerance <= 1
        and avv * (dv + ltv * ltv * dt) * min_tolerance <= 1
        and att * dt * min_tolerance <= 1
    )
    return plane


cdef void jackknife(
    const Sums *sums, const Circle *circle, double min_tolerance, const Plane *fit, Post *post
) noexcept nogil:
    # A pass without which the fit is not determined carries it alone: its error cannot be told, and sigma stays NaN.
    cdef Plane plane
    cdef double rate = 0, level = 0, difference
    cdef double factor = (sums.passes - 1.0) / sums.passes
    cdef int32_t g
    if sums.passes < 2:
        return
    for g in range(sums.passes):
        plane = left_out(sums, sums.moments + MOMENTS * g, circle, min_tolerance)
        if not plane.determined:
            return
        difference = plane.ct - fit.ct
        rate += difference * difference
        difference = plane.level - fit.level
        level += difference * difference
    post.dhdt_sigma = sqrt(factor * rate)
    post.elevation_sigma = sqrt(factor * level)


cdef double sum_residuals(
    const Cells *cells, const Circle *circle, const Sums *sums, const Plane *fit
) noexcept nogil:
    cdef double cx = fit.cu / circle.radius, cy = fit.cv / circle.radius, rss = 0, residual
    cdef double mean = (
        sums.total[Z] - fit.cu * sums.total[U] - fit.cv * sums.total[V] - fit.ct * sums.total[T]
    ) / circle.count
    cdef const double *point
    cdef int64_t i
    for i in range(circle.count):
        point = cells.points + 4 * circle.index[i]
        residual = (
            (point[3] - sums.origin[3]) - mean
            - cx * (point[0] - sums.origin[0])
            - cy * (point[1] - sums.origin[1])
            - fit.ct * (point[2] - sums.origin[2])
        )
        rss += residual * residual
    return rss


cdef void fit_plane(
    const Cells *cells, const Circle *circle, const Sums *sums, const Gates *gates, Post *post
) noexcept nogil:
    cdef double nothing[MOMENTS]
    cdef double n = circle.count, rss, dx, dy
    cdef Plane fit
    memset(nothing, 0, sizeof(nothing))
    fit = left_out(sums, nothing, circle, gates.min_tolerance)
    if not fit.determined:
        post.status = SINGULAR
        return
    post.status = OK
    post.c0 = fit.cu
    post.c1 = fit.cv
    post.dhdt = fit.ct
    post.elevation = fit.level
    rss = fit.rss if fit.rss > LEAST_MISFIT * fit.tss else sum_residuals(cells, circle, sums, &fit)
    post.misfit_rms = sqrt(rss / n)
    if n > 4:
        post.dhdt_sigma_formal = sqrt(rss / (n - 4) * fit.rate_variance)
    dx = sums.origin[0] - circle.x + circle.radius * sums.total[U] / n
    dy = sums.origin[1] - circle.y + circle.radius * sums.total[V] / n
    post.centroid_distance = sqrt(dx * dx + dy * dy)
    jackknife(sums, circle, gates.min_tolerance, &fit, post)


cdef void fit_circle(
    const Cells *cells, Circle *circle, Sums *sums, const Gates *gates, bint one_mode, Post *post
) noexcept nogil:
    # The first gate that fails is the status.
    if not one_mode:
        post.terms = keep_majority_mode(cells.modes, circle)
    post.data_count = <int32_t>circle.count
    if circle.count == 0:
        return
    sum_passes(cells, circle, sums)
    post.time_start = sums.span[0]
    post.time_end = sums.span[1]
    post.pass_count = sums.passes
    if circle.count < gates.min_points:
        post.status = TOO_FEW_POINTS
    elif post.time_end - post.time_start < gates.min_span - SPAN_ROUNDING:
        post.status = TOO_SHORT_SPAN
    elif sums.passes < gates.min_passes:
        post.status = TOO_FEW_PASSES
    else:
        fit_plane(cells, circle, sums, gates, post)


cdef void clear(Post *post) noexcept nogil:
    post.c0 = post.c1 = post.dhdt = post.elevation = NAN
    post.dhdt_sigma = post.dhdt_sigma_formal = post.elevation_sigma = NAN
    post.misfit_rms = post.centroid_distance = post.time_start = post.time_end = NAN
    post.data_count = post.pass_count = post.terms = 0
    post.status = NO_POINTS


cdef void fit_rows(
    const Cells *cells, const double[::1] post_x, const double[::1] post_y,
    const Gates *gates, bint one_mode, Circle *circle, Sums *sums, Post[:, ::1] posts
) noexcept nogil:
    cdef Band bands[MAX_BANDS]
    cdef int n_bands, b
    cdef Py_ssize_t i, j
    for j in range(post_y.shape[0]):
        circle.y = post_y[j]
        n_bands = find_bands(cells, circle, bands)
        for i in range(post_x.shape[0]):
            circle.x = post_x[i]
            for b in range(n_bands):
                move_band(cells, &bands[b], circle.x)
            select_points(cells, bands, n_bands, circle)
            clear(&posts[j, i])
            fit_circle(cells, circle, sums, gates, one_mode, &posts[j, i])


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
    cdef int64_t[::1] index = np.empty(n + 1, dtype=np.int64)
    cdef int32_t[::1] point_passes = np.empty(n + 1, dtype=np.int32)
    cdef double[:, ::1] moments = np.empty((pass_total + 1, MOMENTS))
    cdef int32_t[::1] codes = np.empty(pass_total + 1, dtype=np.int32)
    cdef int32_t[::1] numbers = np.full(pass_total + 1, -1, dtype=np.int32)
    cdef Cells cells = Cells(
        &points[0, 0], &passes[0], &modes[0], &row_y[0], &row_start[0], &cell_x[0], &cell_start[0],
        row_y.shape[0], cell_size,
    )
    cdef Gates gates = Gates(min_span, min_tolerance, min_points, min_passes)
    cdef Circle circle = Circle(0, 0, radius, &index[0], 0)
    cdef Sums sums
    sums.moments = &moments[0, 0]
    sums.codes = &codes[0]
    sums.numbers = &numbers[0]
    sums.point_passes = &point_passes[0]
    with nogil:
        fit_rows(&cells, post_x, post_y, &gates, one_mode, &circle, &sums, posts)
    return result
