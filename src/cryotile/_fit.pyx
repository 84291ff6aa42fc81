# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel: least squares at every post of a rectangle, over points sorted into cells.

It reports and never raises; :mod:`cryotile.fit.inputs` and :mod:`cryotile.fit.posts` validate and document.

Invariants
----------
- The result at a post depends only on the points in its circle and their order.  Other points, other posts, their
  numbers and the number of threads do not affect a sum.
- Every level of vector instructions gives the same bits.
"""

import numpy as np

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memset

cdef extern from "kernel/fit.h" nogil:
    ctypedef struct Table:
        const double *x
        const double *y
        const double *elevation
        const int64_t *ticks
        const int64_t *passes
        int64_t count
    ctypedef struct Window:
        double reach, per_size
        int64_t start, end, tick, epoch
        double year
    ctypedef struct Range:
        pass
    ctypedef struct Placed:
        pass
    ctypedef struct Sorted:
        double *x
        double *y
        double *rows
        int32_t *passes
        int32_t *order
        int64_t *row_y
        int64_t *row_start
        int64_t *cell_x
        int64_t *cell_start
        int64_t count, row_count, cell_count
        double extreme
    ctypedef struct Buckets:
        const Range *columns
        const Range *rows
        int64_t column_ranges, row_ranges, column_slots, row_slots
        double x_min, y_min, x_max, y_max
        int64_t *column_starts
        int64_t *row_starts
        int32_t *row_of
        Placed *placed
    int64_t find_ranges(
        const double *posts, int64_t count, const Window *window, Range *ranges, int64_t *slots) noexcept
    void sort_into_cells(const Table *table, const Window *window, Buckets *buckets, Sorted *to) noexcept
    ctypedef struct Year:
        int64_t start, length
    void find_seasons(
        const Year *year, const int64_t *nanoseconds, int64_t count, double *cosines, double *sines) noexcept
    enum:
        CELLS_IN_RADIUS
        MAX_TERMS
        OK
        RATE_OUT_OF_BOUNDS
        TOO_UNCERTAIN
        MODES
        ACCELERATION
        TERRAIN
        SEASONAL
        PLANE_SUMS
    ctypedef struct Term:
        int32_t kind, flag, count, extra, slot, outputs
        double prior
    ctypedef struct Model:
        double radius, min_span, min_tolerance, max_rate, distance_scale
        int32_t min_points, min_passes, modes, extras, slots, terms, majority_mode
        bint plain
        int64_t pass_total
        int32_t point_columns, unknowns
        double max_ci95
        const double *quantiles
        const double *limits
        Term term[12]
    ctypedef struct Work:
        int64_t slots, stride
        double *live
        double *residuals
        int32_t *point
        int64_t *first
        int32_t *count
        int32_t *kept
        int32_t passes
        int32_t *pass_ "pass"
        double *constants
        double *n
        double *t
        double *e
        double *deltas
        uint8_t *free
        double origin, sigma
        double thetas[16]
        double likelihoods[16]
        int32_t best
        double beta[34]
    int64_t lay_out(const Model *model, int64_t points, int64_t passes, double *block, Work *work) noexcept
    ctypedef struct Points:
        const double *x
        const double *y
        const double *rows
        const double *extras
        const double *weights
        const int32_t *passes
        const uint8_t *modes
        const uint8_t *platforms
    ctypedef struct Cells:
        const int64_t *row_y
        const int64_t *row_start
        const int64_t *cell_x
        const int64_t *cell_start
        int64_t rows
        double size, per_size
    ctypedef struct Post:
        pass
    ctypedef struct Circle:
        int64_t room, count
        int32_t *index
        int32_t *point_passes
        int32_t *numbers
        int32_t *codes
        int32_t passes
        double *sums
        uint8_t *pass_seen
        Work work
    ctypedef struct Rate:
        pass
    ctypedef struct Height:
        pass
    ctypedef struct Change:
        pass
    ctypedef struct Posts:
        const double *x
        const double *y
        int64_t nx, ny
        const uint8_t *wanted
        Post *posts
        double *coefficients
        int64_t slots
        const double *windows
        const double *bins
        int64_t window_total, bin_total
        Rate *rates
        Height *heights
        const int32_t *regions
        const double *areas
        double *deltas
        double *departures
        double *changed
        int32_t *rows
        int32_t *row_count
        int64_t depth
        const int32_t *groups
        int64_t group_depth, group_total
        Change *changes
    ctypedef void fit_rows(
        const Points *points, const Cells *cells, const Model *model, Circle *circle, const Posts *posts) noexcept
    int best_level() noexcept
    fit_rows *fit_of_level(int level) noexcept

CELLS_PER_RADIUS = CELLS_IN_RADIUS

SIMD_LEVELS = ("generic", "avx2", "avx512")

POST = np.dtype(
    [
        *[
            (name, np.float64)
            for name in (
                "dhdt", "elevation", "c0", "c1", "dhdt_sigma", "dhdt_sigma_formal", "elevation_sigma",
                "pass_offset_sigma", "noise_sigma",
                "misfit_rms", "centroid_distance", "time_start", "time_end",
            )
        ],
        *[
            (name, np.int32)
            for name in ("data_count", "rejected_count", "pass_count", "free_pass_count", "terms")
        ],
        ("status", np.int8),
    ],
    align=True,
)


WINDOW = np.dtype(
    [
        *[(name, np.float64) for name in ("dhdt", "dhdt_sigma", "dhdt_ci95")],
        ("data_count", np.int32),
        ("pass_count", np.int32),
        ("status", np.int8),
    ],
    align=True,
)

HEIGHT = np.dtype(
    [
        *[(name, np.float64) for name in ("height", "height_sigma", "height_ci95")],
        ("data_count", np.int32),
        ("pass_count", np.int32),
    ],
    align=True,
)

PASS = np.dtype(
    [
        ("code", np.int32), ("points", np.int32), ("kept", np.int32), ("free", bool),
        *[(name, np.float64) for name in ("time", "offset", "t", "delta")],
    ]
)

def find_simd_level():
    return SIMD_LEVELS[best_level()]


def sort_points(
    const double[::1] x,
    const double[::1] y,
    const double[::1] elevation,
    const int64_t[::1] ticks,
    const int64_t[::1] passes,
    *,
    const double[::1] post_x,
    const double[::1] post_y,
    double radius,
    tuple period,
    int64_t tick,
    int64_t epoch,
    double year,
):
    cdef int64_t n = x.shape[0], nx = post_x.shape[0], ny = post_y.shape[0], padded = (n + 8) // 8 * 8
    cdef Table table = Table(&x[0], &y[0], &elevation[0], &ticks[0], &passes[0], n)
    # Slightly more than the radius, so that rounding cannot cut a circle.
    cdef Window window = Window(1.001 * radius, CELLS_IN_RADIUS / radius, period[0], period[1], tick, epoch, year)
    cdef int64_t[:, ::1] ranges = np.empty((nx + ny + 1, 3), np.int64)
    cdef Buckets buckets
    buckets.columns, buckets.rows = <Range *>&ranges[0, 0], <Range *>&ranges[nx, 0]
    buckets.column_ranges = find_ranges(
        &post_x[0], nx, &window, <Range *>&ranges[0, 0], &buckets.column_slots)
    buckets.row_ranges = find_ranges(&post_y[0], ny, &window, <Range *>&ranges[nx, 0], &buckets.row_slots)
    if nx == 0 or ny == 0:
        table.count = 0
    else:
        buckets.x_min, buckets.x_max = post_x[0] - window.reach, post_x[nx - 1] + window.reach
        buckets.y_min, buckets.y_max = post_y[0] - window.reach, post_y[ny - 1] + window.reach
    cdef int64_t[::1] starts = np.empty(buckets.column_slots + buckets.row_slots + 4, np.int64)
    cdef int64_t[:, ::1] row_lists = np.empty((2, min(n, buckets.row_slots) + 1), np.int64)
    buckets.column_starts, buckets.row_starts = &starts[0], &starts[buckets.column_slots + 2]
    # One block: the C library keeps it for the next tile.  Several blocks would go back to the system, whose fresh pages
    # cost more than the sort.
    block = _aligned(padded * 16)
    placed, columns = block[: padded * 6], block[padded * 6 : padded * 10].reshape(4, padded)
    rows, pairs = block[padded * 10 : padded * 14].reshape(padded, 4), block[padded * 14 :].view(np.int32)
    cdef double[::1] places = placed
    cdef double[:, ::1] real = columns, points = rows
    cdef int64_t[:, ::1] whole = columns.view(np.int64)
    cdef int32_t[:, ::1] narrow = pairs.reshape(4, padded)
    buckets.placed, buckets.row_of = <Placed *>&places[0], &narrow[2, 0]
    cdef Sorted to
    to.x, to.y, to.rows, to.passes, to.order = &real[0, 0], &real[1, 0], &points[0, 0], &narrow[0, 0], &narrow[1, 0]
    to.row_y, to.row_start, to.cell_x, to.cell_start = &row_lists[0, 0], &row_lists[1, 0], &whole[2, 0], &whole[3, 0]
    with nogil:
        sort_into_cells(&table, &window, &buckets, &to)
    return to.extreme, (
        pairs[padded : padded + to.count],
        columns[0, : to.count],
        columns[1, : to.count],
        rows[: to.count],
        pairs[: to.count],
        np.asarray(row_lists[0, : to.row_count]),
        np.asarray(row_lists[1, : to.row_count + 1]),
        columns[2, : to.cell_count].view(np.int64),
        columns[3, : to.cell_count + 1].view(np.int64),
    )


def _aligned(int64_t size):
    # Vectors that straddle two cache lines are slow to read and slower to write.
    block = np.empty(size + 8)
    cdef double[::1] view = block
    cdef int64_t start = -(<int64_t>(<size_t>&view[0]) // 8) % 8
    if start < 0:
        start += 8
    return block[start : start + size]


def seasons(const int64_t[::1] nanoseconds, int64_t start, int64_t length):
    cdef int64_t count = nanoseconds.shape[0]
    cdef double[:, ::1] columns = np.empty((2, count))
    cdef Year year = Year(start, length)
    if count:
        with nogil:
            find_seasons(&year, &nanoseconds[0], count, &columns[0, 0], &columns[1, 0])
    return np.asarray(columns)


cdef class Scratch:
    """Work space of one thread: room for the points of a circle, and for all passes."""

    cdef Circle circle
    cdef object keeps

    cdef void take(self, const Model *model, int64_t room):
        cdef int64_t padded = room + 16, passes = model.pass_total
        # The system provides only the pages that circles fill.
        cdef int32_t[:, ::1] points = np.empty((2, padded), np.int32)
        cdef int32_t[:, ::1] numbers = np.full((2, passes + 1), -1, np.int32)
        cdef double[::1] block
        cdef uint8_t[::1] seen = np.zeros(passes + 64, np.uint8)
        if model.plain:
            block = _aligned(PLANE_SUMS * (passes + 1))
            block[:] = 0
            self.circle.sums = &block[0]
        else:
            block = _aligned(lay_out(model, room, passes, NULL, &self.circle.work))
            lay_out(model, room, passes, &block[0], &self.circle.work)
        self.keeps = (points, numbers, block, seen)
        self.circle.room = room
        self.circle.index, self.circle.point_passes = &points[0, 0], &points[1, 0]
        self.circle.numbers, self.circle.codes, self.circle.pass_seen = &numbers[0, 0], &numbers[1, 0], &seen[0]


cdef class Kernel:
    """The points of a tile and the settings of their fit; threads share it."""

    cdef Points points
    cdef Cells cells
    cdef Model model
    cdef fit_rows *fit_posts
    cdef object keeps
    cdef int64_t size, slots

    def __init__(
        self,
        const double[::1] x,
        const double[::1] y,
        const double[:, ::1] rows,
        const int32_t[::1] passes,
        const int64_t[::1] row_y,
        const int64_t[::1] row_start,
        const int64_t[::1] cell_x,
        const int64_t[::1] cell_start,
        *,
        const double[:, ::1] extras,
        const double[::1] weights,
        const uint8_t[::1] modes,
        const uint8_t[::1] platforms,
        terms,
        int slots,
        int64_t pass_total,
        int mode_total,
        double radius,
        double min_span,
        double min_tolerance,
        double max_rate,
        double distance_scale,
        int min_points,
        int min_passes,
        double max_ci95,
        bint plain,
        const double[:, ::1] student,
        int majority_mode,
        str level,
    ):
        cdef int k, constants = SEASONAL + 1
        self.model.point_columns = TERRAIN
        self.keeps = (x, y, rows, passes, row_y, row_start, cell_x, cell_start, extras, weights, modes, platforms, student)
        self.size, self.slots, self.model.slots = x.shape[0], 2 * slots, slots
        self.points = Points(
            &x[0], &y[0], &rows[0, 0], <const double *>NULL, <const double *>NULL, &passes[0],
            <const uint8_t *>NULL, <const uint8_t *>NULL,
        )
        if modes is not None:
            self.points.modes = &modes[0]
        if platforms is not None:
            self.points.platforms = &platforms[0]
        if extras is not None:
            self.points.extras = &extras[0, 0]
        if weights is not None:
            self.points.weights = &weights[0]
        self.cells = Cells(
            &row_y[0], &row_start[0], &cell_x[0], &cell_start[0], row_y.shape[0], radius / CELLS_IN_RADIUS,
            CELLS_IN_RADIUS / radius,
        )
        self.model.radius, self.model.min_span, self.model.min_tolerance = radius, min_span, min_tolerance
        self.model.max_rate, self.model.distance_scale = max_rate, distance_scale
        self.model.min_points, self.model.min_passes, self.model.max_ci95 = min_points, min_passes, max_ci95
        self.model.plain, self.model.modes, self.model.pass_total = plain, mode_total, pass_total
        self.model.terms = len(terms)
        self.model.extras = 0 if extras is None else extras.shape[1]
        self.model.majority_mode = majority_mode
        for k in range(len(terms)):
            (
                self.model.term[k].kind, self.model.term[k].flag, self.model.term[k].count, self.model.term[k].extra,
                self.model.term[k].slot, self.model.term[k].outputs, self.model.term[k].prior,
            ) = terms[k]
            if self.model.term[k].kind >= MODES:
                self.model.point_columns += self.model.term[k].count
            elif self.model.term[k].kind == ACCELERATION:
                constants += 1
        self.model.unknowns = self.model.point_columns + constants
        self.model.quantiles, self.model.limits = &student[0, 0], &student[1, 0]
        self.fit_posts = fit_of_level(SIMD_LEVELS.index(level))

    def fit(
        self,
        const double[::1] post_x,
        const double[::1] post_y,
        const uint8_t[:, ::1] wanted,
        int64_t room,
        *,
        const double[:, ::1] windows=None,
        const double[::1] bins=None,
        const int32_t[:, :, ::1] regions=None,
        const double[:, ::1] areas=None,
        int64_t region_total=0,
        tuple departures=None,
        const int32_t[:, ::1] groups=None,
        int64_t group_total=0,
    ):
        cdef Scratch scratch = Scratch()
        scratch.take(&self.model, min(room, self.size))
        return self._fit(
            scratch, post_x, post_y, wanted, windows, bins, regions, areas, region_total, departures, groups, group_total
        )

    cdef tuple _fit(
        self,
        Scratch scratch,
        const double[::1] post_x,
        const double[::1] post_y,
        const uint8_t[:, ::1] wanted,
        const double[:, ::1] windows,
        const double[::1] bins,
        const int32_t[:, :, ::1] regions,
        const double[:, ::1] areas,
        int64_t region_total,
        tuple departures,
        const int32_t[:, ::1] groups,
        int64_t group_total,
    ):
        cdef int64_t nx = post_x.shape[0], ny = post_y.shape[0], nw, nb
        nw = 0 if windows is None else windows.shape[0]
        nb = 0 if bins is None or bins.shape[0] == 0 else bins.shape[0] - 1
        posts, rates, heights = np.zeros((ny, nx), POST), np.zeros((ny, nx, nw), WINDOW), np.zeros((ny, nx, nb), HEIGHT)
        cdef double[:, :, ::1] coefficients = np.full((ny, nx, self.slots), np.nan)
        cdef double[:, :, :, ::1] changes = np.full((ny, nx, group_total, 2), np.nan)
        cdef double[:, ::1] deltas = np.zeros((region_total, self.model.pass_total + 1))
        cdef uint8_t[:, ::1] post_bytes = posts.view(np.uint8).reshape(ny, -1)
        cdef uint8_t[::1] rate_bytes = rates.view(np.uint8).reshape(-1), height_bytes = heights.view(np.uint8).reshape(-1)
        cdef double[:, :, ::1] departed, changed
        cdef int32_t[:, ::1] rows
        cdef int32_t[::1] row_count
        cdef Posts rectangle
        if nx and ny:
            memset(&rectangle, 0, sizeof(rectangle))
            rectangle.x, rectangle.y, rectangle.nx, rectangle.ny = &post_x[0], &post_y[0], nx, ny
            rectangle.wanted, rectangle.posts, rectangle.slots = &wanted[0, 0], <Post *>&post_bytes[0, 0], self.slots
            rectangle.window_total, rectangle.bin_total = nw, nb
            if self.slots:
                rectangle.coefficients = &coefficients[0, 0, 0]
            if nw:
                rectangle.windows, rectangle.rates = &windows[0, 0], <Rate *>&rate_bytes[0]
            if nb:
                rectangle.bins, rectangle.heights = &bins[0], <Height *>&height_bytes[0]
            if region_total:
                rectangle.regions, rectangle.depth, rectangle.areas = &regions[0, 0, 0], regions.shape[2], &areas[0, 0]
                rectangle.deltas = &deltas[0, 0]
            if region_total and nb and departures is not None:
                departed, changed, rows, row_count = departures
                rectangle.departures, rectangle.changed = &departed[0, 0, 0], &changed[0, 0, 0]
                rectangle.rows, rectangle.row_count = &rows[0, 0], &row_count[0]
            if group_total:
                rectangle.groups, rectangle.group_depth = &groups[0, 0], groups.shape[0]
                rectangle.group_total, rectangle.changes = group_total, <Change *>&changes[0, 0, 0, 0]
            with nogil:
                self.fit_posts(&self.points, &self.cells, &self.model, &scratch.circle, &rectangle)
        more = {"windows": rates, "heights": heights}
        if group_total:
            more["changes"] = np.asarray(changes)
        if region_total:
            more["deltas"] = np.asarray(deltas)
        return posts, np.asarray(coefficients), more

    def explain(self, double x, double y):
        cdef Scratch scratch = Scratch()
        cdef Circle *circle = &scratch.circle
        cdef Work *work = &circle.work
        cdef int64_t g, row, i, slots, last
        cdef double theta = np.nan
        scratch.take(&self.model, self.size)
        posts, _, _ = self._fit(
            scratch, np.array([x]), np.array([y]), np.ones((1, 1), np.uint8), None, None, None, None, 0, None, None, 0
        )
        post = posts[0, 0]
        if circle.count == 0:
            work.slots = work.passes = circle.passes = 0
        last = self.model.unknowns - self.model.point_columns - 1
        fitted = post["status"] in (OK, RATE_OUT_OF_BOUNDS, TOO_UNCERTAIN)
        if fitted:
            theta = work.thetas[work.best]
        passes, slots = np.zeros(circle.passes, PASS), work.slots
        row = 0
        for g in range(len(passes)):
            one = passes[g]
            one["code"], one["points"], one["kept"] = circle.codes[g], work.count[g], work.kept[g]
            one["time"] = work.constants[work.stride * last + g] + work.origin
            one["offset"] = one["t"] = one["delta"] = np.nan
            if work.kept[g] == 0:
                continue
            if fitted:
                one["free"] = work.free[row]
                one["offset"] = work.e[row] * (1 if work.free[row] else work.n[row] * theta / (1 + work.n[row] * theta))
                one["t"], one["delta"] = work.t[row], np.nan if work.free[row] else work.deltas[row]
            row += 1
        order, residuals, kept = np.zeros(slots, np.int32), np.zeros(slots), np.zeros(slots, bool)
        for i in range(slots):
            order[i], residuals[i], kept[i] = work.point[i], work.residuals[i], work.live[i] > 0
        real = order >= 0
        return {
            "post": post,
            "seen": self._seen(x, y),
            "order": order[real],
            "residuals": residuals[real] if fitted else np.full(real.sum(), np.nan),
            "kept": kept[real],
            "passes": passes,
            "thetas": np.array(work.thetas),
            "likelihood": np.array(work.likelihoods) if fitted else np.full(16, np.nan),
            "screen_sigma": work.sigma if slots else np.nan,
        }

    cdef object _seen(self, double x, double y):
        # All points within the radius, before any are cut to the majority of a kind.
        place = np.column_stack([np.asarray(self.keeps[0]) - x, np.asarray(self.keeps[1]) - y])
        return np.flatnonzero(place[:, 0] * place[:, 0] + place[:, 1] * place[:, 1] < self.model.radius**2)
