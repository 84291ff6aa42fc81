/* Unit tests of the kernel's stages.  test_stages.py compiles this file for one level of vector instructions
   (FIT_SOURCE) with the address and undefined-behaviour sanitizers.  Arrays come from malloc, so that a read past the
   padding that a stage asks for is an error. */

#include <stdio.h>
#include <stdlib.h>

#include FIT_SOURCE
#include "sort.c"

static int failures = 0;

#define CHECK(truth)                                                      \
    do {                                                                  \
        if (!(truth)) {                                                   \
            printf("line %d is false: %s\n", __LINE__, #truth);           \
            failures++;                                                   \
        }                                                                 \
    } while (0)

/* A number in [0, 1) of a fixed sequence (Knuth's MMIX generator). */
static double random_number(void)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 9007199254740992.0;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of a copy, by sorting. */
static double sorted_median(const double *values, int64_t n)
{
    double *copy = malloc(n * sizeof *copy), result;
    memcpy(copy, values, n * sizeof *copy);
    qsort(copy, n, sizeof *copy, compare);
    result = n % 2 ? copy[n / 2] : (copy[n / 2 - 1] + copy[n / 2]) / 2;
    free(copy);
    return result;
}

/* ---- medians ---- */

static void a_median_is_found_whatever_the_guess(void)
{
    static const double guesses[][2] = {{-1, 1}, {0.4, 0.6}, {5, 6}, {-9, -8}, {0.5, 0.5}, {-1e9, 1e9}};
    for (int64_t n = 1; n < 400; n = n < 70 ? n + 1 : n * 3 / 2) {
        const int64_t padded = (n + 7) / 8 * 8;
        double *values = malloc(padded * sizeof *values), *spare = malloc((padded + 8) * sizeof *spare), expected;
        for (int64_t i = 0; i < padded; i++)
            values[i] = i < n ? random_number() : INFINITY;
        expected = sorted_median(values, n);
        for (size_t g = 0; g < sizeof guesses / sizeof *guesses; g++)
            CHECK(median(values, padded, n, guesses[g][0], guesses[g][1], spare) == expected);
        free(values);
        free(spare);
    }
}

static void infinite_values_do_not_count_in_a_median(void)
{
    double values[16] = {INFINITY, 3, INFINITY, 1, 2}, spare[24];
    for (int i = 5; i < 16; i++)
        values[i] = INFINITY;
    CHECK(median(values, 16, 3, 0, 1, spare) == 2);
}

static void equal_values_have_themselves_as_median(void)
{
    double values[104], spare[112];
    for (int i = 0; i < 104; i++)
        values[i] = i < 100 ? 7.25 : INFINITY;
    CHECK(median(values, 104, 100, 0, 1, spare) == 7.25);
    CHECK(median(values, 104, 100, 7.25, 7.25, spare) == 7.25);
    for (int i = 0; i < 50; i++)
        values[i] = 7.5;
    CHECK(median(values, 104, 100, 7, 8, spare) == 7.375);
}

static void a_small_median_is_that_of_the_sorted_values(void)
{
    for (int64_t n = 1; n <= RANKED; n++) {
        double *values = malloc(n * sizeof *values);
        for (int64_t i = 0; i < n; i++)
            values[i] = random_number() < 0.3 ? 0.5 : random_number();
        CHECK(small_median(values, n) == sorted_median(values, n));
        free(values);
    }
}

static void eight_medians_at_a_time_are_those_of_each_run(void)
{
    for (int most = 1; most <= RANKED; most++) {
        int64_t starts[9] = {0};
        double *values, medians[8];
        int32_t counts[8];
        for (int p = 0; p < 8; p++)
            starts[p + 1] = starts[p] + (counts[p] = 1 + (int32_t)(random_number() * most));
        values = malloc(starts[8] * sizeof *values);
        for (int64_t i = 0; i < starts[8]; i++)
            values[i] = random_number();
        medians_of_eight(most, values, starts, counts, medians);
        for (int p = 0; p < 8; p++)
            CHECK(medians[p] == sorted_median(values + starts[p], starts[p + 1] - starts[p]));
        free(values);
    }
}

/* ---- sort ---- */

enum { POINTS = 700 };

/* Points on a square of 8 km and beyond it; some are not to be used. */
static void sort_some(double per_size, bool *seen_twice, bool *in_order, int64_t *count, int64_t *usable)
{
    const double post[] = {-1000, 0, 1000};
    const Window window = {1001, per_size, 0, 100, 1, 50, 10};
    double *x = malloc(POINTS * sizeof *x), *y = malloc(POINTS * sizeof *y), *z = malloc(POINTS * sizeof *z);
    int64_t ticks[POINTS], passes[POINTS];
    bool seen[POINTS] = {false};
    *usable = 0;
    for (int i = 0; i < POINTS; i++) {
        x[i] = i % 97 ? 8000 * (random_number() - 0.5) : NAN;
        y[i] = 8000 * (random_number() - 0.5);
        z[i] = i % 89 ? 1000 + i : INFINITY;
        ticks[i] = i % 83 ? i % 100 : 100;
        passes[i] = i % 79 ? i % 7 : -1;
        *usable += fabs(x[i]) < 2001 && fabs(y[i]) < 2001 && i % 97 && i % 89 && i % 83 && i % 79;
    }
    Range columns[4], rows[4];
    Buckets buckets = {.columns = columns, .rows = rows, .x_min = -2001, .y_min = -2001, .x_max = 2001, .y_max = 2001};
    buckets.column_ranges = find_ranges(post, 3, &window, columns, &buckets.column_slots);
    buckets.row_ranges = find_ranges(post, 3, &window, rows, &buckets.row_slots);
    buckets.column_starts = malloc((buckets.column_slots + 2) * sizeof(int64_t));
    buckets.row_starts = malloc((buckets.row_slots + 2) * sizeof(int64_t));
    buckets.row_of = malloc(POINTS * sizeof(int32_t));
    buckets.placed = malloc(POINTS * sizeof(Placed));
    const Table table = {x, y, z, ticks, passes, POINTS};
    Sorted to = {
        malloc(POINTS * 8), malloc(POINTS * 8), malloc(POINTS * 32), malloc(POINTS * 4), malloc(POINTS * 4),
        malloc((POINTS + 1) * 8), malloc((POINTS + 1) * 8), malloc((POINTS + 1) * 8), malloc((POINTS + 1) * 8),
        0, 0, 0, 0};
    sort_into_cells(&table, &window, &buckets, &to);
    *count = to.count;
    *seen_twice = false;
    *in_order = to.row_start[to.row_count] == to.cell_count && to.cell_start[to.cell_count] == to.count;
    for (int64_t r = 0; r < to.row_count; r++) {
        *in_order &= r == 0 || to.row_y[r - 1] < to.row_y[r];
        for (int64_t c = to.row_start[r]; c < to.row_start[r + 1]; c++) {
            *in_order &= c == to.row_start[r] || to.cell_x[c - 1] < to.cell_x[c];
            for (int64_t i = to.cell_start[c]; i < to.cell_start[c + 1]; i++) {
                const int32_t point = to.order[i];
                *seen_twice |= seen[point];
                seen[point] = true;
                *in_order &= i == to.cell_start[c] || to.order[i - 1] < point;
                *in_order &= cell_of(y[point], per_size) == to.row_y[r] && cell_of(x[point], per_size) == to.cell_x[c];
                *in_order &= to.x[i] == x[point] && to.y[i] == y[point] && to.passes[i] == passes[point];
                *in_order &= to.rows[4 * i + T] == (double)(ticks[point] - 50) / 10 && to.rows[4 * i + Z] == z[point];
            }
        }
    }
    free(x), free(y), free(z), free(buckets.column_starts), free(buckets.row_starts), free(buckets.row_of);
    free(buckets.placed), free(to.x), free(to.y), free(to.rows), free(to.passes), free(to.order), free(to.row_y);
    free(to.row_start), free(to.cell_x), free(to.cell_start);
}

static void a_sort_lists_each_usable_point_once_by_row_and_cell(void)
{
    for (double size = 100; size < 4000; size *= 1.7) {
        bool seen_twice, in_order;
        int64_t count, usable;
        sort_some(1 / size, &seen_twice, &in_order, &count, &usable);
        CHECK(!seen_twice);
        CHECK(in_order);
        CHECK(count == usable);
    }
}

static void the_points_of_a_circle_are_those_within_the_radius(void)
{
    double x[100], y[100], rows[400] = {0};
    const int64_t row_y[] = {0}, row_start[] = {0, 1}, cell_x[] = {0}, cell_start[] = {0, 100};
    const Points points = {.x = x, .y = y, .rows = rows};
    const Cells cells = {row_y, row_start, cell_x, cell_start, 1, 10, 0.1};
    Band bands[MAX_BANDS];
    int32_t *index = malloc((100 + 8) * sizeof *index);
    Circle circle = {.x = 5, .y = 5, .room = 100, .index = index};
    int64_t inside = 0;
    for (int i = 0; i < 100; i++) {
        x[i] = 10 * random_number();
        y[i] = 10 * random_number();
    }
    x[0] = 9, y[0] = 5; /* on the circle, so not inside */
    CHECK(select_points(&points, &cells, 4, bands, find_bands(&cells, 4, circle.y, bands), &circle));
    for (int i = 0; i < 100; i++)
        if ((x[i] - 5) * (x[i] - 5) + (y[i] - 5) * (y[i] - 5) < 16) {
            CHECK(inside < circle.count && circle.index[inside] == i);
            inside++;
        }
    CHECK(circle.count == inside && inside > 20 && inside < 80);
    circle.room = 99;
    CHECK(!select_points(&points, &cells, 4, bands, find_bands(&cells, 4, circle.y, bands), &circle));
    free(index);
}

/* ---- normal equations ---- */

enum { ROWS = 200, PASSES = 8 };

/* Sums of rows {u v tau z, one more column} in passes; the last column is u if it follows from the others. */
static void sum_some(const double beta[5], bool singular, Circle *circle, double *sums)
{
    const int size = sums_size(2);
    memset(circle, 0, sizeof *circle);
    memset(sums, 0, PASSES * size * sizeof *sums);
    for (int i = 0; i < ROWS; i++) {
        double row[8] = {random_number() - 0.5, random_number() - 0.5, 8 * random_number() - 4};
        const double weight = 0.5 + random_number();
        row[4] = singular ? row[U] : random_number();
        row[Z] = beta[0] * row[4] + beta[1] * row[U] + beta[2] * row[V] + beta[3] * row[T] + beta[4];
        add_rows(2, row, &weight, 1, sums + size * (i % PASSES));
        add_rows(2, row, &weight, 1, circle->total);
    }
    const int32_t active[] = {4, U, V, T, Z};
    memcpy(circle->active, active, sizeof active);
    circle->unknowns = 4;
}

static void solving_exact_data_gives_back_their_coefficients(void)
{
    const double beta[5] = {0.7, 3, -2, -0.5, 11};
    double *sums = malloc(PASSES * sums_size(2) * sizeof *sums);
    const double *parts[8];
    Circle circle;
    Solutions fit;
    sum_some(beta, false, &circle, sums);
    circle.origin[Z] = 1000;
    solve(&circle, circle.total, NULL, 2, 1e-4, &fit);
    for (int p = 0; p < 8; p++)
        CHECK(fit.determined[p]);
    for (int k = 0; k < 4; k++)
        CHECK(fabs(fit.coefficients[k][0] - beta[k]) < 1e-12);
    CHECK(fabs(fit.level[0] - 1011) < 1e-11);
    CHECK(fabs(fit.rss[0]) < 1e-10);
    for (int p = 0; p < 8; p++)
        parts[p] = sums + sums_size(2) * p;
    solve(&circle, circle.total, parts, 2, 1e-4, &fit);
    for (int p = 0; p < 8; p++)
        CHECK(fit.determined[p] && fabs(fit.coefficients[3][p] - beta[3]) < 1e-12);
    free(sums);
}

static void a_column_that_follows_from_others_is_singular(void)
{
    const double beta[5] = {0, 3, -2, -0.5, 11};
    double *sums = malloc(PASSES * sums_size(2) * sizeof *sums), *products = calloc(16, sizeof *products), tolerance[4];
    Circle circle;
    Solutions fit;
    sum_some(beta, true, &circle, sums);
    solve(&circle, circle.total, NULL, 2, 1e-4, &fit);
    CHECK(!fit.determined[0]);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j <= i; j++) {
            const int a = circle.active[i], b = circle.active[j], high = a > b ? a : b, low = a + b - high;
            products[4 * i + j] = circle.total[products_at(2, high) + low]
                - circle.total[4 + a] * circle.total[4 + b] / circle.total[0];
        }
    tolerances(products, 4, LEAST_VARIANCE * circle.total[0], tolerance);
    CHECK(tolerance[0] == 1 && tolerance[1] == 0 && tolerance[2] == 1 && tolerance[3] == 1);
    free(sums);
    free(products);
}

static void the_tolerance_of_two_columns_is_one_less_their_squared_correlation(void)
{
    /* Centred products of columns with variances 4 and 9 and correlation 0.6. */
    double products[4] = {4, 0, 3.6, 9}, tolerance[2];
    tolerances(products, 2, 1e-12, tolerance);
    CHECK(fabs(tolerance[0] - 0.64) < 1e-15 && fabs(tolerance[1] - 0.64) < 1e-15);
}

int main(void)
{
    a_median_is_found_whatever_the_guess();
    infinite_values_do_not_count_in_a_median();
    equal_values_have_themselves_as_median();
    a_small_median_is_that_of_the_sorted_values();
    eight_medians_at_a_time_are_those_of_each_run();
    a_sort_lists_each_usable_point_once_by_row_and_cell();
    the_points_of_a_circle_are_those_within_the_radius();
    solving_exact_data_gives_back_their_coefficients();
    a_column_that_follows_from_others_is_singular();
    the_tolerance_of_two_columns_is_one_less_their_squared_correlation();
    printf("%d failures\n", failures);
    return failures > 0;
}
