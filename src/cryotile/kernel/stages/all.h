/* The stages of the fit, in an order in which each finds what it uses.  A fit_*.c file includes them after it has set
   the target of the compiler, FIT_ROWS (the name of its entry) and, for AVX-512, WITH_AVX512.

   METHOD                                          stage
   Definition: the points of a circle              select.h
   Recipe plane                                    plane.h
   Terms: columns of a row; which are determined   rows.h, terms.h
   Sums of each pass, gates, counts                sums.h
   Geometry (tolerances), normal equations         solve.h
   Screen of passes and of points                  screen.h, median.h
   Rate and its sigma by leaving out passes        jackknife.h
   Recipe robust, one post                         robust.h, post.h

   Every level gives the same bits.  Sums run in the order of the points, four columns of a row or eight passes side by
   side whatever the width of a register, and nothing is contracted (-ffp-contract=off) or reassociated. */

#include "vectors.h"
#include "select.h"
#include "median.h"
#include "rows.h"
#include "sums.h"
#include "solve.h"
#include "terms.h"
#include "jackknife.h"
#include "screen.h"
#include "robust.h"
#include "plane.h"
#include "post.h"
