/* Departures of heights from the straight line of the fit, summed over the posts of regions, and by how much they change
   when a pass is left out; theta, the prior and the free passes are those of the whole fit.

   The equations of heights are those of z less the rate times the time, so that a bin whose passes are not about its
   middle is not off; they are also solved for the time, T_w, that a bin's height belongs to. */

/* Returns x' A x of a symmetric matrix. */
INLINE double quadratic(int n, const double *a, const double *x)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++)
            sum += (i == j ? 1 : 2) * a[triangle(i, j)] * x[i] * x[j];
    return sum;
}

/* Returns a value less the columns times their coefficients. */
INLINE double residual_of(int n, const double *columns, double value, const double *beta)
{
    double residual = value;
    for (int i = 0; i < n; i++)
        residual -= columns[i] * beta[i];
    return residual;
}

/* The solution for departures, or for times. */
typedef struct {
    double beta[MAX_UNKNOWNS];
} Terrain;

/* Solves the equations with the row `last` on their right. */
static Terrain solve_terrain(int n, const double *equations, const double *prior, int last)
{
    double a[MAX_PRODUCTS], inverse[MAX_UNKNOWNS];
    Terrain found;
    memcpy(a, equations, triangle(n, 0) * sizeof *a);
    memcpy(a + triangle(n, 0), equations + triangle(last, 0), (n + 1) * sizeof *a);
    eliminate_one(n, a, prior, LEAST_VARIANCE, inverse);
    for (int k = n - 1; k >= 0; k--) {
        found.beta[k] = a[triangle(n, k)];
        for (int i = k + 1; i < n; i++)
            found.beta[k] -= a[triangle(i, k)] * found.beta[i];
    }
    return found;
}

/* Puts z less the rate times the time in the place of z, and fills the departures of the bins and their times. */
static Terrain find_departures(const Model *model, Work *work, BinEquations *of, double level)
{
    const int z = model->point_columns + 1;
    const double rate = work->beta[model->unknowns - 1];
    Terrain terrain, times;
    for (int j = 0; j <= z; j++)
        of->a[triangle(z, j)] -= rate * of->a[triangle(z + 1, j)];
    for (int32_t k = 0; k < of->used; k++)
        work->bins[work->stride * z + k] -= rate * work->bins[work->stride * (z + 1) + k];
    terrain = solve_terrain(z, of->a, of->prior, z);
    times = solve_terrain(z, of->a, of->prior, z + 1);
    for (int32_t k = 0; k < of->used; k++) {
        work->departures[k] = work->bins[work->stride * z + k] - level - rate * work->origin;
        work->bin_times[k] = work->bins[work->stride * (z + 1) + k] + work->origin;
    }
    for (int i = 0; i < z; i++)
        for (int32_t k = 0; k < of->used; k++) {
            work->departures[k] -= work->bins[work->stride * i + k] * terrain.beta[i];
            work->bin_times[k] -= work->bins[work->stride * i + k] * times.beta[i];
        }
    return terrain;
}

/* Fills by how much the departures of the bins change without a pass of the bin `own`, which holds others, at the rate
   of the whole fit, and the times of the bins then; `own` negative: it is of no bin, or alone in its bin.

   A jackknife is too large where a pass determines much: the change d = A_g^-1 u of the coefficients, where u is what the
   residuals of the pass add to the equations A and A_g is A without the pass, has under equal variances too much by
   1/(1 - leverage).  Times the root of d'A_g d / d'A d, the share that is not the leverage of the pass in the
   direction of d, its square has the expectation of that of the error (as HC2 has: MacKinnon and White 1985, Journal
   of Econometrics 29, 305).  Of a mean of bins alone that is 1 - W_g / W_w. */
