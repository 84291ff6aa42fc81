/* The points of a circle as rows of columns, and which terms their passes and places determine. */

INLINE bool LEVEL(is_time_like)(const Term *term)
{
    return term->kind != QUADRATIC && term->kind != NAMED;
}

/* Numbers the passes in order of appearance, so that sums and memory follow the post and not the tile, and sorts the
   points by them. */
static void LEVEL(sort_by_pass)(const Points *points, Circle *circle)
{
    int64_t *starts = circle->starts, place = 0;
    circle->passes = 0;
    for (int64_t i = 0; i < circle->count; i++) {
        const int32_t code = points->passes[circle->index[i]];
        int32_t number = circle->numbers[code];
        if (number < 0) {
            number = circle->numbers[code] = circle->passes;
            circle->codes[circle->passes++] = code;
            starts[number] = 0;
        }
        circle->point_passes[i] = number;
        starts[number]++;
    }
    for (int32_t g = 0; g < circle->passes; g++) {
        const int64_t count = starts[g];
        circle->numbers[circle->codes[g]] = -1;
        starts[g] = place;
        place += count;
    }
    for (int64_t i = 0; i < circle->count; i++)
        circle->order[starts[circle->point_passes[i]]++] = circle->index[i];
    for (int32_t g = circle->passes; g > 0; g--)
        starts[g] = starts[g - 1];
    starts[0] = 0;
}

/* The mean of up to 16 of the points.  Anywhere amid the points would do: products about such an origin lose at most a
   factor n of precision when they are centred, those about the post lose all of it where the points lie close. */
static void LEVEL(find_origin)(const Points *points, Circle *circle)
{
    const int64_t taken = circle->count < 16 ? circle->count : 16;
    quad mean = {0};
    for (int64_t i = 0; i < taken; i++)
        mean += *(const quad *)(points->rows + 4 * (int64_t)circle->index[i * circle->count / taken]);
    *(quad *)circle->origin = mean / (double)taken;
}

INLINE double LEVEL(exponential)(double x)
{
    /* Cody and Waite's reduction and a Taylor polynomial: libm's last bit depends on the machine. */
    const double k = floor(x * 1.4426950408889634 + 0.5), r = (x - k * 0.693145751953125) - k * 1.4286068203094173e-06;
    union { int64_t bits; double value; } power = {.bits = ((int64_t)k + 1023) << 52};
    double sum = 1;
    for (int n = 14; n > 0; n--)
        sum = 1 + sum * r / n;
    return sum * power.value;
}

static void LEVEL(weigh)(const Points *points, const Model *model, Circle *circle)
{
    const double per_scale = model->distance_scale > 0 ? 1 / model->distance_scale : 0;
    for (int64_t i = 0; i < circle->count; i++) {
        const double *point = points->rows + 4 * (int64_t)circle->order[i];
        const double dx = point[0] - circle->x, dy = point[1] - circle->y;
        circle->weights[i] = points->weights ? points->weights[circle->order[i]] : 1;
        if (per_scale > 0)
            circle->weights[i] *= LEVEL(exponential)(-sqrt(dx * dx + dy * dy) * per_scale);
    }
}

/* One column for each category seen but the last; in every category their coefficients times these codes sum to zero. */
static int LEVEL(code_categories)(int seen, double codes[MAX_CATEGORIES][MAX_CATEGORIES])
{
    const int columns = __builtin_popcount(seen) - 1;
    const double one = columns == 1 ? 0.5 : 1;
    int place = 0;
    memset(codes, 0, sizeof(double[MAX_CATEGORIES][MAX_CATEGORIES]));
    for (int c = 0; c < MAX_CATEGORIES; c++) {
        if (!(seen >> c & 1))
            continue;
        for (int k = 0; k < columns; k++)
            codes[c][k] = place == columns ? -one : place == k ? one : 0;
        place++;
    }
    return columns;
}

static void LEVEL(fill_offsets)(const uint8_t *category, const Term *term, Circle *circle, int stride, bool modes)
{
    double(*codes)[MAX_CATEGORIES] = modes ? circle->codes_of_mode : circle->codes_of_platform;
    int seen = 0, columns;
    for (int64_t i = 0; category && i < circle->count; i++)
        seen |= 1 << category[circle->order[i]];
    columns = category ? LEVEL(code_categories)(seen, codes) : 0;
    for (int64_t i = 0; columns && i < circle->count; i++)
        memcpy(circle->rows + stride * i + term->first, codes[category[circle->order[i]]], columns * sizeof(double));
    *(modes ? &circle->columns_of_mode : &circle->columns_of_platform) = columns;
    *(modes ? &circle->seen_modes : &circle->seen_platforms) = seen;
}

