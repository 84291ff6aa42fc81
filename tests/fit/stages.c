/* Unit tests of the kernel's stages.  test_stages.py compiles this file for one level of vector instructions
   (FIT_SOURCE) with the address and undefined-behaviour sanitizers.  Arrays come from malloc, so that a read past the
   padding that a stage asks for is an error. */

#include <stdio.h>
#include <stdlib.h>

#include FIT_SOURCE
#include "sort.c"
#include "space.c"

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
        double values[RANKED], spare[RANKED + 8];
        for (int64_t i = 0; i < RANKED; i++)
            values[i] = i >= n ? INFINITY : random_number() < 0.3 ? 0.5 : random_number();
        CHECK(padded_median(values, RANKED, n, 0, 1, spare) == sorted_median(values, n));
        CHECK(value_of_rank(values, RANKED, (n - 1) / 2, 0, 1, spare) <= sorted_median(values, n));
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

/* ---- the recipe passes ---- */

enum { GROUPS = 19, MOST_POINTS = 1200, TERMS = 3 };

/* A circle of some passes and its work space. */
typedef struct {
    double rows[4 * MOST_POINTS], extras[3 * MOST_POINTS];
    int32_t passes[MOST_POINTS];
    Points points;
    Model model;
    Circle circle;
    double *block;
    double quantiles[GROUPS + 3], limits[GROUPS + 3];
} Scene;

static double noise(void)
{
    double sum = -6;
    for (int k = 0; k < 12; k++)
        sum += random_number();
    return sum;
}

/* Passes of 1 to 40 points in ten years, on a surface that rises 0.5 m a year; points have an error of `spread`, passes
   one of `offset`, and the last pass is `off` m off. */
static Scene *make_scene(double spread, double offset, double off)
{
    Scene *scene = calloc(1, sizeof *scene);
    int64_t count = 0;
    for (int32_t g = 0; g < GROUPS; g++) {
        const double time = 10 * (g + random_number()) / GROUPS - 5, error = offset * noise() + (g == GROUPS - 1 ? off : 0);
        const int points = g == 3 ? 1 : 2 + (int)(38 * random_number());
        for (int i = 0; i < points; i++, count++) {
            double *row = scene->rows + 4 * count;
            row[0] = 1400 * (2 * random_number() - 1);
            row[1] = 1400 * (2 * random_number() - 1);
            row[2] = time;
            row[3] = 900 + 0.01 * row[0] - 0.004 * row[1] + 0.5 * time + error + spread * noise();
            scene->extras[3 * count] = g % 2 - 0.5;
            scene->extras[3 * count + 1] = cos(6.283185307179586 * time);
            scene->extras[3 * count + 2] = sin(6.283185307179586 * time);
            scene->passes[count] = g;
        }
    }
    for (int k = 0; k < GROUPS + 3; k++) {
        scene->quantiles[k] = 2.2;
        scene->limits[k] = k < 4 ? INFINITY : 4.5;
    }
    scene->points = (Points){.rows = scene->rows, .extras = scene->extras, .passes = scene->passes};
    scene->model = (Model){
        .radius = 2000, .max_rate = 30, .min_points = 6, .min_passes = 5, .extras = 3,
        .point_columns = TERRAIN, .unknowns = USUAL_UNKNOWNS, .max_ci95 = INFINITY, .pass_total = GROUPS, .modes = 1,
        .quantiles = scene->quantiles, .limits = scene->limits, .terms = TERMS,
        .term = {{ANNUAL, 1, 2, 1, 0, 0}, {DIRECTION, 2, 1, 0, 2, 0}, {QUADRATIC, 4, 3, 0, 3, 0}}};
    Circle *const circle = &scene->circle;
    circle->count = count;
    circle->index = malloc(count * sizeof(int32_t));
    circle->point_passes = malloc(count * sizeof(int32_t));
    circle->codes = malloc(GROUPS * sizeof(int32_t));
    circle->numbers = malloc(GROUPS * sizeof(int32_t));
    for (int64_t i = 0; i < count; i++)
        circle->index[i] = (int32_t)i;
    for (int g = 0; g < GROUPS; g++)
        circle->numbers[g] = -1;
    /* NaN: nothing may depend on what the work space held. */
    const int64_t size = lay_out(&scene->model, count, GROUPS, NULL, &circle->work);
    scene->block = malloc(size * sizeof(double));
    for (int64_t k = 0; k < size; k++)
        scene->block[k] = NAN;
    lay_out(&scene->model, count, GROUPS, scene->block, &circle->work);
    return scene;
}

