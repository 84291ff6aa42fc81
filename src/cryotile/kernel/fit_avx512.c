/* The fit with AVX-512. */

#include "fit.h"

#ifdef CRYOTILE_X86
#include <immintrin.h>
#pragma GCC target("avx512f,avx512dq,avx512vl,prefer-vector-width=512")
#define FIT_ROWS fit_rows_avx512
#define WITH_AVX512 /* GCC does not find these instructions by itself */
#include "stages/all.h"
#endif
