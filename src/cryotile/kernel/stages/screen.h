/* The screen of points about the median of their own pass, before passes are looked at and once more after. */

static const double LEAST_SIGMA = 1e-3;   /* m: without it exact data lose points to rounding */
static const double UNKNOWN_SIGMA = 0.3;  /* m: where no pass tells it */
static const double POINT_LIMIT = 3;      /* sigmas */
static const double FREE_THETA = 1e6;
enum { WEIGHTED_ROUNDS = 2, UNWEIGHTED_ROUNDS = 6 };

/* Fills the keys of medians: residuals of the points that count, infinity for others. */
INLINE void fill_residual_keys(Work *work)
{
    for (int64_t i = 0; i < work->slots; i += 8) {
        const eight_masks in = *(const eight *)(work->live + i) > 0;
        *(eight *)(work->keys + i) = choose(in, *(const eight *)(work->residuals + i), all(INFINITY));
    }
}

/* Fills bounds between which the median of a run is expected: about its mean, where values are spread evenly. */
INLINE void guess_median(const double *values, int64_t size, double guess[2])
{
    eight sum = {0}, low = all(INFINITY), high = all(-INFINITY);
    eight_masks count = {0};
    double least = INFINITY, most = -INFINITY, mean;
    for (int64_t i = 0; i < size; i += 8) {
        const eight value = *(const eight *)(values + i);
        const eight_masks there = value < INFINITY;
        sum += (eight)((eight_masks)value & there);
        count -= there;
        low = choose(value < low, value, low);
        high = choose((value > high) & there, value, high);
    }
    for (int l = 0; l < 8; l++) {
        least = low[l] < least ? low[l] : least;
        most = high[l] > most ? high[l] : most;
        count[0] += l > 0 ? count[l] : 0;
    }
    mean = sum_of(sum) / (double)count[0];
    guess[0] = mean - (most - least) / 8;
    guess[1] = mean + (most - least) / 8;
}

/* Returns the median residual of the kept points of a long pass, or of all if none is kept. */
static double middle_of(Work *work, int32_t g, double sigma, bool first)
{
    const int64_t from = work->first[g], size = work->first[g + 1] - from;
    const int32_t kept = work->kept[g] > 0 ? work->kept[g] : work->count[g];
    double *const keys = work->keys + from, guess[2] = {work->middles[g] - sigma / 4, work->middles[g] + sigma / 4};
    for (int64_t i = 0; work->kept[g] == 0 && i < kept; i++)
        keys[i] = work->residuals[from + i];
    if (first && size > RANKED)
        guess_median(keys, size, guess);
    return padded_median(keys, size, kept, guess[0], guess[1], work->spare);
}

/* Finds the median residual of each pass, eight short passes at a time. */
static void find_middles(const Circle *circle, Work *work, double sigma, bool first)
{
    fill_residual_keys(work);
    for (int32_t g = 0; g < circle->passes; g += 8) {
        const int32_t n = circle->passes - g < 8 ? circle->passes - g : 8;
        int32_t most = 0, least = 1;
        for (int32_t p = 0; p < n; p++) {
            most = work->count[g + p] > most ? work->count[g + p] : most;
            least = work->kept[g + p] < least ? work->kept[g + p] : least;
        }
        if (n == 8 && least > 0 && most <= RANKED)
            medians_of_eight(most, work->keys, work->first + g, work->kept + g, work->middles + g);
        else
            for (int32_t p = 0; p < n; p++)
                work->middles[g + p] = middle_of(work, g + p, sigma, first);
    }
}

/* Takes the median of its pass from each residual; fills the keys with distances of kept points in passes of two or
   more; returns the number of these points, and of these passes, and the sum of the distances. */
