/* The stages of the fit, in an order in which each finds what it uses.  A fit_*.c file includes them after it has set
   the target of the compiler, FIT_ROWS (the name of its entry) and, for AVX-512, WITH_AVX512.

   METHOD                                          stage
   Definition: the points of a circle              select.h
   Recipe plane                                    plane.h
   Recipe passes: the points pass by pass, terms   points.h
     Sums                                          sums.h
     1 and 3, points                               screen.h, median.h
     2, passes: normal equations                   solve.h
       theta and its likelihood                    variance.h
       bad passes                                  search.h
     4, rate: its sigma by leaving out passes      jackknife.h
     coefficients of terms, and their sigmas       terms.h
     From the same sums                            windows.h, heights.h, height_deltas.h, groups.h
     all of it, counts and gates, totals           passes.h
   One post                                        post.h

   Every level gives the same bits.  Sums run in lanes of eight points, passes, thetas or windows
   whatever the width of a register, and nothing is contracted (-ffp-contract=off) or reassociated. */

#include "vectors.h"
#include "select.h"
#include "median.h"
#include "points.h"
#include "sums.h"
#include "solve.h"
#include "screen.h"
#include "variance.h"
#include "search.h"
#include "jackknife.h"
#include "terms.h"
#include "windows.h"
#include "heights.h"
#include "height_deltas.h"
#include "groups.h"
#include "passes.h"
#include "plane.h"
#include "post.h"
