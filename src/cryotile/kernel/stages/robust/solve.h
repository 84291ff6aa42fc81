/* Normal equations: the solution of eight systems side by side, residuals, and the tolerance of each column. */

typedef struct {
    eight coefficients[MAX_COLUMNS]; /* by place among the active columns */
    eight constant, level;           /* the height at the origin, about it; the height at the post */
    eight rss, rate_variance;
    eight_masks determined;
} Solutions;

/* Returns one of the sums of the total without each of eight parts, or without none. */
INLINE eight sum_without(const double *total, const double *const *parts, int at)
{
    eight rest;
    for (int p = 0; p < 8; p++)
        rest[p] = parts ? total[at] - parts[p][at] : total[at];
    return rest;
}

/* Leaves out each of up to 8 parts of the total, or none, and solves the rest, centred, by LDL'.  Columns of terms come
   first, then u, v and tau, so that the last pivot is the tolerance of the rate times its variance.  A column of a term
   that is constant in the rest has coefficient 0. */
INLINE void solve(
    const Circle *circle, const double *total, const double *const *parts, int quads, double min_tolerance,
    Solutions *result)
{
    const int n = circle->unknowns;
    eight a[MAX_COLUMNS][MAX_COLUMNS], l[MAX_COLUMNS][MAX_COLUMNS];
    eight sums[MAX_COLUMNS], spread[MAX_COLUMNS], inverse[MAX_COLUMNS];
    const eight weight = sum_without(total, parts, 0), per_weight = 1 / weight;
    eight_masks good[MAX_COLUMNS];
    const int32_t *column = circle->active; /* column[n] is Z */
    for (int i = 0; i <= n; i++) {
        sums[i] = sum_without(total, parts, 4 + column[i]);
        for (int j = 0; j <= i; j++) {
            const int high = column[i] > column[j] ? column[i] : column[j], low = column[i] + column[j] - high;
            a[i][j] = sum_without(total, parts, products_at(quads, high) + low) - sums[i] * sums[j] * per_weight;
        }
        spread[i] = a[i][i];
    }
    for (int k = 0; k < n; k++) {
        good[k] = (a[k][k] > LEAST_PIVOT * spread[k]) & (spread[k] > LEAST_VARIANCE * weight);
        inverse[k] = (eight)((eight_masks)(1 / a[k][k]) & good[k]);
        for (int i = k + 1; i <= n; i++) {
            l[i][k] = a[i][k] * inverse[k];
            for (int j = k + 1; j <= i; j++)
                a[i][j] -= l[i][k] * a[j][k];
        }
    }
    result->rss = a[n][n];
    result->rate_variance = inverse[n - 1];
    result->constant = sums[n] * per_weight;
    result->level = circle->origin[Z] + result->constant;
    for (int k = n - 1; k >= 0; k--) {
        eight c = l[n][k];
        for (int i = k + 1; i < n; i++)
            c -= l[i][k] * result->coefficients[i];
        result->coefficients[k] = c;
        result->constant -= c * (sums[k] * per_weight);
        result->level -= c * (sums[k] * per_weight - circle->at_post[column[k]]);
    }
    const eight dt = inverse[n - 1], dv = inverse[n - 2], lv = l[n - 2][n - 3], ltv = l[n - 1][n - 2];
    const eight ltu = l[n - 1][n - 3] - lv * ltv;
    result->determined = good[n - 3] & good[n - 2] & good[n - 1]
        & (spread[n - 3] * (inverse[n - 3] + lv * lv * dv + ltu * ltu * dt) * min_tolerance <= 1)
        & (spread[n - 2] * (dv + ltv * ltv * dt) * min_tolerance <= 1)
        & (spread[n - 1] * dt * min_tolerance <= 1);
}

static void solve_total(const Circle *circle, const Model *model, Solutions *fit)
{
    solve(circle, circle->total, NULL, model->quads, model->min_tolerance, fit);
}

/* Handles four points at a time: sums the quads of their products, transposes them and sums again. */
INLINE void residuals_of(const int quads, Circle *circle, const quad *factors, double constant)
{
    const quad *row = (const quad *)circle->rows;
    for (int64_t i = 0; i < circle->count; i += 4) {
        quad sum[4], turned[4];
        const quad *parts[4];
        for (int p = 0; p < 4; p++, row += quads) {
            parts[p] = sum + p;
            sum[p] = row[0] * factors[0];
            for (int q = 1; q < quads; q++)
                sum[p] += row[q] * factors[q];
        }
        transpose(parts, 0, turned);
        *(quad *)(circle->residuals + i) = ((turned[0] + turned[2]) + (turned[1] + turned[3])) - constant;
    }
}

static void find_residuals(Circle *circle, const Model *model, const Solutions *fit)
{
    double factors[MAX_COLUMNS] = {0};
    for (int k = 0; k < circle->unknowns; k++)
        factors[circle->active[k]] = -fit->coefficients[k][0];
    factors[Z] = 1;
    switch (model->quads) {
    case 1: residuals_of(1, circle, (quad *)factors, fit->constant[0]); break;
    case 2: residuals_of(2, circle, (quad *)factors, fit->constant[0]); break;
    case 3: residuals_of(3, circle, (quad *)factors, fit->constant[0]); break;
    default: residuals_of(model->quads, circle, (quad *)factors, fit->constant[0]);
    }
}

/* Finds the tolerance of each of n columns against the others, from their centred products (row-major, overwritten). */
static void tolerances(double *a, int n, double least, double *tolerance)
{
    double spread[MAX_COLUMNS], w[MAX_COLUMNS]; /* w: column c of the inverse of L */
    for (int k = 0; k < n; k++)
        spread[k] = a[n * k + k];
    for (int k = 0; k < n; k++) {
        if (!(a[n * k + k] > LEAST_PIVOT * spread[k] && spread[k] > least)) {
            /* It follows from the columns before it.  Once it is dropped, the others show which one lacks tolerance. */
            for (int i = 0; i < n; i++)
                tolerance[i] = i == k ? 0 : 1;
            return;
        }
        for (int i = k + 1; i < n; i++)
            a[n * i + k] /= a[n * k + k];
        for (int i = k + 1; i < n; i++)
            for (int j = k + 1; j <= i; j++)
                a[n * i + j] -= a[n * i + k] * a[n * j + k] * a[n * k + k];
    }
    for (int c = 0; c < n; c++) {
        double inverse = 0;
        for (int i = c; i < n; i++) {
            double x = i == c;
            for (int j = c; j < i; j++)
                x -= a[n * i + j] * w[j];
            w[i] = x;
            inverse += x * x / a[n * i + i];
        }
        tolerance[c] = 1 / (inverse * spread[c]);
    }
}
