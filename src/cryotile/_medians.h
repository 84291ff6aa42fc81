/* Medians by counting: how many values lie below a bound is one sweep of vector registers, without a branch.

   Values are padded with infinity to a multiple of 8; infinite ones count for nothing. */

/* Counts the values below a and below b. */
INLINE void LEVEL(count_below)(const double *restrict values, int64_t count, double a, double b, int64_t below[2])
{
    eight_masks na = {0}, nb = {0};
    for (int64_t i = 0; i < count; i += 8) {
        const eight v = *(const eight *)(values + i);
        na -= v < a;
        nb -= v < b;
    }
    below[0] = below[1] = 0;
    for (int l = 0; l < 8; l++) {
        below[0] += na[l];
        below[1] += nb[l];
    }
}

/* The k-th smallest, counted from 0, of the at most FEW values from low to below high. */
static double LEVEL(kth_of_few)(const double *values, int64_t count, double low, double high, int64_t k)
{
    double few[FEW + 1];
    int found = 0;
    for (int64_t i = 0; i < count; i++) {
        if ((values[i] >= low) & (values[i] < high)) {
            int j = found++;
            for (; j > 0 && few[j - 1] > values[i]; j--)
                few[j] = few[j - 1];
            few[j] = values[i];
        }
    }
    return few[k];
}

/* The k-th smallest.  The guess that it lies from low to below high costs sweeps where it is wrong, no digits. */
static double LEVEL(kth)(const double *values, int64_t count, double low, double high, int64_t k)
{
    int64_t below_low, below_high, below[2];
    double width = high - low;
    bool halve = false;
    if (!(width > 0))
        width = 1e-12, high = low + width;
    for (;;) {
        LEVEL(count_below)(values, count, low, high, below);
        below_low = below[0], below_high = below[1];
        if (below_low <= k && below_high > k)
            break;
        width *= 8;
        if (below_low > k)
            high = low, low = high - width;
        else
            low = high, high = low + width;
    }
    while (below_high - below_low > FEW) {
        /* Were the values spread evenly, it would be here, give or take the root of their number. */
        const double inside = below_high - below_low;
        const double share = halve ? 0.5 : (k + 0.5 - below_low) / inside, slack = halve ? 0 : 0.6 / sqrt(inside);
        double a = low + (high - low) * (share - slack), b = low + (high - low) * (share + slack);
        a = a > low ? a : low;
        b = b < high ? b : high;
        if (halve && !(a > low && a < high))
            return low; /* low and high are neighbours among floats: what lies between is low */
        LEVEL(count_below)(values, count, a, b, below);
        for (int side = 0; side < 2; side++) {
            const double bound = side ? b : a;
            if (below[side] <= k && bound > low)
                low = bound, below_low = below[side];
            else if (below[side] > k && bound < high)
                high = bound, below_high = below[side];
        }
        halve = below_high - below_low > inside / 2;
    }
    return LEVEL(kth_of_few)(values, count, low, high, k - below_low);
}

/* Smallest value above `bound`, and whether at least n values are no larger than `bound`. */
INLINE double LEVEL(next_above)(const double *values, int64_t count, double bound, int64_t n)
{
    eight least = {INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY};
    eight_masks not_above = {0};
    int64_t total = 0;
    double next = INFINITY;
    for (int64_t i = 0; i < count; i += 8) {
        const eight v = *(const eight *)(values + i);
        const eight_masks lower = (v > bound) & (v < least);
        not_above -= v <= bound;
        least = (eight)(((eight_masks)v & lower) | ((eight_masks)least & ~lower));
    }
    for (int l = 0; l < 8; l++) {
        total += not_above[l];
        next = least[l] < next ? least[l] : next;
    }
    return total >= n ? bound : next;
}

/* Median of the `kept` finite values among `count`, guessed to lie from low to below high. */
static double LEVEL(median)(const double *values, int64_t count, int64_t kept, double low, double high)
{
    const double middle = LEVEL(kth)(values, count, low, high, (kept - 1) / 2);
    return kept % 2 ? middle : (middle + LEVEL(next_above)(values, count, middle, kept / 2 + 1)) / 2;
}

/* Median of 1 to RANKED finite values: the rank of each is how many are smaller. */
static double LEVEL(small_median)(const double *values, int64_t n)
{
    const int64_t blocks = (n + 7) / 8, k = (n - 1) / 2;
    eight v[RANKED / 8];
    double low = -INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < 8 * blocks; i++)
        v[i / 8][i % 8] = i < n ? values[i] : INFINITY;
    for (int64_t b = 0; b < blocks; b++) {
        eight_masks rank = {0};
        for (int64_t i = 0; i < n; i++)
            rank -= v[b] > values[i];
        for (int l = 0; l < 8; l++) {
            low = (rank[l] <= k && v[b][l] > low && v[b][l] < INFINITY) ? v[b][l] : low;
            high = (rank[l] <= n / 2 && v[b][l] > high && v[b][l] < INFINITY) ? v[b][l] : high;
        }
    }
    return n % 2 ? low : (low + high) / 2;
}
