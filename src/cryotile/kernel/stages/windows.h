/* Rates in windows of time, from the same sums: theta, the prior and the free passes are those of the whole fit. */

/* The time of a pass, years from the reference epoch. */
INLINE double time_of(const Model *model, const Work *work, int32_t row)
{
    return work->means[work->stride * (model->unknowns - 1) + row] + work->origin;
}

/* Lists the passes by time, the earlier one of equals first (Shell's sort), and fills their times. */
static void sort_by_time(const Model *model, Work *work)
{
    int32_t *const list = work->list, gap = 1;
    for (int32_t row = 0; row < work->passes; row++)
        list[row] = row;
    while (gap < work->passes / 3)
        gap = 3 * gap + 1;
    for (; gap > 0; gap /= 3)
        for (int32_t k = gap; k < work->passes; k++) {
            const int32_t row = list[k];
            const double time = time_of(model, work, row);
            int32_t to = k;
            for (; to >= gap; to -= gap) {
                const double other = time_of(model, work, list[to - gap]);
                if (other < time || (other == time && list[to - gap] < row))
                    break;
                list[to] = list[to - gap];
            }
            list[to] = row;
        }
    for (int32_t k = 0; k < work->passes; k++)
        work->times[k] = time_of(model, work, list[k]);
}

/* Fills, by time, what each pass that is not free adds to the equations, and sums of what all passes before one add; of
   each place also the number of points and of passes that are not free before it. */
static void sum_by_time(const Model *model, Work *work, double theta)
{
    const int q = model->point_columns, n = model->unknowns;
    const int64_t stride = work->stride + 8;
    for (int i = 0; i <= n; i++)
        for (int j = 0; j <= i; j++) {
            const double *const a = work->means + work->stride * i, *const b = work->means + work->stride * j;
            const bool inner = (i < q || i == n) && (j < q || j == n);
            const double *const within = work->within + work->stride * triangle(i < q ? i : q, j < q ? j : q);
            double *const before = work->before + stride * triangle(i, j), sum = 0;
            double *part = work->parts + stride * triangle(i, j);
            for (int32_t k = 0; k < work->passes; k++) {
                const int32_t row = work->list[k];
                const bool counts = !work->free[row];
                const double own = (inner ? within[row] : 0) + (counts ? a[row] * b[row] / (theta + 1 / work->n[row]) : 0);
                before[k] = sum;
                sum += own;
                *part = own;
                part += counts;
            }
            before[work->passes] = sum;
            for (int k = 0; k < 8; k++)
                part[k] = 0;
        }
    work->points_before[0] = work->passes_before[0] = 0;
    for (int32_t k = 0; k < work->passes; k++) {
        work->points_before[k + 1] = work->points_before[k] + work->kept[work->pass[work->list[k]]];
        work->passes_before[k + 1] = work->passes_before[k] + !work->free[work->list[k]];
    }
}

/* Returns the number of passes before an instant. */
static int32_t count_before(const Work *work, double instant)
{
    int32_t low = 0, high = work->passes;
    while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (work->times[middle] < instant)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Returns the sigma of a window's rate by leaving out each of its passes from `from` to `to`, in the order of those that
   are not free; NaN if one carries the fit alone. */
static double window_sigma(
    const Model *model, const Work *work, const eight *a, const eight *prior, double rate, int32_t from, int32_t to)
{
    const int n = model->unknowns;
    const eight_masks lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    const int64_t stride = work->stride + 8;
    eight squares = {0};
    eight_masks lost = {0};
    for (int32_t first = from; first < to; first += 16) {
        Eliminated without[2];
        for (int half = 0; half < 2; half++) {
            const double *const parts = work->parts + (first + 8 * half < to ? first + 8 * half : first);
            for (int k = 0; k < triangle(n + 1, 0); k++)
                without[half].l[k] = a[k] - *(const eight *)(parts + stride * k);
        }
        eliminate(
            model, work, (const eight *const[]){prior, prior},
            (Eliminated *const[]){&without[0], &without[1]});
        for (int half = 0; half < 2; half++) {
            const eight_masks there = lanes < (int64_t)(to - first - 8 * half);
            const eight off = (eight)((eight_masks)(without[half].l[triangle(n, n - 1)] - rate) & there);
            squares += off * off;
            lost |= ~without[half].determined & there;
        }
    }
    for (int p = 0; p < 8; p++)
        if (lost[p])
            return NAN;
    return sqrt(sum_of(squares));
}

/* Fills the rate of one of several windows, whose fits stand side by side. */
static void fill_window(
    const Model *model, const Work *work, const eight *equations, const eight *prior, const Eliminated *fit, int lane,
    const int32_t range[2], Rate *rate)
{
    const int n = model->unknowns;
    const int32_t from = work->passes_before[range[0]], to = work->passes_before[range[1]];
    eight a[MAX_PRODUCTS];
    rate->data_count = work->points_before[range[1]] - work->points_before[range[0]];
    rate->pass_count = to - from;
    rate->status = rate->data_count < model->min_points ? TOO_FEW_POINTS
        : rate->pass_count < model->min_passes          ? TOO_FEW_PASSES
        : !fit->determined[lane]                        ? SINGULAR
                                                        : OK;
    if (rate->status != OK)
        return;
    for (int k = 0; k < triangle(n + 1, 0); k++)
        a[k] = all(equations[k][lane]);
    const double found = fit->l[triangle(n, n - 1)][lane];
    const double sigma = window_sigma(model, work, a, prior, found, from, to);
    rate->status = gate_rate(model, found, sigma, rate->pass_count);
    if (rate->status != OK)
        return;
    rate->dhdt = found;
    rate->dhdt_sigma = sigma;
    rate->dhdt_ci95 = model->quantiles[rate->pass_count - 1] * sigma;
}

/* Fills the rates of windows, sixteen side by side. */
static void fill_windows(
    const Model *model, Work *work, const Equations *whole, const double *windows, int64_t count, Rate *rates)
{
    const int n = model->unknowns;
    const int64_t stride = work->stride + 8;
    eight prior[MAX_UNKNOWNS], a[2][MAX_PRODUCTS];
    sum_by_time(model, work, whole->theta);
    for (int k = 0; k < n; k++)
        prior[k] = all(whole->prior[k]);
    for (int64_t first = 0; first < count; first += 16) {
        int32_t ranges[16][2];
        Eliminated fit[2];
        for (int p = 0; p < 16; p++)
            for (int side = 0; side < 2; side++)
                ranges[p][side] = first + p < count ? count_before(work, windows[2 * (first + p) + side]) : 0;
        for (int k = 0; k < triangle(n + 1, 0); k++)
            for (int p = 0; p < 16; p++)
                a[p / 8][k][p % 8] = work->before[stride * k + ranges[p][1]] - work->before[stride * k + ranges[p][0]];
        for (int half = 0; half < 2; half++)
            for (int k = 0; k < n; k++)
                a[half][triangle(k, k)] += prior[k];
        for (int half = 0; half < 2; half++)
            memcpy(fit[half].l, a[half], triangle(n + 1, 0) * sizeof(eight));
        eliminate(
            model, work, (const eight *const[]){prior, prior},
            (Eliminated *const[]){&fit[0], &fit[1]});
        for (int p = 0; p < 16 && first + p < count; p++)
            fill_window(model, work, a[p / 8], prior, &fit[p / 8], p % 8, ranges[p], rates + first + p);
    }
}
