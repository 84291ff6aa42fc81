/* Heights in intervals of time (bins), from the same sums: each bin has a free constant, and the passes within a bin have
   random offsets; terrain, direction and point columns are fitted to what differs within bins. */

/* The equations of the terrain of bins before they are eliminated; z and tau are the last rows. */
typedef struct {
    double a[MAX_PRODUCTS], prior[MAX_UNKNOWNS], theta;
    int32_t used; /* number of bins with a height */
} BinEquations;

/* Of the columns of heights, the one of the whole fit: those of points, direction, z, tau. */
INLINE int height_column(const Model *model, int i)
{
    const int q = model->point_columns;
    return i < q ? i : i == q ? q + 1 : i == q + 1 ? model->unknowns : model->unknowns - 1;
}

/* Fills the weight of a bin and the means of its columns, over the passes from..to by time that are not free, and adds
   the products of passes about them. */
static void fill_bin(
    const Model *model, Work *work, double theta, const int32_t range[2], int32_t bin, double *a, Height *height)
{
    const int last = model->point_columns + 2;
    double weight = 0, *const bins = work->bins + bin;
    for (int i = 0; i <= last; i++)
        bins[work->stride * i] = 0;
    for (int turn = 0; turn < 2; turn++)
        for (int32_t k = range[0]; k < range[1]; k++) {
            const int32_t row = work->list[k];
            const double per_v = 1 / (theta + 1 / work->n[row]);
            double off[MAX_UNKNOWNS + 2];
            if (work->free[row])
                continue;
            for (int i = 0; i <= last; i++)
                off[i] = work->means[work->stride * height_column(model, i) + row];
            if (turn == 0) {
                /* A running mean: that of one pass is the mean of this pass to the last bit. */
                weight += per_v;
                for (int i = 0; i <= last; i++)
                    bins[work->stride * i] += (off[i] - bins[work->stride * i]) * (per_v / weight);
                height->data_count += work->kept[work->pass[row]];
                height->pass_count++;
                continue;
            }
            for (int i = 0; i <= last; i++)
                off[i] -= bins[work->stride * i];
            for (int i = 0; i <= last; i++)
                for (int j = 0; j <= i; j++)
                    a[triangle(i, j)] += per_v * off[i] * off[j];
        }
    work->bin_weights[bin] = weight;
}

/* Fills heights of the bins that hold a pass which is not free, each in its place. */
static void fill_heights(
    const Model *model, Work *work, const Equations *whole, const double *edges, int64_t count, double level,
    int32_t passes, Height *heights, BinEquations *of)
{
    const int q = model->point_columns, columns = q + 1;
    double a[MAX_PRODUCTS] = {0}, *const prior = of->prior, inverse[MAX_UNKNOWNS], variance;
    int32_t used = 0;
    of->theta = whole->theta;
    for (int i = 0; i <= q; i++)
        for (int j = 0; j <= i; j++)
            a[triangle(i < q ? i : columns, j < q ? j : columns)] = work->total[triangle(i, j)];
    for (int k = 0; k < columns; k++)
        a[triangle(k, k)] += prior[k] = whole->prior[height_column(model, k)];
    for (int64_t bin = 0; bin < count; bin++) {
        const int32_t range[2] = {count_before(work, edges[bin]), count_before(work, edges[bin + 1])};
        heights[bin] = (Height){NAN, NAN, NAN, 0, 0};
        if (range[0] == range[1])
            continue;
        fill_bin(model, work, whole->theta, range, used, a, &heights[bin]);
        work->bin_places[used] = (int32_t)bin;
        used += heights[bin].pass_count > 0;
    }
    memcpy(of->a, a, triangle(columns + 2, 0) * sizeof *a);
    of->used = used;
    eliminate_one(columns, a, prior, LEAST_VARIANCE, inverse);
    variance = fmax(a[triangle(columns, columns)], LEAST_RSS * work->weight)
        / fmax(work->weight - used - (work->free_columns - 2) - work->marked, 1);
    for (int32_t k = 0; k < used; k++) {
        Height *const height = heights + work->bin_places[k];
        double y[MAX_UNKNOWNS + 1], leverage = 0;
        for (int i = 0; i <= columns; i++) {
            y[i] = work->bins[work->stride * i + k];
            for (int j = 0; j < i; j++)
                y[i] -= a[triangle(i, j)] * y[j];
            leverage += i < columns ? y[i] * y[i] * inverse[i] : 0;
        }
        height->height = level + y[columns];
        height->height_sigma = sqrt(variance * (1 / work->bin_weights[k] + leverage));
        height->height_ci95 = model->quantiles[passes - 1] * height->height_sigma;
    }
}