static int64_t subtract_middles(const Circle *circle, Work *work, int32_t *passes, double *distances)
{
    int64_t points = 0;
    eight sum = {0};
    *passes = 0;
    for (int32_t g = 0; g < circle->passes; g++) {
        const eight middle = all(work->middles[g]);
        const eight_masks tells = (eight_masks){0} - (work->kept[g] > 1);
        points += work->kept[g] > 1 ? work->kept[g] : 0;
        *passes += work->kept[g] > 1;
        for (int64_t i = work->first[g]; i < work->first[g + 1]; i += 8) {
            const eight residual = *(const eight *)(work->residuals + i) - middle;
            const eight_masks in = (*(const eight *)(work->live + i) > 0) & tells;
            *(eight *)(work->residuals + i) = residual;
            *(eight *)(work->keys + i) = choose(in, magnitude(residual), all(INFINITY));
            sum += (eight)((eight_masks)magnitude(residual) & in);
        }
    }
    *distances = sum_of(sum);
    return points;
}

/* Finds residuals about terrain and the middles of passes, and sigma from them; false: no pass tells it. */
static bool find_sigma(const Circle *circle, Work *work, int round)
{
    const double *const c = work->beta;
    double low = 0.9 * work->sigma / MAD_TO_SIGMA, high = 1.05 * work->sigma / MAD_TO_SIGMA, distances;
    int32_t passes;
    int64_t points, rank;
    for (int64_t i = 0; i < work->slots; i += 8) {
        const eight u = *(const eight *)(work->u + i), v = *(const eight *)(work->v + i);
        *(eight *)(work->residuals + i) =
            ((*(const eight *)(work->z + i) - c[0] * u) - c[1] * v) - ((c[2] * (u * u) + c[3] * (v * v)) + c[4] * (u * v));
    }
    find_middles(circle, work, work->sigma, round < 2);
    points = subtract_middles(circle, work, &passes, &distances);
    rank = passes + (points - passes) / 2;
    if (points - passes < 3)
        return false;
    if (round < 2) {
        low = 0.6 * distances / (double)points;
        high = distances / (double)points;
    }
    work->sigma = fmax(
        MAD_TO_SIGMA * value_of_rank(work->keys, work->slots, rank, low, high, work->spare), LEAST_SIGMA);
    return true;
}

/* Fits terrain to deviations from the means of passes. */
static void fit_terrain(const Circle *circle, Work *work)
{
    double prior[TERRAIN], inverse[TERRAIN], *const a = work->total;
    sum_terrain(circle, work, work->live, a);
    for (int k = 0; k < TERRAIN; k++)
        a[triangle(k, k)] += prior[k] = work->sigma * work->sigma * work->precision[k];
    eliminate_one(TERRAIN, a, prior, LEAST_VARIANCE, inverse);
    for (int k = TERRAIN - 1; k >= 0; k--) {
        work->beta[k] = a[triangle(TERRAIN, k)];
        for (int i = k + 1; i < TERRAIN; i++)
            work->beta[k] -= a[triangle(i, k)] * work->beta[i];
    }
}

/* Keeps all points. */
static void keep_all(const Circle *circle, Work *work)
{
    memcpy(work->live, work->weights, work->slots * sizeof(double));
    memcpy(work->kept, work->count, circle->passes * sizeof *work->kept);
}

/* Keeps the points whose residual is within the limit of their pass: one if they were in, another if they were out;
   returns whether that changes any. */
static bool keep_within(Work *work, int32_t g, double middle, double limit, double limit_out)
{
    eight_masks kept = {0}, changed = {0};
    for (int64_t i = work->first[g]; i < work->first[g + 1]; i += 8) {
        const eight weights = *(const eight *)(work->weights + i);
        const eight_masks in = *(const eight *)(work->live + i) > 0;
        const eight distance = magnitude(*(const eight *)(work->residuals + i) - middle);
        const eight_masks keep = (distance <= choose(in, all(limit), all(limit_out))) & (weights > 0);
        *(eight *)(work->live + i) = (eight)((eight_masks)weights & keep);
        kept -= keep;
        changed |= keep ^ in;
    }
    work->kept[g] = 0;
    for (int l = 0; l < 8; l++)
        work->kept[g] += (int32_t)kept[l];
    return ((changed[0] | changed[1]) | (changed[2] | changed[3])) | ((changed[4] | changed[5]) | (changed[6] | changed[7]));
}

