/* The coefficients of terms; of those that users name, their sigmas by leaving out each pass that is not free. */

/* The next columns of terms whose number depends on the model. */
typedef struct {
    int within, constant;
} Places;

static Places first_places(const Model *model)
{
    return (Places){TERRAIN, model->point_columns + SEASONAL};
}

/* Returns the first column of a term; terms must be asked for in their order. */
static int next_column(const Model *model, const Term *term, Places *places)
{
    const int q = model->point_columns, within = places->within;
    switch (term->kind) {
    case QUADRATIC: return 2;
    case DIRECTION: return q + 1;
    case ANNUAL: return q + 2;
    case ACCELERATION: return places->constant++;
    default: places->within += term->count; return within;
    }
}

/* Fills the effect of each category that was seen. */
static void name_categories(const Term *term, const Circle *circle, const double *beta, double *slot)
{
    const bool modes = term->kind == MODES;
    for (int c = 0; c < MAX_CATEGORIES; c++) {
        if (!((modes ? circle->seen_modes : circle->seen_platforms) >> c & 1))
            continue;
        slot[c] = 0;
        for (int i = 0; i < columns_of(term, circle); i++)
            slot[c] += beta[i] * (modes ? circle->codes_of_mode : circle->codes_of_platform)[c][i];
    }
}

/* Fills the coefficients of terms, and their flags. */
static void name_terms(const Model *model, const Circle *circle, Post *post, double *coefficients)
{
    const Work *const work = &circle->work;
    Places places = first_places(model);
    for (int k = 0; k < model->terms; k++) {
        const Term *term = &model->term[k];
        const double *const beta = work->beta + next_column(model, term, &places);
        post->terms |= term->flag;
        if (term->kind == MODES || term->kind == PLATFORMS)
            name_categories(term, circle, beta, coefficients + term->slot);
        else
            for (int i = 0; i < term->count; i++)
                coefficients[term->slot + i] = beta[i] / circle->units[k];
    }
}

/* Whether users name a term, which then has a sigma. */
static bool is_named(const Term *term)
{
    return term->kind == ACCELERATION || term->kind >= MODES;
}

/* Adds the squares by which the coefficients of a term change, eight passes at a time; a pass without which a column of
   the term is undetermined makes them NaN. */
static void add_squares(
    const Model *model, const Circle *circle, int k, int first, const eight *changes, const Eliminated *without,
    eight_masks there, double *squares)
{
    const Term *const term = &model->term[k];
    const bool modes = term->kind == MODES, offsets = modes || term->kind == PLATFORMS;
    const int columns = offsets ? columns_of(term, circle) : term->count;
    double lost = 0;
    for (int i = 0; i < columns; i++)
        for (int l = 0; l < 8; l++)
            lost = there[l] && ((const double *)(without->inverse + first + i))[l] == 0 ? NAN : lost;
    for (int c = 0; c < (offsets ? MAX_CATEGORIES : columns); c++) {
        const double *const codes = modes ? circle->codes_of_mode[c] : circle->codes_of_platform[c];
        eight change = {0};
        if (offsets && !((modes ? circle->seen_modes : circle->seen_platforms) >> c & 1))
            continue;
        for (int i = 0; i < columns; i++)
            change += changes[first + i] * (offsets ? codes[i] : (i == c) / circle->units[k]);
        squares[term->slot + c] += sum_of((eight)((eight_masks)(change * change) & there)) + lost;
    }
}

/* Fills the sigmas of the coefficients of named terms, each in the place of its coefficient; NaN where there is none. */
static void find_term_sigmas(
    const Model *model, const Circle *circle, const Work *work, const Equations *from, double *sigmas)
{
    const int n = model->unknowns;
    eight prior[MAX_UNKNOWNS], changes[MAX_UNKNOWNS];
    Eliminated without[2];
    bool any = false;
    for (int k = 0; k < model->terms; k++)
        for (int i = 0; is_named(&model->term[k]) && i < model->term[k].outputs; i++) {
            any = true;
            sigmas[model->term[k].slot + i] = 0;
        }
    for (int k = 0; k < n; k++)
        prior[k] = all(from->prior[k]);
    for (int32_t row = 0; any && row < work->passes; row += 8) {
        Places places = first_places(model);
        eight_masks there;
        for (int half = 0; half < 2; half++)
            leave_out(model, work, from, row, without[half].l);
        eliminate(
            model, work, (const eight *const[]){prior, prior},
            (Eliminated *const[]){&without[0], &without[1]});
        substitute(&without[0], n, 0, changes);
        for (int k = 0; k < n; k++)
            changes[k] -= work->beta[k];
        for (int p = 0; p < 8; p++)
            there[p] = -(row + p < work->passes && !work->free[row + p]);
        for (int k = 0; k < model->terms; k++) {
            const int first = next_column(model, &model->term[k], &places);
            if (is_named(&model->term[k]))
                add_squares(model, circle, k, first, changes, &without[0], there, sigmas);
        }
    }
    for (int k = 0; k < model->terms; k++)
        for (int i = 0; is_named(&model->term[k]) && i < model->term[k].outputs; i++) {
            double *const sigma = sigmas + model->term[k].slot + i;
            /* A category that was not seen has no coefficient. */
            *sigma = *sigma > 0 ? sqrt(*sigma) : NAN;
        }
}
