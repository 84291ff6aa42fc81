# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel: least squares at every post of a rectangle, over points sorted into cells.

It reports and never raises; :mod:`cryotile.fit` validates, sorts and documents.

Invariants
----------
- What is written for a post depends on the points in its circle and on their order alone: neither other points, nor
  other posts, nor the number of either or of threads reach a sum.
- Every level of vector instructions gives the same bits.
"""

import numpy as np

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

from cryotile._circle cimport (
    CELLS_IN_RADIUS, MAX_BANDS, Band, Cells, Circle, find_bands, move_band, select_points,
)

cdef extern from "_levels.h" nogil:
    enum:
        MAX_COLUMNS
        MAX_TERMS
    ctypedef struct Term:
        int32_t kind, flag, first, count, extra, slot
    ctypedef struct Model:
        double radius, min_span, min_tolerance, max_rate, distance_scale
        int32_t min_points, min_passes, rejects, plain, quads, extras, terms, majority_mode, majority_platform
        Term term[12]
    ctypedef struct Points:
        const double *points
        const double *extras
        const double *weights
        const int32_t *passes
        const uint8_t *modes
        const uint8_t *platforms
    ctypedef struct Post:
        pass
    ctypedef struct Work "Circle":
        double x, y
        int64_t *index
        int64_t count
        int64_t *order
        double *rows
        double *weights
        double *residuals
        double *keys
        uint8_t *kept
        int32_t *point_passes
        int32_t *numbers
        int32_t *codes
        int64_t *starts
        double *sums
        double *medians
        double *factors
        uint8_t *pass_kept
    ctypedef void circle_fit(const Points *points, const Model *model, Work *circle, Post *post) noexcept
    int best_level() noexcept
    circle_fit *fit_of_level(int level) noexcept

CELLS_PER_RADIUS = CELLS_IN_RADIUS

SIMD_LEVELS = ("generic", "avx2", "avx512")

POST = np.dtype(
    [
        *[
            (name, np.float64)
            for name in (
                "dhdt", "elevation", "c0", "c1", "dhdt_sigma", "dhdt_sigma_formal", "elevation_sigma",
                "misfit_rms", "centroid_distance", "time_start", "time_end",
            )
        ],
        ("coefficients", np.float64, (MAX_COLUMNS,)),
        *[
            (name, np.int32)
            for name in ("data_count", "rejected_count", "pass_count", "rejected_pass_count", "terms")
        ],
        ("status", np.int8),
    ],
    align=True,
)


def find_simd_level():
    return SIMD_LEVELS[best_level()]


cdef void fit_rows(
    const Cells *cells, const Points *points, const double[::1] post_x, const double[::1] post_y,
    const Model *model, circle_fit *fit, Circle *circle, Work *work,
    const uint8_t[:, ::1] wanted, uint8_t[:, ::1] posts, int64_t size
) noexcept nogil:
    cdef Band bands[MAX_BANDS]
    cdef int n_bands, b
    cdef Py_ssize_t i, j
    for j in range(post_y.shape[0]):
        circle.y = work.y = post_y[j]
        n_bands = find_bands(cells, circle, bands)
        for i in range(post_x.shape[0]):
            if not wanted[j, i]:
                continue
            circle.x = work.x = post_x[i]
            for b in range(n_bands):
                move_band(cells, &bands[b], circle.x)
            select_points(cells, bands, n_bands, circle)
            work.count = circle.count
            fit(points, model, work, <Post *>&posts[j, i * size])


def fit_at_posts(
    const double[:, ::1] points,
    const double[:, ::1] extras,
    const double[::1] weights,
    const int32_t[::1] passes,
    const uint8_t[::1] modes,
    const uint8_t[::1] platforms,
    const int64_t[::1] row_y,
    const int64_t[::1] row_start,
    const int64_t[::1] cell_x,
    const int64_t[::1] cell_start,
    const double[::1] post_x,
    const double[::1] post_y,
    const uint8_t[:, ::1] wanted,
    *,
    terms,
    int columns,
    int pass_total,
    double cell_size,
    double radius,
    double min_span,
    double min_tolerance,
    double max_rate,
    double distance_scale,
    int min_points,
    int min_passes,
    bint rejects,
    bint plain,
    int majority_mode,
    int majority_platform,
    str level,
):
    cdef int64_t n = points.shape[0], padded = n + 16
    cdef int32_t quads = (columns + 3) // 4, k
    cdef int64_t sums_size = 4 * (1 + quads + 2 * quads * (quads + 1))
    result = np.zeros((post_y.shape[0], post_x.shape[0]), dtype=POST)
    cdef uint8_t[:, ::1] posts = result.view(np.uint8).reshape(post_y.shape[0], -1)
    # Pages that no circle fills are never touched.
    cdef int64_t[::1] index = np.empty(padded, dtype=np.int64)
    cdef int64_t[::1] order = np.empty(padded, dtype=np.int64)
    cdef double[::1] rows = np.empty(padded * 4 * quads)
    cdef double[:, ::1] columns_of_points = np.empty((3, padded))
    cdef uint8_t[::1] kept = np.empty(padded, dtype=np.uint8)
    cdef int32_t[::1] point_passes = np.empty(padded, dtype=np.int32)
    cdef int32_t[::1] numbers = np.full(pass_total + 1, -1, dtype=np.int32)
    cdef int32_t[::1] codes = np.empty(pass_total + 1, dtype=np.int32)
    cdef int64_t[::1] starts = np.empty(pass_total + 2, dtype=np.int64)
    cdef double[::1] sums = np.empty((pass_total + 1) * sums_size)
    cdef double[:, ::1] of_passes = np.empty((3, 2 * pass_total + 32))
    cdef uint8_t[::1] pass_kept = np.empty(pass_total + 1, dtype=np.uint8)
    cdef Cells cells = Cells(
        &points[0, 0], &passes[0], &modes[0], &row_y[0], &row_start[0], &cell_x[0], &cell_start[0],
        row_y.shape[0], cell_size,
    )
    cdef Points all_points
    all_points.points = &points[0, 0]
    all_points.extras = &extras[0, 0]
    all_points.weights = &weights[0]
    all_points.passes = &passes[0]
    all_points.modes = &modes[0]
    all_points.platforms = &platforms[0]
    cdef Model model
    model.radius, model.min_span, model.min_tolerance = radius, min_span, min_tolerance
    model.max_rate, model.distance_scale = max_rate, distance_scale
    model.min_points, model.min_passes, model.rejects = min_points, min_passes, rejects
    model.plain = plain
    model.quads, model.extras, model.terms = quads, extras.shape[1], len(terms)
    model.majority_mode, model.majority_platform = majority_mode, majority_platform
    for k in range(len(terms)):
        (
            model.term[k].kind, model.term[k].flag, model.term[k].first, model.term[k].count,
            model.term[k].extra, model.term[k].slot,
        ) = terms[k]
    cdef Circle circle = Circle(0, 0, radius, &index[0], 0)
    cdef Work work
    work.index, work.order = &index[0], &order[0]
    work.rows = &rows[0]
    work.weights, work.residuals, work.keys = (
        &columns_of_points[0, 0], &columns_of_points[1, 0], &columns_of_points[2, 0]
    )
    work.kept = &kept[0]
    work.point_passes = &point_passes[0]
    work.numbers, work.codes, work.starts = &numbers[0], &codes[0], &starts[0]
    work.sums = &sums[0]
    work.medians, work.factors = &of_passes[0, 0], &of_passes[2, 0]
    work.pass_kept = &pass_kept[0]
    cdef circle_fit *fit = fit_of_level(SIMD_LEVELS.index(level))
    cdef int64_t size = POST.itemsize
    if post_x.shape[0] and post_y.shape[0]:
        with nogil:
            fit_rows(&cells, &all_points, post_x, post_y, &model, fit, &circle, &work, wanted, posts, size)
    return result
