/* What the kernel reads, works with and leaves, of one tile, one thread and one post. */

#ifndef CRYOTILE_TYPES_H
#define CRYOTILE_TYPES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CRYOTILE_X86 1
#include <immintrin.h>
#endif

typedef double quad __attribute__((vector_size(32), aligned(8)));
typedef double eight __attribute__((vector_size(64), aligned(8)));
typedef int64_t quad_masks __attribute__((vector_size(32), aligned(8)));
typedef int64_t eight_masks __attribute__((vector_size(64), aligned(8)));

#define INLINE static inline __attribute__((always_inline))

enum {
    MAX_COLUMNS = 32,    /* of a row: u v tau z, then those of the terms */
    MAX_CATEGORIES = 10, /* of an offset: modes or platforms, and the unknown one */
    MAX_TERMS = 12,
    CELLS_IN_RADIUS = 4, /* smaller cells cost more look-ups than the points that they save */
    MAX_BANDS = 16,      /* rows of cells that a circle can touch: 2 * 4 + 2, and what rounding may add */
};

enum { U, V, T, Z, BASE }; /* the first columns of a row */

enum kind { QUADRATIC, ACCELERATION, ANNUAL, DIRECTION, MODES, PLATFORMS, NAMED };

/* cryotile.fit.variables.Status */
enum { OK, NOT_COMPUTED, NO_POINTS, TOO_FEW_POINTS, TOO_SHORT_SPAN, TOO_FEW_PASSES, SINGULAR, RATE_OUT_OF_BOUNDS,
       NOT_CONVERGED };

typedef struct {
    int32_t kind, flag;    /* flag: its bit in cryotile.fit.variables.Term */
    int32_t first, count;  /* its columns of a row */
    int32_t extra;         /* its first column among the points' extras, where it has one */
    int32_t slot;          /* its first place among the coefficients */
} Term;

typedef struct {
    double radius, min_span, min_tolerance, max_rate, distance_scale; /* scale: 0 is no weight by distance */
    int32_t min_points, min_passes, rejects, plain; /* plain: neither terms, weights nor rejection */
    int32_t modes;         /* how many there are among all points */
    int64_t pass_total;    /* of all points */
    int32_t quads;         /* of a row */
    int32_t extras;        /* columns of Points.extras */
    int32_t terms, majority_mode, majority_platform; /* number of terms; flags */
    Term term[MAX_TERMS];
} Model;

typedef struct {
    const double *x, *y;   /* (n,) */
    const double *rows;    /* (n, 4): x, y, tau, z */
    const double *extras;  /* (n, extras) */
    const double *weights; /* (n,), or NULL: all are 1 */
    const int32_t *passes;
    const uint8_t *modes, *platforms;
} Points;

/* As cryotile.fit.cells.Cells. */
typedef struct {
    const int64_t *row_y, *row_start, *cell_x, *cell_start;
    int64_t rows;
    double size, per_size;
} Cells;

/* One row of cells under the posts of one y: the circle's half width in it, and the cells it covered last. */
typedef struct {
    double half_width;
    int64_t first, last, low, high;
} Band;

typedef struct {
    double dhdt, elevation, c0, c1, dhdt_sigma, dhdt_sigma_formal, elevation_sigma;
    double misfit_rms, centroid_distance, time_start, time_end;
    int32_t data_count, rejected_count, pass_count, rejected_pass_count, terms;
    int8_t status;
} Post;

/* What is kept of a pass; count: negative where that is not known. */
typedef struct {
    double first, last, u, v; /* times; sums of places from the post, m */
    int64_t count;
} Pass;

/* The points of a circle lie pass by pass, each pass in the order in which the circle met it. */
typedef struct {
    double x, y;
    int64_t room, count;   /* points that all of this has room for, and that there are */
    int32_t *index;        /* of the points, in the circle's order; room for eight more */
    int32_t *order;        /* of the points, pass by pass */
    double *rows;          /* (count, 4 * quads) */
    double *weights, *residuals, *keys, *spare; /* (count + 8,); keys: what a median is taken of, infinite where a
                                                   point is out; spare: what is left of them */
    uint8_t *kept;
    int32_t *point_passes; /* number of each point's pass, in the circle's order */
    int32_t *numbers;      /* pass code -> its number within the circle, -1 elsewhere */
    int32_t *codes;
    int64_t *starts;       /* (passes + 1,) first point of each pass */
    double *sums;          /* (passes, size of sums) */
    double *medians, *factors; /* (passes + 8,) */
    uint8_t *pass_kept;
    Pass *described;
    int32_t passes;
    double origin[BASE];
    double at_post[MAX_COLUMNS];  /* each column at the post, about the origin */
    double total[4 * (1 + 8 + 4 * 36)]; /* sums of what is kept */
    int32_t active[MAX_COLUMNS];  /* columns of the fit: those of terms, then u, v, tau */
    int32_t unknowns;             /* how many they are */
    bool determined[MAX_TERMS];   /* whether a term is in the fit */
    double units[MAX_TERMS];      /* of a named column */
    double codes_of_mode[MAX_CATEGORIES][MAX_CATEGORIES], codes_of_platform[MAX_CATEGORIES][MAX_CATEGORIES];
    int32_t columns_of_mode, columns_of_platform;
    int32_t seen_modes, seen_platforms;  /* bits */
} Circle;

/* Posts where posts are wanted, by rows of y. */
typedef struct {
    const double *x, *y;
    int64_t nx, ny;
    const uint8_t *wanted;
    Post *posts;
    double *coefficients; /* (ny, nx, slots) */
    int64_t slots;
} Posts;

typedef void fit_rows(const Points *points, const Cells *cells, const Model *model, Circle *circle, const Posts *posts);

/* A column whose rms spread is under 1e-6 of its scale (radius, year, 1) is constant to rounding. */
static const double LEAST_VARIANCE = 1e-12;

/* Share of the spread below which what sums leave to residuals has too few digits. */
static const double LEAST_MISFIT = 1e-6;

/* What elimination leaves of a column that follows from others. */
static const double LEAST_PIVOT = 1e-10;

/* Years, 0.03 s: a span of exactly the least one passes its gate whatever the rounding of two times. */
static const double SPAN_ROUNDING = 1e-9;

/* Tolerance of the rate and of a time-like term on one mean row per pass, and passes that must be left over. */
static const double LEAST_TIME_LIKE = 0.1;
enum { SPARE_PASSES = 5 };

static const double PASS_FLOOR = 0.1;    /* m: residuals of passes below it are alike */
static const double PASS_SETTLED = 0.05; /* m: the screen ends when no pass moves by more */
static const double SCALE_FLOOR = 1e-3;  /* m: exact data otherwise lose points to rounding */
static const double MAD_TO_SIGMA = 1.4826;
enum { SCREEN_ROUNDS = 10, ROUNDS = 5 };

enum { RANKED = 32 }; /* medians of up to so many are found by ranks */

#endif
