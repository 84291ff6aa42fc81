/* What both ways of fitting share: gates, counts, the sums of what is kept, its solution, and leaving out passes. */

/* The first gate that fails is the status. */
static int LEVEL(gate)(const Model *model, Post *post)
{
    return post->data_count < model->min_points ? TOO_FEW_POINTS
        : post->time_end - post->time_start < model->min_span - SPAN_ROUNDING ? TOO_SHORT_SPAN
        : post->pass_count < model->min_passes ? TOO_FEW_PASSES
                                               : OK;
}

/* What is kept of a pass, about the origin. */
static void LEVEL(describe_pass)(const Model *model, Circle *circle, int32_t g)
{
    Pass pass = {.first = INFINITY, .last = -INFINITY};
    const int stride = 4 * model->quads;
    for (int64_t i = circle->starts[g]; i < circle->starts[g + 1]; i++) {
        const double *row = circle->rows + stride * i;
        if (!circle->kept[i])
            continue;
        pass.count++;
        pass.first = row[T] < pass.first ? row[T] : pass.first;
        pass.last = row[T] > pass.last ? row[T] : pass.last;
        pass.u += row[U];
        pass.v += row[V];
    }
    circle->described[g] = pass;
}

/* Counts and times of the points that are kept, from their passes: of few does anything change. */
static void LEVEL(describe)(const Model *model, Circle *circle, Post *post)
{
    double first = INFINITY, last = -INFINITY, u = 0, v = 0;
    int64_t count = 0;
    post->pass_count = 0;
    for (int32_t g = 0; g < circle->passes; g++) {
        const Pass *pass = circle->described + g;
        if (pass->count < 0)
            LEVEL(describe_pass)(model, circle, g);
        circle->pass_kept[g] = pass->count > 0;
        post->pass_count += pass->count > 0;
        count += pass->count;
        first = pass->first < first ? pass->first : first;
        last = pass->last > last ? pass->last : last;
        u += pass->u;
        v += pass->v;
    }
    post->data_count = (int32_t)count;
    post->time_start = first + circle->origin[T];
    post->time_end = last + circle->origin[T];
    post->rejected_count = (int32_t)(circle->count - count);
    post->rejected_pass_count = circle->passes - post->pass_count;
    u = u / count - circle->at_post[U];
    v = v / count - circle->at_post[V];
    post->centroid_distance = model->radius * sqrt(u * u + v * v);
}

/* Four sums at a time in registers. */
static void LEVEL(sum_kept_passes)(Circle *circle, int quads, const double *factors)
{
    const int size = LEVEL(sums_size)(quads) / 4;
    quad *total = (quad *)circle->total;
    for (int first = 0; first < size; first += 4) {
        const int n = size - first < 4 ? size - first : 4;
        const quad *pass = (const quad *)circle->sums + first;
        quad sum[4] = {0};
        for (int32_t g = 0; g < circle->passes; g++, pass += size) {
            if (!circle->pass_kept[g])
                continue;
            /* What lies behind the last sum is not used. */
            for (int q = 0; q < 4; q++)
                sum[q] += factors[g] * pass[q];
        }
        for (int q = 0; q < n; q++)
            total[first + q] = sum[q];
    }
}

static void LEVEL(solve_total)(const Circle *circle, const Model *model, LEVEL(Solutions) *fit)
{
    LEVEL(solve)(circle, circle->total, NULL, model->quads, model->min_tolerance, fit);
}

/* Four points at a time: the quads of their products, summed, turned, and summed again. */
INLINE void LEVEL(residuals_of)(const int quads, Circle *circle, const quad *factors, double constant)
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
        LEVEL(transpose)(parts, 0, turned);
        *(quad *)(circle->residuals + i) = ((turned[0] + turned[2]) + (turned[1] + turned[3])) - constant;
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
