/* The one loop of the kernel that is worth vector registers.

   Its lanes run over the moments of a point, not over points: each sum is taken in the order of the points, and without
   contraction (-ffp-contract=off) its bits are the same whatever the width of a register. */

#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CRYOTILE_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CRYOTILE_CLONES
#endif

typedef double quad __attribute__((vector_size(32), aligned(8)));

/* For each point, with row = (u, v, t, z) = (point - origin) * scale, adds to the 16 moments of its pass
   u v t z   uu uv ut uz   uv vv vt vz   tt tz zz 1
   and widens span, the first and last time. */
CRYOTILE_CLONES static void sum_moments(
    const double *restrict points, const int64_t *restrict index, const int32_t *restrict passes, int64_t count,
    const double *restrict origin, const double *restrict scale, double *restrict moments, double *restrict span)
{
    const quad o = *(const quad *)origin, s = *(const quad *)scale;
    double first = span[0], last = span[1];
    for (int64_t i = 0; i < count; i++) {
        const double *point = points + 4 * index[i];
        const quad row = (*(const quad *)point - o) * s;
        quad *m = (quad *)(moments + 16 * (int64_t)passes[i]);
        m[0] += row;
        m[1] += row[0] * row;
        m[2] += row[1] * row;
        m[3] += (quad){row[2], row[2], row[3], 1} * (quad){row[2], row[3], row[3], 1};
        first = point[2] < first ? point[2] : first;
        last = point[2] > last ? point[2] : last;
    }
    span[0] = first;
    span[1] = last;
}
