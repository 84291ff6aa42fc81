/* A plane without terms, weights or rejection: one sweep sums the passes, and no point is moved.

   Sums of a pass, in quads:  {u v t z}  {uu vv tt zz}  {uv vt tz zu}  {ut vz n 0}; u and v in metres. */

enum plane_sums {
    SU, SV, ST, SZ, UU, VV, TT, ZZ,
    UV, VT, TZ, ZU, UT, VZ, N
};

/* Years, 0.03 s: a span of exactly the minimum passes its gate whatever the rounding of two times. */
static const double SPAN_ROUNDING = 1e-9;

/* Sets the origin to the mean of up to 16 points.  Products about any place amid the points lose at most a factor n of
   precision when they are centred; products about the post lose all of it where the points lie close together. */
static void find_origin(const Points *points, Circle *circle)
{
    const int64_t taken = circle->count < 16 ? circle->count : 16;
    quad mean = {0};
    for (int64_t i = 0; i < taken; i++)
        mean += *(const quad *)(points->rows + 4 * (int64_t)circle->index[i * circle->count / taken]);
    *(quad *)circle->origin = mean / (double)taken;
}

/* Lists the passes seen, in ascending order, and clears their marks. */
static void list_passes(const Model *model, Circle *circle)
{
    uint8_t *const seen = circle->pass_seen;
    int32_t *const codes = circle->codes;
    int32_t passes = 0;
    for (int64_t code = 0; code < model->pass_total; code += 8) {
        uint64_t some;
        memcpy(&some, seen + code, sizeof some);
        for (int64_t k = code; some && k < code + 8; k++) {
            codes[passes] = (int32_t)k;
            passes += seen[k];
            seen[k] = 0;
        }
    }
    circle->passes = passes;
}

/* Share of the spread below which residuals from sums have too few digits. */
static const double LEAST_MISFIT = 1e-6;

/* Sums each pass, by its code, about the origin in metres and years; finds the times of the first and last point. */
static void sum_planes(const Points *points, const Model *model, Circle *circle, Post *post)
{
    const double *const rows = points->rows;
    const int32_t *const index = circle->index, *const passes = points->passes;
    const int64_t count = circle->count;
    double *const sums = circle->sums;
    uint8_t *const seen = circle->pass_seen;
#ifdef WITH_AVX512
    const __m256d origin = _mm256_loadu_pd(circle->origin);
    const __m512i turned = _mm512_setr_epi64(1, 2, 3, 0, 2, 3, 0, 1);
    const __m512d one = _mm512_setr_pd(0, 0, 0, 0, 0, 0, 1, 0);
    __m256d least = _mm256_set1_pd(INFINITY), most = _mm256_set1_pd(-INFINITY);
    for (int64_t i = 0; i < count; i++) {
        const int64_t code = passes[index[i]];
        double *const to = sums + PLANE_SUMS * code;
        const __m256d point = _mm256_loadu_pd(rows + 4 * (int64_t)index[i]);
        const __m512d row = _mm512_broadcast_f64x4(_mm256_sub_pd(point, origin));
        const __m512d first = _mm512_mask_mul_pd(row, 0xf0, row, row);
        const __m512d second = _mm512_mask_mul_pd(one, 0x3f, row, _mm512_permutexvar_pd(turned, row));
        least = _mm256_min_pd(least, point);
        most = _mm256_max_pd(most, point);
        _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), first));
        _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), second));
        seen[code] = 1;
    }
    post->time_start = least[T];
    post->time_end = most[T];
#else
    const quad origin = *(const quad *)circle->origin, one = {0, 0, 1, 0};
    const quad_masks products = {-1, -1, 0, 0};
    double first = INFINITY, last = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        const int64_t code = passes[index[i]];
        quad *const to = (quad *)(sums + PLANE_SUMS * code);
        const quad point = *(const quad *)(rows + 4 * (int64_t)index[i]);
        const quad row = point - origin;
        const quad across = row * shuffle(row, row, 2, 3, 0, 1);
        to[0] += row;
        to[1] += row * row;
        to[2] += row * shuffle(row, row, 1, 2, 3, 0);
        to[3] += (quad)((quad_masks)across & products) + one;
        first = point[T] < first ? point[T] : first;
        last = point[T] > last ? point[T] : last;
        seen[code] = 1;
    }
    post->time_start = first;
    post->time_end = last;
