/* Medians by counting: how many values lie below a bound is one sweep of vector registers, without a branch.

   Values are padded with infinity to a multiple of 8; infinite ones count for nothing. */

INLINE eight LEVEL(where)(eight_masks mask, eight yes, eight no)
{
    return (eight)(((eight_masks)yes & mask) | ((eight_masks)no & ~mask));
}

INLINE eight LEVEL(larger)(eight a, eight b) { return LEVEL(where)(a > b, a, b); }

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
        least = LEVEL(where)(lower, v, least);
    }
    for (int l = 0; l < 8; l++) {
        total += not_above[l];
        next = least[l] < next ? least[l] : next;
    }
    return total >= n ? bound : next;
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
    /* The values from low on, in turn, until k are below. */
    for (double value = nextafter(low, -INFINITY);;) {
        value = LEVEL(next_above)(values, count, value, INT64_MAX);
        LEVEL(count_below)(values, count, value, nextafter(value, INFINITY), below);
        if (below[1] > k)
            return value;
    }
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
    const int64_t k = (n - 1) / 2;
    const eight nothing = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    double padded[RANKED], first = -INFINITY, second = -INFINITY;
    eight lower = nothing, upper = nothing;
    memcpy(padded, values, n * sizeof(double));
    for (int64_t i = n; i % 8; i++)
        padded[i] = INFINITY;
    for (int64_t b = 0; b < n; b += 8) {
        const eight v = *(const eight *)(padded + b);
        eight_masks rank = {0};
        for (int64_t i = 0; i < n; i++)
            rank -= v > padded[i];
        lower = LEVEL(larger)(lower, LEVEL(where)((rank <= k) & (v < INFINITY), v, nothing));
        upper = LEVEL(larger)(upper, LEVEL(where)((rank <= n / 2) & (v < INFINITY), v, nothing));
    }
    for (int l = 0; l < 8; l++) {
        first = lower[l] > first ? lower[l] : first;
        second = upper[l] > second ? upper[l] : second;
    }
    return n % 2 ? first : (first + second) / 2;
}
