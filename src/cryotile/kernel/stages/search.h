/* The search for bad passes: some are marked from several starts, then all that do not prove bad are taken back. */

static const double LEAST_SHARE = 0.02;       /* of a mean that its own fit leaves */
static const double MEDIAN_OF_SQUARES = 0.455; /* of a standard normal variable */
static const double START_THETA = 100;        /* times the smallest theta */
static const double SURE_T = 2;               /* a free pass below it is always taken back */
enum { MARKING_ROUNDS = 8, WEIGHING_ROUNDS = 3, MOST_STARTS = 8, STARTS = 3 };

/* Number of passes that are marked. */
static int32_t count_marked(const Work *work)
{
    const int32_t share = 2 * work->passes / 5, spare = work->passes - 4, points = (int32_t)work->weight - 5;
    const int32_t least = share < spare ? share : spare;
    return least < 0 || points < 0 ? 0 : least < points ? least : points;
}

/* Fills keys with values of passes, padded for a median; returns the padded number. */
INLINE int64_t fill_pass_keys(Work *work, const double *values)
{
    int64_t k = work->passes;
    memcpy(work->keys, values, k * sizeof(double));
    while (k % 8)
        work->keys[k++] = INFINITY;
    return k;
}

/* Marks the passes of largest t, the earlier one of equals; returns whether that changes any. */
static bool mark_largest(Work *work, int32_t marked, uint8_t *marks)
{
    const int64_t padded = fill_pass_keys(work, work->t);
    const double limit = value_of_rank(work->keys, padded, work->passes - marked, 1, 3, work->spare);
    int32_t equals = marked;
    bool changed = false;
    for (int32_t row = 0; row < work->passes; row++)
        equals -= work->t[row] > limit;
    for (int32_t row = 0; row < work->passes; row++) {
        const bool mark = work->t[row] > limit || (work->t[row] == limit && equals-- > 0);
        changed |= mark != marks[row];
        marks[row] = mark;
    }
    return changed;
}

/* Studentises the mean of each pass against the others, whose fit gave it leverage h and residual e; returns the new
   theta. */
static double studentise(Work *work, int lane, double theta)
{
    const double variance = work->sigma * work->sigma, least = work->thetas[0];
    double *const spread = work->h, *const off = work->e, found;
    int64_t padded;
    for (int32_t row = 0; row < work->passes; row++) {
        const double per_n = 1 / work->n[row], weight = work->factors[16 * (int64_t)row + lane];
        const double share = fmax(1 - weight * work->h[row] / (theta + per_n), LEAST_SHARE);
        off[row] = work->e[row] / share;
        spread[row] = per_n + work->h[row] / share;
        work->t[row] = off[row] * off[row] / (MEDIAN_OF_SQUARES * variance) - spread[row];
    }
    padded = fill_pass_keys(work, work->t);
    found = fmax(least, padded_median(work->keys, padded, work->passes, theta / 2, 2 * theta, work->spare));
    for (int32_t row = 0; row < work->passes; row++)
        work->t[row] = fabs(off[row]) / (work->sigma * sqrt(found + spread[row]));
    return found;
}

/* Fits passes with the weights of each lane's start, at its theta. */
static void fit_weighted(const Model *model, Work *work, eight theta, Eliminated *fit)
{
    eight a[MAX_PRODUCTS], prior[MAX_UNKNOWNS], *const factors = (eight *)work->factors;
    for (int32_t row = 0; row < work->passes; row++) {
        factors[2 * row + 1] = factors[2 * row] / (theta + 1 / work->n[row]);
        work->list[row] = row;
    }
    start_equations(model, work, theta, a, prior);
    add_means(model, work, work->list, work->passes, factors + 1, 2, 1, a);
    eliminate(model, work, a, prior, fit);
}

/* Marks passes from starts that go side by side: (a) weighs all passes alike at first, (b) runs rounds before that mark
   nothing and weigh passes by the inverse of t. */
