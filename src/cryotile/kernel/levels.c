/* Which levels of vector instructions this machine has. */

#include "fit.h"

int best_level(void)
{
#ifdef CRYOTILE_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2"))
        return AVX2;
#endif
    return GENERIC;
}

fit_rows *fit_of_level(int level)
{
#ifdef CRYOTILE_X86
    if (level == AVX512)
        return fit_rows_avx512;
    if (level == AVX2)
        return fit_rows_avx2;
#endif
    (void)level;
    return fit_rows_generic;
}
