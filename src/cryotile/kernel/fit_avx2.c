/* The fit with AVX2. */

#include "fit.h"

#ifdef CRYOTILE_X86
#pragma GCC target("avx2")
#define FIT_ROWS fit_rows_avx2
#include "stages/all.h"
#endif
