# The numerical gradient: of any Python function, one element after the other, and of a network, from only what each
# perturbed parameter changes.
#
# A weight W[i, j] of an Affine layer is a factor of x[:, i] and of nothing else: it moves column j of the scores, in the
# rows where x is not 0, and the activation after it moves there too. The next Affine layer adds that change, times row j
# of its weights, to its own scores (a change of rank one), and only from there on is everything computed again. So the
# loss is the same, at the same perturbed points, as when each of them is computed from the beginning.
#
# Everything is float64, and lies transposed: a row here is a unit, and the examples stand side by side. Then a change
# that concerns one unit is contiguous, examples and perturbations alike fill vectors, also in a loss of ten classes, and
# examples that are not changed are left out. Changed examples of several perturbations make up a block, which goes
# through the rest of the network together, W.T @ block after W.T @ block.
#
# Batch normalisation couples the examples of a batch: before one, all of them are changed, and blocks hold whole batches.

def central_difference(f, x, double[::1] gradient, double h):
    """gradient[i] = (f(x with x[i] + h) - f(x with x[i] - h)) / (2 h), in the order of x.flat.

    x is perturbed in place, one element at a time, and restored, also when f raises.
    """
    cdef Py_ssize_t i
    cdef double above, below
    elements = x.flat
    for i in range(gradient.shape[0]):
        value = elements[i]
        try:
            elements[i] = value + h
            above = f(x)
            elements[i] = value - h
            below = f(x)
        finally:
            elements[i] = value
        gradient[i] = (above - below) / (2 * h)


cdef struct GradientStage:
    int64_t code            # PRODUCT, BATCH_NORMALIZATION, what `_map_in_place` takes or, last of all, a loss
    int64_t inputs, outputs
    int64_t next_mixed      # the next stage that is a product or the loss
    int64_t couples         # batch normalisation follows somewhere: a change of one example changes the others
    # Addresses of float64, all in rows of units: nothing perturbed, but for the gradients
    int64_t weights, bias   # (inputs, outputs), (outputs,); of batch normalisation gamma and beta
    int64_t x, y            # what goes in and comes out: (units, examples)
    int64_t normalized      # of batch normalisation: (units, examples)
    int64_t dweights, dbias
    int64_t kinks, bias_kinks   # int32, or 0: see `perturb`
    double setting          # slope, factor

cdef struct GradientItem:
    # What a thread takes on at a time: the weights from one input (or, if that is -1, the biases) to some units
    int64_t stage, source, first_unit, last_unit

cdef struct Segment:
    # Of a block: one perturbation
    Py_ssize_t unit, column, examples
    bint is_above

cdef struct Perturbed:
    # What all threads read
    const GradientStage* stages     # the last one is the loss
    Py_ssize_t count
    const GradientItem* items
    Py_ssize_t examples, row        # and elements from one unit to the next
    const int64_t* labels           # (examples,) of softmax
    const double* targets           # (outputs, examples) of the other losses
    double* losses                  # (examples,), nothing perturbed
    # Of softmax, nothing perturbed: (examples,), and twice (classes, examples)
    double* largest
    double* powers                  # exp(scores - largest)
    double* other_powers            # the sum of all but this class's
    double h, epsilon
    Py_ssize_t most_units, most_examples, block_columns, widest
    double* scratch
    Py_ssize_t scratch_size         # of each thread
    int32_t next_item               # nobody's yet
    Py_ssize_t item_count
    int64_t deadline
    nnfast_team team

cdef struct Bench:
    # A thread's own
    double* changes         # (2 * units, examples): first the changed values, then what has changed
    double* factors         # (examples,): how far a change of the parameter moves each
    double* scores          # (outputs of the next product, examples)
    double* block           # (units, columns), and another one
    double* other_block
    double* losses          # (columns,)
    double* largest
    double* total
    double* differences     # (units,): of the losses above and below
    int64_t* examples       # (examples,): which these are
    int64_t* block_examples # (columns,)
    Segment* segments
    Py_ssize_t segment_count, columns