static void free_scene(Scene *scene)
{
    free(scene->circle.index), free(scene->circle.point_passes), free(scene->circle.codes), free(scene->circle.numbers);
    free(scene->block), free(scene);
}

/* The points up to the sums of their passes. */
static Work *sum_scene(Scene *scene)
{
    take_points(&scene->points, &scene->model, &scene->circle);
    screen_points(&scene->model, &scene->circle, &scene->circle.work);
    memset(scene->circle.work.free, 0, scene->circle.work.stride);
    return &scene->circle.work;
}

static void a_point_far_from_its_pass_is_out(void)
{
    Scene *scene = make_scene(0.1, 0.4, 0);
    const int64_t far = scene->circle.count / 2;
    scene->rows[4 * far + Z] += 9;
    const Work *work = sum_scene(scene);
    int64_t out = 0;
    bool found = false;
    for (int64_t i = 0; i < work->slots; i++) {
        out += work->point[i] >= 0 && !(work->live[i] > 0);
        found |= work->point[i] == far && work->live[i] == 0;
        CHECK(work->point[i] >= 0 || work->live[i] == 0);
    }
    CHECK(found && out < 10);
    CHECK(work->known_sigma && fabs(work->sigma - 0.1) < 0.02);
    free_scene(scene);
}

static void sums_of_a_pass_are_those_of_its_kept_points(void)
{
    Scene *scene = make_scene(0.1, 0.4, 0);
    const Work *work = sum_scene(scene);
    const int n = scene->model.unknowns;
    for (int32_t row = 0; row < work->passes; row++) {
        const int32_t g = work->pass[row];
        double mean[TERRAIN + 1] = {0}, product[TERRAIN_PRODUCTS] = {0}, count = 0;
        for (int turn = 0; turn < 2; turn++)
            for (int64_t i = work->first[g]; i < work->first[g + 1]; i++) {
                const double u = work->u[i], v = work->v[i], x[] = {u, v, u * u, v * v, u * v, work->z[i]};
                if (!(work->live[i] > 0))
                    continue;
                count += turn == 0;
                for (int a = 0; a <= TERRAIN; a++)
                    for (int b = 0; b <= a; b++)
                        product[triangle(a, b)] += turn ? (x[a] - mean[a] / count) * (x[b] - mean[b] / count) : 0;
                for (int a = 0; a <= TERRAIN; a++)
                    mean[a] += turn ? 0 : x[a];
            }
        CHECK(work->n[row] == count && work->kept[g] == count);
        for (int a = 0; a <= TERRAIN; a++) {
            const int to = a < TERRAIN ? a : n;
            CHECK(fabs(work->means[work->stride * to + row] - mean[a] / count) < 1e-11);
            for (int b = 0; b <= a; b++)
                CHECK(fabs(work->within[work->stride * triangle(a, b) + row] - product[triangle(a, b)]) < 1e-8);
        }
    }
    free_scene(scene);
}

static void logarithms_are_those_of_the_library(void)
{
    for (double x = 1e-280; x < 1e280; x *= 3.7 + random_number()) {
        const eight found = logarithm(all(x));
        CHECK(found[0] == found[7] && fabs(found[0] - log(x)) <= 4e-16 * fabs(log(x)) + 1e-16);
    }
    CHECK(logarithm(all(1))[3] == 0);
}

