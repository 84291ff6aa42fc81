/* The fit with the instructions that every machine has. */

#include "fit.h"

#define FIT_ROWS fit_rows_generic
#include "stages/all.h"