#endif
    list_passes(model, circle);
    post->data_count = (int32_t)count;
    post->pass_count = circle->passes;
}

/* Eight planes side by side. */
typedef struct {
    eight cu, cv, ct, constant, level; /* constant: the height at the origin, about it; level: the height at the post */
    eight rss, rate_variance;
    eight_masks determined;
} Planes;

INLINE eight side_by_side(quad low, quad high)
{
#ifdef WITH_AVX512
    return (eight)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)low), (__m256d)high, 1);
#else
    eight both;
    ((quad *)&both)[0] = low;
    ((quad *)&both)[1] = high;
    return both;
#endif
}

INLINE eight inverse_of(eight pivot, eight_masks good) { return (eight)((eight_masks)(1 / pivot) & good); }

/* Leaves out each of eight parts of the total and solves the rest, centred, by LDL'. */
INLINE void solve_planes(
    const Circle *circle, const Model *model, const double *total, const quad *const parts[8], Planes *result)
{
    const double radius = model->radius, min_tolerance = model->min_tolerance;
    eight s[PLANE_SUMS];
    for (int k = 0; k < 4; k++) {
        quad low[4], high[4];
        transpose(parts, k, low);
        transpose(parts + 4, k, high);
        for (int c = 0; c < 4; c++)
            s[4 * k + c] = total[4 * k + c] - side_by_side(low[c], high[c]);
    }
    const eight n = s[N], per_n = 1 / n, least = LEAST_VARIANCE * n, least_place = radius * radius * least;
    const eight mu = s[SU] * per_n, mv = s[SV] * per_n, mt = s[ST] * per_n, mz = s[SZ] * per_n;
    const eight uu = s[UU] - s[SU] * mu, uv = s[UV] - s[SU] * mv;
    const eight ut = s[UT] - s[SU] * mt, uz = s[ZU] - s[SU] * mz;
    const eight vv = s[VV] - s[SV] * mv, vt = s[VT] - s[SV] * mt;
    const eight vz = s[VZ] - s[SV] * mz, tt = s[TT] - s[ST] * mt;
    const eight tz = s[TZ] - s[ST] * mz, zz = s[ZZ] - s[SZ] * mz;
    const eight_masks good_u = uu > least_place;
    const eight iu = inverse_of(uu, good_u), lv = uv * iu, ltu0 = ut * iu, lzu = uz * iu;
    const eight v2 = vv - lv * uv, vt2 = vt - ltu0 * uv, vz2 = vz - lzu * uv;
    const eight_masks good_v = (v2 > LEAST_PIVOT * vv) & (vv > least_place);
    const eight iv = inverse_of(v2, good_v), ltv = vt2 * iv, lzv = vz2 * iv;
    const eight t3 = (tt - ltu0 * ut) - ltv * vt2, tz3 = (tz - ltu0 * uz) - lzv * vt2;
    const eight_masks good_t = (t3 > LEAST_PIVOT * tt) & (tt > least);
    const eight it = inverse_of(t3, good_t);
    result->ct = tz3 * it;
    result->cv = lzv - ltv * result->ct;
    result->cu = lzu - lv * result->cv - ltu0 * result->ct;
    result->rss = ((zz - lzu * uz) - lzv * vz2) - result->ct * tz3;
    result->rate_variance = it;
    result->constant = mz - result->ct * mt - result->cv * mv - result->cu * mu;
    result->level = circle->origin[Z] + mz - result->ct * (mt - circle->at_post[T])
        - result->cv * (mv - circle->at_post[V]) - result->cu * (mu - circle->at_post[U]);
    const eight ltu = ltu0 - lv * ltv;
    result->determined = good_u & good_v & good_t & (uu * (iu + lv * lv * iv + ltu * ltu * it) * min_tolerance <= 1)
        & (vv * (iv + ltv * ltv * it) * min_tolerance <= 1) & (tt * it * min_tolerance <= 1);
}

static double sum_plane_squares(const Points *points, const Circle *circle, const Planes *fit)
{
    const double *const origin = circle->origin, cu = fit->cu[0], cv = fit->cv[0], ct = fit->ct[0];
    double sum = 0;
    for (int64_t i = 0; i < circle->count; i++) {
        const double *point = points->rows + 4 * (int64_t)circle->index[i];
        const double residual = (point[Z] - origin[Z]) - fit->constant[0] - cu * (point[U] - origin[U])
            - cv * (point[V] - origin[V]) - ct * (point[T] - origin[T]);
        sum += residual * residual;
    }
    return sum;
}

