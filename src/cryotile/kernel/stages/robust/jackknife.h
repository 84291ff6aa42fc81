/* Standard errors by leaving out each pass in turn, eight at a time. */

/* Fills the sigmas of rate and elevation.  They stay NaN if the fit without some pass is undetermined: that pass carries
   the fit alone, and its error is unknown. */
static void jackknife(const Model *model, const Circle *circle, const Solutions *fit, Post *post)
{
    static const double nothing[sizeof circle->total / sizeof(double)];
    const int64_t size = sums_size(model->quads);
    const int rate_at = circle->unknowns - 1;
    double rate = 0, level = 0, factor;
    int32_t g = 0;
    while (g < circle->passes) {
        const double *parts[8];
        Solutions without;
        int n = 0;
        for (; g < circle->passes && n < 8; g++)
            if (circle->pass_kept[g])
                parts[n++] = circle->sums + size * g;
        for (int p = n; p < 8; p++)
            parts[p] = nothing;
        solve(circle, circle->total, parts, model->quads, model->min_tolerance, &without);
        for (int p = 0; p < n; p++) {
            const double rate_off = without.coefficients[rate_at][p] - fit->coefficients[rate_at][0];
            const double level_off = without.level[p] - fit->level[0];
            if (!without.determined[p])
                return;
            rate += rate_off * rate_off;
            level += level_off * level_off;
        }
    }
    factor = (post->pass_count - 1.0) / post->pass_count;
    post->dhdt_sigma = sqrt(factor * rate);
    post->elevation_sigma = sqrt(factor * level);
}
