/* Medians by counting: the number of values below a bound takes one sweep of vector registers, without a branch.

   Values are padded with infinity to a multiple of 8; infinite values do not count. */

enum { RANKED = 32 }; /* up to this number of values, medians are found by ranks */

/* Counts the values below a and below b. */
INLINE void count_below(const double *restrict values, int64_t count, double a, double b, int64_t below[2])
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

/* Returns `bound` if at least n values do not exceed it, else the smallest value above it. */
INLINE double next_above(const double *values, int64_t count, double bound, int64_t n)
{
    eight least = {INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY};
    eight_masks not_above = {0};
    int64_t total = 0;
    double next = INFINITY;
    for (int64_t i = 0; i < count; i += 8) {
        const eight v = *(const eight *)(values + i);
        const eight_masks lower = (v > bound) & (v < least);
        not_above -= v <= bound;
        least = choose(lower, v, least);
    }
    for (int l = 0; l < 8; l++) {
        total += not_above[l];
        next = least[l] < next ? least[l] : next;
    }
    return total >= n ? bound : next;
}

/* Packs the values from low to below high, in their order, into `to`, which may be `from`, and pads them; returns their
   number.  `below` is set to the number of values below low. */
INLINE int64_t pack(const double *from, int64_t count, double low, double high, double *to, int64_t *below)
{
    int64_t k = 0, lower = 0;
#ifdef WITH_AVX512
    const __m512d least = _mm512_set1_pd(low), most = _mm512_set1_pd(high);
    for (int64_t i = 0; i < count; i += 8) {
        const __m512d v = _mm512_loadu_pd(from + i);
        const __mmask8 under = _mm512_cmp_pd_mask(v, least, _CMP_LT_OQ);
        const __mmask8 inside = _mm512_cmp_pd_mask(v, most, _CMP_LT_OQ) & ~under;
        _mm512_storeu_pd(to + k, _mm512_maskz_compress_pd(inside, v));
        lower += __builtin_popcount(under);
        k += __builtin_popcount(inside);
    }
#else
    for (int64_t i = 0; i < count; i++) {
        const double v = from[i];
        to[k] = v;
        lower += v < low;
        k += (v >= low) & (v < high);
    }
#endif
    *below = lower;
    for (int64_t i = k; i < k + 8; i++)
        to[i] = INFINITY;
    return k;
}

/* Picks the values of ranks k and k + 1 among up to RANKED, padded to a multiple of 8.  The rank of a value is the number
   of smaller ones. */
INLINE void pick_ranked(const double *values, int64_t n, int64_t k, double picked[2])
{
    const eight nothing = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    eight lower = nothing, upper = nothing;
    for (int64_t b = 0; b < n; b += 8) {
        const eight v = *(const eight *)(values + b);
        eight_masks rank = {0};
        for (int64_t i = 0; i < n; i++)
            rank -= v > values[i];
        lower = larger(lower, choose((rank <= k) & (v < INFINITY), v, nothing));
        upper = larger(upper, choose((rank <= k + 1) & (v < INFINITY), v, nothing));
    }
    picked[0] = picked[1] = -INFINITY;
    for (int l = 0; l < 8; l++) {
        picked[0] = lower[l] > picked[0] ? lower[l] : picked[0];
        picked[1] = upper[l] > picked[1] ? upper[l] : picked[1];
    }
}

/* Returns the median of the `kept` finite values among `count`.  It is expected from low to below high; a wrong guess
   costs sweeps and no digits.  `spare` has room for all values and eight more. */
