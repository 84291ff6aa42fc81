/* theta, the variance of the offsets of passes in units of that of points: its likelihood at THETAS values. */

static const double LEAST_THETA = 0.1; /* over the mean number of points of a pass */
static const double THETA_STEPS[THETAS] = {
    1.0, 2.51188643150958, 6.309573444801933, 15.848931924611133, 39.810717055349734, 100.0, 251.18864315095797,
    630.957344480193, 1584.893192461114, 3981.0717055349733, 10000.0, 25118.864315095823, 63095.7344480193,
    158489.3192461114, 398107.1705534969, 1000000.0};
enum { THETA_PRIORS = 3 }; /* coefficients whose prior has theta */

/* The solved equations at all values of theta, with some passes free. */
typedef struct {
    Eliminated fit[2];
    eight logs[2]; /* sum of ln(1 + n theta) over the others and of ln n over free passes, and 3 ln theta */
} Spreads;

/* Fills the values of theta, and of each pass what follows from them. */
static void prepare_thetas(Work *work)
{
    for (int k = 0; k < THETAS; k++)
        work->thetas[k] = LEAST_THETA / (work->weight / work->passes) * THETA_STEPS[k];
    for (int half = 0; half < 2; half++)
        ((eight *)work->log_thetas)[half] = logarithm(((const eight *)work->thetas)[half]);
    for (int32_t row = 0; row < work->passes; row++)
        for (int half = 0; half < 2; half++) {
            const eight part = 1 + work->n[row] * ((const eight *)work->thetas)[half];
            ((eight *)work->per_v)[2 * row + half] = work->n[row] / part;
            ((eight *)work->logs)[2 * row + half] = logarithm(part);
        }
    for (int32_t row = 0; row < work->passes; row += 8)
        *(eight *)(work->log_n + row) = logarithm(*(const eight *)(work->n + row));
}

/* Sums and solves the equations with some passes free. */
static void sum_spreads(const Model *model, Work *work, const uint8_t *free, Spreads *to)
{
    eight prior[2][MAX_UNKNOWNS];
    int32_t count = 0;
    double logs = 0;
    for (int32_t row = 0; row < work->passes; row++) {
        work->list[count] = row;
        count += !free[row];
        logs += free[row] ? work->log_n[row] : 0;
    }
    for (int half = 0; half < 2; half++) {
        start_equations(model, work, work->thetas + 8 * half, to->fit[half].l, prior[half]);
        add_means(model, work, work->list, count, (const eight *)work->per_v + half, to->fit[half].l);
        to->logs[half] = logs + THETA_PRIORS * ((const eight *)work->log_thetas)[half];
        for (int32_t k = 0; k < count; k++)
            to->logs[half] += ((const eight *)work->logs)[2 * work->list[k] + half];
    }
    eliminate(
        model, work, (const eight *const[]){prior[0], prior[1]}, (Eliminated *const[]){&to->fit[0], &to->fit[1]});
}

/* Whether all the equations have all columns, so that they can be updated. */
INLINE bool can_update(const Spreads *of)
{
    const eight_masks whole = of->fit[0].whole & of->fit[1].whole;
    return ((whole[0] & whole[1]) & (whole[2] & whole[3])) & ((whole[4] & whole[5]) & (whole[6] & whole[7]));
}

/* Updates the equations: takes a pass back among those that are not free, or frees it. */
static void move_pass(const Model *model, const Work *work, int32_t row, bool frees, Spreads *of)
{
    const double sign = frees ? -1 : 1;
    for (int half = 0; half < 2; half++) {
        const eight s = sign * (((const eight *)work->thetas)[half] + 1 / work->n[row]);
        if (model->unknowns == USUAL_UNKNOWNS)
            update_of(USUAL_UNKNOWNS, work->means + row, work->stride, s, &of->fit[half]);
        else
            update_of(model->unknowns, work->means + row, work->stride, s, &of->fit[half]);
        of->fit[half].rss = larger(of->fit[half].rss, all(LEAST_RSS * work->weight));
        of->logs[half] += sign * (((const eight *)work->logs)[2 * row + half] - work->log_n[row]);
    }
}

/* Fills the likelihoods with so many passes free, and the place of the largest, which it returns. */
static double find_likelihoods(Work *work, int32_t free, const Spreads *of)
{
    work->freedom = fmax(work->weight - work->free_columns - free, 1);
    work->best = 0;
    for (int half = 0; half < 2; half++)
        ((eight *)work->likelihoods)[half] = -0.5
            * ((work->freedom * logarithm(of->fit[half].rss) + logarithm(of->fit[half].product)) + of->logs[half]);
    for (int k = 1; k < THETAS; k++)
        work->best = work->likelihoods[k] > work->likelihoods[work->best] ? k : work->best;
    work->rss = ((const double *)&of->fit[work->best / 8].rss)[work->best % 8];
    return work->likelihoods[work->best];
}

/* Takes the fit at the likeliest theta. */
static void take_best(const Model *model, const Work *work, const Spreads *of, Lane *to)
{
    take_lane(&of->fit[work->best / 8], model->unknowns, work->best % 8, to);
}
