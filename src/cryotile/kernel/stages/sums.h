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

/* Adds the products of column c beyond terrain with all before it and with z, about the means of the pass. */
static void sum_column(Work *work, int q, int n, int c, int32_t row, bool there)
{
    const int64_t stride = work->stride, first = there ? work->first[work->pass[row]] : 0;
    const int64_t end = there ? work->first[work->pass[row] + 1] : 0;
    double *const means = work->means + row, *const within = work->within + row;
    eight sums[MAX_UNKNOWNS] = {{0}}, sum = {0}, of_z = {0};
    for (int64_t i = first; i < end; i += 8) {
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

/* Fills the sums of terrain and z of eight passes from `row` on; a place without a pass has weight 1 and means 0. */
static void sum_eight_passes(Work *work, int q, int n, int32_t row, int32_t rows)
{
    const int64_t stride = work->stride;
    eight s[8][POINT_SUMS], sums[POINT_SUMS], per_n;
    for (int p = 0; p < 8; p++) {
        for (int k = 0; k < POINT_SUMS; k++)
            s[p][k] = all(0);
        if (row + p >= rows)
            continue;
        const int32_t g = work->pass[row + p];
        add_points(work, work->live, work->first[g], work->first[g + 1], s[p]);
    }
    for (int k = 0; k <= S_ZZ; k++)
        sums[k] = fold((const eight[]){s[0][k], s[1][k], s[2][k], s[3][k], s[4][k], s[5][k], s[6][k], s[7][k]});
    sums[SW] = choose(sums[SW] > 0, sums[SW], all(1));
    per_n = 1 / sums[SW];
    *(eight *)(work->n + row) = sums[SW];
    for (int i = 0; i <= TERRAIN; i++) {
        const eight mean = sums[S_U + i] * per_n;
        *(eight *)(work->means + stride * (i < TERRAIN ? i : n) + row) = mean;
        for (int j = 0; j <= i; j++)
            *(eight *)(work->within + stride * triangle(i < TERRAIN ? i : q, j < TERRAIN ? j : q) + row) =
                sums[PRODUCT[triangle(i, j)]] - sums[S_U + j] * mean;
    }
}

/* Fills the products of terrain and z about the means of passes, summed over passes, with the given weights of points. */
static void sum_terrain(const Circle *circle, const Work *work, const double *weights, double *total)
{
    eight s[POINT_SUMS], squares[TERRAIN + 1] = {{0}}, sums = {0};
    double of_products[POINT_SUMS];
    for (int k = 0; k < POINT_SUMS; k++)
        s[k] = all(0);
    for (int32_t g = 0; g < circle->passes; g++) {
        eight own, per_n;
        for (int k = 0; k < 8; k++)
            s[k] = k <= S_Z ? all(0) : s[k];
        add_points(work, weights, work->first[g], work->first[g + 1], s);
        own = fold((const eight[]){s[0], s[1], s[2], s[3], s[4], s[5], s[6], all(0)});
        per_n = own * (own[SW] > 0 ? 1 / own[SW] : 0);
        sums += own;
        for (int i = 0; i <= TERRAIN; i++)
            squares[i] += own[S_U + i] * per_n;
    }
    for (int k = 0; k < POINT_SUMS; k += 8)
        *(eight *)(of_products + k) = fold(s + k);
    for (int k = 0; k <= S_Z; k++)
        of_products[k] = sums[k];
    for (int i = 0; i <= TERRAIN; i++)
        for (int j = 0; j <= i; j++)
            total[triangle(i, j)] = of_products[PRODUCT[triangle(i, j)]] - squares[i][S_U + j];
}

/* Adds up products of passes. */
static void sum_total(Work *work, int q)
{
    const int size = triangle(q + 1, 0);
    for (int first = 0; first < size; first += 8) {
        eight sums[8];
        for (int k = 0; k < 8; k++)
            sums[k] = all(0);
        for (int k = 0; k < 8 && first + k < size; k++)
            for (int32_t row = 0; row < work->passes; row += 8)
                sums[k] += *(const eight *)(work->within + work->stride * (first + k) + row);
        *(eight *)(work->total + first) = fold(sums);
    }
}

/* Numbers the passes with kept points and fills their sums. */
static void sum_passes(const Model *model, const Circle *circle, Work *work)
{
    const int q = model->point_columns, n = model->unknowns;
    int32_t rows = 0;
    for (int32_t g = 0; g < circle->passes; g++) {
        work->pass[rows] = g;
        rows += work->kept[g] > 0;
    }
    work->passes = rows;
    work->weight = 0;
    for (int32_t row = 0; row < rows; row += 8)
        sum_eight_passes(work, q, n, row, rows);
    for (int32_t row = 0; row < rows; row++)
        work->weight += work->n[row];
    for (int k = q; k < n; k++) {
        double *const means = work->means + work->stride * k;
        for (int32_t row = 0; row < (rows + 7) / 8 * 8; row++)
            means[row] = row < rows ? work->constants[work->stride * (k - q) + work->pass[row]] : 0;
    }
    for (int c = TERRAIN; c < q; c++)
        for (int32_t row = 0; row < (rows + 7) / 8 * 8; row++)
            sum_column(work, q, n, c, row, row < rows);
    sum_total(work, q);
}
