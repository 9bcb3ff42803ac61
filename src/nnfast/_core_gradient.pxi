# The numerical gradient: of any Python function, one element after the other, and of a network, from only what each
# perturbed parameter changes.
#
# A weight W[i, j] of an Affine layer is a factor of x[:, i] and of nothing else: it moves column j of the scores, in
# the rows where x is not 0, and the activation after it moves there too. The next Affine layer adds that change, times
# row j of its weights, to its own scores (a change of rank one), and only from there on is everything computed again.
# So the loss is the same, at the same perturbed points, as when each of them is computed from the beginning.
#
# How an example's loss moves depends on which of its inputs it is only through the input's value. So a value that an
# example has several times (of MNIST's pixels that are not 0, 146 an image, 65 are different) is tried once for each
# unit. A *pair* is an example with one of its values; the bias has an input too, 1. Each weight's gradient is then the
# sum of what its pairs gave.
#
# Everything is float64, and lies transposed: a row here is a unit, and the examples or pairs stand side by side as
# *lanes*. Then what concerns one unit is contiguous, and vectors are full also in a loss of ten classes. The lanes that
# several perturbations have changed make up a block, which goes through the rest of the network together, W.T @ block
# after W.T @ block; those that a ReLU keeps still are left out, in groups of eight.
#
# Batch normalisation couples the examples of a batch. What comes before one is perturbed weight by weight, with all
# examples as lanes, and blocks hold whole batches.

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


cdef enum:
    GROUP_OF_LANES = 8      # of every build's vectors a multiple

cdef struct GradientStage:
    int64_t code            # PRODUCT, BATCH_NORMALIZATION, what `_map_in_place` takes or, last of all, a loss
    int64_t inputs, outputs
    int64_t next_mixed      # the next stage that is a product or the loss
    # Which of the arrays given and, in compiled code, addresses: float64 in rows of units, nothing perturbed
    int64_t weights, bias   # (inputs, outputs), (outputs,); gamma and beta; of a loss of residuals its parameters, none
    int64_t x, y            # what goes in and comes out: (units, examples)
    int64_t normalized      # of batch normalisation: (units, examples)
    double setting          # slope, factor, smoothing


cdef class GradientChain:
    """The stages of a network with a batch in them, their arrays and the labels, checked once."""
    cdef GradientStage* stages
    cdef Py_ssize_t count
    cdef Arrays arrays              # kept alive
    cdef Py_ssize_t examples, row   # and elements from one unit to the next
    cdef int64_t* labels            # (examples,) of softmax, a copy
    cdef Py_ssize_t widest          # outputs of a stage
    cdef Py_ssize_t last_normalization      # the place of the last one, -1 if there is none

    def __cinit__(
        self,
        const GradientStage[::1] stages,
        Arrays arrays not None,
        const int64_t[::1] labels,      # in   (B,)     empty where the loss takes targets
        Py_ssize_t examples,
        Py_ssize_t row,
    ):
        cdef Py_ssize_t place, next_mixed = stages.shape[0] - 1
        cdef bint is_outside = False
        _must(stages.shape[0] > 0, "there are no stages")
        _must(0 < examples <= row <= MOST_COLUMNS, "there are no examples, or more than a row has room for")
        _must(row % GROUP_OF_LANES == 0, "a row is no whole groups")
        self.stages = <GradientStage*>PyMem_Calloc(stages.shape[0], sizeof(GradientStage))
        self.labels = <int64_t*>PyMem_Calloc(examples, sizeof(int64_t))
        if self.stages == NULL or self.labels == NULL:
            raise MemoryError()
        self.count, self.arrays, self.examples, self.row = stages.shape[0], arrays, examples, row
        self.last_normalization = -1
        for place in range(self.count):
            self.stages[place] = stages[place]
            _must(place == 0 or stages[place].inputs == stages[place - 1].outputs,
                  "a stage does not follow from the one before")
            self._check_stage(self.stages + place, is_last=place == self.count - 1)
            self.widest = max(self.widest, stages[place].outputs)
            if stages[place].code == BATCH_NORMALIZATION:
                self.last_normalization = place
        for place in range(self.count - 1, -1, -1):
            _must(place == self.count - 1 or stages[place].next_mixed == next_mixed, "next_mixed is another stage")
            next_mixed = place if stages[place].code == PRODUCT else next_mixed
        if self.stages[self.count - 1].code == SOFTMAX_LOSS:
            _check_length("labels", labels.shape[0], examples)
            for place in range(examples):
                self.labels[place] = _inside(labels[place], self.stages[self.count - 1].inputs, &is_outside)
            _check_indices("labels", is_outside, self.stages[self.count - 1].inputs)

    def __dealloc__(self):
        PyMem_Free(self.stages)
        PyMem_Free(self.labels)

    cdef int _check_stage(self, GradientStage* stage, bint is_last) except -1:
        """That a stage stays inside its arrays; it then has addresses of them."""
        cdef int64_t inputs = stage.inputs, outputs = stage.outputs
        cdef bint has_parameters = stage.code == PRODUCT or stage.code == BATCH_NORMALIZATION
        if is_last:
            _must(SOFTMAX_LOSS <= stage.code <= POISSON_LOSS, "the last stage is no loss")
        else:
            _must(has_parameters or stage.code == SCALE or RELU <= stage.code <= GELU, "a stage has no such code")
        _must(0 <= inputs <= MOST_COLUMNS and 0 <= outputs <= MOST_COLUMNS, "a stage has no such number of units")
        _must(stage.code == PRODUCT or inputs == outputs, "a stage changes the number of units")
        stage.x = self.arrays.address("x", stage.x, inputs, self.row, sizeof(double), False)
        if is_last:
            if _is_of_residuals(stage.code):
                stage.weights = self.arrays.address("weights", stage.weights, 1, outputs, sizeof(double), False)
            return 0
        stage.y = self.arrays.address("y", stage.y, outputs, self.row, sizeof(double), True)
        if has_parameters:
            stage.weights = self.arrays.address(
                "weights", stage.weights, inputs if stage.code == PRODUCT else 1, outputs, sizeof(double), False)
            stage.bias = self.arrays.address("bias", stage.bias, 1, outputs, sizeof(double), False)
        if stage.code == BATCH_NORMALIZATION:
            stage.normalized = self.arrays.address(
                "normalized", stage.normalized, outputs, self.row, sizeof(double), True)
        return 0


