/* Points sorted into cells: those of a table that posts can see, in the order in which circles are swept. */

#include "fit.h"

/* Returns the cell that a coordinate is in.  Rounding of the quotient stays within the slack of find_bands. */
static inline int64_t cell_of(double coordinate, double per_size)
{
    const double quotient = coordinate * per_size;
    const int64_t whole = (int64_t)quotient;
    return whole - (quotient < (double)whole);
}

/* However far posts lie apart, each adds only a few cells. */
int64_t find_ranges(const double *posts, int64_t count, const Window *window, Range *ranges, int64_t *slots)
{
    int64_t n = 0;
    *slots = 0;
    for (int64_t k = 0; k < count; k++) {
        const int64_t first = cell_of(posts[k] - window->reach, window->per_size);
        const int64_t last = cell_of(posts[k] + window->reach, window->per_size);
        if (n == 0 || first > ranges[n - 1].last + 1) {
            *slots += n ? ranges[n - 1].last - ranges[n - 1].first + 1 : 0;
            ranges[n++] = (Range){first, last, *slots};
        } else
            ranges[n - 1].last = last;
    }
    *slots += n ? ranges[n - 1].last - ranges[n - 1].first + 1 : 0;
    return n;
}

/* Returns the slot of a cell, or -1 if no post can see it. */
static inline int64_t slot_of(const Range *ranges, int64_t n, int64_t cell)
{
    int64_t low = 0;
    for (int64_t high = n; high - low > 1;) {
        const int64_t middle = (low + high) / 2;
        if (ranges[middle].first <= cell)
            low = middle;
        else
            high = middle;
    }
    return cell < ranges[low].first || cell > ranges[low].last ? -1 : ranges[low].slot + (cell - ranges[low].first);
}

/* Finds the row of each point and counts the points of each row.  Comparisons are false for NaN. */
static void count_rows(const Table *table, const Window *window, Buckets *buckets)
{
    int64_t *const counts = buckets->row_starts;
    memset(counts, 0, (buckets->row_slots + 2) * sizeof *counts);
    for (int64_t i = 0; i < table->count; i++) {
        const double x = table->x[i], y = table->y[i];
        int64_t slot = -1;
        if ((x >= buckets->x_min) & (x <= buckets->x_max) & (y >= buckets->y_min) & (y <= buckets->y_max)
            & (table->ticks[i] >= window->start) & (table->ticks[i] < window->end)
            & (table->elevation[i] - table->elevation[i] == 0) & (table->passes[i] >= 0)
            && slot_of(buckets->columns, buckets->column_ranges, cell_of(x, window->per_size)) >= 0)
            slot = slot_of(buckets->rows, buckets->row_ranges, cell_of(y, window->per_size));
        slot = slot < 0 ? buckets->row_slots : slot;
        buckets->row_of[i] = (int32_t)slot;
        counts[slot + 1]++;
    }
    for (int64_t r = 0; r < buckets->row_slots; r++)
        counts[r + 1] += counts[r];
}

/* Copies the points row by row; the start of a row moves to that of the next.  Here and in sort_row, memory is fetched
   before it is written (past the end too, which is harmless): waiting for it took more than half of the time. */
static void place_in_rows(const Table *table, const Window *window, Buckets *buckets)
{
    for (int64_t i = 0; i < table->count; i++) {
        const int32_t row = buckets->row_of[i];
        if (row == buckets->row_slots)
            continue;
        Placed *const place = buckets->placed + buckets->row_starts[row]++;
        __builtin_prefetch(place + 6, 1);
        *place = (Placed){
            {table->x[i], table->y[i], (double)(table->ticks[i] * window->tick - window->epoch) / window->year,
             table->elevation[i]},
            (int32_t)table->passes[i],
            (int32_t)i,
            (int32_t)slot_of(buckets->columns, buckets->column_ranges, cell_of(table->x[i], window->per_size)),
        };
    }
}

/* Fetches the places of the next row while those of this one are written.  Always inline: GCC drops a call that has no
   result. */
static inline __attribute__((always_inline)) void fetch_ahead(const Sorted *to, int64_t now, int64_t later)
{
    __builtin_prefetch(to->rows + 4 * later, 1);
    if (now % 8)
        return;
    __builtin_prefetch(to->x + later, 1);
    __builtin_prefetch(to->y + later, 1);
    __builtin_prefetch(to->passes + later, 1);
    __builtin_prefetch(to->order + later, 1);
}

/* Sorts the points first..last of a row by column, and lists its cells. */
static void sort_row(const Window *window, Buckets *buckets, int64_t first, int64_t last, Sorted *to)
{
    int64_t *const starts = buckets->column_starts, start = first;
    memset(starts, 0, (buckets->column_slots + 2) * sizeof *starts);
    for (int64_t k = first; k < last; k++)
        starts[buckets->placed[k].column + 2]++;
    for (int64_t c = 0; c < buckets->column_slots; c++) {
        const int64_t count = starts[c + 2];
        starts[c + 1] = start;
        start += count;
    }
    for (int64_t k = first; k < last; k++) {
        const Placed *from = buckets->placed + k;
        fetch_ahead(to, k, k + (last - first));
        const int64_t i = starts[from->column + 1]++;
        memcpy(to->rows + 4 * i, from->row, sizeof from->row);
        to->x[i] = from->row[0];
        to->y[i] = from->row[1];
        to->passes[i] = from->pass;
        to->order[i] = from->point;
        to->extreme = fabs(from->row[3]) > fabs(to->extreme) ? from->row[3] : to->extreme;
    }
    to->row_y[to->row_count] = cell_of(buckets->placed[first].row[1], window->per_size);
    to->row_start[to->row_count++] = to->cell_count;
    for (int64_t c = 0, begin = first; c < buckets->column_slots; c++) {
        const int64_t end = starts[c + 1];
        if (end == begin)
            continue;
        to->cell_x[to->cell_count] = cell_of(to->x[begin], window->per_size);
        to->cell_start[to->cell_count++] = begin;
        begin = end;
    }
}

void sort_into_cells(const Table *table, const Window *window, Buckets *buckets, Sorted *to)
{
    int64_t first = 0;
    count_rows(table, window, buckets);
    place_in_rows(table, window, buckets);
    to->row_count = to->cell_count = 0;
    to->extreme = 0;
    for (int64_t r = 0; r < buckets->row_slots; r++) {
        const int64_t last = buckets->row_starts[r];
        if (last > first)
            sort_row(window, buckets, first, last, to);
        first = last;
    }
    to->count = first;
    to->row_start[to->row_count] = to->cell_count;
    to->cell_start[to->cell_count] = to->count;
}
