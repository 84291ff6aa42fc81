/* The kernel's C, compiled once for each set of vector instructions: included by _levels.h with LEVEL(name) defined, and
   LEVEL_AVX512 where the compiler needs to be told its instructions.

   Every level gives the same bits.  Sums run in the order of the points, four columns of a row or eight passes side by
   side whatever the width of a register, and nothing is contracted (-ffp-contract=off) or reassociated. */

#include "select.h"
#include "medians.h"
#include "normal.h"
#include "terms.h"
#include "sums.h"
#include "screen.h"
#include "robust.h"
#include "plane.h"
#include "circle.h"