cdef enum:
    VECTOR_OF_EXAMPLES = 8  # that changed examples are filled up to; of every build's vectors a multiple


cdef inline double* _values(int64_t address) noexcept nogil:
    return <double*><uintptr_t>address


# Losses: one for each column of scores (outputs, columns), for the example that the column is of

cdef void _softmax_losses(
    const double* scores, Py_ssize_t row, Py_ssize_t classes, Py_ssize_t columns, const int64_t* labels,
    const int64_t* examples, double epsilon, double* largest, double* total, double* losses,
) noexcept nogil:
    cdef Py_ssize_t c, j
    for j in range(columns):
        largest[j] = scores[j]
        total[j] = 0
    for c in range(1, classes):
        for j in range(columns):
            largest[j] = scores[c * row + j] if scores[c * row + j] > largest[j] else largest[j]
    for c in range(classes):
        for j in range(columns):
            total[j] += _exp(scores[c * row + j] - largest[j])
    for j in range(columns):
        losses[j] = scores[labels[examples[j]] * row + j] - largest[j]
    _cross_entropies(total, columns, epsilon, losses)


cdef void _cross_entropies(const double* total, Py_ssize_t n, double epsilon, double* losses) noexcept nogil:
    """losses = -log(exp(losses) / total + epsilon), losses being the label's scores."""
    cdef Py_ssize_t j
    if epsilon > 0:
        for j in range(n):
            losses[j] = -_log(_exp(losses[j]) / total[j] + epsilon)
    else:   # also where the probability is too small for a float64
        for j in range(n):
            losses[j] = _log(total[j]) - losses[j]


cdef inline double _sigmoid_loss(double score, double t) noexcept nogil:
    """-t log(y) - (1 - t) log(1 - y), y = sigmoid(score). log(1 + e) with all digits of a small e as W. Kahan does it."""
    cdef double e = _exp(-fabs(score)), u = 1. + e, ratio
    ratio = e / (u - 1.) if u != 1. else 1.
    return (score if score > 0. else 0.) - score * t + (_log(u) * ratio if u != 1. else e)


cdef void _losses_of_columns(
    const Perturbed* all, const double* scores, Py_ssize_t row, Py_ssize_t columns, const int64_t* examples,
    double* largest, double* total, double* losses,
) noexcept nogil:
    cdef const GradientStage* loss = all.stages + all.count - 1
    cdef const double* t
    cdef Py_ssize_t o, j
    if loss.code == SOFTMAX_LOSS:
        _softmax_losses(scores, row, loss.inputs, columns, all.labels, examples, all.epsilon, largest, total, losses)
        return
    for j in range(columns):
        losses[j] = 0
    for o in range(loss.inputs):
        t = all.targets + o * all.row
        if loss.code == SIGMOID_LOSS:
            for j in range(columns):
                losses[j] += _sigmoid_loss(scores[o * row + j], t[examples[j]])
        else:
            for j in range(columns):
                losses[j] += 0.5 * (scores[o * row + j] - t[examples[j]]) * (scores[o * row + j] - t[examples[j]])


# Nothing perturbed

