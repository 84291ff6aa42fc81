/* Sums over rows, per pass and in total; counts and times of what is kept; the gates.

   Sums are laid out in quads: {sum of weights, 0, 0, 0}, the sums of the columns, then of the products of each column r
   with columns 0 to 4 * (r / 4) + 3. */

/* Years, 0.03 s: a span of exactly the minimum passes its gate whatever the rounding of two times. */
static const double SPAN_ROUNDING = 1e-9;

INLINE int sums_size(int quads) { return 4 * (1 + quads + 2 * quads * (quads + 1)); }

/* Where the products of column r begin. */
INLINE int products_at(int quads, int r)
{
    const int b = r / 4;
    return 4 * (1 + quads + 2 * b * (b + 1) + (r % 4) * (b + 1));
}

INLINE void add_rows_of(
    const int quads, const double *restrict rows, const double *restrict weights, int64_t count, double *restrict sums)
{
    enum { MOST = MAX_COLUMNS / 4 };
    quad s[MOST], m[2 * MOST * (MOST + 1)];
    double total = sums[0];
    for (int q = 0; q < quads; q++)
        s[q] = ((quad *)sums)[1 + q];
    for (int q = 0; q < 2 * quads * (quads + 1); q++)
        m[q] = ((quad *)sums)[1 + quads + q];
    for (int64_t i = 0; i < count; i++, rows += 4 * quads) {
        quad weighted[MOST];
        int at = 0;
        total += weights[i];
#pragma GCC unroll 8
        for (int q = 0; q < quads; q++) {
            weighted[q] = weights[i] * ((const quad *)rows)[q];
            s[q] += weighted[q];
        }
#pragma GCC unroll 8
        for (int b = 0; b < quads; b++)
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++)
#pragma GCC unroll 8
                for (int q = 0; q <= b; q++)
                    m[at++] += rows[4 * b + r] * weighted[q];
    }
    sums[0] = total;
    for (int q = 0; q < quads; q++)
        ((quad *)sums)[1 + q] = s[q];
    for (int q = 0; q < 2 * quads * (quads + 1); q++)
        ((quad *)sums)[1 + quads + q] = m[q];
}

/* Adds rows, each times its weight. */
static void add_rows(int quads, const double *rows, const double *weights, int64_t count, double *sums)
{
    /* With a constant number of quads the sums of a few columns stay in registers. */
    switch (quads) {
    case 1: add_rows_of(1, rows, weights, count, sums); break;
    case 2: add_rows_of(2, rows, weights, count, sums); break;
    case 3: add_rows_of(3, rows, weights, count, sums); break;
    default: add_rows_of(quads, rows, weights, count, sums);
    }
}

/* Adds up the sums of the kept passes, each times its factor, four at a time in registers. */
static void sum_kept_passes(Circle *circle, int quads, const double *factors)
{
    const int size = sums_size(quads) / 4;
    quad *total = (quad *)circle->total;
    for (int first = 0; first < size; first += 4) {
        const int n = size - first < 4 ? size - first : 4;
        const quad *pass = (const quad *)circle->sums + first;
        quad sum[4] = {0};
        for (int32_t g = 0; g < circle->passes; g++, pass += size) {
            if (!circle->pass_kept[g])
                continue;
            /* Values behind the last sum are read and not used. */
            for (int q = 0; q < 4; q++)
                sum[q] += factors[g] * pass[q];
        }
        for (int q = 0; q < n; q++)
            total[first + q] = sum[q];
    }
}

/* Describes the kept points of a pass, about the origin. */
static void describe_pass(const Model *model, Circle *circle, int32_t g)
{
    Pass pass = {.first = INFINITY, .last = -INFINITY};
    const int stride = 4 * model->quads;
    for (int64_t i = circle->starts[g]; i < circle->starts[g + 1]; i++) {
        const double *row = circle->rows + stride * i;
        if (!circle->kept[i])
            continue;
        pass.count++;
        pass.first = row[T] < pass.first ? row[T] : pass.first;
        pass.last = row[T] > pass.last ? row[T] : pass.last;
        pass.u += row[U];
        pass.v += row[V];
    }
    circle->described[g] = pass;
}

/* Fills counts and times of the kept points from their passes; only passes that changed are described anew. */
static void describe(const Model *model, Circle *circle, Post *post)
{
    double first = INFINITY, last = -INFINITY, u = 0, v = 0;
    int64_t count = 0;
    post->pass_count = 0;
    for (int32_t g = 0; g < circle->passes; g++) {
        const Pass *pass = circle->described + g;
        if (pass->count < 0)
            describe_pass(model, circle, g);
        circle->pass_kept[g] = pass->count > 0;
        post->pass_count += pass->count > 0;
        count += pass->count;
        first = pass->first < first ? pass->first : first;
        last = pass->last > last ? pass->last : last;
        u += pass->u;
        v += pass->v;
    }
    post->data_count = (int32_t)count;
    post->time_start = first + circle->origin[T];
    post->time_end = last + circle->origin[T];
    post->rejected_count = (int32_t)(circle->count - count);
    post->rejected_pass_count = circle->passes - post->pass_count;
    u = u / count - circle->at_post[U];
    v = v / count - circle->at_post[V];
    post->centroid_distance = model->radius * sqrt(u * u + v * v);
}

/* Returns the status of the first gate that fails, else OK. */
static int gate(const Model *model, Post *post)
{
    return post->data_count < model->min_points ? TOO_FEW_POINTS
        : post->time_end - post->time_start < model->min_span - SPAN_ROUNDING ? TOO_SHORT_SPAN
        : post->pass_count < model->min_passes ? TOO_FEW_PASSES
                                               : OK;
}
