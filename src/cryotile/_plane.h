/* A plane without terms, weights or rejection: the sums of the passes in one sweep, and no point is moved. */

/* Sums of each pass, with one quad of columns; widens the span of times. */
static void LEVEL(sum_passes)(const Points *points, const Model *model, Circle *circle, double span[2])
{
    enum { QUADS = 6 };
    const quad scale = {1 / model->radius, 1 / model->radius, 1, 1}, origin = *(const quad *)circle->origin;
    double first = INFINITY, last = -INFINITY;
    circle->passes = 0;
    for (int64_t i = 0; i < circle->count; i++) {
        const quad point = *(const quad *)(points->points + 4 * circle->index[i]);
        const quad row = (point - origin) * scale;
        const int32_t code = points->passes[circle->index[i]];
        int32_t number = circle->numbers[code];
        quad *sums;
        if (number < 0) {
            number = circle->numbers[code] = circle->passes;
            circle->codes[circle->passes++] = code;
            memset(circle->sums + 4 * QUADS * (int64_t)number, 0, QUADS * sizeof(quad));
        }
        sums = (quad *)circle->sums + QUADS * (int64_t)number;
        *(double *)sums += 1;
        sums[1] += row;
        sums[2] += row[U] * row;
        sums[3] += row[V] * row;
        sums[4] += row[T] * row;
        sums[5] += row[Z] * row;
        first = point[T] < first ? point[T] : first;
        last = point[T] > last ? point[T] : last;
    }
    span[0] = first;
    span[1] = last;
    for (int32_t g = 0; g < circle->passes; g++) {
        circle->numbers[circle->codes[g]] = -1;
        circle->pass_kept[g] = 1;
        circle->factors[g] = 1;
    }
}

static double LEVEL(sum_plane_squares)(
    const Points *points, const Model *model, const Circle *circle, const LEVEL(Solutions) *fit)
{
    const double per_radius = 1 / model->radius, *origin = circle->origin;
    const double cu = fit->coefficients[0][0], cv = fit->coefficients[1][0], ct = fit->coefficients[2][0];
    double sum = 0;
    for (int64_t i = 0; i < circle->count; i++) {
        const double *point = points->points + 4 * circle->index[i];
        const double residual = (point[Z] - origin[Z]) - fit->constant[0] - cu * ((point[U] - origin[U]) * per_radius)
            - cv * ((point[V] - origin[V]) * per_radius) - ct * (point[T] - origin[T]);
        sum += residual * residual;
    }
    return sum;
}

static void LEVEL(solve_plane)(const Points *points, const Model *model, Circle *circle, Post *post)
{
    const double per_radius = 1 / model->radius, n = (double)circle->count;
    LEVEL(Solutions) fit;
    double du, dv, rss, spread;
    for (int k = 0; k < BASE; k++)
        circle->active[k] = k;
    circle->unknowns = 3;
    circle->at_post[U] = (circle->x - circle->origin[U]) * per_radius;
    circle->at_post[V] = (circle->y - circle->origin[V]) * per_radius;
    circle->at_post[T] = -circle->origin[T];
    LEVEL(sum_kept_passes)(circle, 1, circle->factors);
    LEVEL(solve_total)(circle, model, &fit);
    post->status = !fit.determined[0] ? SINGULAR
        : !(fabs(fit.coefficients[2][0]) <= model->max_rate) ? RATE_OUT_OF_BOUNDS
                                                             : OK;
    if (post->status != OK)
        return;
    post->c0 = fit.coefficients[0][0];
    post->c1 = fit.coefficients[1][0];
    post->dhdt = fit.coefficients[2][0];
    post->elevation = fit.level[0];
    /* What the sums leave to residuals has too few digits where they are a small share of the spread. */
    spread = circle->total[LEVEL(products)(1, Z) + Z] - circle->total[4 + Z] * circle->total[4 + Z] / n;
    rss = fit.rss[0] > LEAST_MISFIT * spread ? fit.rss[0] : LEVEL(sum_plane_squares)(points, model, circle, &fit);
    post->misfit_rms = sqrt(rss / n);
    if (n > 4)
        post->dhdt_sigma_formal = sqrt(rss / (n - 4) * fit.rate_variance[0]);
    du = circle->total[4 + U] / n - circle->at_post[U];
    dv = circle->total[4 + V] / n - circle->at_post[V];
    post->centroid_distance = model->radius * sqrt(du * du + dv * dv);
    if (post->pass_count > 1)
        LEVEL(jackknife)(model, circle, &fit, post);
}

static void LEVEL(fit_plane)(const Points *points, const Model *model, Circle *circle, Post *post)
{
    double span[2];
    LEVEL(find_origin)(points, circle);
    LEVEL(sum_passes)(points, model, circle, span);
    post->data_count = (int32_t)circle->count;
    post->pass_count = circle->passes;
    post->time_start = span[0];
    post->time_end = span[1];
    post->status = LEVEL(gate)(model, post);
    if (post->status == OK)
        LEVEL(solve_plane)(points, model, circle, post);
}