cdef void _multiply_columns(
    const GradientStage* stage, const double* x, double* y, Py_ssize_t row, Py_ssize_t columns,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Units first to last of y (outputs, columns) = W.T @ x (inputs, columns) + bias. columns: whole vectors."""
    cdef Product product = _plan_product(stage.outputs, columns, stage.inputs, 1, stage.outputs, row, 1, y, 1)
    cdef const double* bias = _values(stage.bias)
    cdef Py_ssize_t unit, j
    product.b_in_place, product.c_row = True, row
    # No panel is copied.
    _product_of_rows(&product, <const double*>_values(stage.weights), x, x, <const double*>NULL, y, first, last)
    for unit in range(first, last):
        for j in range(columns):
            y[unit * row + j] += bias[unit]


cdef void _normalize_unit(
    double* y, double* normalized, Py_ssize_t n, double gamma, double beta
) noexcept nogil:
    """y (n,) = gamma * normalized + beta, normalized = (y - mean) / sqrt(variance + 1e-6). They may be the same array."""
    cdef double mean = _total(y, n) / n, variance = 0, deviation
    cdef double parts[LANES]
    cdef Py_ssize_t i, j
    for j in range(LANES):
        parts[j] = 0
    for i in range(n // LANES):
        for j in range(LANES):
            parts[j] += (y[i * LANES + j] - mean) * (y[i * LANES + j] - mean)
    for i in range(n // LANES * LANES, n):
        parts[0] += (y[i] - mean) * (y[i] - mean)
    for j in range(LANES):
        variance += parts[j]
    deviation = sqrt(variance / n + 1e-6)
    for i in range(n):
        normalized[i] = (y[i] - mean) / deviation
        y[i] = gamma * normalized[i] + beta


cdef void _evaluate_share(Perturbed* all, int share, int shares) noexcept nogil:
    """What one thread does of the forward pass: its units of every stage, then its examples' losses."""
    cdef const GradientStage* stage
    cdef const double* scores
    cdef double* y
    cdef Py_ssize_t place, unit, first, last, vectors = all.row // VECTOR_OF_EXAMPLES
    for place in range(all.count - 1):
        stage = all.stages + place
        first, last = stage.outputs * share // shares, stage.outputs * (share + 1) // shares
        y = _values(stage.y)
        if stage.code == PRODUCT:
            nnfast_wait(&all.team.barrier, shares)
            _multiply_columns(stage, _values(stage.x), y, all.row, all.row, first, last)
            continue
        memcpy(y + first * all.row, _values(stage.x) + first * all.row, (last - first) * all.row * sizeof(y[0]))
        if stage.code == BATCH_NORMALIZATION:
            for unit in range(first, last):
                _normalize_unit(y + unit * all.row, _values(stage.normalized) + unit * all.row, all.examples,
                                _values(stage.weights)[unit], _values(stage.bias)[unit])
        else:
            _map_in_place(stage.code, stage.setting, y + first * all.row, (last - first) * all.row)
    nnfast_wait(&all.team.barrier, shares)
    first = vectors * share // shares * VECTOR_OF_EXAMPLES
    last = vectors * (share + 1) // shares * VECTOR_OF_EXAMPLES
    last = last if last < all.examples else all.examples
    stage = all.stages + all.count - 1
    scores = _values(stage.x)
    while first < last:
        unit = last - first if last - first < all.block_columns else all.block_columns
        _losses_of_examples(all, stage, scores, first, unit, all.scratch + share * all.scratch_size)
        first = first + unit


cdef void _losses_of_examples(
    const Perturbed* all, const GradientStage* loss, const double* scores, Py_ssize_t first, Py_ssize_t n, double* scratch
) noexcept nogil:
    """The losses of n examples from first on and, for softmax, the tables of its powers."""
    cdef double* total = scratch
    cdef int64_t* examples = <int64_t*>(scratch + all.block_columns)
    cdef double* largest = all.largest + first
    cdef double* powers
    cdef double* others
    cdef Py_ssize_t c, j
    for j in range(n):
        examples[j] = first + j
    _losses_of_columns(all, scores + first, all.row, n, examples, largest, total, all.losses + first)
    if loss.code != SOFTMAX_LOSS:
        return
    # The sum of all powers but one, from both ends: the sum of all minus that one would lose the digits of small ones.
    for j in range(n):
        total[j] = 0
    for c in range(loss.inputs):
        powers, others = all.powers + c * all.row + first, all.other_powers + c * all.row + first
        for j in range(n):
            powers[j] = _exp(scores[c * all.row + first + j] - largest[j])
            others[j] = total[j]
            total[j] += powers[j]
    for j in range(n):
        total[j] = 0
    for c in range(loss.inputs - 1, -1, -1):
        powers, others = all.powers + c * all.row + first, all.other_powers + c * all.row + first
        for j in range(n):
            others[j] += total[j]
            total[j] += powers[j]


def evaluate(
    const GradientStage[::1] stages,
    const double[:, ::1] x,         # in   (I, row)         the examples side by side, then zeros up to a whole vector
    const int64_t[::1] labels,      # in   (B,)
    const double[:, ::1] targets,   # in   (O, row)
    double[::1] losses,             # out  (B,)
    double[:, ::1] powers,          # out  (2 C + 1, row)   of softmax
    double[::1] scratch,            # a thread's 2 * block_columns
    double epsilon,
    Py_ssize_t block_columns,
    int num_threads,
):
    """Every stage's y from x, and the loss of each example."""
    cdef Perturbed all
    all.stages, all.count = &stages[0], stages.shape[0]
    all.row, all.examples = x.shape[1], losses.shape[0]
    all.labels, all.targets, all.losses = &labels[0], &targets[0, 0], &losses[0]
    _set_powers(&all, &powers[0, 0])
    all.epsilon, all.block_columns = epsilon, block_columns
    all.scratch, all.scratch_size = &scratch[0], 2 * block_columns
    with nogil:
        if nnfast_assemble(&all.team, num_threads) == 1:
            _evaluate_share(&all, 0, 1)
        else:
            with parallel(num_threads=num_threads):
                _evaluate_share(&all, nnfast_thread_number(), nnfast_team_size())
                nnfast_leave(&all.team)
            nnfast_disband(&all.team)


cdef inline void _set_powers(Perturbed* all, double* powers) noexcept nogil:
    all.largest = powers
    all.powers = powers + all.row
    all.other_powers = powers + (1 + all.stages[all.count - 1].inputs) * all.row


# One unit perturbed

cdef Py_ssize_t _changed_examples(
    const Perturbed* all, const GradientItem* item, Py_ssize_t* next, int64_t* examples, double* factors
) noexcept nogil:
    """Some of the examples that a parameter changes, from next on, and how far: it is a factor of that.

    Returns how many they are. A vector is filled up with the first example, which is not changed.
    """
    cdef const GradientStage* stage = all.stages + item.stage
    cdef const double* x = NULL
    cdef Py_ssize_t n = 0, example = next[0], i
    if stage.code == PRODUCT and item.source >= 0:
        x = _values(stage.x) + item.source * all.row
    while example < all.examples and n < all.most_examples:
        examples[n] = example
        factors[n] = 1. if x == NULL else x[example]
        n = n + 1 if stage.couples or factors[n] != 0 else n
        example = example + 1
    next[0] = example
    for i in range(n, _in_whole(n, VECTOR_OF_EXAMPLES)):
        examples[i] = 0
        factors[i] = 0
    return n


cdef inline bint _crosses(const double* x, const double* before, const int64_t* examples, Py_ssize_t n) noexcept nogil:
    """Whether x (n,) is on the other side of 0 than before, in any example."""
    cdef Py_ssize_t j
    cdef bint crosses = False
    for j in range(n):
        crosses = crosses or (x[j] > 0) != (before[examples[j]] > 0)
    return crosses


cdef inline bint _has_kink(const GradientStage* stage) noexcept nogil:
    return stage.code == RELU or stage.code == LEAKY_RELU


cdef void _mark(const GradientStage* stage, const GradientItem* item, Py_ssize_t unit, Py_ssize_t place) noexcept nogil:
    """That stage `place` has a kink within h of a parameter, unless an earlier one has."""
    cdef int32_t* kinks
    if item.source < 0:
        kinks = <int32_t*><uintptr_t>stage.bias_kinks + unit
    else:
        kinks = <int32_t*><uintptr_t>stage.kinks + item.source * stage.outputs + unit
    if kinks[0] < 0:
        kinks[0] = <int32_t>place


cdef inline double _parameter(const GradientStage* stage, const GradientItem* item, Py_ssize_t unit) noexcept nogil:
    if item.source < 0:
        return _values(stage.bias)[unit]
    return _values(stage.weights)[(item.source * stage.outputs if stage.code == PRODUCT else 0) + unit]


cdef void _perturb_unit(
    const Perturbed* all, const GradientItem* item, const Bench* bench, Py_ssize_t unit, Py_ssize_t n, double* changed
) noexcept nogil:
    """changed (2, n): the values of a unit of the item's stage, its parameter h above and h below.

    h as it is after rounding, as if the parameter had been replaced.
    """
    cdef const GradientStage* stage = all.stages + item.stage
    cdef const double* y = _values(stage.y) + unit * all.row
    cdef const double* normalized = _values(stage.normalized) + unit * all.row
    cdef double value = _parameter(stage, item, unit)
    cdef double above = (value + all.h) - value, below = value - (value - all.h)
    cdef Py_ssize_t j
    if stage.code == BATCH_NORMALIZATION and item.source >= 0:
        for j in range(n):
            changed[j] = y[bench.examples[j]] + above * normalized[bench.examples[j]]
            changed[n + j] = y[bench.examples[j]] - below * normalized[bench.examples[j]]
    else:
        for j in range(n):
            changed[j] = y[bench.examples[j]] + above * bench.factors[j]
            changed[n + j] = y[bench.examples[j]] - below * bench.factors[j]


cdef void _follow_units(
    const Perturbed* all, const GradientItem* item, const Bench* bench, Py_ssize_t n, Py_ssize_t examples, bint marks
) noexcept nogil:
    """The changed units through the stages that leave them apart, up to the next product or the loss."""
    cdef const GradientStage* stage
    cdef Py_ssize_t units = item.last_unit - item.first_unit, place, q, unit
    for place in range(item.stage + 1, all.stages[item.stage].next_mixed):
        stage = all.stages + place
        if marks and _has_kink(stage):
            for q in range(2 * units):
                unit = item.first_unit + q // 2
                if _crosses(bench.changes + q * n, _values(stage.x) + unit * all.row, bench.examples, examples):
                    _mark(all.stages + item.stage, item, unit, place)
        if stage.code == BATCH_NORMALIZATION:
            for q in range(2 * units):
                unit = item.first_unit + q // 2
                _normalize_unit(bench.changes + q * n, bench.changes + q * n, all.examples,
                                _values(stage.weights)[unit], _values(stage.bias)[unit])
        else:
            _map_in_place(stage.code, stage.setting, bench.changes, 2 * units * n)


cdef void _difference_of_softmax(
    const Perturbed* all, const Bench* bench, Py_ssize_t unit, Py_ssize_t n, const double* scores, double* losses
) noexcept nogil:
    """losses (n,) with the scores of one class changed: of the other classes only the sum of their powers counts."""
    cdef const double* powers = all.powers
    cdef const double* others = all.other_powers + unit * all.row
    cdef Py_ssize_t j, example, label
    cdef double d, own
    for j in range(n):
        example = bench.examples[j]
        d = scores[j] - all.largest[example]
        own = _exp(-fabs(d))    # the larger one of the powers of d and 0 is 1
        bench.total[j] = others[example] * own + 1. if d > 0. else others[example] + own
    for j in range(n):
        example = bench.examples[j]
        label = all.labels[example]
        d = scores[j] - all.largest[example]
        own = d if label == unit else _values(all.stages[all.count - 1].x)[label * all.row + example] - all.largest[example]
        losses[j] = own - (d if d > 0. else 0.)
    _cross_entropies(bench.total, n, all.epsilon, losses)


cdef double _difference_of_column(
    const Perturbed* all, const Bench* bench, Py_ssize_t unit, Py_ssize_t n, Py_ssize_t examples, const double* scores
) noexcept nogil:
    """How far the losses of all examples move when one output's scores are these."""
    cdef const GradientStage* loss = all.stages + all.count - 1
    cdef const double* t = all.targets + unit * all.row
    cdef const double* before = _values(loss.x) + unit * all.row
    cdef double* losses = bench.losses
    cdef Py_ssize_t j, example
    cdef double a, b
    if loss.code == SOFTMAX_LOSS:
        _difference_of_softmax(all, bench, unit, n, scores, losses)
        for j in range(n):
            losses[j] -= all.losses[bench.examples[j]]
    elif loss.code == SIGMOID_LOSS:
        for j in range(n):
            example = bench.examples[j]
            losses[j] = _sigmoid_loss(scores[j], t[example]) - _sigmoid_loss(before[example], t[example])
    else:
        for j in range(n):
            example = bench.examples[j]
            a, b = scores[j] - t[example], before[example] - t[example]
            losses[j] = 0.5 * a * a - 0.5 * b * b
    return _total(losses, examples)


# A block of changed examples

cdef void _add_to_block(
    const Perturbed* all, const GradientStage* mixed, Bench* bench, Py_ssize_t unit, const double* change, Py_ssize_t n,
    Py_ssize_t examples, bint is_above, Py_ssize_t relative_unit,
) noexcept nogil:
    """The scores of a product, in which one input has changed, at the end of the block."""
    cdef const double* weights = _values(mixed.weights) + unit * mixed.outputs
    cdef double* block = bench.block + bench.columns
    cdef Segment* segment = bench.segments + bench.segment_count
    cdef Py_ssize_t o, j
    cdef double weight
    for o in range(mixed.outputs):
        weight = weights[o]
        for j in range(n):
            block[o * all.block_columns + j] = bench.scores[o * all.most_examples + j] + change[j] * weight
    for j in range(n):
        bench.block_examples[bench.columns + j] = bench.examples[j]
    segment.unit, segment.column, segment.examples, segment.is_above = relative_unit, bench.columns, examples, is_above
    bench.segment_count = bench.segment_count + 1
    bench.columns = bench.columns + n


cdef void _mark_crossings(
    const Perturbed* all, const GradientItem* item, const Bench* bench, const double* block, Py_ssize_t place
) noexcept nogil:
    cdef const GradientStage* stage = all.stages + place
    cdef const Segment* segment
    cdef Py_ssize_t s, o
    for s in range(bench.segment_count):
        segment = bench.segments + s
        for o in range(stage.outputs):
            if _crosses(block + o * all.block_columns + segment.column, _values(stage.x) + o * all.row,
                        bench.block_examples + segment.column, segment.examples):
                _mark(all.stages + item.stage, item, item.first_unit + segment.unit, place)
                break


cdef void _finish_block(const Perturbed* all, const GradientItem* item, Bench* bench, bint marks) noexcept nogil:
    """The block through what follows its product, and its losses to the perturbations that they are of."""
    cdef const GradientStage* stage
    cdef const Segment* segment
    cdef double* block = bench.block
    cdef double* other = bench.other_block
    cdef double* losses = bench.losses
    cdef Py_ssize_t place, s, o, j, row = all.block_columns
    cdef double difference
    for place in range(all.stages[item.stage].next_mixed + 1, all.count - 1):
        stage = all.stages + place
        if marks and _has_kink(stage):
            _mark_crossings(all, item, bench, block, place)
        if stage.code == PRODUCT:
            _multiply_columns(stage, block, other, row, bench.columns, 0, stage.outputs)
            block, other = other, block
        elif stage.code == BATCH_NORMALIZATION:
            for s in range(bench.segment_count):
                for o in range(stage.outputs):
                    _normalize_unit(block + o * row + bench.segments[s].column,
                                    block + o * row + bench.segments[s].column, all.examples,
                                    _values(stage.weights)[o], _values(stage.bias)[o])
        else:
            for o in range(stage.outputs):
                _map_in_place(stage.code, stage.setting, block + o * row, bench.columns)
    _losses_of_columns(all, block, row, bench.columns, bench.block_examples, bench.largest, bench.total, losses)
    for j in range(bench.columns):
        losses[j] -= all.losses[bench.block_examples[j]]
    for s in range(bench.segment_count):
        segment = bench.segments + s
        difference = _total(losses + segment.column, segment.examples)
        if segment.is_above:
            bench.differences[segment.unit] += difference
        else:
            bench.differences[segment.unit] -= difference
    bench.segment_count = bench.columns = 0


cdef bint _all_zero(const double* x, Py_ssize_t n) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t j
    for j in range(n):
        if x[j] != 0:
            return False
    return True


cdef void _mix_units(
    const Perturbed* all, const GradientItem* item, Bench* bench, Py_ssize_t n, Py_ssize_t examples, bint marks
) noexcept nogil:
    """What changed units make of the next product and of all that follows."""
    cdef const GradientStage* mixed = all.stages + all.stages[item.stage].next_mixed
    cdef const double* x
    cdef double* change
    cdef Py_ssize_t o, j, q, unit
    for o in range(mixed.outputs):
        x = _values(mixed.y) + o * all.row
        for j in range(n):
            bench.scores[o * all.most_examples + j] = x[bench.examples[j]]
    for q in range(2 * (item.last_unit - item.first_unit)):
        unit = item.first_unit + q // 2
        change = bench.changes + q * n
        x = _values(mixed.x) + unit * all.row
        for j in range(n):
            change[j] -= x[bench.examples[j]]
        if _all_zero(change, examples):
            continue
        if bench.columns + n > all.block_columns:
            _finish_block(all, item, bench, marks)
        _add_to_block(all, mixed, bench, unit, change, n, examples, q % 2 == 0, q // 2)
    if bench.columns:
        _finish_block(all, item, bench, marks)


cdef void _perturb_item(const Perturbed* all, const GradientItem* item, Bench* bench) noexcept nogil:
    cdef const GradientStage* stage = all.stages + item.stage
    cdef Py_ssize_t units = item.last_unit - item.first_unit, next = 0, n, examples, unit
    cdef bint marks = stage.kinks != 0
    cdef double* gradient = _values(stage.dbias) if item.source < 0 else _values(stage.dweights)
    for unit in range(units):
        bench.differences[unit] = 0
    while next < all.examples:
        examples = _changed_examples(all, item, &next, bench.examples, bench.factors)
        n = _in_whole(examples, VECTOR_OF_EXAMPLES)
        if n == 0:
            continue
        for unit in range(units):
            _perturb_unit(all, item, bench, item.first_unit + unit, n, bench.changes + 2 * unit * n)
        _follow_units(all, item, bench, n, examples, marks)
        if stage.next_mixed < all.count - 1:
            _mix_units(all, item, bench, n, examples, marks)
            continue
        for unit in range(units):
            bench.differences[unit] += _difference_of_column(
                all, bench, item.first_unit + unit, n, examples, bench.changes + 2 * unit * n)
            bench.differences[unit] -= _difference_of_column(
                all, bench, item.first_unit + unit, n, examples, bench.changes + (2 * unit + 1) * n)
    if item.source > 0:
        gradient = gradient + item.source * stage.outputs
    for unit in range(units):
        gradient[item.first_unit + unit] = bench.differences[unit] / all.examples / (2 * all.h)


cdef void _perturb_share(Perturbed* all, int share) noexcept nogil:
    """What one thread does: whatever items are left, until time is over."""
    cdef Bench bench
    cdef Py_ssize_t number
    _lay_out(all, all.scratch + share * all.scratch_size, &bench)
    while nnfast_clock() < all.deadline:
        number = nnfast_increment(&all.next_item) - 1
        if number >= all.item_count:
            return
        _perturb_item(all, all.items + number, &bench)


cdef Py_ssize_t _lay_out(const Perturbed* all, double* memory, Bench* bench) noexcept nogil:
    """A thread's arrays in its memory; returns their size in elements."""
    cdef Py_ssize_t columns = all.block_columns, examples = all.most_examples
    cdef Py_ssize_t most = columns if columns > examples else examples
    cdef double* end = memory
    bench.segment_count = bench.columns = 0
    bench.changes, end = end, end + 2 * all.most_units * examples
    bench.scores, end = end, end + all.widest * examples
    bench.block, end = end, end + all.widest * columns
    bench.other_block, end = end, end + all.widest * columns
    bench.losses, end = end, end + most
    bench.largest, end = end, end + most
    bench.total, end = end, end + most
    bench.factors, end = end, end + examples
    bench.examples, end = <int64_t*>end, end + examples
    bench.block_examples, end = <int64_t*>end, end + columns
    bench.segments = <Segment*>end
    end = end + columns // VECTOR_OF_EXAMPLES * (sizeof(Segment) // sizeof(double))
    bench.differences, end = end, end + _in_whole(all.most_units, VECTOR_OF_EXAMPLES)
    return end - memory


def perturbation_scratch(Py_ssize_t most_units, Py_ssize_t most_examples, Py_ssize_t block_columns, Py_ssize_t widest):
    """Elements of scratch memory that each thread of `perturb` needs."""
    cdef Perturbed all
    cdef Bench bench
    cdef double nothing
    all.most_units, all.most_examples = most_units, most_examples
    all.block_columns, all.widest = block_columns, widest
    return _lay_out(&all, &nothing, &bench)


def perturb(
    const GradientStage[::1] stages,
    const GradientItem[::1] items,
    const int64_t[::1] labels,      # in   (B,)             of softmax
    const double[:, ::1] targets,   # in   (O, row)         of the other losses
    double[::1] losses,             # in   (B,)             as `evaluate` left them
    double[:, ::1] powers,          # in   (2 C + 1, row)   likewise
    double[::1] scratch,
    double h,
    double epsilon,                 # inside the logarithm of softmax's cross-entropy
    Py_ssize_t most_units,          # of an item
    Py_ssize_t most_examples,       # at a time; all of them, in whole vectors, where a stage couples them
    Py_ssize_t block_columns,       # at least as many
    Py_ssize_t widest,              # outputs of a stage
    Py_ssize_t first_item,
    double seconds,
    int num_threads,
):
    """The gradients of each item's parameters; returns the first item that is left to do when time is over.

    Where asked for, also for each parameter the first ReLU that has a kink within h: -1 is none, and must be there.
    """
    cdef Perturbed all
    all.stages, all.count = &stages[0], stages.shape[0]
    all.items, all.item_count, all.next_item = &items[0], items.shape[0], <int32_t>first_item
    all.row, all.examples = powers.shape[1], losses.shape[0]
    all.labels, all.targets, all.losses = &labels[0], &targets[0, 0], &losses[0]
    _set_powers(&all, &powers[0, 0])
    all.h, all.epsilon = h, epsilon
    all.most_units, all.most_examples, all.block_columns, all.widest = most_units, most_examples, block_columns, widest
    all.scratch, all.scratch_size = _aligned(&scratch[0]), (scratch.shape[0] - 8) // num_threads // 8 * 8
    all.deadline = nnfast_clock() + <int64_t>(seconds * 1e9)
    with nogil:
        if nnfast_assemble(&all.team, num_threads) == 1:
            _perturb_share(&all, 0)
        else:
            with parallel(num_threads=num_threads):
                _perturb_share(&all, nnfast_thread_number())
                nnfast_leave(&all.team)
            nnfast_disband(&all.team)
    return min(all.next_item, items.shape[0])