static void the_equations_of_lanes_of_one_fit_and_of_a_naive_sum_agree(void)
{
    Scene *scene = make_scene(0.1, 0.4, 0);
    Work *work = sum_scene(scene);
    const int n = USUAL_UNKNOWNS;
    Spreads *spreads = malloc(sizeof *spreads);
    prepare_thetas(work);
    sum_spreads(&scene->model, work, work->free, spreads);
    find_likelihoods(work, 0, spreads);
    for (int k = 0; k < THETAS; k += 5) {
        const double theta = work->thetas[k];
        double one[MAX_PRODUCTS], naive[MAX_PRODUCTS], prior[MAX_UNKNOWNS], inverse[MAX_UNKNOWNS], logs = 3 * log(theta);
        fill_prior(&scene->model, work, theta, prior);
        start_one(&scene->model, work, prior, one);
        memcpy(naive, one, sizeof naive);
        for (int32_t row = 0; row < work->stride; row++)
            work->factors[row] = row < work->passes ? 1 / (theta + 1 / work->n[row]) : 0;
        add_weighted_of(n, work, work->factors, one);
        for (int32_t row = 0; row < work->passes; row++) {
            logs += log(1 + work->n[row] * theta);
            for (int i = 0; i <= n; i++)
                for (int j = 0; j <= i; j++)
                    naive[triangle(i, j)] += work->factors[row] * work->means[work->stride * i + row]
                        * work->means[work->stride * j + row];
        }
        for (int e = 0; e < triangle(n + 1, 0); e++) {
            CHECK(fabs(one[e] - naive[e]) <= 1e-12 * (1 + fabs(naive[e])));
        }
        eliminate_one(n, naive, prior, LEAST_VARIANCE, inverse);
        for (int i = 0; i < n; i++)
            logs -= log(inverse[i]);
        logs += work->freedom * log(naive[triangle(n, n)]);
        CHECK(fabs(work->likelihoods[k] + 0.5 * logs) < 1e-8);
    }
    free(spreads);
    free_scene(scene);
}

static void a_column_that_follows_from_others_is_dropped_unless_it_has_a_prior(void)
{
    /* u and a copy of it, and z = 3 u; four points. */
    double a[] = {4, 4, 4, 12, 12, 36}, b[] = {4, 4, 4 + 1e-3, 12, 12, 36}, inverse[2];
    const double free_prior[] = {0, 0}, prior[] = {0, 1e-3};
    eliminate_one(2, a, free_prior, LEAST_VARIANCE, inverse);
    CHECK(inverse[1] == 0 && a[3] == 3 && a[5] == 0);
    eliminate_one(2, b, prior, LEAST_VARIANCE, inverse);
    CHECK(fabs(inverse[1] - 1000) < 1e-6 && fabs(b[5]) < 1e-12);
}

/* Fits a scene at one post; with what follows from its sums. */
static Post fit_scene(Scene *scene, Posts *more)
{
    static double coefficients[6];
    static Post post;
    Posts posts = more ? *more : (Posts){0};
    memset(&post, 0, sizeof post);
    posts.posts = &post;
    fit_passes(&scene->points, &scene->model, &scene->circle, &posts, 0, coefficients);
    return post;
}

static void a_pass_that_is_off_becomes_free_and_others_do_not(void)
{
    for (int off = 0; off <= 50; off += 10) {
        Scene *scene = make_scene(0.1, 0.2, off);
        const Post post = fit_scene(scene, NULL);
        const Work *const work = &scene->circle.work;
        CHECK(post.status == OK && post.free_pass_count == (off > 0) && post.pass_count == GROUPS - (off > 0));
        for (int32_t row = 0; row < work->passes; row++)
            CHECK(work->free[row] == (off > 0 && scene->circle.codes[work->pass[row]] == GROUPS - 1));
        CHECK(fabs(post.dhdt - 0.5) < 0.1);
        free_scene(scene);
    }
}

