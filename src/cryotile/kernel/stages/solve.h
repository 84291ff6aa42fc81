/* Normal equations of the recipe passes, eight fits side by side: A = sum of S_g - lambda_g s_g s_g' + prior.

   S_g - lambda_g s_g s_g' = W_g + m_g m_g' / v_g, where W_g has the products about the means m_g of the pass and
   v_g = theta + 1/n_g; for a free pass 1/v_g is 0. */

enum { MAX_PRODUCTS = (MAX_UNKNOWNS + 1) * (MAX_UNKNOWNS + 2) / 2 };

/* Eliminates one set of equations of n unknowns in place: below the diagonal L, in the last row, z, D^-1 L^-1 b, and R in
   its last place; fills the inverse of D.  A pivot of a free column must be above `least`. */
INLINE void eliminate_one(const int n, double *a, const double *prior, double least, double *inverse)
{
    double diagonal[MAX_UNKNOWNS];
    for (int k = 0; k < n; k++)
        diagonal[k] = a[triangle(k, k)];
#pragma GCC unroll 12
    for (int k = 0; k < n; k++) {
        const double own = a[triangle(k, k)], pivot = own > prior[k] ? own : prior[k];
        double column[MAX_UNKNOWNS + 1];
        inverse[k] = prior[k] > 0 || (pivot > LEAST_PIVOT * diagonal[k] && pivot > least) ? 1 / pivot : 0;
#pragma GCC unroll 12
        for (int i = k + 1; i <= n; i++) {
            column[i] = a[triangle(i, k)];
            a[triangle(i, k)] *= inverse[k];
#pragma GCC unroll 12
            for (int j = k + 1; j <= i; j++)
                a[triangle(i, j)] -= a[triangle(i, k)] * column[j];
        }
    }
}

/* Eliminated: A = L D L'; the last row, z, has D^-1 L^-1 b. */
typedef struct {
    eight l[MAX_PRODUCTS];        /* lower triangle by rows, below the diagonal; A, b and z'z before */
    eight inverse[MAX_UNKNOWNS];  /* of D; 0 for a column that follows from those before it */
    eight product;                /* |A| */
    eight rss;                    /* R */
    eight_masks determined;       /* whether the rate is */
    eight_masks whole;            /* whether no column was dropped */
} Eliminated;

/* Fills the precisions of the coefficients at a theta. */
static void fill_prior(const Model *model, const Work *work, double theta, double *prior)
{
    const int q = model->point_columns;
    const double variance = work->sigma * work->sigma;
    for (int k = 0; k < model->unknowns; k++)
        prior[k] = variance * work->precision[k];
    prior[q + 1] = 1 / theta;
    prior[q + 2] = prior[q + 3] = 4 / theta;
}

/* Sets one set of equations to the products within passes and the prior. */
static void start_one(const Model *model, const Work *work, const double *prior, double *a)
{
    const int q = model->point_columns, n = model->unknowns;
    for (int k = 0; k < triangle(n + 1, 0); k++)
        a[k] = 0;
    for (int i = 0; i <= q; i++)
        for (int j = 0; j <= i && j < q; j++)
            a[triangle(i < q ? i : n, j)] = work->total[triangle(i, j)];
    a[triangle(n, n)] = work->total[triangle(q, q)];
    for (int k = 0; k < n; k++)
        a[triangle(k, k)] += prior[k];
}

/* Sets eight sets of equations to them, one for each theta. */
static void start_equations(const Model *model, const Work *work, const double *thetas, eight *a, eight *prior)
{
    const int q = model->point_columns, n = model->unknowns;
    double one[MAX_PRODUCTS], first[MAX_UNKNOWNS];
    fill_prior(model, work, thetas[0], first);
    first[q + 1] = first[q + 2] = first[q + 3] = 0;
    start_one(model, work, first, one);
    for (int k = 0; k < triangle(n + 1, 0); k++)
        a[k] = all(one[k]);
    for (int k = 0; k < n; k++)
        prior[k] = all(first[k]);
    prior[q + 1] = 1 / *(const eight *)thetas;
    prior[q + 2] = prior[q + 3] = 4 / *(const eight *)thetas;
    for (int k = q + 1; k < q + 4; k++)
        a[triangle(k, k)] += prior[k];
}