/* Copies a column of the extras; a term of which a point knows nothing cannot be determined. */
static bool LEVEL(fill_extra)(const Points *points, const Model *model, Circle *circle, int extra, int column)
{
    bool known = true;
    for (int64_t i = 0; i < circle->count; i++) {
        const double value = points->extras[(int64_t)model->extras * circle->order[i] + extra];
        known &= value == value;
        circle->rows[4 * model->quads * i + column] = value == value ? value : 0;
    }
    return known;
}

/* About the median, in units of the largest distance from it; returns that unit. */
static double LEVEL(centre_named)(Circle *circle, int stride, int column)
{
    double low = INFINITY, high = -INFINITY, middle, unit;
    const int64_t padded = (circle->count + 7) / 8 * 8;
    for (int64_t i = 0; i < padded; i++) {
        const double value = i < circle->count ? circle->rows[stride * i + column] : INFINITY;
        circle->keys[i] = value;
        low = value < low ? value : low;
        high = value > high && value < INFINITY ? value : high;
    }
    middle = LEVEL(median)(circle->keys, padded, circle->count, low, high, circle->spare);
    unit = high - middle > middle - low ? high - middle : middle - low;
    unit = unit > 0 ? unit : 1;
    for (int64_t i = 0; i < circle->count; i++)
        circle->rows[stride * i + column] = (circle->rows[stride * i + column] - middle) / unit;
    return unit;
}

static void LEVEL(fill_quadratic)(const Term *term, Circle *circle, int stride, double u0, double v0)
{
    double *at_post = circle->at_post + term->first, *row = circle->rows;
    for (int64_t i = 0; i < circle->count; i++, row += stride) {
        row[term->first] = row[U] * (row[U] + 2 * u0);
        row[term->first + 1] = row[V] * (row[V] + 2 * v0);
        row[term->first + 2] = row[U] * row[V] + u0 * row[V] + v0 * row[U];
    }
    at_post[0] = -u0 * u0;
    at_post[1] = -v0 * v0;
    at_post[2] = -u0 * v0;
}

static void LEVEL(fill_acceleration)(const Term *term, Circle *circle, int stride)
{
    const double t0 = circle->origin[T];
    double *row = circle->rows;
    for (int64_t i = 0; i < circle->count; i++, row += stride)
        row[term->first] = row[T] * (row[T] + 2 * t0) / 2;
    circle->at_post[term->first] = -t0 * t0 / 2;
}

static void LEVEL(fill_term)(const Points *points, const Model *model, Circle *circle, int which)
{
    const Term *term = &model->term[which];
    const int stride = 4 * model->quads;
    bool known = true;
    circle->units[which] = 1;
    switch (term->kind) {
    case QUADRATIC: LEVEL(fill_quadratic)(term, circle, stride, -circle->at_post[U], -circle->at_post[V]); break;
    case ACCELERATION: LEVEL(fill_acceleration)(term, circle, stride); break;
    case MODES: LEVEL(fill_offsets)(points->modes, term, circle, stride, true); break;
    case PLATFORMS: LEVEL(fill_offsets)(points->platforms, term, circle, stride, false); break;
    default:
        for (int c = 0; c < term->count; c++)
            known &= LEVEL(fill_extra)(points, model, circle, term->extra + c, term->first + c);
    }
    if (term->kind == NAMED)
        circle->units[which] = LEVEL(centre_named)(circle, stride, term->first);
    circle->determined[which] = known;
}

/* Rows about the origin, u and v in radii, without the columns of terms. */
static void LEVEL(fill_rows)(const Points *points, const Model *model, Circle *circle)
{
    const double per_radius = 1 / model->radius;
    const quad scale = {per_radius, per_radius, 1, 1}, origin = *(quad *)circle->origin, nothing = {0};
    quad *rows = (quad *)circle->rows;
    for (int64_t i = 0; i < circle->count; i++, rows += model->quads) {
        rows[0] = (*(const quad *)(points->rows + 4 * (int64_t)circle->order[i]) - origin) * scale;
        for (int q = 1; q < model->quads; q++)
            rows[q] = nothing;
    }
    memset(circle->at_post, 0, sizeof circle->at_post);
    circle->at_post[U] = (circle->x - circle->origin[U]) * per_radius;
    circle->at_post[V] = (circle->y - circle->origin[V]) * per_radius;
    circle->at_post[T] = -circle->origin[T];
}