static void leaving_out_a_pass_is_the_fit_without_its_points(void)
{
    Scene *scene = make_scene(0.1, 0.4, 20);
    const Post post = fit_scene(scene, NULL);
    Work *const work = &scene->circle.work;
    const double rate = work->beta[USUAL_UNKNOWNS - 1], theta = work->thetas[work->best];
    double deltas[GROUPS], squares = 0;
    bool is_free[GROUPS] = {false};
    int32_t codes[GROUPS], passes = work->passes;
    for (int32_t row = 0; row < passes; row++) {
        codes[row] = work->pass[row];
        deltas[row] = work->deltas[row];
        squares += deltas[row] * deltas[row];
        is_free[work->pass[row]] = work->free[row];
    }
    CHECK(post.free_pass_count > 0 && fabs(sqrt(squares) - post.dhdt_sigma) < 1e-12);
    for (int32_t row = 0; row < passes; row++) {
        const int32_t g = codes[row], kept = work->kept[g];
        double one[MAX_PRODUCTS], prior[MAX_UNKNOWNS], inverse[MAX_UNKNOWNS];
        if (is_free[g]) {
            CHECK(deltas[row] == 0);
            continue;
        }
        work->kept[g] = 0;
        sum_passes(&scene->model, &scene->circle, work);
        for (int32_t k = 0; k < work->stride; k++)
            work->factors[k] = k < work->passes && !is_free[work->pass[k]] ? 1 / (theta + 1 / work->n[k]) : 0;
        fill_prior(&scene->model, work, theta, prior);
        start_one(&scene->model, work, prior, one);
        add_weighted_of(USUAL_UNKNOWNS, work, work->factors, one);
        eliminate_one(USUAL_UNKNOWNS, one, prior, LEAST_VARIANCE, inverse);
        CHECK(fabs(one[triangle(USUAL_UNKNOWNS, USUAL_UNKNOWNS - 1)] - rate - deltas[row]) < 1e-10);
        work->kept[g] = kept;
    }
    free_scene(scene);
}

static void a_window_over_all_time_has_the_rate_of_the_fit_and_an_empty_one_none(void)
{
    const double windows[] = {-9, 9, 20, 30};
    Scene *scene = make_scene(0.1, 0.4, 20);
    Rate rates[2] = {{NAN, NAN, NAN, 0, 0, OK}, {NAN, NAN, NAN, 0, 0, OK}};
    Posts posts = {.windows = windows, .window_total = 2, .rates = rates};
    const Post post = fit_scene(scene, &posts);
    CHECK(rates[0].status == OK && fabs(rates[0].dhdt - post.dhdt) < 1e-10);
    CHECK(fabs(rates[0].dhdt_sigma - post.dhdt_sigma) < 1e-10);
    CHECK(rates[0].data_count == post.data_count && rates[0].pass_count == post.pass_count);
    CHECK(rates[1].status == TOO_FEW_POINTS && rates[1].dhdt != rates[1].dhdt);
    free_scene(scene);
}

static void heights_of_a_surface_at_rest_are_its_height(void)
{
    double edges[12];
    Height heights[11];
    for (int k = 0; k < 12; k++)
        edges[k] = k - 5.5;
    Scene *scene = make_scene(0, 0, 0);
    for (int64_t i = 0; i < scene->circle.count; i++)
        scene->rows[4 * i + Z] -= 0.5 * scene->rows[4 * i + T];
    Posts posts = {.bins = edges, .bin_total = 11, .heights = heights};
    const Post post = fit_scene(scene, &posts);
    const Work *const work = &scene->circle.work;
    int32_t passes = 0;
    for (int k = 0; k < 11; k++) {
        int32_t count = 0;
        for (int32_t row = 0; row < work->passes; row++)
            count += work->times[row] >= edges[k] && work->times[row] < edges[k + 1];
        CHECK(heights[k].pass_count == count);
        passes += count;
        CHECK(count == 0 ? heights[k].height != heights[k].height : fabs(heights[k].height - 900) < 1e-3);
    }
    CHECK(passes == post.pass_count && fabs(post.dhdt) < 1e-6 && fabs(post.elevation - 900) < 1e-3);
    free_scene(scene);
}

