/* Sums of each pass, from which everything else follows: weight, means, and products about the means. */

/* Sums over points of eight lanes. */
enum { SW, S_U, S_V, S_UU, S_VV, S_UV, S_Z, S_UUU, S_UVV, S_UUV, S_VVV, S_UUUU, S_UUVV, S_VVVV, S_UUUV, S_UVVV,
       S_ZU, S_ZV, S_ZUU, S_ZVV, S_ZUV, S_ZZ, POINT_SUMS = 24 };

INLINE int triangle(int i, int j) { return i * (i + 1) / 2 + j; }

enum { TERRAIN_PRODUCTS = (TERRAIN + 1) * (TERRAIN + 2) / 2 };

/* Which sum is the product of columns i and j of u v uu vv uv z, as a lower triangle. */
static const int PRODUCT[TERRAIN_PRODUCTS] = {
    S_UU, S_UV, S_VV, S_UUU, S_UUV, S_UUUU, S_UVV, S_VVV, S_UUVV, S_VVVV, S_UUV, S_UVV, S_UUUV, S_UVVV, S_UUVV,
    S_ZU, S_ZV, S_ZUU, S_ZVV, S_ZUV, S_ZZ};

/* Adds points, each times its weight. */
INLINE void add_points(const Work *work, const double *weights, int64_t from, int64_t to, eight s[POINT_SUMS])
{
    for (int64_t i = from; i < to; i += 8) {
        const eight w = *(const eight *)(weights + i), u = *(const eight *)(work->u + i);
        const eight v = *(const eight *)(work->v + i), z = *(const eight *)(work->z + i);
        const eight wu = w * u, wv = w * v, wz = w * z, wuu = wu * u, wvv = wv * v, wuv = wu * v;
        const eight uu = u * u, vv = v * v, uv = u * v;
        s[SW] += w, s[S_U] += wu, s[S_V] += wv, s[S_Z] += wz;
        s[S_UU] += wuu, s[S_VV] += wvv, s[S_UV] += wuv;
        s[S_UUU] += wuu * u, s[S_UUV] += wuu * v, s[S_UVV] += wvv * u, s[S_VVV] += wvv * v;
        s[S_UUUU] += wuu * uu, s[S_UUVV] += wuu * vv, s[S_VVVV] += wvv * vv;
        s[S_UUUV] += wuu * uv, s[S_UVVV] += wvv * uv;
        s[S_ZU] += wz * u, s[S_ZV] += wz * v, s[S_ZUU] += wz * uu, s[S_ZVV] += wz * vv, s[S_ZUV] += wz * uv;
        s[S_ZZ] += wz * z;
    }
}

/* Products of a pass about its means, from its sums. */
INLINE void centre(const double *sums, double *within)
{
    const double per_n = sums[SW] > 0 ? 1 / sums[SW] : 0;
    for (int i = 0, k = 0; i <= TERRAIN; i++)
        for (int j = 0; j <= i; j++, k++)
            within[k] = sums[PRODUCT[k]] - sums[S_U + i] * sums[S_U + j] * per_n;
}

/* Adds the products of column c beyond terrain with all before it and with z, about the means of the pass. */
static void sum_column(Work *work, int q, int n, int c, int32_t row)
{
    const int32_t g = work->pass[row];
    const int64_t stride = work->stride;
    double *const means = work->means + row, *const within = work->within + row;
    eight sums[MAX_UNKNOWNS] = {{0}}, sum = {0}, of_z = {0};
    for (int64_t i = work->first[g]; i < work->first[g + 1]; i += 8) {
        const eight u = *(const eight *)(work->u + i), v = *(const eight *)(work->v + i);
        const eight wx = *(const eight *)(work->live + i)
            * *(const eight *)(work->extras + work->room * (c - TERRAIN) + i);
        sum += wx;
        sums[0] += wx * u, sums[1] += wx * v, sums[2] += wx * (u * u), sums[3] += wx * (v * v), sums[4] += wx * (u * v);
        for (int k = TERRAIN; k <= c; k++)
            sums[k] += wx * *(const eight *)(work->extras + work->room * (k - TERRAIN) + i);
        of_z += wx * *(const eight *)(work->z + i);
    }
    means[stride * c] = sum_of(sum) / work->n[row];
    for (int k = 0; k <= c; k++)
        within[stride * triangle(c, k)] = sum_of(sums[k]) - sum_of(sum) * means[stride * k];
    within[stride * triangle(q, c)] = sum_of(of_z) - sum_of(sum) * means[stride * n];
}

/* Fills the sums of a pass, of terrain and z. */
static void sum_pass(const Circle *circle, Work *work, int q, int n, int32_t row)
{
    const int32_t g = work->pass[row];
    const int64_t stride = work->stride;
    double sums[POINT_SUMS], within[TERRAIN_PRODUCTS], per_n;
    eight s[POINT_SUMS] = {{0}};
    add_points(work, work->live, work->first[g], work->first[g + 1], s);
    for (int k = 0; k < POINT_SUMS; k += 8)
        *(eight *)(sums + k) = fold(s + k);
    centre(sums, within);
    per_n = 1 / sums[SW];
    work->n[row] = sums[SW];
    for (int k = 0; k < TERRAIN; k++)
        work->means[stride * k + row] = sums[S_U + k] * per_n;
    work->means[stride * n + row] = sums[S_Z] * per_n;
    for (int k = 0; k < triangle(TERRAIN, 0); k++)
        work->within[stride * k + row] = within[k];
    for (int k = 0; k <= TERRAIN; k++)
        work->within[stride * triangle(q, k < TERRAIN ? k : q) + row] = within[triangle(TERRAIN, k)];
}

/* Adds up products of passes. */
static void sum_total(Work *work, int q)
{
    const int size = triangle(q + 1, 0);
    for (int first = 0; first < size; first += 8) {
        eight sums[8] = {{0}};
        for (int k = 0; k < 8 && first + k < size; k++)
            for (int32_t row = 0; row < work->passes; row += 8)
                sums[k] += *(const eight *)(work->within + work->stride * (first + k) + row);
        *(eight *)(work->total + first) = fold(sums);
    }
}

/* Numbers the passes with kept points and fills their sums: of q columns of points, n in all. */
static void sum_passes(const Circle *circle, Work *work, int q, int n)
{
    int32_t rows = 0;
    work->weight = 0;
    for (int32_t g = 0; g < circle->passes; g++) {
        if (work->kept[g] == 0)
            continue;
        work->pass[rows] = g;
        sum_pass(circle, work, q, n, rows);
        work->weight += work->n[rows];
        for (int k = 0; k < n - q; k++)
            work->means[work->stride * (q + k) + rows] = work->constants[work->stride * k + g];
        for (int c = TERRAIN; c < q; c++)
            sum_column(work, q, n, c, rows);
        rows++;
    }
    work->passes = rows;
    for (; rows % 8; rows++) {
        work->n[rows] = 1;
        for (int k = 0; k <= n; k++)
            work->means[work->stride * k + rows] = 0;
        for (int k = 0; k < triangle(q + 1, 0); k++)
            work->within[work->stride * k + rows] = 0;
    }
    sum_total(work, q);
}
