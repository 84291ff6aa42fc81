/* Standard errors by leaving out each pass that is not free, eight at a time; theta and the prior are kept. */

/* The equations at the likeliest theta. */
typedef struct {
    double a[MAX_PRODUCTS], prior[MAX_UNKNOWNS], theta;
} Equations;

static void sum_equations(const Model *model, Work *work, Equations *to)
{
    to->theta = work->thetas[work->best];
    for (int32_t row = 0; row < work->stride; row++)
        work->factors[row] = row < work->passes && !work->free[row] ? 1 / (to->theta + 1 / work->n[row]) : 0;
    fill_prior(model, work, to->theta, to->prior);
    start_one(model, work, to->prior, to->a);
    add_weighted(model, work, work->factors, to->a);
}

/* Solves them; false: the rate is not determined. */
static bool solve_equations(const Model *model, Work *work, const Equations *from)
{
    const int n = model->unknowns, constant = model->point_columns;
    const double least = LEAST_VARIANCE * from->a[triangle(constant, constant)];
    double a[MAX_PRODUCTS], inverse[MAX_UNKNOWNS];
    memcpy(a, from->a, triangle(n + 1, 0) * sizeof *a);
    eliminate_one(n, a, from->prior, least, inverse);
    for (int k = n - 1; k >= 0; k--) {
        work->beta[k] = a[triangle(n, k)];
        for (int i = k + 1; i < n; i++)
            work->beta[k] -= a[triangle(i, k)] * work->beta[i];
    }
    work->rss = fmax(a[triangle(n, n)], LEAST_RSS * work->weight);
    work->rate_variance = inverse[n - 1];
    return inverse[constant] > 0 && inverse[n - 1] > 0;
}

/* Leaves out each of eight passes from `row` on. */
INLINE void leave_out_of(const int q, const int n, const Work *work, const Equations *from, int32_t row, eight *a)
{
    const double *const within = work->within + row, *const means = work->means + row;
    const eight v = from->theta + 1 / *(const eight *)(work->n + row);
#pragma GCC unroll 12
    for (int i = 0; i <= n; i++) {
        const eight weighted = *(const eight *)(means + work->stride * i) / v;
#pragma GCC unroll 12
        for (int j = 0; j <= i; j++)
            a[triangle(i, j)] =
                from->a[triangle(i, j)] - weighted * *(const eight *)(means + work->stride * j);
    }
#pragma GCC unroll 12
    for (int i = 0; i <= q; i++)
#pragma GCC unroll 12
        for (int j = 0; j <= i; j++)
            a[triangle(i < q ? i : n, j < q ? j : n)] -= *(const eight *)(within + work->stride * triangle(i, j));
}

static void leave_out(const Model *model, const Work *work, const Equations *from, int32_t row, eight *a)
{
    if (model->unknowns == USUAL_UNKNOWNS)
        leave_out_of(TERRAIN, USUAL_UNKNOWNS, work, from, row, a);
    else
        leave_out_of(model->point_columns, model->unknowns, work, from, row, a);
}

/* The height at the post at the reference epoch, about the mean: terms are 0 there but for those of time. */
INLINE eight level_at_post(const Model *model, const Work *work, const eight *beta)
{
    eight level = {0};
    for (int k = model->point_columns; k < model->unknowns; k++)
        level += beta[k] * work->at_post[k];
    return level;
}

/* Fills the sigmas and the deltas of rate and elevation.  Sigmas stay NaN if the fit without some pass is undetermined: that pass
   carries the fit alone, and its error is unknown. */
static void leave_out_passes(const Model *model, Work *work, const Equations *from, double level, Post *post)
{
    const int q = model->point_columns, n = model->unknowns;
    eight prior[MAX_UNKNOWNS], rates = {0}, levels = {0};
    eight_masks lost = {0};
    Eliminated without[2];
    for (int k = 0; k < n; k++)
        prior[k] = all(from->prior[k]);
    for (int32_t row = 0; row < work->passes; row += 8) {
        const int half = row / 8 % 2;
        eight beta[MAX_UNKNOWNS], rate, height;
        eight_masks there;
        for (int k = 0; half == 0 && k < 2; k++)
            /* The last vector may be a single one. */
            leave_out(model, work, from, row + 8 * k < work->passes ? row + 8 * k : row, without[k].l);
        if (half == 0)
            eliminate(
                model, work, (const eight *const[]){prior, prior},
                (Eliminated *const[]){&without[0], &without[1]});
        substitute(&without[half], n, q, beta);
        for (int p = 0; p < 8; p++)
            there[p] = -(row + p < work->passes && !work->free[row + p]);
        rate = (eight)((eight_masks)(beta[n - 1] - work->beta[n - 1]) & there);
        height = (eight)((eight_masks)(level_at_post(model, work, beta) - level) & there);
        *(eight *)(work->deltas + row) = rate;
        *(eight *)(work->level_deltas + row) = height;
        rates += rate * rate;
        levels += height * height;
        lost |= ~without[half].determined & there;
    }
    for (int p = 0; p < 8; p++)
        if (lost[p])
            return;
    post->dhdt_sigma = sqrt(sum_of(rates));
    post->elevation_sigma = sqrt(sum_of(levels));
}

/* Returns the status of the gates of a rate. */
static int gate_rate(const Model *model, double rate, double sigma, int32_t passes)
{
    return !(fabs(rate) <= model->max_rate)                              ? RATE_OUT_OF_BOUNDS
        : !(model->quantiles[passes - 1] * sigma <= model->max_ci95) ? TOO_UNCERTAIN
                                                                         : OK;
}
