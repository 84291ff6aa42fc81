/* Normal equations of the recipe passes, eight fits side by side: A = sum of S_g - lambda_g s_g s_g' + prior.

   S_g - lambda_g s_g s_g' = W_g + m_g m_g' / v_g, where W_g has the products about the means m_g of the pass and
   v_g = theta + 1/n_g; for a free pass 1/v_g is 0. */

enum { MAX_PRODUCTS = (MAX_UNKNOWNS + 1) * (MAX_UNKNOWNS + 2) / 2 };

/* Eliminates one set of equations of n unknowns in place: below the diagonal L, in the last row, z, D^-1 L^-1 b, and R in
   its last place; fills the inverse of D. */
static void eliminate_one(int n, double *a, const double *prior, double *inverse)
{
    for (int k = 0; k < n; k++) {
        const double pivot = fmax(a[triangle(k, k)], prior[k]), spread = a[triangle(k, k)];
        double column[MAX_UNKNOWNS + 1];
        inverse[k] = pivot > 0 && (prior[k] > 0 || spread > LEAST_VARIANCE) ? 1 / pivot : 0;
        for (int i = k + 1; i <= n; i++) {
            column[i] = a[triangle(i, k)];
            a[triangle(i, k)] *= inverse[k];
            for (int j = k + 1; j <= i; j++)
                a[triangle(i, j)] -= a[triangle(i, k)] * column[j];
        }
    }
}

/* Eliminated: A = L D L'; the last row, z, has D^-1 L^-1 b. */
typedef struct {
    eight l[MAX_PRODUCTS];        /* lower triangle by rows; below the diagonal */
    eight inverse[MAX_UNKNOWNS];  /* of D; 0 for a column that follows from those before it */
    eight product;                /* |A| */
    eight rss;                    /* R */
    eight_masks determined;       /* whether the rate is */
} Eliminated;

/* Sets the equations to the products within passes and the priors, for each theta. */
static void start_equations(const Model *model, const Work *work, eight theta, eight *a, eight *prior)
{
    const int q = model->point_columns, n = model->unknowns;
    const double variance = work->sigma * work->sigma;
    for (int k = 0; k < triangle(n + 1, 0); k++)
        a[k] = all(0);
    for (int i = 0; i <= q; i++)
        for (int j = 0; j <= i; j++)
            a[triangle(i < q ? i : n, j < q ? j : n)] = all(work->total[triangle(i, j)]);
    for (int k = 0; k < n; k++)
        prior[k] = all(variance * work->precision[k]);
    prior[q + 1] = 1 / theta;
    prior[q + 2] = prior[q + 3] = 4 / theta;
    for (int k = 0; k < n; k++)
        a[triangle(k, k)] += prior[k];
}

INLINE void add_means_of(
    const int n, const Work *work, const int32_t *list, int32_t count, const eight *weights, int step, double sign,
    eight *a)
{
    const double *const means = work->means;
    const int64_t stride = work->stride;
#pragma GCC unroll 12
    for (int i = 0; i <= n; i++) {
        eight sums[MAX_UNKNOWNS + 1];
#pragma GCC unroll 12
        for (int j = 0; j <= i; j++)
            sums[j] = a[triangle(i, j)];
        for (int32_t k = 0; k < count; k++) {
            const double *const mean = means + list[k];
            const eight weighted = weights[(int64_t)step * list[k]] * (sign * mean[stride * i]);
#pragma GCC unroll 12
            for (int j = 0; j <= i; j++)
                sums[j] += weighted * mean[stride * j];
        }
#pragma GCC unroll 12
        for (int j = 0; j <= i; j++)
            a[triangle(i, j)] = sums[j];
    }
}

enum { USUAL_UNKNOWNS = TERRAIN + SEASONAL + 1 }; /* with a constant number of columns their sums stay in registers */

/* Adds m m' of the passes of a list, or with sign -1 takes it off; pass g has the weight weights[step * g]. */
static void add_means(
    const Model *model, const Work *work, const int32_t *list, int32_t count, const eight *weights, int step,
    double sign, eight *a)
{
    if (model->unknowns == USUAL_UNKNOWNS)
        add_means_of(USUAL_UNKNOWNS, work, list, count, weights, step, sign, a);
    else
        add_means_of(model->unknowns, work, list, count, weights, step, sign, a);
}

