/* The points in the circle of a post, found among points sorted into cells. */

enum { MAX_BANDS = 16 }; /* rows of cells that a circle can touch: 2 * CELLS_IN_RADIUS + 2, and a few for rounding */

/* One row of cells under the posts of one y: the circle's half width in it, and the cells it covered last. */
typedef struct {
    double half_width;
    int64_t first, last, low, high;
} Band;

/* Adds the points from..to that lie in the circle; returns the new count.  Each point is written and only a point inside
   advances the count, so that no branch is mispredicted.  The index has room for eight more than there are points. */
INLINE int64_t select_run(const Points *points, const Circle *circle, double r2, int64_t from, int64_t to, int64_t k)
{
#ifdef WITH_AVX512
    const __m512d x0 = _mm512_set1_pd(circle->x), y0 = _mm512_set1_pd(circle->y), most = _mm512_set1_pd(r2);
    for (int64_t i = from; i < to; i += 8) {
        const __mmask8 there = to - i < 8 ? (__mmask8)((1 << (to - i)) - 1) : (__mmask8)0xff;
        const __m512d dx = _mm512_sub_pd(_mm512_maskz_loadu_pd(there, points->x + i), x0);
        const __m512d dy = _mm512_sub_pd(_mm512_maskz_loadu_pd(there, points->y + i), y0);
        const __m512d d2 = _mm512_add_pd(_mm512_mul_pd(dx, dx), _mm512_mul_pd(dy, dy));
        const __mmask8 inside = _mm512_mask_cmp_pd_mask(there, d2, most, _CMP_LT_OQ);
        const __m256i places = _mm256_add_epi32(_mm256_set1_epi32((int)i), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        _mm256_storeu_si256((__m256i *)(circle->index + k), _mm256_maskz_compress_epi32(inside, places));
        k += __builtin_popcount(inside);
    }
#else
    for (int64_t i = from; i < to; i++) {
        const double dx = points->x[i] - circle->x, dy = points->y[i] - circle->y;
        circle->index[k] = (int32_t)i;
        k += dx * dx + dy * dy < r2;
    }
#endif
    return k;
}

/* Returns the first row whose number is at least y. */
static int64_t find_row(const Cells *cells, int64_t y)
{
    int64_t low = 0, high = cells->rows;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (cells->row_y[middle] < y)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Lists the rows of cells that the circles of one row of posts touch; returns their number.  The slack is four times the
   rounding of the largest coordinates that cryotile.fit.posts accepts, so that no point is lost. */
static int find_bands(const Cells *cells, double radius, double y, Band *bands)
{
    const double slack = 4e-6 * radius, reach = radius + slack;
    const int64_t last = (int64_t)floor((y + reach) / cells->size);
    int n = 0;
    for (int64_t row = find_row(cells, (int64_t)floor((y - reach) / cells->size));
         row < cells->rows && cells->row_y[row] <= last && n < MAX_BANDS; row++) {
        const double south = cells->row_y[row] * cells->size;
        const double off = fmax(0, fmax(south - y, y - south - cells->size) - slack);
        bands[n].half_width = sqrt(fmax(0, reach * reach - off * off)) + slack;
        bands[n].first = bands[n].low = bands[n].high = cells->row_start[row];
        bands[n++].last = cells->row_start[row + 1];
    }
    return n;
}

/* Moves the cells low..high under the circle at x, from those of the last post, which are a step or two away. */
INLINE void move_band(const Cells *cells, Band *band, double x)
{
    const int64_t west = (int64_t)floor((x - band->half_width) * cells->per_size);
    const int64_t east = (int64_t)floor((x + band->half_width) * cells->per_size);
    while (band->low < band->last && cells->cell_x[band->low] < west)
        band->low++;
    while (band->low > band->first && cells->cell_x[band->low - 1] >= west)
        band->low--;
    while (band->high < band->last && cells->cell_x[band->high] <= east)
        band->high++;
    while (band->high > band->first && cells->cell_x[band->high - 1] > east)
        band->high--;
}

/* Lists the points of the circle; false: there may be more than there is room for. */
INLINE bool select_points(
    const Points *points, const Cells *cells, double radius, Band *bands, int n_bands, Circle *circle)
{
    int64_t most = 0, k = 0;
    for (int b = 0; b < n_bands; b++) {
        move_band(cells, &bands[b], circle->x);
        most += cells->cell_start[bands[b].high] - cells->cell_start[bands[b].low];
    }
    if (most > circle->room)
        return false;
    for (int b = 0; b < n_bands; b++)
        k = select_run(
            points, circle, radius * radius, cells->cell_start[bands[b].low], cells->cell_start[bands[b].high], k);
    circle->count = k;
    return true;
}
