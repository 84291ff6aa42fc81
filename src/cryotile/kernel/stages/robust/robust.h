/* The fit of one circle: passes, then points are screened, the rest is solved, and each pass is left out in turn. */

static double sum_squares(const Circle *circle)
{
    double sum = 0;
    for (int64_t i = 0; i < circle->count; i++)
        sum += circle->kept[i] ? circle->weights[i] * circle->residuals[i] * circle->residuals[i] : 0;
    return sum;
}

/* Fills the coefficients of the terms in the fit, and their flags. */
static void name_coefficients(
    const Model *model, const Circle *circle, const Solutions *fit, Post *post, double *coefficients)
{
    int at = 0;
    for (int k = 0; k < model->terms; k++) {
        const Term *term = &model->term[k];
        const int columns = columns_of(term, circle);
        double *slot = coefficients + term->slot;
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

/* Returns the kind of an offset that is needed and not determined, or -1. */
static int missing_offset(const Model *model, const Circle *circle)
{
    for (int k = 0; k < model->terms; k++) {
        const int kind = model->term[k].kind;
        if (!circle->determined[k] && (kind == MODES || kind == PLATFORMS)
            && columns_of(&model->term[k], circle) > 0)
            return kind;
    }
    return -1;
}

/* Fits the terms to the kept points. */
static void fit_terms(const Model *model, Circle *circle, Solutions *fit)
{
    list_columns(model, circle, false);
    solve_total(circle, model, fit);
    find_residuals(circle, model, fit);
}

/* Keeps the terms that the kept passes determine; false: u, v or tau is not determined. */
static bool choose_terms(const Model *model, Circle *circle)
{
    drop_time_like(model, circle);
    return drop_undetermined(model, circle);
}

/* Fits the kept passes; returns the kind of an offset that became undetermined, else -1. */
static int fit_kept(
    const Points *points, const Model *model, Circle *circle, Post *post, double *coefficients)
{
    Solutions fit;
    double moved = 0, rss;
    fit_terms(model, circle, &fit);
    if (model->rejects) {
        const int32_t passes = post->pass_count;
        moved = reject_points(model, circle, &fit, sqrt(fmax(fit.rss[0], 0) / circle->total[0]));
        describe(model, circle, post);
        post->status = gate(model, post);
        if (post->status != OK)
            return -1;
        if (post->pass_count < passes) {
            /* All points of a pass were rejected: the other passes may determine fewer terms. */
            if (!choose_terms(model, circle)) {
                post->status = SINGULAR;
                return -1;
            }
            const int missing = missing_offset(model, circle);
            if (missing >= 0)
                return missing;
            fit_terms(model, circle, &fit);
        }
    }
    const int n = circle->unknowns;
    if (!fit.determined[0] || post->data_count <= n) {
        post->status = fit.determined[0] ? TOO_FEW_POINTS : SINGULAR;
        return -1;
    }
    rss = sum_squares(circle);
    post->dhdt = fit.coefficients[n - 1][0];
    post->c1 = fit.coefficients[n - 2][0];
    post->c0 = fit.coefficients[n - 3][0];
    post->elevation = fit.level[0];
    post->misfit_rms = sqrt(rss / circle->total[0]);
    if (post->data_count > n + 1)
        post->dhdt_sigma_formal = sqrt(rss / (post->data_count - n - 1) * fit.rate_variance[0]);
    name_coefficients(model, circle, &fit, post, coefficients);
    if (post->pass_count > 1)
        jackknife(model, circle, &fit, post);
    post->status = !(fabs(post->dhdt) <= model->max_rate) ? RATE_OUT_OF_BOUNDS
        : moved > post->dhdt_sigma_formal ? NOT_CONVERGED
                                          : OK;
    return -1;
}

/* Fits the points of the circle; returns the kind of an offset that they need and do not determine, else -1. */
static int try_fit(
    const Points *points, const Model *model, Circle *circle, Post *post, double *coefficients)
{
    const int64_t size = sums_size(model->quads);
    sort_by_pass(points, circle);
    memset(circle->verdict, 0, sizeof circle->verdict);
    for (int k = 0; k < 3; k++)
        circle->plane_tolerance[k] = NAN;
    circle->pass_limit = circle->point_middle = circle->point_limit = NAN;
    memset(circle->kept, 1, circle->count);
    for (int32_t g = 0; g < circle->passes; g++)
        circle->described[g].count = -1;
    find_origin(points, circle);
    fill_rows(points, model, circle);
    describe(model, circle, post);
    post->status = gate(model, post);
    if (post->status != OK)
        return -1;
    weigh(points, model, circle);
    for (int k = 0; k < model->terms; k++)
        fill_term(points, model, circle, k);
    memset(circle->sums, 0, circle->passes * size * sizeof(double));
    for (int32_t g = 0; g < circle->passes; g++) {
        const int64_t start = circle->starts[g];
        circle->factors[g] = 1;
        add_rows(
            model->quads, circle->rows + 4 * model->quads * start, circle->weights + start,
            circle->starts[g + 1] - start, circle->sums + size * g);
    }
    if (model->rejects) {
        screen_passes(model, circle);
        describe(model, circle, post);
        post->status = gate(model, post);
        if (post->status != OK)
            return -1;
    }
    sum_kept_passes(circle, model->quads, circle->factors);
    if (!choose_terms(model, circle)) {
        post->status = SINGULAR;
        return -1;
    }
    const int missing = missing_offset(model, circle);
    return missing < 0 ? fit_kept(points, model, circle, post, coefficients) : missing;
}