/* Fills the sigmas.  They stay NaN if the fit without some pass is undetermined: that pass carries the fit alone. */
static void plane_jackknife(
    const Model *model, const Circle *circle, const double *total, const Planes *fit, Post *post)
{
    const eight_masks lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    const double factor = (circle->passes - 1.0) / circle->passes;
    eight rates = {0}, levels = {0};
    eight_masks lost = {0};
    for (int32_t g = 0; g < circle->passes; g += 8) {
        const eight_masks there = lanes < circle->passes - (int64_t)g;
        const quad *parts[8];
        eight rate, level;
        Planes without;
        for (int p = 0; p < 8; p++)
            parts[p] = (const quad *)(circle->sums
                + PLANE_SUMS * (int64_t)circle->codes[g + p < circle->passes ? g + p : g]);
        solve_planes(circle, model, total, parts, &without);
        rate = (eight)((eight_masks)(without.ct - fit->ct[0]) & there);
        level = (eight)((eight_masks)(without.level - fit->level[0]) & there);
        rates += rate * rate;
        levels += level * level;
        lost |= ~without.determined;
    }
    for (int p = 0; p < 8; p++)
        if (lost[p])
            return;
    post->dhdt_sigma = sqrt(factor * sum_of(rates));
    post->elevation_sigma = sqrt(factor * sum_of(levels));
}

static void solve_plane(const Points *points, const Model *model, Circle *circle, Post *post)
{
    static const double nothing[PLANE_SUMS];
    const quad *const parts[8] = {
        (quad *)nothing, (quad *)nothing, (quad *)nothing, (quad *)nothing,
        (quad *)nothing, (quad *)nothing, (quad *)nothing, (quad *)nothing};
    const double n = (double)circle->count;
    double total[PLANE_SUMS] = {0}, du, dv, rss, spread;
    Planes fit;
    circle->at_post[U] = circle->x - circle->origin[U];
    circle->at_post[V] = circle->y - circle->origin[V];
    circle->at_post[T] = -circle->origin[T];
    for (int32_t g = 0; g < circle->passes; g++)
        for (int q = 0; q < 4; q++)
            ((quad *)total)[q] += ((const quad *)circle->sums)[4 * (int64_t)circle->codes[g] + q];
    solve_planes(circle, model, total, parts, &fit);
    post->status = !fit.determined[0] ? SINGULAR : !(fabs(fit.ct[0]) <= model->max_rate) ? RATE_OUT_OF_BOUNDS : OK;
    if (post->status != OK)
        return;
    post->c0 = fit.cu[0] * model->radius;
    post->c1 = fit.cv[0] * model->radius;
    post->dhdt = fit.ct[0];
    post->elevation = fit.level[0];
    spread = total[ZZ] - total[SZ] * total[SZ] / n;
    rss = fit.rss[0] > LEAST_MISFIT * spread ? fit.rss[0] : sum_plane_squares(points, circle, &fit);
    post->misfit_rms = sqrt(rss / n);
    if (n > 4)
        post->dhdt_sigma_formal = sqrt(rss / (n - 4) * fit.rate_variance[0]);
    du = total[SU] / n - circle->at_post[U];
    dv = total[SV] / n - circle->at_post[V];
    post->centroid_distance = sqrt(du * du + dv * dv);
    if (post->pass_count > 1)
        plane_jackknife(model, circle, total, &fit, post);
}

/* Returns the status of the first gate that fails, else OK. */
static int gate(const Model *model, Post *post)
{
    return post->data_count < model->min_points ? TOO_FEW_POINTS
        : post->time_end - post->time_start < model->min_span - SPAN_ROUNDING ? TOO_SHORT_SPAN
        : post->pass_count < model->min_passes ? TOO_FEW_PASSES
                                               : OK;
}

static void fit_plane(const Points *points, const Model *model, Circle *circle, Post *post)
{
    find_origin(points, circle);
    sum_planes(points, model, circle, post);
    post->status = gate(model, post);
    if (post->status == OK)
        solve_plane(points, model, circle, post);
    /* The next circle expects them to be zero. */
    for (int32_t g = 0; g < circle->passes; g++)
        memset(circle->sums + PLANE_SUMS * (int64_t)circle->codes[g], 0, PLANE_SUMS * sizeof(double));
}
