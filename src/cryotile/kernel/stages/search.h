/* The search for bad passes: some are marked from several starts, then all that do not prove bad are taken back. */

static const double LEAST_SHARE = 0.02;       /* of a mean that its own fit leaves */
static const double MEDIAN_OF_SQUARES = 0.455; /* of a standard normal variable */
static const double START_THETA = 100;        /* times the smallest theta */
static const double SURE_T = 2;               /* a free pass below it is always taken back */
static const double LEAST_LEFT = 1e-3;        /* of v by v - h: below it an update loses too many digits */
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
    const double *const t = work->t;
    int32_t equals = marked;
    uint8_t changed = 0;
    for (int32_t row = 0; row < work->passes; row++)
        equals -= t[row] > limit;
    for (int32_t row = 0; row < work->passes; row++) {
        const uint8_t mark = (t[row] > limit) | ((t[row] == limit) & (equals > 0));
        equals -= t[row] == limit;
        changed |= mark ^ marks[row];
        marks[row] = mark;
    }
    return changed;
}

/* Fits passes with their weights; fills leverage and residual of each mean. */
static void fit_weighted(const Model *model, Work *work, double theta)
{
    double prior[MAX_UNKNOWNS];
    Lane fit;
    for (int32_t row = 0; row < work->passes; row += 8)
        *(eight *)(work->factors + row) =
            *(const eight *)(work->shares + row) / (theta + 1 / *(const eight *)(work->n + row));
    fill_prior(model, work, theta, prior);
    start_one(model, work, prior, fit.l);
    add_weighted(model, work, work->factors, fit.l);
    if (model->unknowns == USUAL_UNKNOWNS)
        eliminate_one(USUAL_UNKNOWNS, fit.l, prior, LEAST_VARIANCE, fit.inverse);
    else
        eliminate_one(model->unknowns, fit.l, prior, LEAST_VARIANCE, fit.inverse);
    find_leverages(model, &fit, work->means, work->stride, work->passes, work->h, work->e);
}

/* Studentises the mean of each pass against the others; returns the new theta. */
static double studentise(Work *work, double theta)
{
    const double per_variance = 1 / (MEDIAN_OF_SQUARES * work->sigma * work->sigma);
    double found;
    int64_t padded;
    for (int32_t row = 0; row < work->passes; row += 8) {
        const eight share = larger(
            1 - *(const eight *)(work->factors + row) * *(const eight *)(work->h + row), all(LEAST_SHARE));
        const eight off = *(const eight *)(work->e + row) / share;
        const eight spread = 1 / *(const eight *)(work->n + row) + *(const eight *)(work->h + row) / share;
        *(eight *)(work->e + row) = off;
        *(eight *)(work->h + row) = spread;
        *(eight *)(work->t + row) = off * off * per_variance - spread;
    }
    padded = fill_pass_keys(work, work->t);
    found = fmax(
        work->thetas[0], padded_median(work->keys, padded, work->passes, theta / 2, 2 * theta, work->spare));
    for (int32_t row = 0; row < work->passes; row += 8)
        *(eight *)(work->t + row) = magnitude(*(const eight *)(work->e + row))
            / (work->sigma * root(found + *(const eight *)(work->h + row)));
    return found;
}

/* Marks passes: start (a), or (b), whose first rounds mark nothing and weigh passes by the inverse of t. */
static void mark_passes(const Model *model, Work *work, int32_t marked, int weighing, uint8_t *marks)
{
    double theta = START_THETA * work->thetas[0];
    bool changed = true;
    for (int round = 0; round < MARKING_ROUNDS + weighing && changed; round++) {
        fit_weighted(model, work, theta);
        theta = studentise(work, theta);
        if (round >= weighing)
            changed = mark_largest(work, marked, marks);
        for (int32_t row = 0; row < work->passes; row += 8) {
            const eight inverse = 1 / larger(*(const eight *)(work->t + row), all(1));
            for (int l = 0; l < 8; l++)
                work->shares[row + l] = round < weighing ? inverse[l] : 1 - marks[row + l];
        }
    }
}

/* Marks the passes that become free one after another, start (c); leaves the equations with them free. */
static void mark_in_turn(const Model *model, Work *work, int32_t marked, uint8_t *marks, Spreads *of)
{
    memset(marks, 0, work->passes);
    sum_spreads(model, work, marks, of);
    for (int32_t k = 0; k < marked; k++) {
        double most = -1, left = 1;
        int32_t worst = 0;
        Lane fit;
        find_likelihoods(work, k, of);
        take_best(model, work, of, &fit);
        find_leverages(model, &fit, work->means, work->stride, work->passes, work->h, work->e);
        for (int32_t row = 0; row < work->passes; row++) {
            const double v = work->thetas[work->best] + 1 / work->n[row], share = 1 - work->h[row] / v;
            const double squared = work->e[row] * work->e[row] / (v * fmax(share, 1e-9));
            if (!marks[row] && squared > most)
                most = squared, worst = row, left = share;
        }
        marks[worst] = 1;
        if (left > LEAST_LEFT && can_update(of))
            move_pass(model, work, worst, true, of);
        else
            sum_spreads(model, work, marks, of);
    }
}