cdef struct GradientItem:
    # What a thread takes on at a time: some units of a stage; of all weights some pairs or, if there are none, of one
    # weight to each unit (the bias, if source is -1) all examples
    int64_t stage, source, first_unit, last_unit, first_pair, last_pair

cdef struct Segment:
    # Of a block: lanes of one perturbation that follow each other
    Py_ssize_t unit, lane, column, lanes
    double sign             # of the perturbation

cdef struct Perturbed:
    # What all threads read
    const GradientStage* stages     # the last one is the loss
    Py_ssize_t count
    Py_ssize_t last_normalization   # a stage, or -1
    const GradientItem* items
    Py_ssize_t examples, row        # and elements from one unit to the next
    const int64_t* labels           # (examples,) of softmax
    const double* targets           # (outputs, examples) of the other losses
    double* losses                  # (examples,), nothing perturbed
    # Of softmax, nothing perturbed: (examples,), twice (classes, examples), and (examples,)
    double* largest
    double* powers                  # exp(scores - largest)
    double* other_powers            # the sum of all but this class's
    double* means                   # of scores - largest
    const int64_t* pair_examples    # (pairs,)
    const double* pair_values
    Py_ssize_t pairs
    Py_ssize_t rows, columns        # of differences, and of kinks
    double* differences             # out (pairs or sources, units of the stage): of the losses above and below
    int32_t* kinks                  # out likewise, or NULL: the first stage with a kink that was crossed, else count
    double h, epsilon
    Py_ssize_t most_units, most_lanes, block_columns, widest
    double* scratch
    Py_ssize_t scratch_size         # of each thread
    bint* is_outside                # whether some item or example is none
    int32_t next_item               # nobody's yet
    Py_ssize_t item_count
    int64_t deadline
    nnfast_team team

cdef struct Lanes:
    # A thread's own
    Py_ssize_t count, padded    # of the lanes at hand, and the same in whole groups
    int64_t* examples       # (lanes,): which these are
    double* factors         # (lanes,): how far a change of the parameter moves each
    double* changes         # (2 * units, lanes): the changed values, above and below; then what has changed
    double* scores          # (outputs of the next product, lanes), nothing perturbed
    double* differences     # (units, lanes)
    int32_t* kinks          # (units, lanes)
    double* block           # (units, columns), and another one
    double* other_block
    int64_t* block_examples     # (columns,)
    double* losses          # (columns,)
    double* largest
    double* total
    Segment* segments
    Py_ssize_t segment_count, columns

cdef inline double* _values(int64_t address) noexcept nogil:
    return <double*><uintptr_t>address


# Losses: one for each column of scores (outputs, columns), for the example that the column is of

