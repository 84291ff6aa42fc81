/* The points of a circle as columns, pass by pass; what is constant within a pass, once for each. */

/* Numbers the passes in order of appearance, so that memory follows the post and not the tile, and finds their places. */
static void number_passes(const Points *points, Circle *circle, Work *work)
{
    int32_t passes = 0;
    int64_t place = 0;
    for (int64_t i = 0; i < circle->count; i++) {
        const int32_t code = points->passes[circle->index[i]];
        int32_t number = circle->numbers[code];
        if (number < 0) {
            number = circle->numbers[code] = passes;
            circle->codes[passes++] = code;
            work->count[number] = 0;
        }
        circle->point_passes[i] = number;
        work->count[number]++;
    }
    for (int32_t g = 0; g < passes; g++) {
        circle->numbers[circle->codes[g]] = -1;
        work->first[g] = place;
        place += (work->count[g] + 7) / 8 * 8;
    }
    work->first[passes] = work->slots = place;
    circle->passes = passes;
}

/* Pads each pass with points at the post whose height and weight are 0. */
static void pad_passes(const Circle *circle, Work *work)
{
    const eight nothing = {0};
    double *const columns[] = {work->u, work->v, work->z, work->weights};
    for (int32_t g = 0; g < circle->passes; g++) {
        const int64_t last = work->first[g + 1] - 8;
        for (int c = 0; c < 4; c++)
            *(eight *)(columns[c] + last) = nothing;
        for (int64_t i = work->first[g] + work->count[g]; i < last + 8; i++)
            work->tau[i] = 0, work->point[i] = -1;
    }
}

/* Fills places, times and heights about their mean over the circle. */
static void fill_points(const Points *points, const Model *model, Circle *circle, Work *work)
{
    const double per_radius = 1 / model->radius, any = points->rows[4 * (int64_t)circle->index[0] + Z];
    const double any_time = points->rows[4 * (int64_t)circle->index[0] + T];
    double sum = 0, mean;
    pad_passes(circle, work);
    for (int64_t i = 0; i < circle->count; i++) {
        const double *row = points->rows + 4 * (int64_t)circle->index[i];
        const int64_t to = work->first[circle->point_passes[i]]++;
        work->u[to] = (row[0] - circle->x) * per_radius;
        work->v[to] = (row[1] - circle->y) * per_radius;
        work->tau[to] = row[T] - any_time;
        work->z[to] = row[Z] - any;
        work->weights[to] = 1;
        work->point[to] = circle->index[i];
        sum += row[Z] - any;
    }
    mean = sum / (double)circle->count;
    for (int32_t g = 0; g < circle->passes; g++) {
        work->first[g] -= work->count[g];
        for (int64_t i = work->first[g]; i < work->first[g] + work->count[g]; i++)
            work->z[i] -= mean;
    }
    work->origin = any_time;
    work->level = any + mean;
}

/* Returns the exponential of x. */
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

