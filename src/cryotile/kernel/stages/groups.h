/* Changes of the rate when all passes of a group are left out, such as a season or a campaign whose passes may share an
   error; theta, the prior and the free passes are those of the whole fit. */

/* Takes a pass off one of several sets of equations. */
static void take_off(const Model *model, const Work *work, double theta, int32_t row, eight *a, int lane)
{
    const int q = model->point_columns, n = model->unknowns;
    const double v = theta + 1 / work->n[row], *const means = work->means + row, *const within = work->within + row;
    for (int i = 0; i <= n; i++)
        for (int j = 0; j <= i; j++) {
            const bool inner = (i < q || i == n) && (j < q || j == n);
            double own = means[work->stride * i] / v * means[work->stride * j];
            if (inner)
                own += within[work->stride * triangle(i < q ? i : q, j < q ? j : q)];
            a[triangle(i, j)][lane] -= own;
        }
}

/* Takes each pass off the equations of its groups from `first` to `first` + 15; counts the passes of each. */
static void take_off_groups(
    const Model *model, const Circle *circle, const Posts *posts, double theta, int64_t first, Eliminated a[2],
    int32_t *counts)
{
    const Work *const work = &circle->work;
    for (int32_t row = 0; row < work->passes; row++)
        for (int64_t d = 0; d < posts->group_depth && !work->free[row]; d++) {
            const int64_t lane = posts->groups[model->pass_total * d + circle->codes[work->pass[row]]] - first;
            if (lane < 0 || lane >= 16)
                continue;
            counts[lane]++;
            take_off(model, work, theta, row, a[lane / 8].l, lane % 8);
        }
}

/* Fills the change of each group, and the standard deviation that it has if passes share no error: the fit is efficient
   then, so that its variance and that of the change add up to the variance of the fit without the group (Hausman 1978,
   Econometrica 46, 1251).  NaN without a pass of the group, or if too few are left. */
static void leave_out_groups(
    const Model *model, const Circle *circle, const Equations *whole, const Posts *posts, int64_t at)
{
    const Work *const work = &circle->work;
    const int n = model->unknowns;
    const int32_t passes = posts->posts[at].pass_count;
    const double variance = work->rss / work->freedom;
    eight prior[MAX_UNKNOWNS];
    for (int k = 0; k < n; k++)
        prior[k] = all(whole->prior[k]);
    for (int64_t first = 0; first < posts->group_total; first += 16) {
        int32_t counts[16] = {0};
        Eliminated without[2];
        for (int half = 0; half < 2; half++)
            for (int k = 0; k < triangle(n + 1, 0); k++)
                without[half].l[k] = all(whole->a[k]);
        take_off_groups(model, circle, posts, whole->theta, first, without, counts);
        eliminate(
            model, work, (const eight *const[]){prior, prior}, (Eliminated *const[]){&without[0], &without[1]});
        for (int p = 0; p < 16 && first + p < posts->group_total; p++) {
            const Eliminated *const fit = &without[p / 8];
            Change *const change = posts->changes + posts->group_total * at + first + p;
            const double more = fit->inverse[n - 1][p % 8] - work->rate_variance;
            if (counts[p] == 0 || passes - counts[p] < model->min_passes || !fit->determined[p % 8] || !(more > 0))
                continue;
            change->delta = fit->l[triangle(n, n - 1)][p % 8] - work->beta[n - 1];
            change->sigma = sqrt(variance * more);
        }
    }
}