/* Weighs points by the inverse of their residual. */
static void weigh_residuals(Work *work)
{
    for (int64_t i = 0; i < work->slots; i += 8) {
        const eight distance = magnitude(*(const eight *)(work->residuals + i));
        *(eight *)(work->live + i) =
            *(const eight *)(work->weights + i) * (work->sigma / larger(distance, all(work->sigma)));
    }
}

/* Runs the rounds; false: no pass tells sigma. */
static bool screen_rounds(const Circle *circle, Work *work)
{
    const double nothing[TERRAIN] = {0};
    memcpy(work->beta, nothing, sizeof nothing);
    if (!find_sigma(circle, work, 0))
        return false;
    for (int round = 0; round < WEIGHTED_ROUNDS + UNWEIGHTED_ROUNDS; round++) {
        bool changed = false;
        if (round < WEIGHTED_ROUNDS)
            weigh_residuals(work);
        fit_terrain(circle, work);
        if (!find_sigma(circle, work, round + 1))
            return false;
        if (round < WEIGHTED_ROUNDS - 1)
            continue;
        for (int32_t g = 0; g < circle->passes; g++)
            changed |= keep_within(work, g, 0, POINT_LIMIT * work->sigma, POINT_LIMIT * work->sigma);
        if (round >= WEIGHTED_ROUNDS && !changed)
            break;
    }
    return true;
}

/* Screens points under free passes, and fills the sums of passes. */
static void screen_points(const Model *model, const Circle *circle, Work *work)
{
    keep_all(circle, work);
    work->sigma = UNKNOWN_SIGMA;
    for (int32_t g = 0; g < circle->passes; g++)
        work->middles[g] = 0;
    work->known_sigma = screen_rounds(circle, work);
    if (!work->known_sigma) {
        keep_all(circle, work);
        work->sigma = UNKNOWN_SIGMA;
    }
    sum_passes(model, circle, work);
}

/* Fills the residuals of a pass about the fit; returns the weighted sum of those of kept points. */
static double find_fit_residuals(const Model *model, Work *work, int32_t g)
{
    const int q = model->point_columns;
    const double *const c = work->beta;
    eight sum = {0};
    double constant = 0;
    for (int k = q; k < model->unknowns; k++)
        constant += c[k] * work->constants[work->stride * (k - q) + g];
    for (int64_t i = work->first[g]; i < work->first[g + 1]; i += 8) {
        const eight u = *(const eight *)(work->u + i), v = *(const eight *)(work->v + i);
        eight residual = (((*(const eight *)(work->z + i) - constant) - c[0] * u) - c[1] * v)
            - ((c[2] * (u * u) + c[3] * (v * v)) + c[4] * (u * v));
        for (int k = TERRAIN; k < q; k++)
            residual -= c[k] * *(const eight *)(work->extras + work->room * (k - TERRAIN) + i);
        *(eight *)(work->residuals + i) = residual;
        sum += *(const eight *)(work->live + i) * residual;
    }
    return sum_of(sum);
}

/* Screens points about the fit and the offsets of passes; returns whether that changed any.  The offset of a free pass
   has a spread of FREE_THETA. */
static bool screen_again(const Model *model, const Circle *circle, Work *work)
{
    int32_t row = 0;
    bool changed = false;
    for (int32_t g = 0; g < circle->passes; g++) {
        const bool there = work->kept[g] > 0;
        const double theta = there && work->free[row] ? FREE_THETA : work->thetas[work->best];
        const double n = there ? work->n[row] : 0, sum = find_fit_residuals(model, work, g);
        const double limit = POINT_LIMIT * work->sigma, share = theta / (1 + n * theta);
        row += there;
        if (work->known_sigma)
            changed |= keep_within(work, g, there ? share * sum : 0, limit, limit * sqrt(1 + share));
    }
    return changed;
}