/* Weighs the points; weights have mean 1, so that a sum of weights counts points. */
static void weigh_points(const Points *points, const Model *model, const Circle *circle, Work *work)
{
    const double per_scale = model->distance_scale > 0 ? model->radius / model->distance_scale : 0;
    double sum = 0;
    if (!points->weights && !(per_scale > 0))
        return;
    for (int64_t i = 0; i < work->slots; i++) {
        const double u = work->u[i], v = work->v[i];
        if (work->point[i] < 0)
            continue;
        if (points->weights)
            work->weights[i] = points->weights[work->point[i]];
        if (per_scale > 0)
            work->weights[i] *= exponential(-sqrt(u * u + v * v) * per_scale);
        sum += work->weights[i];
    }
    for (int64_t i = 0; i < work->slots; i++)
        work->weights[i] *= (double)circle->count / sum;
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

/* Returns the number of columns of a term at this post. */
INLINE int columns_of(const Term *term, const Circle *circle)
{
    return term->kind == MODES ? circle->columns_of_mode
        : term->kind == PLATFORMS ? circle->columns_of_platform
                                  : term->count;
}

/* Fills the columns of an offset of modes or platforms; columns of categories that are not there are 0. */
static void fill_categories(const uint8_t *category, const Term *term, Circle *circle, Work *work, double *column)
{
    const bool modes = term->kind == MODES;
    double(*codes)[MAX_CATEGORIES] = modes ? circle->codes_of_mode : circle->codes_of_platform;
    int seen = 0;
    for (int64_t i = 0; category && i < work->slots; i++)
        seen |= work->point[i] < 0 ? 0 : 1 << category[work->point[i]];
    *(modes ? &circle->columns_of_mode : &circle->columns_of_platform) = category ? code_categories(seen, codes) : 0;
    *(modes ? &circle->seen_modes : &circle->seen_platforms) = seen;
    for (int c = 0; c < term->count; c++, column += work->room)
        for (int64_t i = 0; i < work->slots; i++)
            column[i] = category && work->point[i] >= 0 && c < MAX_CATEGORIES ? codes[category[work->point[i]]][c] : 0;
}

/* Fills a point column about its median in the circle, in units of the largest distance from it; returns that unit. */
static double fill_column(const Points *points, const Model *model, int extra, Work *work, double *column)
{
    double low = INFINITY, high = -INFINITY, middle, unit;
    int64_t known = 0;
    for (int64_t i = 0; i < work->slots; i++) {
        const double value = work->point[i] < 0 ? NAN : points->extras[(int64_t)model->extras * work->point[i] + extra];
        column[i] = value;
        if (value == value) {
            work->keys[known++] = value;
            low = value < low ? value : low;
            high = value > high ? value : high;
        }
    }
    for (int64_t i = known; i % 8; i++)
        work->keys[i] = INFINITY;
    middle = known ? padded_median(work->keys, (known + 7) / 8 * 8, known, low, high, work->spare) : 0;
    unit = high - middle > middle - low ? high - middle : middle - low;
    unit = known && unit > 0 ? unit : 1;
    for (int64_t i = 0; i < work->slots; i++)
        column[i] = column[i] == column[i] ? (column[i] - middle) / unit : 0;
    return unit;
}

/* Fills what is constant within a pass: 1, direction, cosine and sine of the season, accelerations, then the mean time. */
static void fill_constants(const Points *points, const Model *model, const Circle *circle, Work *work)
{
    const int columns = model->unknowns - model->point_columns;
    int place = SEASONAL;
    double mean = 0, *const tau = work->constants + work->stride * (columns - 1);
    for (int32_t g = 0; g < circle->passes; g++) {
        double sum = 0;
        for (int64_t i = work->first[g]; i < work->first[g] + work->count[g]; i++)
            sum += work->tau[i];
        work->constants[g] = 1;
        tau[g] = sum / work->count[g];
        mean += tau[g];
    }
    mean /= circle->passes;
    for (int32_t g = 0; g < circle->passes; g++)
        tau[g] -= mean;
    for (int64_t i = 0; i < work->slots; i++)
        work->tau[i] -= mean;
    work->origin += mean;
    for (int k = 0; k < model->terms; k++) {
        const Term *term = &model->term[k];
        const int column = term->kind == DIRECTION ? 1 : term->kind == ANNUAL ? 2 : place;
        double *to = work->constants + work->stride * column;
        if (term->kind == DIRECTION || term->kind == ANNUAL)
            for (int c = 0; c < term->count; c++)
                for (int32_t g = 0; g < circle->passes; g++) {
                    const int64_t point = work->point[work->first[g]];
                    const double value = points->extras[model->extras * point + term->extra + c];
                    to[work->stride * c + g] = value == value ? value : 0;
                }
        if (term->kind == ACCELERATION) {
            for (int32_t g = 0; g < circle->passes; g++)
                to[g] = tau[g] * (tau[g] + 2 * work->origin) / 2;
            work->at_post[model->point_columns + place++] = -work->origin * work->origin / 2;
        }
    }
    work->at_post[model->unknowns - 1] = -work->origin;
}

/* Fills the precisions of coefficients, and the columns of further terms. */
static void fill_terms(const Points *points, const Model *model, Circle *circle, Work *work)
{
    const double r = model->radius, slope = 0.3 * r, curvature = 0.5 * 5e-6 * r * r;
    int column = TERRAIN, constant = model->point_columns + SEASONAL;
    work->free_columns = 2; /* 1 and tau */
    for (int k = 0; k < model->unknowns; k++)
        work->precision[k] = k < 2 ? 1 / (slope * slope) : k < TERRAIN ? 1 / (curvature * curvature) : 0;
    for (int k = 0; k < model->terms; k++) {
        const Term *term = &model->term[k];
        double *to = work->extras + work->room * (column - TERRAIN);
        const bool within = term->kind >= MODES;
        double p = term->prior;
        circle->units[k] = 1;
        if (term->kind == MODES)
            fill_categories(points->modes, term, circle, work, to);
        if (term->kind == PLATFORMS)
            fill_categories(points->platforms, term, circle, work, to);
        if (term->kind == NAMED)
            p *= circle->units[k] = fill_column(points, model, term->extra, work, to);
        /* The codes of two categories are +-1/2, so that the coefficient is twice the effect. */
        if ((term->kind == MODES || term->kind == PLATFORMS) && columns_of(term, circle) == 1)
            p *= 2;
        if ((within || term->kind == ACCELERATION) && p == INFINITY)
            work->free_columns += columns_of(term, circle);
        for (int c = 0; within && c < term->count; c++)
            work->precision[column++] = 1 / (p * p);
        if (term->kind == ACCELERATION)
            work->precision[constant++] = 1 / (p * p);
    }
}

/* Lists the points of the circle pass by pass. */
static void take_points(const Points *points, const Model *model, Circle *circle)
{
    Work *const work = &circle->work;
    number_passes(points, circle, work);
    work->stride = (circle->passes + 7) / 8 * 8;
    memset(work->at_post, 0, sizeof work->at_post);
    work->at_post[model->point_columns] = 1;
    fill_points(points, model, circle, work);
    weigh_points(points, model, circle, work);
    fill_constants(points, model, circle, work);
    fill_terms(points, model, circle, work);
}
