/* The fit of one circle: passes, then points are screened; what stays is solved and leaves out each pass in turn. */

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
            const double *point = points->points + 4 * circle->order[i];
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

static double LEVEL(any_median)(double *values, int64_t count, double low, double high)
{
    int64_t padded = count;
    if (count <= RANKED)
        return LEVEL(small_median)(values, count);
    while (padded % 8)
        values[padded++] = INFINITY;
    return LEVEL(median)(values, padded, count, low, high);
}

/* Residual of each pass: its median, about the median of all; returns by how much the most changed one has. */
static double LEVEL(find_pass_medians)(Circle *circle)
{
    double *const medians = circle->medians, *const now = circle->medians + circle->passes + 8, most = 0, middle;
    for (int32_t g = 0; g < circle->passes; g++) {
        const int64_t start = circle->starts[g], count = circle->starts[g + 1] - start;
        const double guess = medians[g];
        memcpy(circle->keys, circle->residuals + start, count * sizeof(double));
        now[g] = LEVEL(any_median)(circle->keys, count, guess - 0.1, guess + 0.1);
    }
    memcpy(circle->keys, now, circle->passes * sizeof(double));
    middle = LEVEL(any_median)(circle->keys, circle->passes, -0.1, 0.1);
    for (int32_t g = 0; g < circle->passes; g++) {
        const double change = fabs(now[g] - middle - medians[g]);
        most = change > most ? change : most;
        medians[g] = now[g] - middle;
    }
    return most;
}

/* Takes out whole passes whose residual stands out, under a fit to which the worse passes matter less. */
static void LEVEL(screen_passes)(const Model *model, Circle *circle)
{
    LEVEL(Solutions) fit;
    double scale;
    LEVEL(list_columns)(model, circle, true);
    for (int32_t g = 0; g < circle->passes; g++)
        circle->factors[g] = 1, circle->medians[g] = 0;
    for (int round = 0; round < SCREEN_ROUNDS; round++) {
        LEVEL(sum_kept_passes)(circle, model->quads, circle->factors);
        LEVEL(solve_total)(circle, model, &fit);
        LEVEL(find_residuals)(circle, model, &fit);
        if (LEVEL(find_pass_medians)(circle) <= PASS_SETTLED)
            break;
        for (int32_t g = 0; g < circle->passes; g++)
            circle->factors[g] = 1 / fmax(fabs(circle->medians[g]), PASS_FLOOR);
    }
    for (int32_t g = 0; g < circle->passes; g++)
        circle->keys[g] = fabs(circle->medians[g]);
    scale = fmax(MAD_TO_SIGMA * LEVEL(any_median)(circle->keys, circle->passes, 0, 0.1), PASS_FLOOR);
    for (int32_t g = 0; g < circle->passes; g++) {
        circle->factors[g] = 1;
        circle->pass_kept[g] = fabs(circle->medians[g]) <= 4 * scale;
        memset(circle->kept + circle->starts[g], circle->pass_kept[g], circle->starts[g + 1] - circle->starts[g]);
    }
}

/* Residuals of the points that are kept, infinity for others, or their distances from a middle. */
INLINE void LEVEL(fill_keys)(Circle *circle, bool distances, double middle)
{
    int64_t i;
    for (i = 0; i < circle->count; i++) {
        const double key = distances ? fabs(circle->residuals[i] - middle) : circle->residuals[i];
        circle->keys[i] = circle->kept[i] ? key : INFINITY;
    }
    while (i % 8)
        circle->keys[i++] = INFINITY;
}

/* Keeps the points within the limit of the middle and updates the sums by those that left or came back. */
static bool LEVEL(exchange_points)(const Model *model, Circle *circle, double middle, double limit)
{
    const int size = LEVEL(sums_size)(model->quads), stride = 4 * model->quads;
    bool changed = false;
    for (int32_t g = 0; g < circle->passes; g++) {
        if (!circle->pass_kept[g])
            continue;
        for (int64_t i = circle->starts[g]; i < circle->starts[g + 1]; i++) {
            const bool keep = fabs(circle->residuals[i] - middle) <= limit;
            if (keep == circle->kept[i])
                continue;
            const double weight = keep ? circle->weights[i] : -circle->weights[i];
            LEVEL(add_rows)(model->quads, circle->rows + stride * i, &weight, 1, circle->sums + (int64_t)size * g);
            LEVEL(add_rows)(model->quads, circle->rows + stride * i, &weight, 1, circle->total);
            circle->kept[i] = keep;
            changed = true;
        }
    }
    return changed;
}

/* Rounds of 3 robust sigmas; leaves the fit of what is kept.  Returns by how much the last round moved the rate. */
static double LEVEL(reject_points)(const Model *model, Circle *circle, LEVEL(Solutions) *fit, double sigma)
{
    const int rate_at = circle->unknowns - 1;
    const int64_t padded = (circle->count + 7) / 8 * 8;
    double middle = 0, mad = 0.6 * sigma, slack = 0.3, rate = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t kept = 0;
        for (int64_t i = 0; i < circle->count; i++)
            kept += circle->kept[i];
        if (kept == 0)
            return 0;
        LEVEL(fill_keys)(circle, false, 0);
        middle = LEVEL(median)(circle->keys, padded, kept, middle - slack * mad, middle + slack * mad);
        LEVEL(fill_keys)(circle, true, middle);
        mad = LEVEL(median)(circle->keys, padded, kept, (1 - slack) * mad, (1 + slack / 3) * mad);
        slack = 0.1;
        if (!LEVEL(exchange_points)(model, circle, middle, 3 * fmax(MAD_TO_SIGMA * mad, SCALE_FLOOR)))
            return 0;
        rate = fit->coefficients[rate_at][0];
        LEVEL(solve_total)(circle, model, fit);
        LEVEL(find_residuals)(circle, model, fit);
    }
    return fabs(fit->coefficients[rate_at][0] - rate);
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