INLINE void add_means_of(
    const int n, const Work *work, const int32_t *list, int32_t count, const eight *weights, eight *a)
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
            const eight weighted = weights[2 * (int64_t)list[k]] * mean[stride * i];
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

/* Adds m m' of the passes of a list; pass g has the weight weights[2 * g]. */
static void add_means(
    const Model *model, const Work *work, const int32_t *list, int32_t count, const eight *weights, eight *a)
{
    if (model->unknowns == USUAL_UNKNOWNS)
        add_means_of(USUAL_UNKNOWNS, work, list, count, weights, a);
    else
        add_means_of(model->unknowns, work, list, count, weights, a);
}

/* Adds m m' of all passes, each times a weight, to one set of equations, eight passes at a time. */
INLINE void add_weighted_of(const int n, const Work *work, const double *weights, double *a)
{
#pragma GCC unroll 12
    for (int i = 0; i <= n; i++) {
        const double *const x = work->means + work->stride * i;
#pragma GCC unroll 2
        for (int first = 0; first <= i; first += 8) {
            eight sums[8], folded;
            for (int j = 0; j < 8; j++)
                sums[j] = all(0);
            for (int32_t row = 0; row < work->passes; row += 8) {
                const eight weighted = *(const eight *)(weights + row) * *(const eight *)(x + row);
                const double *const y = work->means + work->stride * first + row;
#pragma GCC unroll 8
                for (int j = 0; j < 8; j++)
                    if (first + j <= i)
                        sums[j] += weighted * *(const eight *)(y + work->stride * j);
            }
            folded = fold(sums);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                if (first + j <= i)
                    a[triangle(i, first + j)] += folded[j];
        }
    }
}

static void add_weighted(const Model *model, const Work *work, const double *weights, double *a)
{
    if (model->unknowns == USUAL_UNKNOWNS)
        add_weighted_of(USUAL_UNKNOWNS, work, weights, a);
    else
        add_weighted_of(model->unknowns, work, weights, a);
}

/* Pivots of column k, and what follows from them; a pivot is at least its prior, so that rounding cannot make one negative,
   and a column without one is dropped if it follows from those before it. */
INLINE eight_masks take_pivot(int k, const eight *prior, eight diagonal, eight least_spread, Eliminated *to)
{
    const eight pivot = larger(to->l[triangle(k, k)], prior[k]);
    const eight_masks is_free = prior[k] <= 0;
    const eight_masks good = ~is_free | ((pivot > LEAST_PIVOT * diagonal) & (pivot > least_spread));
    to->inverse[k] = (eight)((eight_masks)(1 / pivot) & good);
    to->product *= choose(good, pivot, all(1));
    return good;
}

/* Solves two times eight sets of equations side by side, row by row, so that a row stays in registers. */
INLINE void eliminate_of(const int n, const int constant, const eight *const prior[2], Eliminated *const to[2])
{
    const eight least_spread[2] = {
        LEAST_VARIANCE * to[0]->l[triangle(constant, constant)],
        LEAST_VARIANCE * to[1]->l[triangle(constant, constant)]};
    for (int half = 0; half < 2; half++) {
        to[half]->product = all(1);
        to[half]->determined = to[half]->whole = ~(eight_masks){0};
    }
#pragma GCC unroll 12
    for (int i = 0; i <= n; i++)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            eight *const l = to[half]->l, own[MAX_UNKNOWNS + 1], diagonal = l[triangle(i, i)];
#pragma GCC unroll 12
            for (int j = 0; j <= i; j++)
                own[j] = l[triangle(i, j)];
#pragma GCC unroll 12
            for (int k = 0; k < i; k++) {
                const eight scaled = own[k] * to[half]->inverse[k];
#pragma GCC unroll 12
                for (int j = k + 1; j < i; j++)
                    own[j] -= own[k] * l[triangle(j, k)];
                own[i] -= own[k] * scaled;
                l[triangle(i, k)] = scaled;
            }
            l[triangle(i, i)] = own[i];
            if (i < n) {
                const eight_masks good = take_pivot(i, prior[half], diagonal, least_spread[half], to[half]);
                to[half]->whole &= good;
                if (i == constant || i == n - 1)
                    to[half]->determined &= good;
            }
        }
    for (int half = 0; half < 2; half++)
        to[half]->rss = to[half]->l[triangle(n, n)];
}