/* A pivot is at least its prior, so that rounding cannot make one negative; a column without one is dropped if it follows
   from those before it. */
INLINE void eliminate_of(const int n, const eight *a, const eight *prior, int constant, Eliminated *to)
{
    eight *const l = to->l;
    const eight least_spread = LEAST_VARIANCE * a[triangle(constant, constant)];
    eight diagonal[MAX_UNKNOWNS];
    eight_masks good = {0};
    memcpy(l, a, triangle(n + 1, 0) * sizeof *l);
    to->product = all(1);
    to->determined = ~(eight_masks){0};
    for (int k = 0; k < n; k++)
        diagonal[k] = a[triangle(k, k)];
#pragma GCC unroll 12
    for (int k = 0; k < n; k++) {
        const eight_masks is_free = prior[k] <= 0;
        const eight pivot = larger(l[triangle(k, k)], prior[k]);
        eight column[MAX_UNKNOWNS + 1];
        good = ~is_free | ((pivot > LEAST_PIVOT * diagonal[k]) & (pivot > least_spread));
        to->inverse[k] = (eight)((eight_masks)(1 / pivot) & good);
        to->product *= choose(good, pivot, all(1));
        if (k == constant || k == n - 1)
            to->determined &= good;
#pragma GCC unroll 12
        for (int i = k + 1; i <= n; i++) {
            column[i] = l[triangle(i, k)];
            l[triangle(i, k)] *= to->inverse[k];
        }
#pragma GCC unroll 12
        for (int i = k + 1; i <= n; i++)
#pragma GCC unroll 12
            for (int j = k + 1; j <= i; j++)
                l[triangle(i, j)] -= l[triangle(i, k)] * column[j];
    }
    to->rss = l[triangle(n, n)];
}

/* Solves the equations by LDL'; the last column is tau, whose inverse pivot is the variance of the rate. */
static void eliminate(const Model *model, const Work *work, const eight *a, const eight *prior, Eliminated *to)
{
    if (model->unknowns == USUAL_UNKNOWNS)
        eliminate_of(USUAL_UNKNOWNS, a, prior, TERRAIN, to);
    else
        eliminate_of(model->unknowns, a, prior, model->point_columns, to);
    /* Exact data leave nothing but rounding. */
    to->rss = larger(to->rss, all(LEAST_RSS * work->weight));
}

/* Finds the coefficients from column `first` on. */
INLINE void substitute(const Eliminated *from, int n, int first, eight *beta)
{
    for (int k = n - 1; k >= first; k--) {
        beta[k] = from->l[triangle(n, k)];
        for (int i = k + 1; i < n; i++)
            beta[k] -= from->l[triangle(i, k)] * beta[i];
    }
}

/* One of eight fits. */
typedef struct {
    double l[MAX_PRODUCTS], inverse[MAX_UNKNOWNS];
} Lane;

INLINE void take_lane(const Eliminated *from, int n, int lane, Lane *to)
{
    for (int k = 0; k < triangle(n + 1, 0); k++)
        to->l[k] = ((const double *)(from->l + k))[lane];
    for (int k = 0; k < n; k++)
        to->inverse[k] = ((const double *)(from->inverse + k))[lane];
}

/* Finds h = m'A^-1 m and e = z - m'beta of the means of eight passes from `row` on. */
INLINE void find_leverage_of(const int n, const Lane *fit, Work *work, int32_t row)
{
    eight y[MAX_UNKNOWNS + 1], h = {0};
#pragma GCC unroll 12
    for (int k = 0; k <= n; k++) {
        y[k] = *(const eight *)(work->means + work->stride * k + row);
#pragma GCC unroll 12
        for (int j = 0; j < k; j++)
            y[k] -= fit->l[triangle(k, j)] * y[j];
        if (k < n)
            h += (y[k] * y[k]) * fit->inverse[k];
    }
    *(eight *)(work->h + row) = h;
    *(eight *)(work->e + row) = y[n];
}

/* Likewise of all passes. */
static void find_leverages(const Model *model, const Eliminated *from, int lane, Work *work)
{
    Lane fit;
    take_lane(from, model->unknowns, lane, &fit);
    for (int32_t row = 0; row < work->passes; row += 8)
        if (model->unknowns == USUAL_UNKNOWNS)
            find_leverage_of(USUAL_UNKNOWNS, &fit, work, row);
        else
            find_leverage_of(model->unknowns, &fit, work, row);
}