/* Number of columns of a term at this post. */
INLINE int LEVEL(columns_of)(const Term *term, const Circle *circle)
{
    return term->kind == MODES ? circle->columns_of_mode
        : term->kind == PLATFORMS ? circle->columns_of_platform
                                  : term->count;
}

/* Lists the columns of the fit: of the terms that `pick` admits, then u, v, tau; Z stands behind them. */
static void LEVEL(list_columns)(const Model *model, Circle *circle, bool screening)
{
    int n = 0;
    for (int k = 0; k < model->terms; k++) {
        const Term *term = &model->term[k];
        /* A bad pass would hide in a season or a direction; an offset is shared by all passes of its kind. */
        const bool hides = term->kind == ANNUAL || term->kind == DIRECTION || term->kind == ACCELERATION;
        if (circle->determined[k] && !(screening && hides))
            for (int c = 0; c < LEVEL(columns_of)(term, circle); c++)
                circle->active[n++] = term->first + c;
    }
    circle->active[n++] = U;
    circle->active[n++] = V;
    circle->active[n++] = T;
    circle->active[n] = Z;
    circle->unknowns = n;
}

/* Drops one term for which `fails` a column's tolerance, or which stands first when the rate's does. */
static void LEVEL(drop_time_like)(const Model *model, Circle *circle)
{
    const int stride = LEVEL(sums_size)(model->quads);
    for (;;) {
        double products[MAX_COLUMNS * MAX_COLUMNS], sums[MAX_COLUMNS], tolerance[MAX_COLUMNS];
        int32_t column[MAX_COLUMNS];
        int n = 1, passes = 0, first = -1, worst = -1;
        column[0] = T;
        for (int k = 0; k < model->terms; k++) {
            const int columns = LEVEL(columns_of)(&model->term[k], circle);
            if (!circle->determined[k] || !LEVEL(is_time_like)(&model->term[k]) || columns == 0)
                continue;
            first = first < 0 ? k : first;
            for (int c = 0; c < columns; c++)
                column[n++] = model->term[k].first + c;
        }
        if (first < 0)
            return;
        memset(products, 0, sizeof(double) * n * n);
        memset(sums, 0, sizeof sums);
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
        LEVEL(tolerances)(products, n, LEAST_VARIANCE * passes, tolerance);
        if (passes < n + SPARE_PASSES || tolerance[0] < LEAST_TIME_LIKE)
            worst = first;
        for (int k = first, i = 1; k < model->terms && worst < 0; k++) {
            if (!circle->determined[k] || !LEVEL(is_time_like)(&model->term[k]))
                continue;
            for (int c = 0; c < LEVEL(columns_of)(&model->term[k], circle); c++)
                worst = tolerance[i++] < LEAST_TIME_LIKE ? k : worst;
        }
        if (worst < 0)
            return;
        circle->determined[worst] = false;
    }
}

/* Drops terms, the least determined one first, until each column has its tolerance; false: u, v and tau have it not. */
static bool LEVEL(drop_undetermined)(const Model *model, Circle *circle)
{
    for (;;) {
        double products[MAX_COLUMNS * MAX_COLUMNS], tolerance[MAX_COLUMNS], least = INFINITY;
        int32_t column[MAX_COLUMNS] = {U, V, T}, owner[MAX_COLUMNS];
        int n = 3, worst = -1;
        for (int k = 0; k < model->terms; k++)
            for (int c = 0; circle->determined[k] && c < LEVEL(columns_of)(&model->term[k], circle); c++) {
                owner[n] = k;
                column[n++] = model->term[k].first + c;
            }
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) {
                const int high = column[i] > column[j] ? column[i] : column[j], low = column[i] + column[j] - high;
                products[n * i + j] = circle->total[LEVEL(products)(model->quads, high) + low]
                    - circle->total[4 + column[i]] * circle->total[4 + column[j]] / circle->total[0];
            }
        LEVEL(tolerances)(products, n, LEAST_VARIANCE * circle->total[0], tolerance);
        for (int i = 3; i < n; i++)
            if (tolerance[i] < least)
                least = tolerance[i], worst = owner[i];
        const bool plane = tolerance[U] >= model->min_tolerance && tolerance[V] >= model->min_tolerance
            && tolerance[2] >= model->min_tolerance;
        if (plane && least >= model->min_tolerance)
            return true;
        if (worst < 0)
            return false;
        circle->determined[worst] = false;
    }
}
