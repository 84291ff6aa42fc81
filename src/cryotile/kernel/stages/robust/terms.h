/* Which terms the passes and places of a circle determine, with a verdict on each. */

/* Tolerance of the rate and of a time-like term on one mean row per pass, and passes that must be left over. */
static const double LEAST_TIME_LIKE = 0.1;
enum { SPARE_PASSES = 5 };

/* Whether a term varies from pass to pass only, so that it can be taken for the rate. */
INLINE bool is_time_like(const Term *term)
{
    return term->kind != QUADRATIC && term->kind != NAMED;
}

/* Lists the columns of the fit: those of its terms, or while passes are screened of some of them, then u, v, tau; Z
   stands behind them. */
static void list_columns(const Model *model, Circle *circle, bool screening)
{
    int n = 0;
    for (int k = 0; k < model->terms; k++) {
        const Term *term = &model->term[k];
        /* A bad pass would hide in a season or a direction; an offset is shared by all passes of its kind. */
        const bool hides = term->kind == ANNUAL || term->kind == DIRECTION || term->kind == ACCELERATION;
        if (circle->determined[k] && !(screening && hides))
            for (int c = 0; c < columns_of(term, circle); c++)
                circle->active[n++] = term->first + c;
    }
    circle->active[n++] = U;
    circle->active[n++] = V;
    circle->active[n++] = T;
    circle->active[n] = Z;
    circle->unknowns = n;
}

/* Drops a term from the fit, and notes why. */
static void drop(Circle *circle, int k, enum cause cause, double value, double threshold, int parameters)
{
    circle->determined[k] = false;
    circle->verdict[k] = (Verdict){value, threshold, cause, parameters};
}

/* Returns the smallest tolerance among the columns from..n of a term. */
static double least_of(int k, const int32_t *owner, const double *tolerance, int from, int n)
{
    double least = INFINITY;
    for (int i = from; i < n; i++)
        least = owner[i] == k && tolerance[i] < least ? tolerance[i] : least;
    return least;
}

/* Lists the columns of the terms in the fit from place n on, and the term of each; returns the number of columns. */
static int list_columns_of_terms(
    const Model *model, const Circle *circle, bool time_like_only, int n, int32_t *column, int32_t *owner)
{
    for (int k = 0; k < model->terms; k++) {
        if (!circle->determined[k] || (time_like_only && !is_time_like(&model->term[k])))
            continue;
        for (int c = 0; c < columns_of(&model->term[k], circle); c++) {
            owner[n] = k;
            column[n++] = model->term[k].first + c;
        }
    }
    return n;
}

/* Fills the centred products of n columns over one mean row per kept pass; returns the number of these passes. */
static int multiply_means(const Model *model, const Circle *circle, int n, const int32_t *column, double *products)
{
    const int stride = sums_size(model->quads);
    double sums[MAX_COLUMNS] = {0};
    int passes = 0;
    memset(products, 0, sizeof(double) * n * n);
    for (int32_t g = 0; g < circle->passes; g++) {
        const double *pass = circle->sums + stride * g;
        double mean[MAX_COLUMNS];
        if (!circle->pass_kept[g])
            continue;
        passes++;
        for (int i = 0; i < n; i++) {
            mean[i] = pass[4 + column[i]] / pass[0];
            sums[i] += mean[i];
            for (int j = 0; j <= i; j++)
                products[n * i + j] += mean[i] * mean[j];
        }
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++)
            products[n * i + j] -= sums[i] * sums[j] / passes;
    return passes;
}

/* Drops time-like terms, one at a time, until the mean rows of the passes determine the rate beside the others. */
static void drop_time_like(const Model *model, Circle *circle)
{
    for (;;) {
        double products[MAX_COLUMNS * MAX_COLUMNS], tolerance[MAX_COLUMNS];
        int32_t column[MAX_COLUMNS] = {T}, owner[MAX_COLUMNS] = {-1};
        const int n = list_columns_of_terms(model, circle, true, 1, column, owner);
        int passes, failed = 1;
        if (n == 1)
            return;
        passes = multiply_means(model, circle, n, column, products);
        tolerances(products, n, LEAST_VARIANCE * passes, tolerance);
        while (failed < n && !(tolerance[failed] < LEAST_TIME_LIKE))
            failed++;
        if (passes < n + SPARE_PASSES)
            drop(circle, owner[1], FEW_PASSES, passes, n + SPARE_PASSES, n);
        else if (tolerance[0] < LEAST_TIME_LIKE)
            drop(circle, owner[1], RATE_ON_MEANS, tolerance[0], LEAST_TIME_LIKE, 0);
        else if (failed < n)
            drop(circle, owner[failed], TERM_ON_MEANS, least_of(owner[failed], owner, tolerance, 1, n), LEAST_TIME_LIKE, 0);
        else {
            for (int i = 1; i < n; i++)
                circle->verdict[owner[i]] = (Verdict){
                    least_of(owner[i], owner, tolerance, 1, n), LEAST_TIME_LIKE, FITTED_ON_MEANS, 0};
            return;
        }
    }
}

/* Drops terms, the least determined one first, until each column has its tolerance; false: u, v or tau lack it. */
static bool drop_undetermined(const Model *model, Circle *circle)
{
    for (;;) {
        double products[MAX_COLUMNS * MAX_COLUMNS], tolerance[MAX_COLUMNS], least = INFINITY;
        int32_t column[MAX_COLUMNS] = {U, V, T}, owner[MAX_COLUMNS] = {-1, -1, -1};
        const int n = list_columns_of_terms(model, circle, false, 3, column, owner);
        int worst = -1;
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) {
                const int high = column[i] > column[j] ? column[i] : column[j], low = column[i] + column[j] - high;
                products[n * i + j] = circle->total[products_at(model->quads, high) + low]
                    - circle->total[4 + column[i]] * circle->total[4 + column[j]] / circle->total[0];
            }
        tolerances(products, n, LEAST_VARIANCE * circle->total[0], tolerance);
        for (int i = 3; i < n; i++)
            if (tolerance[i] < least)
                least = tolerance[i], worst = owner[i];
        memcpy(circle->plane_tolerance, tolerance, sizeof circle->plane_tolerance);
        const bool plane = tolerance[0] >= model->min_tolerance && tolerance[1] >= model->min_tolerance
            && tolerance[2] >= model->min_tolerance;
        if (plane && least >= model->min_tolerance) {
            for (int i = 3; i < n; i++)
                if (!is_time_like(&model->term[owner[i]]))
                    circle->verdict[owner[i]] = (Verdict){
                        least_of(owner[i], owner, tolerance, 3, n), model->min_tolerance, FITTED, 0};
            return true;
        }
        if (worst < 0)
            return false;
        least = fmin(least, fmin(tolerance[0], fmin(tolerance[1], tolerance[2])));
        drop(circle, worst, TOLERANCE, least, model->min_tolerance, 0);
    }
}