static void leave_out_of_bins(
    const Model *model, Work *work, const BinEquations *from, const Terrain *whole, int32_t row, int32_t own)
{
    const int q = model->point_columns, z = q + 1;
    const double weight = 1 / (from->theta + 1 / work->n[row]), all_weight = own < 0 ? 0 : work->bin_weights[own];
    const double share = own < 0 ? 0 : weight / (all_weight - weight);
    double a[MAX_PRODUCTS], change[MAX_UNKNOWNS], off[MAX_UNKNOWNS + 2] = {0}, before, after, most, factor;
    Terrain terrain, times;
    memcpy(a, from->a, triangle(z + 2, 0) * sizeof *a);
    for (int i = 0; i <= q; i++)
        for (int j = 0; j <= i; j++)
            a[triangle(i < q ? i : z, j < q ? j : z)] -= work->within[work->stride * triangle(i, j) + row];
    for (int i = 0; own >= 0 && i <= z + 1; i++)
        off[i] = work->means[work->stride * height_column(model, i) + row];
    off[z] -= work->beta[model->unknowns - 1] * off[z + 1];
    for (int i = 0; own >= 0 && i <= z + 1; i++)
        off[i] -= work->bins[work->stride * i + own];
    for (int i = 0; i <= z + 1; i++)
        for (int j = 0; j <= i; j++)
            a[triangle(i, j)] -= share * all_weight * off[i] * off[j];
    terrain = solve_terrain(z, a, from->prior, z);
    times = solve_terrain(z, a, from->prior, z + 1);
    for (int i = 0; i < z; i++)
        change[i] = terrain.beta[i] - whole->beta[i];
    before = share * residual_of(z, off, off[z], whole->beta);
    after = share * residual_of(z, off, off[z], terrain.beta);
    most = all_weight * after * after + quadratic(z, from->a, change);
    factor = (all_weight - weight) * before * before * (own >= 0) + quadratic(z, a, change);
    factor = most > 0 ? sqrt(fmin(fmax(factor, 0) / most, 1)) : 1;
    for (int32_t k = 0; k < from->used; k++) {
        work->changes[k] = 0;
        work->times_without[k] = work->bins[work->stride * (z + 1) + k] + work->origin;
    }
    for (int i = 0; i < z; i++)
        for (int32_t k = 0; k < from->used; k++) {
            work->changes[k] -= work->bins[work->stride * i + k] * (factor * change[i]);
            work->times_without[k] -= work->bins[work->stride * i + k] * times.beta[i];
        }
    if (own >= 0) {
        work->changes[own] -= factor * after;
        work->times_without[own] -= share * residual_of(z, off, off[z + 1], times.beta);
    }
}

/* Returns the residual of a height about the fit without its pass, likewise reduced: the mean of that with and of that
   without the pass, if the fit is pulled towards the height. */
INLINE double reduced(double with, double without)
{
    return with * without > 0 ? (with > 0 ? 1 : -1) * sqrt(with * without) : with;
}

/* Adds the changes to the sums of a pass in a region; a post loses its departure in the bin `alone` (negative: none). */
static void add_changes(
    const Model *model, const Circle *circle, const Posts *posts, int64_t at, int32_t region, int32_t row, int32_t used,
    int32_t alone)
{
    const Work *const work = &circle->work;
    int32_t *const place = posts->rows + model->pass_total * (int64_t)region + circle->codes[work->pass[row]];
    const double area = posts->areas[at];
    double *to;
    if (*place < 0)
        *place = (*posts->row_count)++;
    to = posts->changed + 2 * posts->bin_total * (int64_t)*place;
    for (int32_t k = 0; k < used; k++) {
        const double time = k == alone ? work->bin_times[k] : work->times_without[k];
        const double line = work->level_deltas[row] + work->deltas[row] * time;
        const double height = k == alone ? -reduced(work->departures[k], work->departures[k] - line) : work->changes[k];
        to[work->bin_places[k]] += area * (height - line);
    }
    if (alone >= 0)
        to[posts->bin_total + work->bin_places[alone]] += area;
}

/* Whether a post is in a region. */
INLINE bool in_region(const Posts *posts, int64_t at)
{
    bool any = false;
    for (int64_t k = posts->depth * at; k < posts->depth * (at + 1); k++)
        any |= posts->regions[k] >= 0;
    return any;
}

/* Adds the departures of a post and their changes to the sums of its regions. */
static void add_heights_to_totals(
    const Model *model, Circle *circle, BinEquations *from, const Posts *posts, int64_t at)
{
    Work *const work = &circle->work;
    const Height *const heights = posts->heights + posts->bin_total * at;
    const int32_t *const regions = posts->regions + posts->depth * at;
    const double level = posts->posts[at].elevation - work->level;
    const Terrain whole = find_departures(model, work, from, level);
    int32_t bin = 0;
    for (int32_t k = 0; k < from->used; k++)
        for (int64_t d = 0; d < posts->depth; d++) {
            double *const to = posts->departures + 2 * posts->bin_total * (int64_t)regions[d] + work->bin_places[k];
            if (regions[d] < 0)
                continue;
            to[0] += posts->areas[at] * work->departures[k];
            to[posts->bin_total] += posts->areas[at];
        }
    for (int32_t k = 0; k < work->passes; k++) {
        const int32_t row = work->list[k];
        int32_t own;
        bool alone;
        if (work->free[row])
            continue;
        while (bin < from->used && !(work->times[k] < posts->bins[work->bin_places[bin] + 1]))
            bin++;
        /* Rounding may put a pass at the end of the period into no bin. */
        own = bin < from->used && work->times[k] >= posts->bins[work->bin_places[bin]] ? bin : -1;
        alone = own >= 0 && heights[work->bin_places[own]].pass_count == 1;
        leave_out_of_bins(model, work, from, &whole, row, alone ? -1 : own);
        for (int64_t d = 0; d < posts->depth; d++)
            if (regions[d] >= 0)
                add_changes(model, circle, posts, at, regions[d], row, from->used, alone ? own : -1);
    }
}