static void the_total_of_a_region_changes_by_the_deltas_of_its_posts_times_their_areas(void)
{
    const int32_t regions[] = {1, -1};
    const double area = 3;
    double deltas[2 * (GROUPS + 1)] = {0};
    Scene *scene = make_scene(0.1, 0.4, 20);
    Posts posts = {.regions = regions, .depth = 2, .areas = &area, .deltas = deltas};
    const Post post = fit_scene(scene, &posts);
    double squares = 0;
    for (int g = 0; g < GROUPS; g++) {
        CHECK(deltas[g] == 0);
        squares += deltas[GROUPS + 1 + g] * deltas[GROUPS + 1 + g];
    }
    CHECK(fabs(sqrt(squares) - 3 * post.dhdt_sigma) < 1e-12);
    CHECK(deltas[GROUPS + 1 + GROUPS] == 3 * post.dhdt);
    free_scene(scene);
}

static void leaving_out_a_group_is_the_fit_without_its_passes(void)
{
    /* Groups of one pass each, then one of the three first passes, which is the only one at the second depth. */
    int32_t groups[2 * GROUPS];
    Change changes[GROUPS + 1];
    for (int g = 0; g < GROUPS; g++) {
        groups[g] = g;
        groups[GROUPS + g] = g < 3 ? GROUPS : -1;
    }
    for (int k = 0; k <= GROUPS; k++)
        changes[k] = (Change){NAN, NAN};
    Scene *scene = make_scene(0.1, 0.4, 20);
    Posts posts = {.groups = groups, .group_depth = 2, .group_total = GROUPS + 1, .changes = changes};
    const Post post = fit_scene(scene, &posts);
    Work *const work = &scene->circle.work;
    const double rate = work->beta[USUAL_UNKNOWNS - 1], theta = work->thetas[work->best];
    const double spread = post.noise_sigma * post.noise_sigma, own = work->rate_variance;
    double one[MAX_PRODUCTS], prior[MAX_UNKNOWNS], inverse[MAX_UNKNOWNS];
    uint8_t is_free[GROUPS] = {0};
    for (int32_t row = 0; row < work->passes; row++) {
        const int32_t g = work->pass[row];
        const Change *const change = changes + scene->circle.codes[g];
        is_free[g] = work->free[row];
        CHECK(work->free[row] ? change->delta != change->delta : fabs(change->delta - work->deltas[row]) < 1e-10);
    }
    for (int32_t g = 0; g < scene->circle.passes; g++)
        if (scene->circle.codes[g] < 3)
            work->kept[g] = 0;
    sum_passes(&scene->model, &scene->circle, work);
    for (int32_t k = 0; k < work->stride; k++)
        work->factors[k] = k < work->passes && !is_free[work->pass[k]] ? 1 / (theta + 1 / work->n[k]) : 0;
    fill_prior(&scene->model, work, theta, prior);
    start_one(&scene->model, work, prior, one);
    add_weighted_of(USUAL_UNKNOWNS, work, work->factors, one);
    eliminate_one(USUAL_UNKNOWNS, one, prior, LEAST_VARIANCE, inverse);
    CHECK(fabs(one[triangle(USUAL_UNKNOWNS, USUAL_UNKNOWNS - 1)] - rate - changes[GROUPS].delta) < 1e-10);
    CHECK(fabs(changes[GROUPS].sigma - sqrt(spread * (inverse[USUAL_UNKNOWNS - 1] - own))) < 1e-10);
    free_scene(scene);
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
    a_point_far_from_its_pass_is_out();
    sums_of_a_pass_are_those_of_its_kept_points();
    logarithms_are_those_of_the_library();
    the_equations_of_lanes_of_one_fit_and_of_a_naive_sum_agree();
    a_column_that_follows_from_others_is_dropped_unless_it_has_a_prior();
    a_pass_that_is_off_becomes_free_and_others_do_not();
    leaving_out_a_pass_is_the_fit_without_its_points();
    a_window_over_all_time_has_the_rate_of_the_fit_and_an_empty_one_none();
    heights_of_a_surface_at_rest_are_its_height();
    the_total_of_a_region_changes_by_the_deltas_of_its_posts_times_their_areas();
    leaving_out_a_group_is_the_fit_without_its_passes();
    printf("%d failures\n", failures);
    return failures > 0;
}
