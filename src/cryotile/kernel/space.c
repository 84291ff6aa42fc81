/* The work space of a thread. */

#include "fit.h"

/* Takes so many doubles of the block, in whole vectors. */
static double *take(double *block, int64_t *at, int64_t count)
{
    double *taken = block ? block + *at : NULL;
    *at += (count + 15) / 8 * 8;
    return taken;
}

int64_t lay_out(const Model *model, int64_t points, int64_t passes, double *block, Work *work)
{
    const int64_t most = passes < points ? passes : points, n = model->unknowns, q = model->point_columns;
    const int64_t room = points + 7 * most + 16, stride = most + 16;
    int64_t at = 0;
    double **const columns[] = {
        &work->u, &work->v, &work->z, &work->tau, &work->weights, &work->live, &work->residuals, &work->keys,
        &work->spare};
    double **const of_passes[] = {
        &work->middles, &work->n, &work->log_n, &work->h, &work->e, &work->t, &work->deltas, &work->level_deltas,
        &work->free_per_n, &work->free_t};
    work->room = room;
    for (size_t k = 0; k < sizeof columns / sizeof *columns; k++)
        *columns[k] = take(block, &at, room);
    work->extras = take(block, &at, room * (q - TERRAIN));
    for (size_t k = 0; k < sizeof of_passes / sizeof *of_passes; k++)
        *of_passes[k] = take(block, &at, stride);
    work->factors = take(block, &at, stride);
    work->shares = take(block, &at, stride);
    work->constants = take(block, &at, stride * (n - q));
    work->within = take(block, &at, stride * (q + 1) * (q + 2) / 2);
    work->means = take(block, &at, stride * (n + 1));
    work->free_means = take(block, &at, stride * (n + 1));
    work->parts = take(block, &at, (stride + 8) * (n + 1) * (n + 2) / 2);
    work->before = take(block, &at, (stride + 8) * (n + 1) * (n + 2) / 2);
    work->bins = take(block, &at, stride * (q + 3));
    work->bin_weights = take(block, &at, stride);
    work->departures = take(block, &at, stride);
    work->bin_times = take(block, &at, stride);
    work->changes = take(block, &at, stride);
    work->times_without = take(block, &at, stride);
    work->times = take(block, &at, stride);
    work->per_v = take(block, &at, stride * THETAS);
    work->logs = take(block, &at, stride * THETAS);
    work->first = (int64_t *)take(block, &at, stride);
    work->point = (int32_t *)take(block, &at, room);
    work->count = (int32_t *)take(block, &at, stride);
    work->kept = (int32_t *)take(block, &at, stride);
    work->pass = (int32_t *)take(block, &at, stride);
    work->list = (int32_t *)take(block, &at, stride);
    work->free_list = (int32_t *)take(block, &at, stride);
    work->points_before = (int32_t *)take(block, &at, stride);
    work->passes_before = (int32_t *)take(block, &at, stride);
    work->bin_places = (int32_t *)take(block, &at, stride);
    work->free = (uint8_t *)take(block, &at, stride);
    work->was_free = (uint8_t *)take(block, &at, stride);
    work->marks = (uint8_t *)take(block, &at, stride);
    return at;
}
