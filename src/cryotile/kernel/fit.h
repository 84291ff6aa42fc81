/* The interface of the kernel: all that _fit.pyx sees of it.

   sort.c      sorts the points of a table into cells
   season.c    gives the season of each point
   fit_*.c     fit every post of a rectangle; the same stages, compiled for one level of vector instructions each
   levels.c    chooses among them
   space.c     lays out the work space of a thread
   stages/     the steps of the fit, as static functions; all.h lists them in the order of the fit */

#ifndef CRYOTILE_FIT_H
#define CRYOTILE_FIT_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Only GCC compiles the levels beyond the generic one: clang lacks __builtin_shuffle and the pragmas. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CRYOTILE_X86 1
#endif

/* ---- points sorted into cells ---- */

/* All points of a table, in any order. */
typedef struct {
    const double *x, *y, *elevation;
    const int64_t *ticks;  /* since 1970, in units of `tick` nanoseconds; NaT is the smallest number */
    const int64_t *passes; /* codes; a point with a negative one is not used */
    int64_t count;
} Table;

/* Which points posts can see, and the units of their times. */
typedef struct {
    double reach, per_size; /* slightly more than the search radius, m; cells per metre */
    int64_t start, end;     /* of the period, ticks, half open */
    int64_t tick, epoch;    /* nanoseconds of a tick; reference epoch, nanoseconds since 1970 */
    double year;            /* nanoseconds */
} Window;

/* Consecutive rows or columns of cells that posts can see, and the slot of the first of them. */
typedef struct {
    int64_t first, last, slot;
} Range;

/* A point between the two passes of the sort. */
typedef struct {
    double row[4];               /* x, y, tau, z */
    int32_t pass, point, column; /* column: the slot of its column of cells */
} Placed;

/* Work space of the sort. */
typedef struct {
    const Range *columns, *rows;
    int64_t column_ranges, row_ranges, column_slots, row_slots;
    double x_min, y_min, x_max, y_max;   /* bounds of all ranges, closed */
    int64_t *column_starts, *row_starts; /* each two longer than there are slots */
    int32_t *row_of;                     /* slot of each point's row; row_slots if no post can see the point */
    Placed *placed;                      /* by rows */
} Buckets;

/* cryotile.fit.inputs.Cells describes these arrays. */
typedef struct {
    double *x, *y, *rows; /* rows: (count, 4) */
    int32_t *passes, *order;
    int64_t *row_y, *row_start, *cell_x, *cell_start; /* one longer than there are rows, and than there are points */
    int64_t count, row_count, cell_count;
    double extreme;       /* elevation furthest from 0 */
} Sorted;

/* Fills the ranges of cells that posts, in ascending order, can see along one axis; returns their number. */
int64_t find_ranges(const double *posts, int64_t count, const Window *window, Range *ranges, int64_t *slots);

/* Sorts the points by row of cells, within a row by column, within a cell in the order of the table. */
void sort_into_cells(const Table *table, const Window *window, Buckets *buckets, Sorted *to);

/* ---- season ---- */

/* Nanoseconds since 1970 of the start of a year, and its length. */
typedef struct {
    int64_t start, length;
} Year;

/* Fills the cosine and sine of one turn a year. */
void find_seasons(const Year *year, const int64_t *nanoseconds, int64_t count, double *cosines, double *sines);

/* ---- the fit ---- */

enum {
    MAX_CATEGORIES = 24, /* of an offset: modes or platforms, and the unknown one */
    MAX_TERMS = 12,
    THETAS = 16,         /* spreads of pass offsets that are tried */
    TERRAIN = 5,         /* columns u, v, u*u, v*v, u*v */
    SEASONAL = 4,        /* columns 1, direction, cosine, sine; constants of a pass, as are acceleration and tau */
    MAX_UNKNOWNS = 34,   /* columns of terrain, modes, platforms and point columns; then the constants of a pass */
    PLANE_SUMS = 16,     /* of a pass of the recipe `plane` */
    CELLS_IN_RADIUS = 4, /* smaller cells cost more look-ups than they save points */
};

enum { U, V, T, Z, BASE }; /* the columns of a row */

/* cryotile.fit.terms.Kind */
enum kind { QUADRATIC, ACCELERATION, ANNUAL, DIRECTION, MODES, PLATFORMS, NAMED };

/* cryotile.fit.variables.Status */
enum status { OK, NOT_COMPUTED, NO_POINTS, TOO_FEW_POINTS, TOO_SHORT_SPAN, TOO_FEW_PASSES, SINGULAR,
              RATE_OUT_OF_BOUNDS, OUTSIDE_MASK = 9, TOO_UNCERTAIN };

