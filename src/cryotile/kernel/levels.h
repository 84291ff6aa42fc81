/* One kernel per level of vector instructions, and which of them this machine has. */

#ifndef CRYOTILE_LEVELS_H
#define CRYOTILE_LEVELS_H

#include "types.h"

#define LEVEL(name) name##_generic
#include "level.h"
#undef LEVEL

#ifdef CRYOTILE_X86
#pragma GCC push_options
#pragma GCC target("avx2")
#define LEVEL(name) name##_avx2
#include "level.h"
#undef LEVEL
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,prefer-vector-width=512")
#define LEVEL(name) name##_avx512
#define LEVEL_AVX512
#include "level.h"
#undef LEVEL_AVX512
#undef LEVEL
#pragma GCC pop_options
#endif

enum { GENERIC, AVX2, AVX512, LEVELS };

static inline int best_level(void)
{
#ifdef CRYOTILE_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2"))
        return AVX2;
#endif
    return GENERIC;
}

static inline fit_rows *fit_of_level(int level)
{
#ifdef CRYOTILE_X86
    if (level == AVX512)
        return fit_rows_avx512;
    if (level == AVX2)
        return fit_rows_avx2;
#endif
    return fit_rows_generic;
}

#endif
