# cython: language_level=3
"""The points in the circle of a post, found among points sorted into cells."""

from libc.math cimport floor, fmax, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t

cdef enum:
    CELLS_IN_RADIUS = 4  # smaller cells cost more look-ups than the points that they save
    MAX_BANDS = 16       # rows of cells that a circle can touch: 2 · 4 + 2, and what rounding may add

cdef struct Cells:
    # As cryotile.cells.Cells.
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
    # The points of one post, by their place among all, in the order of the cells.
    double x, y, radius
    int64_t *index             # one longer than there are points, since the sweep writes one past those inside
    int64_t count


cdef inline int64_t find_row(const Cells *cells, int64_t y) noexcept nogil:
    # First row whose number is at least y.
    cdef int64_t low = 0, high = cells.rows, middle
    while low < high:
        middle = (low + high) // 2
        if cells.row_y[middle] < y:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline int find_bands(const Cells *cells, const Circle *circle, Band *bands) noexcept nogil:
    # The rows of cells that the circles of one row of posts touch.  The slack is four times the rounding of the largest
    # coordinates that cryotile.fit lets in, so that no narrowing loses a point.
    cdef int n = 0
    cdef double slack = 4e-6 * circle.radius, reach = circle.radius + slack
    cdef int64_t row = find_row(cells, <int64_t>floor((circle.y - reach) / cells.size))
    cdef int64_t last = <int64_t>floor((circle.y + reach) / cells.size)
    cdef double south, off
    while row < cells.rows and cells.row_y[row] <= last and n < MAX_BANDS:
        south = cells.row_y[row] * cells.size
        off = fmax(0.0, fmax(south - circle.y, circle.y - south - cells.size) - slack)
        bands[n].half_width = sqrt(fmax(0.0, reach * reach - off * off)) + slack
        bands[n].first = bands[n].low = bands[n].high = cells.row_start[row]
        bands[n].last = cells.row_start[row + 1]
        n += 1
        row += 1
    return n


cdef inline void move_band(const Cells *cells, Band *band, double x) noexcept nogil:
    # The cells low..high are those under the circle at x, walked to from those of the last post, a step or two away.
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


cdef inline void select_points(const Cells *cells, const Band *bands, int n_bands, Circle *circle) noexcept nogil:
    # Every point seen is written and only those inside advance the count: no branch to mispredict.
    cdef double r2 = circle.radius * circle.radius, dx, dy
    cdef int64_t i, k = 0
    cdef int b
    for b in range(n_bands):
        for i in range(cells.cell_start[bands[b].low], cells.cell_start[bands[b].high]):
            dx = cells.points[4 * i] - circle.x
            dy = cells.points[4 * i + 1] - circle.y
            circle.index[k] = i
            k += dx * dx + dy * dy < r2
    circle.count = k