typedef struct {
    int32_t kind, flag;   /* flag: its bit of cryotile.fit.terms.TermFlag */
    int32_t count;        /* its columns */
    int32_t extra;        /* its first column of Points.extras, if it has one */
    int32_t slot;         /* its first place among the coefficients */
    int32_t outputs;      /* number of its coefficients there */
    double prior;         /* standard deviation of its coefficients, m or m per unit; infinite: free */
} Term;

typedef struct {
    double radius, min_span, min_tolerance, max_rate, distance_scale; /* scale: 0 is no weight by distance */
    int32_t min_points, min_passes;
    bool plain;         /* the recipe `plane`; else `passes` */
    int32_t point_columns, unknowns; /* of `passes`: columns that vary within a pass; these and the constants of a pass */
    double max_ci95;                 /* m/yr */
    const double *quantiles;         /* t(0.975; k) */
    const double *limits;            /* [L]: t beyond which the smallest of L studentised values is an outlier */
    int32_t modes;      /* number of modes among all points */
    int64_t pass_total; /* number of passes among all points */
    int32_t extras;     /* columns of Points.extras */
    int32_t slots;      /* number of coefficients of all terms */
    int32_t terms, majority_mode; /* number of terms; a flag */
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

/* As cryotile.fit.inputs.Cells. */
typedef struct {
    const int64_t *row_y, *row_start, *cell_x, *cell_start;
    int64_t rows;
    double size, per_size;
} Cells;

/* The result at a post. */
typedef struct {
    double dhdt, elevation, c0, c1, dhdt_sigma, dhdt_sigma_formal, elevation_sigma;
    double pass_offset_sigma, noise_sigma;
    double misfit_rms, centroid_distance, time_start, time_end;
    int32_t data_count, rejected_count, pass_count, free_pass_count, terms;
    int8_t status;
} Post;

/* Work space of the recipe `passes`. */
typedef struct {
    /* The points of the circle, pass by pass; each pass is padded to a multiple of eight with points of weight 0. */
    int64_t slots, room;              /* number of places; of which there is room */
    double *u, *v, *z, *tau;          /* z less its mean over the circle */
    double *extras;                   /* (columns beyond terrain, room) */
    double *weights, *live;           /* mean 1 over the circle; 0 for a point that is out */
    double *residuals, *keys, *spare;
    int32_t *point;                   /* among all points; -1: padding */
    /* The passes of the circle. */
    int64_t *first;                   /* place of the first point; one longer */
    int32_t *count, *kept;            /* number of points; of kept ones */
    double *constants;                /* (columns, passes) */
    double *middles;                  /* median residual of the kept points */
    uint8_t *was_free;                /* after the first search */
    /* The passes with kept points, numbered anew; a column has `stride` places. */
    int32_t passes, marked;           /* number of them; of free ones */
    int64_t stride;
    int32_t *pass;                    /* its number in the circle */
    double *n, *log_n;                /* sum of weights, and its logarithm */
    double *within;                   /* products about the mean of the pass, lower triangle by rows; z is the last row */
    double *means;                    /* of all columns, then of z */
    double *per_v, *logs;             /* (passes, THETAS) 1 / (theta + 1/n) and ln(1 + n theta) */
    double *h, *e, *t;                /* leverage, residual and studentised residual of the mean */
    double *free_means, *free_per_n;  /* of the free passes, likewise: means of all columns and z, and 1/n */
    double *free_t;
    int32_t *free_list;
    double *shares, *factors;         /* weight in a round of marking; that over v */
    double *deltas, *level_deltas;    /* of the rate and of the elevation when the pass is left out */
    int32_t *list;
    uint8_t *free, *marks;            /* whether it is free; whether starts mark it */
    /* The same by time, for windows and heights; a column of parts and sums has stride + 8 places. */
    double *times;
    double *parts, *before;           /* what each that is not free adds to the equations; sums over all before a place */
    int32_t *points_before, *passes_before; /* kept points, and passes that are not free */
    double *bins, *bin_weights;       /* means of the columns of heights, of z and tau, and weights */
    double *departures, *bin_times;   /* heights about the straight line of the fit, and their times, years */
    double *changes, *times_without;  /* of departures when a pass is left out; the times then */
    int32_t *bin_places;
    /* Of the fit. */
    double origin, level;             /* years from the reference epoch; mean of z, m */
    double at_post[MAX_UNKNOWNS];     /* each column at the post at the reference epoch */
    double precision[MAX_UNKNOWNS];   /* 1/p2 of each coefficient; 0: free, or of the spread of offsets */
    double total[MAX_UNKNOWNS * (MAX_UNKNOWNS + 1) / 2]; /* sum of `within` */
    double weight;                    /* sum of n */
    int32_t free_columns;             /* number of coefficients without a prior */
    double sigma;                     /* of points within a pass, m */
    bool known_sigma;                 /* whether a pass tells it */
    double thetas[THETAS], log_thetas[THETAS], likelihoods[THETAS];
    int32_t best;                     /* place of the likeliest theta */
    double beta[MAX_UNKNOWNS], rss, freedom, rate_variance;
} Work;

/* The points of one circle and the work space of a thread. */
typedef struct {
    double x, y;
    int64_t room, count;   /* number of points that fit into these arrays; number of points in the circle */
    int32_t *index;        /* of the points, in the circle's order; room for eight more */
    int32_t *point_passes; /* number of each point's pass, likewise */
    int32_t *numbers;      /* pass code -> its number within the circle, -1 elsewhere */
    int32_t *codes;        /* number within the circle -> pass code */
    int32_t passes;
    /* Of the recipe `plane`, by pass code. */
    double *sums;
    uint8_t *pass_seen;
    double origin[BASE], at_post[BASE]; /* of the rows; the post about it */
    /* Of terms. */
    double units[MAX_TERMS];            /* of a point column */
    double codes_of_mode[MAX_CATEGORIES][MAX_CATEGORIES], codes_of_platform[MAX_CATEGORIES][MAX_CATEGORIES];
    int32_t columns_of_mode, columns_of_platform;
    int32_t seen_modes, seen_platforms; /* bits */
    Work work;
} Circle;

/* Lays out the work space for so many points and passes in a block, or with NULL only tells the number of doubles. */
int64_t lay_out(const Model *model, int64_t points, int64_t passes, double *block, Work *work);

/* The rate in a window of time. */
typedef struct {
    double dhdt, dhdt_sigma, dhdt_ci95;
    int32_t data_count, pass_count;
    int8_t status;
} Rate;

/* The height in an interval of time, m, absolute. */
typedef struct {
    double height, height_sigma, height_ci95;
    int32_t data_count, pass_count;
} Height;

/* What leaving out a group of passes changes the rate by, and the standard deviation of that if passes share no error. */
typedef struct {
    double delta, sigma;
} Change;

/* A rectangle of posts by rows of y. */
typedef struct {
    const double *x, *y;
    int64_t nx, ny;
    const uint8_t *wanted;
    Post *posts;
    double *coefficients; /* (ny, nx, slots): those of the terms, then their sigmas */
    int64_t slots;        /* twice those of the model */
    const double *windows; /* (window_total, 2) years from the reference epoch, half open */
    const double *bins;    /* (bin_total + 1,) ascending edges, likewise */
    int64_t window_total, bin_total;
    Rate *rates;           /* (ny, nx, window_total) */
    Height *heights;       /* (ny, nx, bin_total) */
    const int32_t *regions; /* (ny, nx, depth) labels of each post, negative: none; or NULL */
    const double *areas;    /* (ny, nx) factor of the post in the total of its regions */
    double *deltas;         /* (regions, pass_total + 1) of totals when a pass is left out; last: the totals */
    double *departures;     /* (regions, 2, bin_total) totals of the departures of heights, and areas with one; or NULL */
    double *changed;        /* (rows, 2, bin_total) their changes when a pass is left out, and the areas that are lost */
    int32_t *rows;          /* (regions, pass_total) row of each pass in `changed`; negative: none yet */
    int32_t *row_count;
    int64_t depth;
    const int32_t *groups;  /* (group_depth, pass_total) labels of each pass, negative: none */
    int64_t group_depth, group_total;
    Change *changes;        /* (ny, nx, group_total) */
} Posts;

typedef void fit_rows(const Points *points, const Cells *cells, const Model *model, Circle *circle, const Posts *posts);

/* Fits the posts that are wanted.  Where a circle may hold more points than there is room for, the status is
   NOT_COMPUTED.  Every level gives the same bits. */
fit_rows fit_rows_generic;
#ifdef CRYOTILE_X86
fit_rows fit_rows_avx2, fit_rows_avx512;
#endif

enum level { GENERIC, AVX2, AVX512 };

/* Returns the highest level that this machine has. */
int best_level(void);
fit_rows *fit_of_level(int level);

#endif
