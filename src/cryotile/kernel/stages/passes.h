/* The recipe passes at one post: screen, sums, search, screen once more, rate and its sigma. */

/* Fills counts, times and places of the kept points. */
static void describe_passes(const Model *model, const Circle *circle, const Work *work, Post *post)
{
    double first = INFINITY, last = -INFINITY, u = 0, v = 0, n = 0;
    eight firsts = all(INFINITY), lasts = all(-INFINITY);
    int64_t count = 0;
    for (int32_t row = 0; row < work->passes; row++) {
        const int32_t g = work->pass[row];
        count += work->kept[g];
        n += work->n[row];
        u += work->n[row] * work->means[row];
        v += work->n[row] * work->means[work->stride + row];
        for (int64_t i = work->first[g]; i < work->first[g + 1] && !work->free[row]; i += 8) {
            const eight tau = *(const eight *)(work->tau + i);
            const eight_masks in = *(const eight *)(work->live + i) > 0;
            firsts = choose(in & (tau < firsts), tau, firsts);
            lasts = choose(in & (tau > lasts), tau, lasts);
        }
    }
    for (int l = 0; l < 8; l++) {
        first = firsts[l] < first ? firsts[l] : first;
        last = lasts[l] > last ? lasts[l] : last;
    }
    post->data_count = (int32_t)count;
    post->rejected_count = (int32_t)(circle->count - count);
    post->free_pass_count = work->marked;
    post->pass_count = work->passes - work->marked;
    post->time_start = first + work->origin;
    post->time_end = last + work->origin;
    post->centroid_distance = model->radius * sqrt(u * u + v * v) / n;
}

static int gate_passes(const Model *model, const Post *post)
{
    return post->data_count < model->min_points ? TOO_FEW_POINTS
        : post->pass_count < model->min_passes  ? TOO_FEW_PASSES
                                                : OK;
}

/* Fills the residuals of the means of passes, and returns the mean square of those of points of passes that are not free. */
static double mean_square(const Model *model, Work *work)
{
    const int q = model->point_columns, n = model->unknowns;
    double sum = 0, weight = 0;
    for (int32_t row = 0; row < work->passes; row += 8) {
        eight e = *(const eight *)(work->means + work->stride * n + row);
        for (int k = 0; k < n; k++)
            e -= work->beta[k] * *(const eight *)(work->means + work->stride * k + row);
        *(eight *)(work->e + row) = e;
    }
    for (int32_t row = 0; row < work->passes; row++) {
        const double *const within = work->within + row;
        if (work->free[row])
            continue;
        weight += work->n[row];
        sum += work->n[row] * work->e[row] * work->e[row];
        for (int i = 0; i <= q; i++) {
            const double c = i < q ? -work->beta[i] : 1;
            for (int j = 0; j < i; j++)
                sum -= 2 * c * work->beta[j] * within[work->stride * triangle(i, j)];
            sum += c * c * within[work->stride * triangle(i, i)];
        }
    }
    return fmax(sum, 0) / weight;
}

/* Finds the free passes and the fit; false: the rate is not determined. */
static bool fit_once(const Model *model, Work *work, bool again, Equations *equations)
{
    prepare_thetas(work);
    search(model, work, again);
    sum_equations(model, work, equations);
    return solve_equations(model, work, equations);
}

/* Likewise, screens points once more, and if that changed any fits anew. */
static bool fit_and_screen(const Model *model, const Circle *circle, Work *work, Equations *equations)
{
    bool determined = fit_once(model, work, false, equations);
    if (!determined || !screen_again(model, circle, work))
        return determined;
    memset(work->was_free, 0, circle->passes);
    for (int32_t row = 0; row < work->passes; row++)
        work->was_free[work->pass[row]] = work->free[row];
    sum_passes(model, circle, work);
    determined = fit_once(model, work, true, equations);
    for (int32_t g = 0; g < circle->passes; g++)
        find_fit_residuals(model, work, g);
    return determined;
}

/* Fills the rate, and all that follows from the fit. */
static void fill_post(
    const Model *model, Circle *circle, const Equations *equations, Post *post, double *coefficients)
{
    Work *const work = &circle->work;
    const int n = model->unknowns;
    const double variance = work->rss / work->freedom;
    double level = 0;
    for (int k = model->point_columns; k < n; k++)
        level += work->beta[k] * work->at_post[k];
    post->dhdt = work->beta[n - 1];
    post->c0 = work->beta[0];
    post->c1 = work->beta[1];
    post->elevation = work->level + level;
    post->dhdt_sigma_formal = sqrt(variance * work->rate_variance);
    post->noise_sigma = sqrt(variance);
    post->pass_offset_sigma = sqrt(work->thetas[work->best] * variance);
    post->misfit_rms = sqrt(mean_square(model, work));
    name_terms(model, circle, post, coefficients);
    leave_out_passes(model, work, equations, level, post);
    find_term_sigmas(model, circle, work, equations, coefficients + model->slots);
    post->status = gate_rate(model, post->dhdt, post->dhdt_sigma, post->pass_count);
}

/* Adds the rate and its deltas to the totals of the regions of a post. */
static void add_to_totals(const Model *model, const Circle *circle, const Posts *posts, int64_t at)
{
    const Work *const work = &circle->work;
    for (int64_t k = posts->depth * at; k < posts->depth * (at + 1); k++) {
        double *const to = posts->deltas + (model->pass_total + 1) * (int64_t)posts->regions[k];
        if (posts->regions[k] < 0)
            continue;
        for (int32_t row = 0; row < work->passes; row++)
            to[circle->codes[work->pass[row]]] += posts->areas[at] * work->deltas[row];
        to[model->pass_total] += posts->areas[at] * work->beta[model->unknowns - 1];
    }
}

/* Fills what follows from the sums of an accepted fit at a post. */
static void fill_more(const Model *model, Circle *circle, const Equations *whole, const Posts *posts, int64_t at)
{
    Work *const work = &circle->work;
    const int32_t passes = posts->posts[at].pass_count;
    BinEquations bins;
    sort_by_time(model, work);
    if (posts->window_total)
        fill_windows(
            model, work, whole, posts->windows, posts->window_total, posts->rates + posts->window_total * at);
    if (posts->bin_total)
        fill_heights(
            model, work, whole, posts->bins, posts->bin_total, work->level, passes,
            posts->heights + posts->bin_total * at, &bins);
    if (posts->group_total)
        leave_out_groups(model, circle, whole, posts, at);
    if (posts->depth)
        add_to_totals(model, circle, posts, at);
    if (posts->departures && in_region(posts, at))
        add_heights_to_totals(model, circle, &bins, posts, at);
}

/* Fits the points of the circle. */
static void fit_passes(
    const Points *points, const Model *model, Circle *circle, const Posts *posts, int64_t at, double *coefficients)
{
    Work *const work = &circle->work;
    Post *const post = posts->posts + at;
    Equations equations;
    bool determined;
    take_points(points, model, circle);
    screen_points(model, circle, work);
    work->marked = 0;
    memset(work->free, 0, work->stride);
    describe_passes(model, circle, work, post);
    post->status = gate_passes(model, post);
    if (post->status != OK)
        return;
    determined = fit_and_screen(model, circle, work, &equations);
    describe_passes(model, circle, work, post);
    post->status = gate_passes(model, post);
    if (post->status == OK && !determined)
        post->status = SINGULAR;
    if (post->status == OK)
        fill_post(model, circle, &equations, post, coefficients);
    if (post->status == OK && (posts->window_total || posts->bin_total || posts->group_total || posts->depth))
        fill_more(model, circle, &equations, posts, at);
}