cdef void _softmax_losses(
    const double* scores, Py_ssize_t row, Py_ssize_t classes, Py_ssize_t columns, const int64_t* labels,
    const int64_t* examples, double epsilon, double smoothing, double* largest, double* total, double* losses,
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
    if smoothing != 0:
        for j in range(columns):
            losses[j] = losses[j] * (1. - smoothing)
        for c in range(classes):
            for j in range(columns):
                losses[j] += smoothing / classes * (scores[c * row + j] - largest[j])
    _cross_entropies(total, columns, epsilon, losses)


cdef void _cross_entropies(const double* total, Py_ssize_t n, double epsilon, double* losses) noexcept nogil:
    """losses = -log(exp(losses) / total + epsilon), losses being the label's scores, or with smoothing means of all."""
    cdef Py_ssize_t j
    if epsilon > 0:
        for j in range(n):
            losses[j] = -_log(_exp(losses[j]) / total[j] + epsilon)
    else:   # also where the probability is too small for a float64
        for j in range(n):
            losses[j] = _log(total[j]) - losses[j]


cdef inline double _sigmoid_loss(double score, double t) noexcept nogil:
    """-t log(y) - (1 - t) log(1 - y), y = sigmoid(score); log(1 + e) keeps all digits of a small e (W. Kahan)."""
    cdef double e = _exp(-fabs(score)), u = 1. + e, ratio
    ratio = e / (u - 1.) if u != 1. else 1.
    return (score if score > 0. else 0.) - score * t + (_log(u) * ratio if u != 1. else e)


cdef void _losses_of_columns(
    const Perturbed* all, const double* scores, Py_ssize_t row, Py_ssize_t columns, const int64_t* examples,
    double* largest, double* total, double* losses,
) noexcept nogil:
    cdef const GradientStage* loss = all.stages + all.count - 1
    cdef const double* t
    cdef double parameter
    cdef Py_ssize_t o, j
    if loss.code == SOFTMAX_LOSS:
        _softmax_losses(scores, row, loss.inputs, columns, all.labels, examples, all.epsilon, loss.setting, largest,
                        total, losses)
        return
    for j in range(columns):
        losses[j] = 0
    for o in range(loss.inputs):
        t = all.targets + o * all.row
        if loss.code == SIGMOID_LOSS:
            for j in range(columns):
                losses[j] += _sigmoid_loss(scores[o * row + j], t[examples[j]])
        elif loss.code != IDENTITY_LOSS:
            parameter = _values(loss.weights)[o] if _is_of_residuals(loss.code) else 0.
            for j in range(columns):
                losses[j] += _output_loss(loss.code, scores[o * row + j], t[examples[j]], parameter)
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
    """y (n,) = gamma * normalized + beta, normalized = (y - mean) / sqrt(variance + 1e-6); perhaps the same array."""
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
    cdef Py_ssize_t place, unit, first, last, vectors = all.row // GROUP_OF_LANES
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
    first = vectors * share // shares * GROUP_OF_LANES
    last = vectors * (share + 1) // shares * GROUP_OF_LANES
    last = last if last < all.examples else all.examples
    stage = all.stages + all.count - 1
    scores = _values(stage.x)
    while first < last:
        unit = last - first if last - first < all.block_columns else all.block_columns
        _losses_of_examples(all, stage, scores, first, unit, all.scratch + share * all.scratch_size)
        first = first + unit


cdef void _losses_of_examples(
    const Perturbed* all, const GradientStage* loss, const double* scores, Py_ssize_t first, Py_ssize_t n,
    double* scratch,
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
        all.means[first + j] = 0
    for c in range(loss.inputs):
        for j in range(n):
            all.means[first + j] += (scores[c * all.row + first + j] - largest[j]) / loss.inputs
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


cdef int _set_chain(
    Perturbed* all, GradientChain chain, const double[:, ::1] targets, double[::1] losses, double[:, ::1] powers
) except -1:
    """What `evaluate` and `perturb` are given alike."""
    cdef const GradientStage* loss = chain.stages + chain.count - 1
    all.stages, all.count, all.last_normalization = chain.stages, chain.count, chain.last_normalization
    all.examples, all.row, all.labels = chain.examples, chain.row, chain.labels
    _check_length("losses", losses.shape[0], chain.examples)
    _check_shape("powers", powers.shape[0], powers.shape[1], 2 * loss.inputs + 2, chain.row)
    _check_alignment(<uintptr_t>&losses[0] | <uintptr_t>&powers[0, 0], sizeof(double))
    all.losses = &losses[0]
    all.largest = &powers[0, 0]
    all.powers = all.largest + all.row
    all.other_powers = all.largest + (1 + loss.inputs) * all.row
    all.means = all.largest + (1 + 2 * loss.inputs) * all.row
    all.targets = NULL
    if loss.code != SOFTMAX_LOSS:
        _check_shape("targets", targets.shape[0], targets.shape[1], loss.inputs, chain.row)
        all.targets = &targets[0, 0]
        _check_alignment(<uintptr_t>all.targets, sizeof(double))
    return 0


def evaluate(
    GradientChain chain not None,
    const double[:, ::1] targets,   # in   (O, row)         empty where the loss takes labels
    double[::1] losses,             # out  (B,)
    double[:, ::1] powers,          # out  (2 C + 2, row)   of softmax
    double[::1] scratch,            # a thread's 2 * block_columns
    double epsilon,
    Py_ssize_t block_columns,
    int num_threads,
):
    """Every stage's y from the first one's x, and the loss of each example.

    An x (I, row) has the examples side by side, then zeros up to whole groups.
    """
    cdef Perturbed all
    _check_threads(num_threads)
    _set_chain(&all, chain, targets, losses, powers)
    _must(0 < block_columns <= scratch.shape[0] // num_threads // 2, "scratch is too small, or there are no columns")
    _check_alignment(<uintptr_t>&scratch[0], sizeof(double))
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
