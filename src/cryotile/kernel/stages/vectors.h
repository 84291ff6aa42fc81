/* Vectors of doubles that every compiler of the GCC family maps to what the target has, and shared constants. */

typedef double quad __attribute__((vector_size(32), aligned(8)));
typedef double eight __attribute__((vector_size(64), aligned(8)));
typedef int64_t quad_masks __attribute__((vector_size(32), aligned(8)));
typedef int64_t eight_masks __attribute__((vector_size(64), aligned(8)));

/* clang has only one spelling, old versions of GCC only the other. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define shuffle(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef shuffle
#define shuffle(a, b, ...) __builtin_shuffle(a, b, (quad_masks){__VA_ARGS__})
#endif

/* All functions that return vectors are static, so that no ABI matters. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define INLINE static inline __attribute__((always_inline))

/* A column whose rms spread is below 1e-6 of its scale (radius, year, 1) is constant to rounding. */
static const double LEAST_VARIANCE = 1e-12;

/* Share that elimination leaves of a column that follows from others. */
static const double LEAST_PIVOT = 1e-10;

/* Takes `yes` in the lanes of the mask, `no` in the others. */
INLINE eight choose(eight_masks mask, eight yes, eight no)
{
    return (eight)(((eight_masks)yes & mask) | ((eight_masks)no & ~mask));
}

INLINE eight larger(eight a, eight b) { return choose(a > b, a, b); }

/* Quad k of four parts as columns become rows: result[c] has column c of each. */
INLINE void transpose(const quad *const parts[4], int k, quad result[4])
{
    const quad a = parts[0][k], b = parts[1][k], c = parts[2][k], d = parts[3][k];
    const quad ab0 = shuffle(a, b, 0, 4, 2, 6), ab1 = shuffle(a, b, 1, 5, 3, 7);
    const quad cd0 = shuffle(c, d, 0, 4, 2, 6), cd1 = shuffle(c, d, 1, 5, 3, 7);
    result[0] = shuffle(ab0, cd0, 0, 1, 4, 5);
    result[1] = shuffle(ab1, cd1, 0, 1, 4, 5);
    result[2] = shuffle(ab0, cd0, 2, 3, 6, 7);
    result[3] = shuffle(ab1, cd1, 2, 3, 6, 7);
}
