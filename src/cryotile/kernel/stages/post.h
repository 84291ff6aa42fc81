/* One post: the points in its circle, cut to one mode if modes may not mix, and their fit. */

/* Cuts the points of each platform whose offset is fitted, or all points, to their most frequent mode, the first one of
   equals; returns whether any point was cut. */
static bool keep_majority(const Points *points, Circle *circle)
{
    int64_t counts[MAX_CATEGORIES][MAX_CATEGORIES] = {{0}}, k = 0;
    int best[MAX_CATEGORIES] = {0};
    for (int64_t i = 0; i < circle->count; i++) {
        const int32_t at = circle->index[i];
        counts[points->platforms ? points->platforms[at] : 0][points->modes[at]]++;
    }
    for (int p = 0; p < MAX_CATEGORIES; p++)
        for (int c = 1; c < MAX_CATEGORIES; c++)
            best[p] = counts[p][c] > counts[p][best[p]] ? c : best[p];
    for (int64_t i = 0; i < circle->count; i++) {
        const int32_t at = circle->index[k] = circle->index[i];
        k += points->modes[at] == best[points->platforms ? points->platforms[at] : 0];
    }
    if (k == circle->count)
        return false;
    circle->count = k;
    return true;
}

/* Sets the results of a fit to NaN. */
static void clear_fit(Post *post)
{
    post->dhdt = post->elevation = post->c0 = post->c1 = post->dhdt_sigma = post->dhdt_sigma_formal = NAN;
    post->elevation_sigma = post->misfit_rms = post->centroid_distance = NAN;
    post->pass_offset_sigma = post->noise_sigma = NAN;
}

/* Sets what a post has beside its fit to nothing; its windows have no fit either. */
static void clear_more(const Posts *posts, int64_t at)
{
    for (int64_t k = posts->window_total * at; k < posts->window_total * (at + 1); k++)
        posts->rates[k] = (Rate){NAN, NAN, NAN, 0, 0, NOT_COMPUTED};
    for (int64_t k = posts->bin_total * at; k < posts->bin_total * (at + 1); k++)
        posts->heights[k] = (Height){NAN, NAN, NAN, 0, 0};
    for (int64_t k = posts->group_total * at; k < posts->group_total * (at + 1); k++)
        posts->changes[k] = (Change){NAN, NAN};
}

static void fit_circle(const Points *points, const Model *model, Circle *circle, const Posts *posts, int64_t at)
{
    Post *const post = posts->posts + at;
    double *const coefficients = posts->coefficients + posts->slots * at;
    bool cut = model->modes > 1;
    memset(post, 0, sizeof *post);
    clear_fit(post);
    post->time_start = post->time_end = NAN;
    post->status = NO_POINTS;
    for (int k = 0; k < model->terms; k++)
        cut &= model->term[k].kind != MODES;
    cut = cut && keep_majority(points, circle);
    for (int64_t k = 0; k < posts->slots; k++)
        coefficients[k] = NAN;
    if (circle->count > 0 && model->plain)
        fit_plane(points, model, circle, post);
    else if (circle->count > 0)
        fit_passes(points, model, circle, posts, at, coefficients);
    if (post->status != OK) {
        clear_fit(post);
        for (int64_t k = 0; k < posts->slots; k++)
            coefficients[k] = NAN;
        post->terms = 0;
        for (int64_t k = posts->window_total * at; k < posts->window_total * (at + 1); k++)
            posts->rates[k].status = post->status;
    }
    post->terms |= cut ? model->majority_mode : 0;
}

void FIT_ROWS(
    const Points *points, const Cells *cells, const Model *model, Circle *circle, const Posts *posts)
{
    Band bands[MAX_BANDS];
    for (int64_t j = 0; j < posts->ny; j++) {
        const int n_bands = find_bands(cells, model->radius, posts->y[j], bands);
        circle->y = posts->y[j];
        for (int64_t i = 0, at = j * posts->nx; i < posts->nx; i++, at++) {
            if (!posts->wanted[at])
                continue;
            circle->x = posts->x[i];
            clear_more(posts, at);
            if (select_points(points, cells, model->radius, bands, n_bands, circle))
                fit_circle(points, model, circle, posts, at);
            else
                posts->posts[at].status = NOT_COMPUTED;
        }
    }
}
