/* The season of an instant: cosine and sine of one turn a year.  They are Taylor polynomials up to the 17th power of at
   most pi / 4, exact to rounding, with the same bits on every machine, unlike those of the C library. */

#include "fit.h"

void find_seasons(const Year *year, const int64_t *nanoseconds, int64_t count, double *cosines, double *sines)
{
    static const double turn = 6.283185307179586;
    for (int64_t i = 0; i < count; i++) {
        const int64_t rest = (nanoseconds[i] - year->start) % year->length;
        const double part = (double)(rest < 0 ? rest + year->length : rest) / (double)year->length;
        const int quarter = (int)(4 * part + 0.5);
        const double angle = turn * (part - quarter / 4.0), square = angle * angle;
        double cosine = 1, sine = 1;
#pragma GCC unroll 8
        for (int n = 16; n > 0; n -= 2) {
            cosine = 1 - cosine * square * (1.0 / (n * (n - 1)));
            sine = 1 - sine * square * (1.0 / (n * (n + 1)));
        }
        sine *= angle;
        cosines[i] = quarter & 1 ? -sine : cosine;
        sines[i] = quarter & 1 ? cosine : sine;
        if (quarter & 2) {
            cosines[i] = -cosines[i];
            sines[i] = -sines[i];
        }
    }
}
