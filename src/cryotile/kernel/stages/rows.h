/* The points of a circle as rows of columns, sorted by pass. */

/* Numbers the passes in order of appearance, so that sums and memory follow the post and not the tile, and sorts the
   points by them. */
static void sort_by_pass(const Points *points, Circle *circle)
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

/* Sets the origin to the mean of up to 16 points.  Products about any place amid the points lose at most a factor n of
   precision when they are centred; products about the post lose all of it where the points lie close together. */
static void find_origin(const Points *points, Circle *circle)
{
    const int64_t taken = circle->count < 16 ? circle->count : 16;
    quad mean = {0};
    for (int64_t i = 0; i < taken; i++)
        mean += *(const quad *)(points->rows + 4 * (int64_t)circle->index[i * circle->count / taken]);
    *(quad *)circle->origin = mean / (double)taken;
}

/* Fills rows about the origin, u and v in radii, without the columns of terms. */
static void fill_rows(const Points *points, const Model *model, Circle *circle)
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

INLINE double exponential(double x)
{
    /* Cody and Waite's reduction and a Taylor polynomial, because the last bit of libm depends on the machine. */
    const double k = floor(x * 1.4426950408889634 + 0.5), r = (x - k * 0.693145751953125) - k * 1.4286068203094173e-06;
    union { int64_t bits; double value; } power = {.bits = ((int64_t)k + 1023) << 52};
    double sum = 1;
    for (int n = 14; n > 0; n--)
        sum = 1 + sum * r / n;
    return sum * power.value;
}

static void weigh(const Points *points, const Model *model, Circle *circle)
{
    const double per_scale = model->distance_scale > 0 ? 1 / model->distance_scale : 0;
    for (int64_t i = 0; i < circle->count; i++) {
        const double *point = points->rows + 4 * (int64_t)circle->order[i];
        const double dx = point[0] - circle->x, dy = point[1] - circle->y;
        circle->weights[i] = points->weights ? points->weights[circle->order[i]] : 1;
        if (per_scale > 0)
            circle->weights[i] *= exponential(-sqrt(dx * dx + dy * dy) * per_scale);
    }
}

/* Codes one column for each category seen except the last, so that the effects of all categories sum to zero; returns
   the number of columns. */
static int code_categories(int seen, double codes[MAX_CATEGORIES][MAX_CATEGORIES])
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

static void fill_offsets(const uint8_t *category, const Term *term, Circle *circle, int stride, bool modes)
{
    double(*codes)[MAX_CATEGORIES] = modes ? circle->codes_of_mode : circle->codes_of_platform;
    int seen = 0, columns;
    for (int64_t i = 0; category && i < circle->count; i++)
        seen |= 1 << category[circle->order[i]];
    columns = category ? code_categories(seen, codes) : 0;
    for (int64_t i = 0; columns && i < circle->count; i++)
        memcpy(circle->rows + stride * i + term->first, codes[category[circle->order[i]]], columns * sizeof(double));
    *(modes ? &circle->columns_of_mode : &circle->columns_of_platform) = columns;
    *(modes ? &circle->seen_modes : &circle->seen_platforms) = seen;
}

/* Copies a column of the extras; returns the number of points whose value is unknown. */
static int64_t fill_extra(const Points *points, const Model *model, Circle *circle, int extra, int column)
{
    int64_t unknown = 0;
    for (int64_t i = 0; i < circle->count; i++) {
        const double value = points->extras[(int64_t)model->extras * circle->order[i] + extra];
        unknown += value != value;
        circle->rows[4 * model->quads * i + column] = value == value ? value : 0;
    }
    return unknown;
}

/* Centres a column on its median, in units of the largest distance from it; returns that unit. */
static double centre_named(Circle *circle, int stride, int column)
{
    double low = INFINITY, high = -INFINITY, middle, unit;
    const int64_t padded = (circle->count + 7) / 8 * 8;
    for (int64_t i = 0; i < padded; i++) {
        const double value = i < circle->count ? circle->rows[stride * i + column] : INFINITY;
        circle->keys[i] = value;
        low = value < low ? value : low;
        high = value > high && value < INFINITY ? value : high;
    }
    middle = median(circle->keys, padded, circle->count, low, high, circle->spare);
    unit = high - middle > middle - low ? high - middle : middle - low;
    unit = unit > 0 ? unit : 1;
    for (int64_t i = 0; i < circle->count; i++)
        circle->rows[stride * i + column] = (circle->rows[stride * i + column] - middle) / unit;
    return unit;
}

static void fill_quadratic(const Term *term, Circle *circle, int stride, double u0, double v0)
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

static void fill_acceleration(const Term *term, Circle *circle, int stride)
{
    const double t0 = circle->origin[T];
    double *row = circle->rows;
    for (int64_t i = 0; i < circle->count; i++, row += stride)
        row[term->first] = row[T] * (row[T] + 2 * t0) / 2;
    circle->at_post[term->first] = -t0 * t0 / 2;
}

/* Returns the number of columns of a term at this post. */
INLINE int columns_of(const Term *term, const Circle *circle)
{
    return term->kind == MODES ? circle->columns_of_mode
        : term->kind == PLATFORMS ? circle->columns_of_platform
                                  : term->count;
}

/* Fills the columns of a term.  A term whose value is unknown at a point is not determined. */
static void fill_term(const Points *points, const Model *model, Circle *circle, int which)
{
    const Term *term = &model->term[which];
    const int stride = 4 * model->quads;
    int64_t unknown = 0;
    circle->units[which] = 1;
    switch (term->kind) {
    case QUADRATIC: fill_quadratic(term, circle, stride, -circle->at_post[U], -circle->at_post[V]); break;
    case ACCELERATION: fill_acceleration(term, circle, stride); break;
    case MODES: fill_offsets(points->modes, term, circle, stride, true); break;
    case PLATFORMS: fill_offsets(points->platforms, term, circle, stride, false); break;
    default:
        for (int c = 0; c < term->count; c++)
            unknown += fill_extra(points, model, circle, term->extra + c, term->first + c);
    }
    if (term->kind == NAMED)
        circle->units[which] = centre_named(circle, stride, term->first);
    circle->determined[which] = unknown == 0;
    circle->verdict[which] = (Verdict){
        (double)unknown, (double)circle->count, unknown ? UNKNOWN_VALUES : columns_of(term, circle) ? NOT_REACHED : ONE_CATEGORY, 0};
}