/* Solves the equations whose A, b and z'z stand in `l` by LDL'; the last column is tau, whose inverse pivot is the variance
   of the rate. */
static void eliminate(const Model *model, const Work *work, const eight *const prior[2], Eliminated *const to[2])
{
    if (model->unknowns == USUAL_UNKNOWNS)
        eliminate_of(USUAL_UNKNOWNS, TERRAIN, prior, to);
    else
        eliminate_of(model->unknowns, model->point_columns, prior, to);
    /* Exact data leave nothing but rounding. */
    for (int half = 0; half < 2; half++)
        to[half]->rss = larger(to[half]->rss, all(LEAST_RSS * work->weight));
}

/* Adds m m' / v to solved equations, or takes it off, where s is v or -v: a rank-one update of L D L' (Gill, Golub, Murray
   and Saunders 1974, method C1).  After column k, s has s + m'A^-1 m of the columns up to k. */
INLINE void update_of(const int n, const double *mean, int64_t stride, eight s, Eliminated *of)
{
    const eight first = s;
    eight w[MAX_UNKNOWNS + 1];
#pragma GCC unroll 12
    for (int i = 0; i <= n; i++)
        w[i] = all(mean[stride * i]);
#pragma GCC unroll 12
    for (int k = 0; k < n; k++) {
        const eight scaled = w[k] * of->inverse[k], next = s + w[k] * scaled, per_next = 1 / next;
        const eight factor = scaled * per_next;
#pragma GCC unroll 12
        for (int i = k + 1; i <= n; i++) {
            w[i] -= w[k] * of->l[triangle(i, k)];
            of->l[triangle(i, k)] += factor * w[i];
        }
        of->inverse[k] *= s * per_next;
        s = next;
    }
    of->product *= s / first;
    of->rss += w[n] * w[n] / s;
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

/* Finds h = m'A^-1 m and e = z - m'beta of the means of eight passes; a column of means has `stride` places. */
INLINE void find_leverage_of(const int n, const Lane *fit, const double *means, int64_t stride, double *to_h, double *to_e)
{
    eight y[MAX_UNKNOWNS + 1], h = {0};
#pragma GCC unroll 12
    for (int k = 0; k <= n; k++) {
        y[k] = *(const eight *)(means + stride * k);
#pragma GCC unroll 12
        for (int j = 0; j < k; j++)
            y[k] -= fit->l[triangle(k, j)] * y[j];
        if (k < n)
            h += (y[k] * y[k]) * fit->inverse[k];
    }
    *(eight *)to_h = h;
    *(eight *)to_e = y[n];
}

/* Likewise of so many passes. */
static void find_leverages(
    const Model *model, const Lane *fit, const double *means, int64_t stride, int32_t count, double *h, double *e)
{
    for (int32_t k = 0; k < count; k += 8)
        if (model->unknowns == USUAL_UNKNOWNS)
            find_leverage_of(USUAL_UNKNOWNS, fit, means + k, stride, h + k, e + k);
        else
            find_leverage_of(model->unknowns, fit, means + k, stride, h + k, e + k);
}