static void mark_passes(const Model *model, Work *work, int starts, int32_t marked, uint8_t *const marks[STARTS])
{
    Eliminated fit;
    eight theta = all(START_THETA * work->thetas[0]);
    bool open[2] = {true, starts > 1};
    for (int round = 0; round < MARKING_ROUNDS + WEIGHING_ROUNDS && (open[0] || open[1]); round++) {
        fit_weighted(model, work, theta, &fit);
        for (int s = 0; s < 2; s++) {
            double *const factors = work->factors + s;
            const bool weighs = s == 1 && round < WEIGHING_ROUNDS;
            if (!open[s])
                continue;
            find_leverages(model, &fit, s, work);
            theta[s] = studentise(work, s, theta[s]);
            if (!weighs)
                open[s] = mark_largest(work, marked, marks[s]) && round < MARKING_ROUNDS - 1 + WEIGHING_ROUNDS * s;
            for (int32_t row = 0; row < work->passes; row++)
                factors[16 * (int64_t)row] = weighs ? 1 / fmax(work->t[row], 1) : !marks[s][row];
        }
    }
}

/* Marks the passes that become free one after another: start (c). */
static void mark_in_turn(const Model *model, Work *work, int32_t marked, uint8_t *marks, Spreads *of)
{
    memset(marks, 0, work->passes);
    sum_spreads(model, work, marks, of);
    for (int32_t k = 0; k < marked; k++) {
        double most = -1;
        int32_t worst = 0;
        find_likelihoods(model, work, k, of);
        find_best_leverages(model, work, of);
        for (int32_t row = 0; row < work->passes; row++) {
            const double v = work->thetas[work->best] + 1 / work->n[row];
            const double squared = work->e[row] * work->e[row] / fmax(v - work->h[row], 1e-9 * v);
            if (!marks[row] && squared > most)
                most = squared, worst = row;
        }
        marks[worst] = 1;
        if (k + 1 < marked)
            free_pass(model, work, worst, of);
    }
}

/* Takes passes back while they do not prove bad (generalised ESD, backward). */
static void take_back(const Model *model, Work *work, int32_t marked, Spreads *of)
{
    for (int32_t row = 0; row < work->passes; row++)
        work->t[row] = NAN;
    while (marked > 0) {
        const double theta = work->thetas[work->best], variance = work->rss / work->freedom;
        const int32_t others = work->passes - marked + 1;
        double least = INFINITY, limit;
        int32_t count = 0;
        find_best_leverages(model, work, of);
        for (int32_t row = 0; row < work->passes; row++) {
            if (!work->free[row])
                continue;
            work->t[row] = fabs(work->e[row]) / sqrt((theta + 1 / work->n[row] + work->h[row]) * variance);
            least = fmin(least, work->t[row]);
        }
        if (least >= SURE_T && least > model->limits[others])
            break;
        limit = fmax(least, SURE_T);
        for (int32_t row = 0; row < work->passes; row++)
            if (work->free[row] && work->t[row] <= limit) {
                work->free[row] = 0;
                work->list[count++] = row;
                for (int half = 0; half < 2; half++)
                    of->logs[half] -= work->log_n[row];
            }
        add_passes(model, work, work->list, count, of);
        marked -= count;
        find_likelihoods(model, work, marked, of);
    }
    work->marked = marked;
}

/* Finds the free passes; the second time starts from those of the first.  Returns the equations with them free. */
static Spreads *search(const Model *model, Work *work, bool again, Spreads of[2])
{
    const int32_t marked = count_marked(work);
    const int starts = again || marked > MOST_STARTS ? 1 : STARTS;
    uint8_t *const marks[STARTS] = {work->marks, work->marks + work->stride, work->marks + 2 * work->stride};
    Spreads *best = of, *next = of + 1, *last = NULL;
    double most = -INFINITY;
    for (int32_t row = 0; row < work->passes; row++)
        ((eight *)work->factors)[2 * row] = all(1 - (again && work->was_free[work->pass[row]]));
    memset(work->marks, 0, STARTS * work->stride);
    if (marked > 0)
        mark_passes(model, work, starts, marked, marks);
    if (marked > 0 && starts > 2)
        mark_in_turn(model, work, marked, marks[2], next);
    for (int s = 0; s < starts; s++) {
        double found;
        if (s > 0 && (memcmp(marks[s], marks[0], work->passes) == 0 || memcmp(marks[s], marks[s - 1], work->passes) == 0))
            continue;
        last = next;
        sum_spreads(model, work, marks[s], next);
        found = find_likelihoods(model, work, marked, next);
        if (s > 0 && !(found > most))
            continue;
        most = found;
        memcpy(work->free, marks[s], work->passes);
        next = best;
        best = last;
    }
    if (last != best)
        find_likelihoods(model, work, marked, best);
    take_back(model, work, marked, best);
    return best;
}
