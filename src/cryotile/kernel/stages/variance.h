/* theta, the variance of the offsets of passes in units of that of points: its likelihood at THETAS values. */

static const double LEAST_THETA = 0.1; /* over the mean number of points of a pass */
static const double THETA_STEPS[THETAS] = {
    1.0, 2.51188643150958, 6.309573444801933, 15.848931924611133, 39.810717055349734, 100.0, 251.18864315095797,
    630.957344480193, 1584.893192461114, 3981.0717055349733, 10000.0, 25118.864315095823, 63095.7344480193,
    158489.3192461114, 398107.1705534969, 1000000.0};
enum { THETA_PRIORS = 3 }; /* coefficients whose prior has theta */

/* The equations at all values of theta, with some passes free. */
typedef struct {
    eight a[2][MAX_PRODUCTS], prior[2][MAX_UNKNOWNS];
    eight logs[2]; /* sum of ln(1 + n theta) over the others and of ln n over free passes, and 3 ln theta */
    Eliminated fit[2];
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

/* Adds passes that are not free. */
static void add_passes(const Model *model, const Work *work, const int32_t *list, int32_t count, Spreads *to)
{
    for (int half = 0; half < 2; half++) {
        add_means(model, work, list, count, (const eight *)work->per_v + half, 2, 1, to->a[half]);
        for (int32_t k = 0; k < count; k++)
            to->logs[half] += ((const eight *)work->logs)[2 * list[k] + half];
    }
}

/* Frees a pass. */
static void free_pass(const Model *model, const Work *work, int32_t row, Spreads *of)
{
    for (int half = 0; half < 2; half++) {
        add_means(model, work, &row, 1, (const eight *)work->per_v + half, 2, -1, of->a[half]);
        of->logs[half] += work->log_n[row] - ((const eight *)work->logs)[2 * row + half];
    }
}

/* Sums the equations with some passes free. */
static void sum_spreads(const Model *model, Work *work, const uint8_t *free, Spreads *to)
{
    int32_t count = 0;
    double logs = 0;
    for (int32_t row = 0; row < work->passes; row++) {
        work->list[count] = row;
        count += !free[row];
        logs += free[row] ? work->log_n[row] : 0;
    }
    for (int half = 0; half < 2; half++) {
        start_equations(model, work, work->thetas + 8 * half, to->a[half], to->prior[half]);
        to->logs[half] = logs + THETA_PRIORS * ((const eight *)work->log_thetas)[half];
    }
    add_passes(model, work, work->list, count, to);
}

/* Solves the equations with so many passes free; fills the likelihoods and the place of the largest, which it returns. */
static double find_likelihoods(const Model *model, Work *work, int32_t free, Spreads *of)
{
    work->freedom = fmax(work->weight - work->free_columns - free, 1);
    work->best = 0;
    eliminate(
        model, work, (const eight *const[]){of->a[0], of->a[1]}, (const eight *const[]){of->prior[0], of->prior[1]},
        (Eliminated *const[]){&of->fit[0], &of->fit[1]});
    for (int half = 0; half < 2; half++)
        ((eight *)work->likelihoods)[half] = -0.5
            * ((work->freedom * logarithm(of->fit[half].rss) + logarithm(of->fit[half].product)) + of->logs[half]);
    for (int k = 1; k < THETAS; k++)
        work->best = work->likelihoods[k] > work->likelihoods[work->best] ? k : work->best;
    work->rss = ((const double *)&of->fit[work->best / 8].rss)[work->best % 8];
    return work->likelihoods[work->best];
}

/* Finds leverage and residual at the likeliest theta of all passes, or of some that include the chosen ones. */
static void find_best_leverages(const Model *model, Work *work, const Spreads *of, const uint8_t *chosen)
{
    Lane fit;
    take_lane(&of->fit[work->best / 8], model->unknowns, work->best % 8, &fit);
    find_leverages(model, &fit, chosen, work);
}