static double median(
    const double *values, int64_t count, int64_t kept, double low, double high, double *spare)
{
    const int64_t k = (kept - 1) / 2;
    int64_t below, inside, within[2];
    double width = high - low, picked[2];
    bool halve = false;
    if (!(width > 0))
        width = 1e-12, high = low + width;
    for (;;) {
        inside = pack(values, count, low, high, spare, &below);
        if (below <= k && below + inside > k)
            break;
        width *= 8;
        if (below > k)
            high = low, low = high - width;
        else
            low = high, high = low + width;
    }
    while (inside > RANKED) {
        /* Evenly spread values would have it here, within the root of their number. */
        const double share = halve ? 0.5 : (k + 0.5 - below) / inside, slack = halve ? 0 : 0.6 / sqrt(inside);
        double a = low + (high - low) * (share - slack), b = low + (high - low) * (share + slack);
        int64_t skipped, end = inside;
        a = a > low ? a : low;
        b = b < high ? b : high;
        if (halve && !(a > low && a < high)) {
            /* low and high are neighbours among floats: all values between them are low */
            picked[0] = picked[1] = low;
            if (k + 1 >= below + inside && kept % 2 == 0)
                picked[1] = next_above(values, count, low, kept / 2 + 1);
            return kept % 2 ? picked[0] : (picked[0] + picked[1]) / 2;
        }
        count_below(spare, (inside + 7) / 8 * 8, a, b, within);
        skipped = 0;
        for (int side = 0; side < 2; side++) {
            const double bound = side ? b : a;
            if (below + within[side] <= k && bound > low)
                low = bound, skipped = within[side];
            else if (below + within[side] > k && bound < high)
                high = bound, end = within[side];
        }
        halve = end - skipped > inside / 2;
        pack(spare, (inside + 7) / 8 * 8, low, high, spare, within);
        below += skipped;
        inside = end - skipped;
    }
    pick_ranked(spare, inside, k - below, picked);
    if (kept % 2)
        return picked[0];
    if (k + 1 >= below + inside)
        picked[1] = next_above(values, count, picked[0], kept / 2 + 1);
    return (picked[0] + picked[1]) / 2;
}

INLINE void order_pair(eight *a, eight *b)
{
    const eight_masks less = *a < *b;
    const eight low = choose(less, *a, *b);
    *b = choose(less, *b, *a);
    *a = low;
}

/* Finds the medians of eight runs of up to n values side by side, by Batcher's odd-even merging; so many of each run are
   finite. */
static void medians_of_eight(
    int n, const double *values, const int64_t *starts, const int32_t *counts, double *medians)
{
    eight v[RANKED];
#ifdef WITH_AVX512
    const __m512i first = _mm512_loadu_si512(starts), end = _mm512_loadu_si512(starts + 1);
    for (int j = 0; j < n; j++) {
        const __m512i at = _mm512_add_epi64(first, _mm512_set1_epi64(j));
        v[j] = _mm512_mask_i64gather_pd(_mm512_set1_pd(INFINITY), _mm512_cmplt_epi64_mask(at, end), at, values, 8);
    }
#else
    for (int j = 0; j < n; j++)
        for (int p = 0; p < 8; p++)
            v[j][p] = starts[p] + j < starts[p + 1] ? values[starts[p] + j] : INFINITY;
#endif
    for (int p = 1; p < n; p *= 2)
        for (int k = p; k > 0; k /= 2)
            for (int j = k % p; j + k < n; j += 2 * k)
                for (int i = j; i < j + k && i + k < n; i++)
                    if ((i ^ (i + k)) < 2 * p) /* of the same 2 p */
                        order_pair(&v[i], &v[i + k]);
    for (int p = 0; p < 8; p++) {
        const int32_t count = counts[p];
        const double middle = v[(count - 1) / 2][p];
        medians[p] = count % 2 ? middle : (middle + v[count / 2][p]) / 2;
    }
}

/* Returns the value of rank k, from 0, among values padded to a multiple of 8, expected from low to below high. */
static double value_of_rank(const double *values, int64_t count, int64_t k, double low, double high, double *spare)
{
    double picked[2];
    if (count > RANKED)
        return median(values, count, 2 * k + 1, low, high, spare);
    pick_ranked(values, count, k, picked);
    return picked[0];
}

/* Returns the median of the `kept` finite values among `count`, likewise. */
static double padded_median(
    const double *values, int64_t count, int64_t kept, double low, double high, double *spare)
{
    double picked[2];
    if (count > RANKED)
        return median(values, count, kept, low, high, spare);
    pick_ranked(values, count, (kept - 1) / 2, picked);
    return kept % 2 ? picked[0] : (picked[0] + picked[1]) / 2;
}
