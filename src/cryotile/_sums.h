/* What both ways of fitting share: gates, counts, the sums of what is kept, its solution, and leaving out passes. */

/* The first gate that fails is the status. */
static int LEVEL(gate)(const Model *model, Post *post)
{
    return post->data_count < model->min_points ? TOO_FEW_POINTS
        : post->time_end - post->time_start < model->min_span - SPAN_ROUNDING ? TOO_SHORT_SPAN
        : post->pass_count < model->min_passes ? TOO_FEW_PASSES
                                               : OK;
}

/* Counts and times of the points that are kept. */
static void LEVEL(describe)(const Points *points, Circle *circle, Post *post)
{
    double first = INFINITY, last = -INFINITY, u = 0, v = 0;
    post->data_count = post->pass_count = 0;
    for (int32_t g = 0; g < circle->passes; g++) {
        const int32_t before = post->data_count;
        for (int64_t i = circle->starts[g]; i < circle->starts[g + 1]; i++) {
            const double *point = points->rows + 4 * (int64_t)circle->order[i];
            if (!circle->kept[i])
                continue;
            post->data_count++;
            first = point[2] < first ? point[2] : first;
            last = point[2] > last ? point[2] : last;
            u += point[0] - circle->x;
            v += point[1] - circle->y;
        }
        circle->pass_kept[g] = post->data_count > before;
        post->pass_count += circle->pass_kept[g];
    }
    post->time_start = first;
    post->time_end = last;
    post->rejected_count = (int32_t)(circle->count - post->data_count);
    post->rejected_pass_count = circle->passes - post->pass_count;
    post->centroid_distance = sqrt(u * u + v * v) / post->data_count;
}

static void LEVEL(sum_kept_passes)(Circle *circle, int quads, const double *factors)
{
    const int size = LEVEL(sums_size)(quads) / 4;
    quad *total = (quad *)circle->total;
    memset(circle->total, 0, 4 * size * sizeof(double));
    for (int32_t g = 0; g < circle->passes; g++) {
        const quad *pass = (const quad *)circle->sums + (int64_t)size * g;
        if (circle->pass_kept[g])
            for (int q = 0; q < size; q++)
                total[q] += factors[g] * pass[q];
    }
}

static void LEVEL(solve_total)(const Circle *circle, const Model *model, LEVEL(Solutions) *fit)
{
    static const double nothing[sizeof circle->total / sizeof(double)];
    const double *const parts[8] = {nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing};
    LEVEL(solve)(circle, circle->total, parts, model->quads, model->min_tolerance, fit);
}

INLINE void LEVEL(residuals_of)(const int quads, Circle *circle, const quad *factors, double constant)
{
    const quad *row = (const quad *)circle->rows;
    for (int64_t i = 0; i < circle->count; i++, row += quads) {
        quad sum = row[0] * factors[0];
        for (int q = 1; q < quads; q++)
            sum += row[q] * factors[q];
        circle->residuals[i] = ((sum[0] + sum[2]) + (sum[1] + sum[3])) - constant;
    }
}

static void LEVEL(find_residuals)(Circle *circle, const Model *model, const LEVEL(Solutions) *fit)
{
    double factors[MAX_COLUMNS] = {0};
    for (int k = 0; k < circle->unknowns; k++)
        factors[circle->active[k]] = -fit->coefficients[k][0];
    factors[Z] = 1;
    switch (model->quads) {
    case 1: LEVEL(residuals_of)(1, circle, (quad *)factors, fit->constant[0]); break;
    case 2: LEVEL(residuals_of)(2, circle, (quad *)factors, fit->constant[0]); break;
    case 3: LEVEL(residuals_of)(3, circle, (quad *)factors, fit->constant[0]); break;
    default: LEVEL(residuals_of)(model->quads, circle, (quad *)factors, fit->constant[0]);
    }
}

/* A pass without which the fit is not determined carries it alone: its error cannot be told, and sigma stays NaN. */
static void LEVEL(jackknife)(const Model *model, const Circle *circle, const LEVEL(Solutions) *fit, Post *post)
{
    static const double nothing[sizeof circle->total / sizeof(double)];
    const int64_t size = LEVEL(sums_size)(model->quads);
    const int rate_at = circle->unknowns - 1;
    double rate = 0, level = 0, factor;
    int32_t g = 0;
    while (g < circle->passes) {
        const double *parts[8];
        LEVEL(Solutions) without;
        int n = 0;
        for (; g < circle->passes && n < 8; g++)
            if (circle->pass_kept[g])
                parts[n++] = circle->sums + size * g;
        for (int p = n; p < 8; p++)
            parts[p] = nothing;
        LEVEL(solve)(circle, circle->total, parts, model->quads, model->min_tolerance, &without);
        for (int p = 0; p < n; p++) {
            const double rate_off = without.coefficients[rate_at][p] - fit->coefficients[rate_at][0];
            const double level_off = without.level[p] - fit->level[0];
            if (!without.determined[p])
                return;
            rate += rate_off * rate_off;
            level += level_off * level_off;
        }
    }
    factor = (post->pass_count - 1.0) / post->pass_count;
    post->dhdt_sigma = sqrt(factor * rate);
    post->elevation_sigma = sqrt(factor * level);
}
