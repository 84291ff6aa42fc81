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
#ifdef shuffle
#define shuffle_eight shuffle
#else
#define shuffle(a, b, ...) __builtin_shuffle(a, b, (quad_masks){__VA_ARGS__})
#define shuffle_eight(a, b, ...) __builtin_shuffle(a, b, (eight_masks){__VA_ARGS__})
#endif

/* All functions that return vectors are static, so that no ABI matters. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define INLINE static inline __attribute__((always_inline))

/* A column whose rms spread is below 1e-6 of its scale (radius, year, 1) is constant to rounding. */
static const double LEAST_VARIANCE = 1e-12;

/* Share that elimination leaves of a column that follows from others. */
static const double LEAST_PIVOT = 1e-10;

static const double MAD_TO_SIGMA = 1.4826;

/* m2 for each point: residuals below it are rounding. */
static const double LEAST_RSS = 1e-12;

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

/* Returns the sum of each of eight vectors. */
INLINE eight fold(const eight s[8])
{
    eight pairs[4], fours[2];
    for (int k = 0; k < 4; k++)
        pairs[k] = shuffle_eight(s[2 * k], s[2 * k + 1], 0, 8, 2, 10, 4, 12, 6, 14)
            + shuffle_eight(s[2 * k], s[2 * k + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    for (int k = 0; k < 2; k++)
        fours[k] = shuffle_eight(pairs[2 * k], pairs[2 * k + 1], 0, 1, 8, 9, 4, 5, 12, 13)
            + shuffle_eight(pairs[2 * k], pairs[2 * k + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return shuffle_eight(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11)
        + shuffle_eight(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

INLINE double sum_of(eight values)
{
    return ((values[0] + values[4]) + (values[2] + values[6])) + ((values[1] + values[5]) + (values[3] + values[7]));
}

INLINE eight all(double value) { return (eight){value, value, value, value, value, value, value, value}; }

INLINE eight magnitude(eight values) { return (eight)((eight_masks)values & INT64_MAX); }

INLINE eight root(eight values)
{
    eight roots;
    for (int l = 0; l < 8; l++)
        roots[l] = sqrt(values[l]);
    return roots;
}

/* Natural logarithm of positive normal numbers: 2 atanh((m - 1) / (m + 1)) of the mantissa, between the roots of 1/2 and
   2.  The last bit of libm depends on the machine. */
INLINE eight logarithm(eight x)
{
    const eight_masks bits = (eight_masks)x, magic = (eight_masks)all(0x1p52);
    eight mantissa = (eight)((bits & 0xfffffffffffff) | 0x3ff0000000000000);
    const eight_masks large = mantissa > all(1.4142135623730951);
    eight exponent = (eight)((bits >> 52) | magic) - all(0x1p52 + 1023), s, s2, sum;
    mantissa = choose(large, mantissa / 2, mantissa);
    exponent += (eight)((eight_masks)all(1) & large);
    s = (mantissa - 1) / (mantissa + 1);
    s2 = s * s;
    sum = all(1.0 / 23);
#pragma GCC unroll 12
    for (int n = 21; n > 0; n -= 2)
        sum = 1.0 / n + sum * s2;
    return 2 * s * sum + exponent * 0.6931471805599453;
}
