/* Rejection: whole passes, then points, which may come back. */

static const double PASS_FLOOR = 0.1;    /* m: residuals of passes below it count alike */
static const double PASS_SETTLED = 0.05; /* m: the screen ends when no pass moves by more */
static const double SCALE_FLOOR = 1e-3;  /* m: without it exact data lose points to rounding */
enum { SCREEN_ROUNDS = 10, ROUNDS = 5 };

/* Finds the median residual of each pass, eight small passes at a time. */
static void find_medians(const Circle *circle, double *medians)
{
    for (int32_t g = 0; g < circle->passes;) {
        const int64_t *const starts = circle->starts + g;
        int64_t most = 0;
        const int32_t n = circle->passes - g < 8 ? circle->passes - g : 8;
        int32_t counts[8];
        for (int32_t p = 0; p < n; p++)
            counts[p] = (int32_t)(starts[p + 1] - starts[p]);
        for (int32_t p = 0; p < n; p++)
            most = starts[p + 1] - starts[p] > most ? starts[p + 1] - starts[p] : most;
        if (n == 8 && most <= RANKED)
            medians_of_eight((int)most, circle->residuals, starts, counts, medians + g);
        else
            for (int32_t p = 0; p < n; p++) {
                const double guess = circle->medians[g + p];
                const int64_t count = starts[p + 1] - starts[p];
                memcpy(circle->keys, circle->residuals + starts[p], count * sizeof(double));
                medians[g + p] = any_median(circle->keys, count, guess - 0.1, guess + 0.1, circle->spare);
            }
        g += n;
    }
}

/* Finds the offset of each pass: its median residual about the median of all passes; returns the largest change. */
static double find_pass_medians(Circle *circle)
{
    double *const medians = circle->medians, *const now = circle->medians + circle->passes + 8, most = 0, middle;
    find_medians(circle, now);
    memcpy(circle->keys, now, circle->passes * sizeof(double));
    middle = any_median(circle->keys, circle->passes, -0.1, 0.1, circle->spare);
    for (int32_t g = 0; g < circle->passes; g++) {
        const double change = fabs(now[g] - middle - medians[g]);
        most = change > most ? change : most;
        medians[g] = now[g] - middle;
    }
    return most;
}

/* Rejects whole passes whose offset is an outlier, from a fit that weights passes by the inverse of their offset. */
static void screen_passes(const Model *model, Circle *circle)
{
    Solutions fit;
    double scale;
    list_columns(model, circle, true);
    for (int32_t g = 0; g < circle->passes; g++)
        circle->factors[g] = 1, circle->medians[g] = 0;
    for (int round = 0; round < SCREEN_ROUNDS; round++) {
        sum_kept_passes(circle, model->quads, circle->factors);
        solve_total(circle, model, &fit);
        find_residuals(circle, model, &fit);
        if (find_pass_medians(circle) <= PASS_SETTLED)
            break;
        for (int32_t g = 0; g < circle->passes; g++)
            circle->factors[g] = 1 / fmax(fabs(circle->medians[g]), PASS_FLOOR);
    }
    for (int32_t g = 0; g < circle->passes; g++)
        circle->keys[g] = fabs(circle->medians[g]);
    scale = fmax(MAD_TO_SIGMA * any_median(circle->keys, circle->passes, 0, 0.1, circle->spare), PASS_FLOOR);
    circle->pass_limit = 4 * scale;
    for (int32_t g = 0; g < circle->passes; g++) {
        circle->factors[g] = 1;
        circle->pass_kept[g] = fabs(circle->medians[g]) <= circle->pass_limit;
        if (!circle->pass_kept[g]) {
            memset(circle->kept + circle->starts[g], 0, circle->starts[g + 1] - circle->starts[g]);
            circle->described[g].count = -1;
        }
    }
}

/* Fills the keys of a median: residuals of the kept points or their distances from a middle, infinity for others. */
INLINE void fill_keys(Circle *circle, bool distances, double middle)
{
    int64_t i;
    for (i = 0; i < circle->count; i++) {
        const double key = distances ? fabs(circle->residuals[i] - middle) : circle->residuals[i];
        circle->keys[i] = circle->kept[i] ? key : INFINITY;
    }
    while (i % 8)
        circle->keys[i++] = INFINITY;
}

/* Keeps the points within the limit of the middle and updates the sums by the points that left or came back; returns
   whether there are any. */
static bool exchange_points(const Model *model, Circle *circle, double middle, double limit)
{
    const int size = sums_size(model->quads), stride = 4 * model->quads;
    bool changed = false;
    for (int32_t g = 0; g < circle->passes; g++) {
        if (!circle->pass_kept[g])
            continue;
        for (int64_t i = circle->starts[g]; i < circle->starts[g + 1]; i++) {
            const bool keep = fabs(circle->residuals[i] - middle) <= limit;
            if (keep == circle->kept[i])
                continue;
            const double weight = keep ? circle->weights[i] : -circle->weights[i];
            add_rows(model->quads, circle->rows + stride * i, &weight, 1, circle->sums + (int64_t)size * g);
            add_rows(model->quads, circle->rows + stride * i, &weight, 1, circle->total);
            circle->kept[i] = keep;
            circle->described[g].count = -1;
            changed = true;
        }
    }
    return changed;
}

/* Rejects points in rounds of 3 robust sigmas and leaves the fit of the kept ones; returns by how much the last round
   moved the rate. */
static double reject_points(const Model *model, Circle *circle, Solutions *fit, double sigma)
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
        fill_keys(circle, false, 0);
        middle = median(circle->keys, padded, kept, middle - slack * mad, middle + slack * mad, circle->spare);
        fill_keys(circle, true, middle);
        mad = median(circle->keys, padded, kept, (1 - slack) * mad, (1 + slack / 3) * mad, circle->spare);
        slack = 0.1;
        circle->point_middle = middle;
        circle->point_limit = 3 * fmax(MAD_TO_SIGMA * mad, SCALE_FLOOR);
        if (!exchange_points(model, circle, middle, circle->point_limit))
            return 0;
        rate = fit->coefficients[rate_at][0];
        solve_total(circle, model, fit);
        find_residuals(circle, model, fit);
    }
    return fabs(fit->coefficients[rate_at][0] - rate);
}