static double LEVEL(sum_squares)(const Circle *circle)
{
    double sum = 0;
    for (int64_t i = 0; i < circle->count; i++)
        sum += circle->kept[i] ? circle->weights[i] * circle->residuals[i] * circle->residuals[i] : 0;
    return sum;
}

/* Writes down the coefficients of the terms in the fit. */
static void LEVEL(name_coefficients)(
    const Model *model, const Circle *circle, const LEVEL(Solutions) *fit, Post *post)
{
    int at = 0;
    for (int k = 0; k < model->terms; k++) {
        const Term *term = &model->term[k];
        const int columns = LEVEL(columns_of)(term, circle);
        double *slot = post->coefficients + term->slot;
        const bool modes = term->kind == MODES;
        if (!circle->determined[k] || columns == 0)
            continue;
        post->terms |= term->flag;
        if (modes || term->kind == PLATFORMS) {
            for (int c = 0; c < MAX_CATEGORIES; c++) {
                if (!((modes ? circle->seen_modes : circle->seen_platforms) >> c & 1))
                    continue;
                slot[c] = 0;
                for (int i = 0; i < columns; i++)
                    slot[c] += fit->coefficients[at + i][0]
                        * (modes ? circle->codes_of_mode : circle->codes_of_platform)[c][i];
            }
        } else {
            for (int i = 0; i < columns; i++)
                slot[i] = fit->coefficients[at + i][0] / circle->units[k];
        }
        at += columns;
    }
}

/* The kind of an offset that is needed and not determined, or -1. */
static int LEVEL(missing_offset)(const Model *model, const Circle *circle)
{
    for (int k = 0; k < model->terms; k++) {
        const int kind = model->term[k].kind;
        if (!circle->determined[k] && (kind == MODES || kind == PLATFORMS)
            && LEVEL(columns_of)(&model->term[k], circle) > 0)
            return kind;
    }
    return -1;
}

static void LEVEL(fit_kept)(const Points *points, const Model *model, Circle *circle, Post *post)
{
    LEVEL(Solutions) fit;
    double moved = 0, rss;
    LEVEL(list_columns)(model, circle, false);
    const int n = circle->unknowns;
    LEVEL(solve_total)(circle, model, &fit);
    LEVEL(find_residuals)(circle, model, &fit);
    if (model->rejects) {
        moved = LEVEL(reject_points)(model, circle, &fit, sqrt(fmax(fit.rss[0], 0) / circle->total[0]));
        LEVEL(describe)(points, circle, post);
        post->status = LEVEL(gate)(model, post);
        if (post->status != OK)
            return;
    }
    if (!fit.determined[0] || post->data_count <= n) {
        post->status = fit.determined[0] ? TOO_FEW_POINTS : SINGULAR;
        return;
    }
    rss = LEVEL(sum_squares)(circle);
    post->dhdt = fit.coefficients[n - 1][0];
    post->c1 = fit.coefficients[n - 2][0];
    post->c0 = fit.coefficients[n - 3][0];
    post->elevation = fit.level[0];
    post->misfit_rms = sqrt(rss / circle->total[0]);
    if (post->data_count > n + 1)
        post->dhdt_sigma_formal = sqrt(rss / (post->data_count - n - 1) * fit.rate_variance[0]);
    LEVEL(name_coefficients)(model, circle, &fit, post);
    if (post->pass_count > 1)
        LEVEL(jackknife)(model, circle, &fit, post);
    post->status = !(fabs(post->dhdt) <= model->max_rate) ? RATE_OUT_OF_BOUNDS
        : moved > post->dhdt_sigma_formal ? NOT_CONVERGED
                                          : OK;
}

/* Fits the points of the circle; returns the kind of an offset that they need and do not determine, else -1. */
static int LEVEL(try_fit)(const Points *points, const Model *model, Circle *circle, Post *post)
{
    const int64_t size = LEVEL(sums_size)(model->quads);
    LEVEL(sort_by_pass)(points, circle);
    memset(circle->kept, 1, circle->count);
    LEVEL(describe)(points, circle, post);
    post->status = LEVEL(gate)(model, post);
    if (post->status != OK)
        return -1;
    LEVEL(find_origin)(points, circle);
    LEVEL(weigh)(points, model, circle);
    LEVEL(fill_rows)(points, model, circle);
    memset(circle->sums, 0, circle->passes * size * sizeof(double));
    for (int32_t g = 0; g < circle->passes; g++) {
        const int64_t start = circle->starts[g];
        circle->factors[g] = 1;
        LEVEL(add_rows)(
            model->quads, circle->rows + 4 * model->quads * start, circle->weights + start,
            circle->starts[g + 1] - start, circle->sums + size * g);
    }
    if (model->rejects) {
        LEVEL(screen_passes)(model, circle);
        LEVEL(describe)(points, circle, post);
        post->status = LEVEL(gate)(model, post);
        if (post->status != OK)
            return -1;
    }
    LEVEL(sum_kept_passes)(circle, model->quads, circle->factors);
    LEVEL(drop_time_like)(model, circle);
    if (!LEVEL(drop_undetermined)(model, circle)) {
        post->status = SINGULAR;
        return -1;
    }
    const int missing = LEVEL(missing_offset)(model, circle);
    if (missing < 0)
        LEVEL(fit_kept)(points, model, circle, post);
    return missing;
}
