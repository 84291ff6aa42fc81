/* Normal equations: sums over rows, and the solution of eight systems side by side.

   Sums are laid out in quads: {sum of weights, 0, 0, 0}, the sums of the columns, then of the products of each column r
   with columns 0 to 4 * (r / 4) + 3. */

INLINE int LEVEL(sums_size)(int quads) { return 4 * (1 + quads + 2 * quads * (quads + 1)); }

/* Where the products of column r begin. */
INLINE int LEVEL(products)(int quads, int r)
{
    const int b = r / 4;
    return 4 * (1 + quads + 2 * b * (b + 1) + (r % 4) * (b + 1));
}

INLINE void LEVEL(add_rows_of)(
    const int quads, const double *restrict rows, const double *restrict weights, int64_t count, double *restrict sums)
{
    enum { MOST = MAX_COLUMNS / 4 };
    quad s[MOST], m[2 * MOST * (MOST + 1)];
    double total = sums[0];
    for (int q = 0; q < quads; q++)
        s[q] = ((quad *)sums)[1 + q];
    for (int q = 0; q < 2 * quads * (quads + 1); q++)
        m[q] = ((quad *)sums)[1 + quads + q];
    for (int64_t i = 0; i < count; i++, rows += 4 * quads) {
        quad weighted[MOST];
        int at = 0;
        total += weights[i];
#pragma GCC unroll 8
        for (int q = 0; q < quads; q++) {
            weighted[q] = weights[i] * ((const quad *)rows)[q];
            s[q] += weighted[q];
        }
#pragma GCC unroll 8
        for (int b = 0; b < quads; b++)
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++)
#pragma GCC unroll 8
                for (int q = 0; q <= b; q++)
                    m[at++] += rows[4 * b + r] * weighted[q];
    }
    sums[0] = total;
    for (int q = 0; q < quads; q++)
        ((quad *)sums)[1 + q] = s[q];
    for (int q = 0; q < 2 * quads * (quads + 1); q++)
        ((quad *)sums)[1 + quads + q] = m[q];
}

/* Adds rows, each times its weight. */
static void LEVEL(add_rows)(int quads, const double *rows, const double *weights, int64_t count, double *sums)
{
    /* With a known number of quads the sums of a few columns stay in registers. */
    switch (quads) {
    case 1: LEVEL(add_rows_of)(1, rows, weights, count, sums); break;
    case 2: LEVEL(add_rows_of)(2, rows, weights, count, sums); break;
    case 3: LEVEL(add_rows_of)(3, rows, weights, count, sums); break;
    default: LEVEL(add_rows_of)(quads, rows, weights, count, sums);
    }
}

typedef struct {
    eight coefficients[MAX_COLUMNS]; /* by place among the active columns */
    eight constant, level;           /* the height at the origin, about it; the height at the post */
    eight rss, rate_variance;
    eight_masks determined;
} LEVEL(Solutions);

/* One of the total's sums, of eight parts left out in turn, or of none. */
INLINE eight LEVEL(without)(const double *total, const double *const *parts, int at)
{
    eight rest;
    for (int p = 0; p < 8; p++)
        rest[p] = parts ? total[at] - parts[p][at] : total[at];
    return rest;
}

/* Leaves out each of up to 8 parts of the total, or none, and solves what remains, centred, by LDL'.  Columns of terms come first,
   then u, v and tau, so that the last pivot is the tolerance of the rate times its variance.  A column of a term that
   what is left does not vary in has coefficient 0. */
INLINE void LEVEL(solve)(
    const Circle *circle, const double *total, const double *const *parts, int quads, double min_tolerance,
    LEVEL(Solutions) *result)
{
    const int n = circle->unknowns;
    eight a[MAX_COLUMNS][MAX_COLUMNS], l[MAX_COLUMNS][MAX_COLUMNS];
    eight sums[MAX_COLUMNS], spread[MAX_COLUMNS], inverse[MAX_COLUMNS];
    const eight weight = LEVEL(without)(total, parts, 0), per_weight = 1 / weight;
    eight_masks good[MAX_COLUMNS];
    const int32_t *column = circle->active; /* column[n] is Z */
    for (int i = 0; i <= n; i++) {
        sums[i] = LEVEL(without)(total, parts, 4 + column[i]);
        for (int j = 0; j <= i; j++) {
            const int high = column[i] > column[j] ? column[i] : column[j], low = column[i] + column[j] - high;
            a[i][j] = LEVEL(without)(total, parts, LEVEL(products)(quads, high) + low) - sums[i] * sums[j] * per_weight;
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

/* Tolerance of each of n columns against the others, from their centred products (row-major, overwritten). */
static void LEVEL(tolerances)(double *a, int n, double least, double *tolerance)
{
    double spread[MAX_COLUMNS], w[MAX_COLUMNS]; /* w: column c of the inverse of L */
    for (int k = 0; k < n; k++)
        spread[k] = a[n * k + k];
    for (int k = 0; k < n; k++) {
        if (!(a[n * k + k] > LEAST_PIVOT * spread[k] && spread[k] > least)) {
            /* It follows from those before it; which of them is to blame shows when it is gone. */
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

/* Quad k of four parts as columns become rows: result[c] has column c of each. */
INLINE void LEVEL(transpose)(const quad *const parts[4], int k, quad result[4])
{
    const quad a = parts[0][k], b = parts[1][k], c = parts[2][k], d = parts[3][k];
    const quad ab0 = __builtin_shuffle(a, b, (quad_masks){0, 4, 2, 6}), ab1 = __builtin_shuffle(a, b, (quad_masks){1, 5, 3, 7});
    const quad cd0 = __builtin_shuffle(c, d, (quad_masks){0, 4, 2, 6}), cd1 = __builtin_shuffle(c, d, (quad_masks){1, 5, 3, 7});
    result[0] = __builtin_shuffle(ab0, cd0, (quad_masks){0, 1, 4, 5});
    result[1] = __builtin_shuffle(ab1, cd1, (quad_masks){0, 1, 4, 5});
    result[2] = __builtin_shuffle(ab0, cd0, (quad_masks){2, 3, 6, 7});
    result[3] = __builtin_shuffle(ab1, cd1, (quad_masks){2, 3, 6, 7});
}