/* Lists the free passes and copies their means. */
static void list_free(const Model *model, Work *work)
{
    int32_t count = 0;
    for (int32_t row = 0; row < work->passes; row++) {
        work->free_list[count] = row;
        count += work->free[row];
    }
    for (int i = 0; i <= model->unknowns; i++)
        for (int32_t k = 0; k < (count + 7) / 8 * 8; k++)
            work->free_means[work->stride * i + k] = k < count ? work->means[work->stride * i + work->free_list[k]] : 0;
    for (int32_t k = 0; k < (count + 7) / 8 * 8; k++)
        work->free_per_n[k] = k < count ? 1 / work->n[work->free_list[k]] : 0;
}

/* Fills t of the listed free passes; returns the smallest. */
static double find_free_t(const Model *model, Work *work, int32_t count, const Spreads *of)
{
    const double theta = work->thetas[work->best], variance = work->rss / work->freedom;
    double least = INFINITY;
    Lane fit;
    take_best(model, work, of, &fit);
    find_leverages(model, &fit, work->free_means, work->stride, count, work->h, work->e);
    for (int32_t k = 0; k < count; k += 8)
        *(eight *)(work->free_t + k) = magnitude(*(const eight *)(work->e + k))
            / root((theta + *(const eight *)(work->free_per_n + k) + *(const eight *)(work->h + k)) * variance);
    for (int32_t k = 0; k < count; k++) {
        work->t[work->free_list[k]] = work->free_t[k];
        least = work->free_t[k] < least ? work->free_t[k] : least;
    }
    return least;
}

/* Takes a pass off the list; the last one takes its place. */
static void take_off_list(const Model *model, Work *work, int32_t k, int32_t last)
{
    for (int i = 0; i <= model->unknowns; i++)
        work->free_means[work->stride * i + k] = work->free_means[work->stride * i + last];
    work->free_per_n[k] = work->free_per_n[last];
    work->free_t[k] = work->free_t[last];
    work->free_list[k] = work->free_list[last];
}

/* Takes passes back while they do not prove bad (generalised ESD, backward). */
static void take_back(const Model *model, Work *work, int32_t marked, Spreads *of)
{
    for (int32_t row = 0; row < work->passes; row++)
        work->t[row] = NAN;
    list_free(model, work);
    while (marked > 0) {
        const double least = find_free_t(model, work, marked, of), limit = fmax(least, SURE_T);
        int32_t leave = 0;
        if (!(least < SURE_T || least <= model->limits[work->passes - marked + 1]))
            break;
        for (int32_t k = 0; k < marked; k++)
            leave += work->free_t[k] <= limit;
        /* An update takes as long as the sums of some four passes. */
        const bool update = can_update(of) && 4 * leave <= work->passes - marked + leave;
        for (int32_t k = marked - 1; k >= 0; k--)
            if (work->free_t[k] <= limit) {
                work->free[work->free_list[k]] = 0;
                if (update)
                    move_pass(model, work, work->free_list[k], false, of);
                take_off_list(model, work, k, --marked);
            }
        if (!update)
            sum_spreads(model, work, work->free, of);
        find_likelihoods(work, marked, of);
    }
    work->marked = marked;
}

/* Finds the free passes; the second time starts from those of the first. */
static void search(const Model *model, Work *work, bool again)
{
    Spreads of[2];
    const int32_t marked = count_marked(work);
    const int starts = marked == 0 || again || marked > MOST_STARTS ? 1 : STARTS;
    uint8_t *const marks[STARTS] = {work->marks, work->marks + work->stride, work->marks + 2 * work->stride};
    Spreads *best = of, *next = of + 1, *last = NULL;
    double most = -INFINITY;
    memset(work->marks, 0, STARTS * work->stride);
    for (int s = 0; s < starts; s++) {
        double found;
        if (marked > 0 && s == STARTS - 1)
            mark_in_turn(model, work, marked, marks[s], next);
        else {
            for (int32_t row = 0; row < work->stride; row++)
                work->shares[row] = row < work->passes && !(again && work->was_free[work->pass[row]]);
            if (marked > 0)
                mark_passes(model, work, marked, s * WEIGHING_ROUNDS, marks[s]);
            if (s == 1 && memcmp(marks[1], marks[0], work->passes) == 0)
                continue;
            sum_spreads(model, work, marks[s], next);
        }
        last = NULL;
        if (s > 1 && (memcmp(marks[s], marks[0], work->passes) == 0 || memcmp(marks[s], marks[1], work->passes) == 0))
            continue;
        last = next;
        found = find_likelihoods(work, marked, next);
        if (s > 0 && !(found > most))
            continue;
        most = found;
        /* With the places after the last pass: points screened anew may have left fewer passes than before. */
        memcpy(work->free, marks[s], work->stride);
        next = best;
        best = last;
    }
    if (last != best)
        find_likelihoods(work, marked, best);
    take_back(model, work, marked, best);
}
