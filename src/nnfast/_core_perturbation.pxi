# One parameter perturbed, and what becomes of the loss (_core_gradient.pxi says how).

# Pairs

def pair_values(
    const double[:, ::1] x,         # in   (I, row)         one input after the other
    Py_ssize_t first,               # the first of E examples
    int32_t[:, ::1] pairs,          # out  (I + 1, E)       the pair of each value and of the bias, -1 for 0
    int64_t[::1] examples,          # out  (E * (I + 1),)   of each pair
    double[::1] values,             # out  likewise
    int32_t[::1] table,             # a power of two above 2 (I + 1)
):
    """Numbers the different values of each example but 0, and a 1 for the bias; returns how many there are."""
    cdef Py_ssize_t i, e, inputs = x.shape[0], pair = 0, places = table.shape[0]
    cdef double value
    _must(pairs.shape[0] == inputs + 1 and 0 <= first <= x.shape[1] - pairs.shape[1], "pairs has another shape than x")
    _must(places > inputs + 1 and places & (places - 1) == 0, "table is too small, or no power of two")
    _must(_fits(0, inputs + 1, pairs.shape[1], pairs.shape[1], min(examples.shape[0], values.shape[0])),
          "examples or values has too few elements")
    if pairs.shape[1] == 0:
        return 0
    _check_alignment(<uintptr_t>&table[0], sizeof(table[0]))
    with nogil:
        for e in range(pairs.shape[1]):
            memset(&table[0], -1, table.shape[0] * sizeof(table[0]))
            for i in range(inputs + 1):
                value = x[i, first + e] if i < inputs else 1.
                if value == 0:
                    pairs[i, e] = -1
                    continue
                pairs[i, e] = _find_value(&table[0], table.shape[0] - 1, &values[0], value, <int32_t>pair)
                if pairs[i, e] == pair:
                    examples[pair] = first + e
                    pair = pair + 1
    return pair


cdef int32_t _find_value(
    int32_t* table, Py_ssize_t mask, double* values, double value, int32_t next
) noexcept nogil:
    """The pair with a value of this example, the next one if it is new: an open hash table of places in values."""
    cdef uint64_t bits = <uint64_t>nnfast_double_bits(value) * <uint64_t>0x9E3779B97F4A7C15
    cdef Py_ssize_t place = <Py_ssize_t>(bits >> 40) & mask
    while table[place] >= 0 and values[table[place]] != value:
        place = (place + 1) & mask
    if table[place] < 0:
        table[place] = next
        values[next] = value
    return table[place]


def sum_pairs(
    const int32_t[:, ::1] pairs,        # in   (I + 1, E)
    const double[:, ::1] differences,   # in   (pairs, O)
    double[:, ::1] gradients,           # to be added to   (I + 1, O)
    int num_threads,
):
    """gradients[i] += differences[pair] for each example's pair of input i."""
    cdef nnfast_team team
    cdef Py_ssize_t i, count = differences.shape[0]
    cdef bint is_outside = False
    _check_threads(num_threads)
    _check_shape("gradients", gradients.shape[0], gradients.shape[1], pairs.shape[0], differences.shape[1])
    if pairs.shape[0] == 0 or pairs.shape[1] == 0 or count == 0 or gradients.shape[1] == 0:
        return
    _check_alignment(<uintptr_t>&differences[0, 0] | <uintptr_t>&gradients[0, 0], sizeof(double))
    _check_alignment(<uintptr_t>&pairs[0, 0], sizeof(pairs[0, 0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for i in range(pairs.shape[0]):
                _sum_pairs_of_input(&pairs[i, 0], pairs.shape[1], &differences[0, 0], count, &gradients[i, 0],
                                    gradients.shape[1], &is_outside)
        else:
            with parallel(num_threads=num_threads):
                for i in range(nnfast_share(pairs.shape[0], 1, 0), nnfast_share(pairs.shape[0], 1, 1)):
                    _sum_pairs_of_input(&pairs[i, 0], pairs.shape[1], &differences[0, 0], count, &gradients[i, 0],
                                        gradients.shape[1], &is_outside)
                nnfast_leave(&team)
            nnfast_disband(&team)
    _check_indices("pairs", is_outside, count)


cdef void _sum_pairs_of_input(
    const int32_t* pairs, Py_ssize_t examples, const double* differences, Py_ssize_t count, double* gradient,
    Py_ssize_t units, bint* is_outside,
) noexcept nogil:
    cdef Py_ssize_t e, unit
    cdef int64_t pair
    for e in range(examples):
        if pairs[e] >= 0:
            pair = _inside(pairs[e], count, is_outside)
            for unit in range(units):
                gradient[unit] += differences[pair * units + unit]


# One unit perturbed

cdef enum:
    MOST_LANES = 1 << 24    # and units, so that the size of the scratch memory does not overflow


cdef void _set_lanes(const Perturbed* all, const GradientItem* item, Lanes* lanes) noexcept nogil:
    """Which examples are at hand, and how far the parameter moves them: the input that it is a factor of.

    A group is filled up with the first example, which is not moved.
    """
    cdef const GradientStage* stage = all.stages + item.stage
    cdef Py_ssize_t j
    lanes.count = item.last_pair - item.first_pair
    if lanes.count:
        for j in range(lanes.count):
            lanes.examples[j] = _inside(all.pair_examples[item.first_pair + j], all.examples, all.is_outside)
            lanes.factors[j] = all.pair_values[item.first_pair + j]
    else:
        lanes.count = all.examples
        for j in range(lanes.count):
            lanes.examples[j] = j
            lanes.factors[j] = 1
        if stage.code == PRODUCT and item.source >= 0:
            memcpy(lanes.factors, _values(stage.x) + item.source * all.row, lanes.count * sizeof(double))
    lanes.padded = _in_whole(lanes.count, GROUP_OF_LANES)
    for j in range(lanes.count, lanes.padded):
        lanes.examples[j] = 0
        lanes.factors[j] = 0


cdef void _perturb_unit(
    const Perturbed* all, const GradientItem* item, const Lanes* lanes, Py_ssize_t unit, double* changed
) noexcept nogil:
    """changed (2, lanes): the values of a unit of the item's stage, its parameter h above and h below."""
    cdef const GradientStage* stage = all.stages + item.stage
    cdef const double* y = _values(stage.y) + unit * all.row
    cdef bint is_gamma = stage.code == BATCH_NORMALIZATION and item.source >= 0
    cdef const double* normalized = _values(stage.normalized) + unit * all.row if is_gamma else NULL
    cdef Py_ssize_t j, example
    cdef double change
    for j in range(lanes.padded):
        example = lanes.examples[j]
        change = all.h * (normalized[example] if is_gamma else lanes.factors[j])
        changed[j] = y[example] + change
        changed[lanes.padded + j] = y[example] - change


cdef inline bint _has_kink(const GradientStage* stage) noexcept nogil:
    return stage.code == RELU or stage.code == LEAKY_RELU


cdef void _mark_crossings(
    const double* x, const double* before, const int64_t* examples, Py_ssize_t n, Py_ssize_t place, int32_t* kinks
) noexcept nogil:
    """kinks (n,) = place where x is on the other side of 0 than before, unless an earlier kink was crossed."""
    cdef Py_ssize_t j
    for j in range(n):
        if (x[j] > 0) != (before[examples[j]] > 0) and kinks[j] > place:
            kinks[j] = <int32_t>place


cdef void _follow_units(const Perturbed* all, const GradientItem* item, Lanes* lanes) noexcept nogil:
    """The changed units through the stages that leave them apart, up to the next product or the loss."""
    cdef const GradientStage* stage
    cdef Py_ssize_t units = item.last_unit - item.first_unit, n = lanes.padded, place, q, unit
    for place in range(item.stage + 1, all.stages[item.stage].next_mixed):
        stage = all.stages + place
        if all.kinks != NULL and _has_kink(stage):
            for q in range(2 * units):
                _mark_crossings(lanes.changes + q * n, _values(stage.x) + (item.first_unit + q // 2) * all.row,
                                lanes.examples, n, place, lanes.kinks + q // 2 * n)
        if stage.code == BATCH_NORMALIZATION:
            for q in range(2 * units):
                unit = item.first_unit + q // 2
                _normalize_unit(lanes.changes + q * n, lanes.changes + q * n, all.examples,
                                _values(stage.weights)[unit], _values(stage.bias)[unit])
        else:
            _map_in_place(stage.code, stage.setting, lanes.changes, 2 * units * n)


cdef void _softmax_losses_of_one_class(
    const Perturbed* all, const Lanes* lanes, Py_ssize_t unit, const double* scores, double* losses
) noexcept nogil:
    """losses (lanes,) with the scores of one class changed: of the others only the sum of their powers counts."""
    cdef const double* others = all.other_powers + unit * all.row
    cdef const double* before = _values(all.stages[all.count - 1].x)
    cdef Py_ssize_t j, example, label, classes = all.stages[all.count - 1].inputs
    cdef double d, power, smoothing = all.stages[all.count - 1].setting
    for j in range(lanes.padded):
        example = lanes.examples[j]
        d = scores[j] - all.largest[example]
        power = _exp(-fabs(d))      # the larger one of the powers of d and 0 is 1
        lanes.total[j] = others[example] * power + 1. if d > 0. else others[example] + power
    for j in range(lanes.padded):
        example = lanes.examples[j]
        label = all.labels[example]
        d = scores[j] - all.largest[example]
        losses[j] = d if label == unit else before[label * all.row + example] - all.largest[example]
        if smoothing != 0:
            losses[j] = losses[j] * (1. - smoothing) + smoothing * (
                all.means[example] + (scores[j] - before[unit * all.row + example]) / classes)
        losses[j] = losses[j] - (d if d > 0. else 0.)
    _cross_entropies(lanes.total, lanes.padded, all.epsilon, losses)


cdef void _add_differences_of_output(
    const Perturbed* all, const Lanes* lanes, Py_ssize_t unit, const double* scores, double sign, double* differences
) noexcept nogil:
    """differences (lanes,) += sign * how far the losses move when one output's scores are these."""
    cdef const GradientStage* loss = all.stages + all.count - 1
    cdef const double* t = all.targets + unit * all.row
    cdef const double* before = _values(loss.x) + unit * all.row
    cdef Py_ssize_t j, example
    cdef double a, b, parameter
    if loss.code == SOFTMAX_LOSS:
        _softmax_losses_of_one_class(all, lanes, unit, scores, lanes.losses)
        for j in range(lanes.padded):
            differences[j] += sign * (lanes.losses[j] - all.losses[lanes.examples[j]])
    elif loss.code == SIGMOID_LOSS:
        for j in range(lanes.padded):
            example = lanes.examples[j]
            differences[j] += sign * (_sigmoid_loss(scores[j], t[example]) - _sigmoid_loss(before[example], t[example]))
    elif loss.code != IDENTITY_LOSS:
        parameter = _values(loss.weights)[unit] if _is_of_residuals(loss.code) else 0.
        for j in range(lanes.padded):
            example = lanes.examples[j]
            a = _output_loss(loss.code, scores[j], t[example], parameter)
            b = _output_loss(loss.code, before[example], t[example], parameter)
            differences[j] += sign * (a - b)
    else:
        for j in range(lanes.padded):
            example = lanes.examples[j]
            a, b = scores[j] - t[example], before[example] - t[example]
            differences[j] += sign * (0.5 * a * a - 0.5 * b * b)


# A block of changed lanes

cdef inline bint _is_still(const double* change) noexcept nogil:
    """Whether nothing has changed in a group."""
    cdef Py_ssize_t j
    cdef double total = 0
    for j in range(GROUP_OF_LANES):
        total = total + fabs(change[j])
    return total == 0


cdef void _add_to_block(
    const Perturbed* all, const GradientStage* mixed, Lanes* lanes, Py_ssize_t unit, const double* change,
    Py_ssize_t lane, Py_ssize_t n,
) noexcept nogil:
    """The scores of a product, in which one input has changed in n lanes, at the end of the block."""
    cdef const double* weights = _values(mixed.weights) + unit * mixed.outputs
    cdef const double* scores = lanes.scores + lane
    cdef double* block = lanes.block + lanes.columns
    cdef Py_ssize_t o, j
    for o in range(mixed.outputs):
        for j in range(n):
            block[o * all.block_columns + j] = scores[o * lanes.padded + j] + change[lane + j] * weights[o]
    memcpy(lanes.block_examples + lanes.columns, lanes.examples + lane, n * sizeof(lanes.examples[0]))


cdef void _finish_block(const Perturbed* all, const GradientItem* item, Lanes* lanes) noexcept nogil:
    """The block through what follows its product, and its losses to the perturbations that they are of."""
    cdef const GradientStage* stage
    cdef const Segment* segment
    cdef double* block = lanes.block
    cdef double* other = lanes.other_block
    cdef double* changed
    cdef double* differences
    cdef Py_ssize_t place, s, o, j, row = all.block_columns
    for place in range(all.stages[item.stage].next_mixed + 1, all.count - 1):
        stage = all.stages + place
        if all.kinks != NULL and _has_kink(stage):
            for s in range(lanes.segment_count):
                segment = lanes.segments + s
                for o in range(stage.outputs):
                    _mark_crossings(block + o * row + segment.column, _values(stage.x) + o * all.row,
                                    lanes.block_examples + segment.column, segment.lanes, place,
                                    lanes.kinks + segment.unit * lanes.padded + segment.lane)
        if stage.code == PRODUCT:
            _multiply_columns(stage, block, other, row, lanes.columns, 0, stage.outputs)
            block, other = other, block
        elif stage.code == BATCH_NORMALIZATION:
            for s in range(lanes.segment_count):
                for o in range(stage.outputs):
                    changed = block + o * row + lanes.segments[s].column
                    _normalize_unit(changed, changed, all.examples, _values(stage.weights)[o], _values(stage.bias)[o])
        else:
            for o in range(stage.outputs):
                _map_in_place(stage.code, stage.setting, block + o * row, lanes.columns)
    _losses_of_columns(all, block, row, lanes.columns, lanes.block_examples, lanes.largest, lanes.total, lanes.losses)
    for s in range(lanes.segment_count):
        segment = lanes.segments + s
        differences = lanes.differences + segment.unit * lanes.padded + segment.lane
        for j in range(segment.lanes):
            differences[j] += segment.sign * (
                lanes.losses[segment.column + j] - all.losses[lanes.block_examples[segment.column + j]])
    lanes.segment_count = lanes.columns = 0


cdef void _mix_lanes(
    const Perturbed* all, const GradientItem* item, Lanes* lanes, Py_ssize_t unit, const double* change,
    Py_ssize_t lane, Py_ssize_t n, double sign,
) noexcept nogil:
    """n lanes of one perturbation to the block, which is finished first if there is no room."""
    cdef Segment* segment
    if lanes.columns + n > all.block_columns:
        _finish_block(all, item, lanes)
    _add_to_block(all, all.stages + all.stages[item.stage].next_mixed, lanes, unit, change, lane, n)
    segment = lanes.segments + lanes.segment_count
    segment.unit, segment.lane, segment.column, segment.lanes = unit - item.first_unit, lane, lanes.columns, n
    segment.sign = sign
    lanes.segment_count = lanes.segment_count + 1
    lanes.columns = lanes.columns + n


cdef void _mix_units(const Perturbed* all, const GradientItem* item, Lanes* lanes) noexcept nogil:
    """What changed units make of the next product and of all that follows."""
    cdef const GradientStage* mixed = all.stages + all.stages[item.stage].next_mixed
    cdef const double* x
    cdef double* change
    cdef double sign
    cdef Py_ssize_t o, j, q, unit, first, n = lanes.padded
    for o in range(mixed.outputs):
        x = _values(mixed.y) + o * all.row
        for j in range(n):
            lanes.scores[o * n + j] = x[lanes.examples[j]]
    for q in range(2 * (item.last_unit - item.first_unit)):
        unit = item.first_unit + q // 2
        sign = 1. if q % 2 == 0 else -1.
        change = lanes.changes + q * n
        x = _values(mixed.x) + unit * all.row
        for j in range(n):
            change[j] -= x[lanes.examples[j]]
        if item.first_pair == item.last_pair:   # a batch stays whole
            _mix_lanes(all, item, lanes, unit, change, 0, n, sign)
            continue
        j = 0
        while j < n:
            if _is_still(change + j):
                j = j + GROUP_OF_LANES
                continue
            first = j
            while j < n and not _is_still(change + j):
                j = j + GROUP_OF_LANES
            _mix_lanes(all, item, lanes, unit, change, first, j - first, sign)
    if lanes.columns:
        _finish_block(all, item, lanes)


cdef void _perturb_item(const Perturbed* all, const GradientItem* item, Lanes* lanes) noexcept nogil:
    cdef const GradientStage* stage = all.stages + item.stage
    cdef Py_ssize_t units = item.last_unit - item.first_unit, unit, j, n
    cdef double* changes
    cdef double* differences
    _set_lanes(all, item, lanes)
    n = lanes.padded
    memset(lanes.differences, 0, units * n * sizeof(double))
    for j in range(units * n if all.kinks != NULL else 0):
        lanes.kinks[j] = <int32_t>all.count
    for unit in range(units):
        _perturb_unit(all, item, lanes, item.first_unit + unit, lanes.changes + 2 * unit * n)
    _follow_units(all, item, lanes)
    if stage.next_mixed < all.count - 1:
        _mix_units(all, item, lanes)
    else:
        for unit in range(units):
            changes, differences = lanes.changes + 2 * unit * n, lanes.differences + unit * n
            _add_differences_of_output(all, lanes, item.first_unit + unit, changes, 1., differences)
            _add_differences_of_output(all, lanes, item.first_unit + unit, changes + n, -1., differences)
    if item.first_pair < item.last_pair:
        _store_pairs(all, item, lanes)
    else:
        _store_sums(all, item, lanes)


cdef void _store_pairs(const Perturbed* all, const GradientItem* item, const Lanes* lanes) noexcept nogil:
    cdef Py_ssize_t units = item.last_unit - item.first_unit, outputs = all.stages[item.stage].outputs, unit, j
    cdef Py_ssize_t place = item.first_pair * outputs + item.first_unit
    for j in range(lanes.count):
        for unit in range(units):
            all.differences[place + j * outputs + unit] = lanes.differences[unit * lanes.padded + j]
        for unit in range(units if all.kinks != NULL else 0):
            all.kinks[place + j * outputs + unit] = lanes.kinks[unit * lanes.padded + j]


cdef void _store_sums(const Perturbed* all, const GradientItem* item, const Lanes* lanes) noexcept nogil:
    """Sums over the examples, in the row of the source; the bias has the last row."""
    cdef const GradientStage* stage = all.stages + item.stage
    cdef Py_ssize_t sources = stage.inputs if stage.code == PRODUCT else 1, unit, j
    cdef Py_ssize_t place = (item.source if item.source >= 0 else sources) * stage.outputs + item.first_unit
    cdef int32_t kink
    for unit in range(item.last_unit - item.first_unit):
        all.differences[place + unit] = _total(lanes.differences + unit * lanes.padded, lanes.count)
        if all.kinks != NULL:
            kink = <int32_t>all.count
            for j in range(lanes.count):
                kink = min(kink, lanes.kinks[unit * lanes.padded + j])
            all.kinks[place + unit] = kink


cdef bint _is_item(const Perturbed* all, const GradientItem* item) noexcept nogil:
    """Whether an item is of this chain, and of the sizes that there is memory for."""
    cdef const GradientStage* stage = all.stages + item.stage
    cdef int64_t sources, pairs = item.last_pair - item.first_pair
    if not (0 <= item.stage < all.count - 1 and (stage.code == PRODUCT or stage.code == BATCH_NORMALIZATION)):
        return False
    sources = stage.inputs if stage.code == PRODUCT else 1
    if not 0 <= item.first_unit < item.last_unit <= stage.outputs:
        return False
    if item.last_unit - item.first_unit > all.most_units or stage.outputs != all.columns:
        return False
    if not 0 <= item.first_pair <= item.last_pair <= all.pairs:
        return False
    if pairs > 0:   # batch normalisation needs whole batches
        return pairs <= all.most_lanes and item.last_pair <= all.rows and item.stage >= all.last_normalization
    return all.examples <= all.most_lanes and -1 <= item.source < sources < all.rows


cdef void _perturb_share(Perturbed* all, int share) noexcept nogil:
    """What one thread does: whatever items are left, until time is over."""
    cdef Lanes lanes
    cdef GradientItem item
    cdef Py_ssize_t number
    _lay_out(all, all.scratch + share * all.scratch_size, &lanes)
    while True:
        number = nnfast_increment(&all.next_item) - 1
        if number >= all.item_count:
            return
        item = all.items[number]
        if _is_item(all, &item):
            _perturb_item(all, &item, &lanes)
        else:
            all.is_outside[0] = True    # whoever writes it writes the same
        if nnfast_clock() > all.deadline:
            return


cdef Py_ssize_t _lay_out(const Perturbed* all, double* memory, Lanes* lanes) noexcept nogil:
    """A thread's arrays in its memory; returns their size in elements."""
    cdef Py_ssize_t columns = all.block_columns, most = all.most_lanes
    cdef double* end = memory
    lanes.segment_count = lanes.columns = 0
    lanes.changes, end = end, end + 2 * all.most_units * most
    lanes.differences, end = end, end + all.most_units * most
    lanes.kinks, end = <int32_t*>end, end + all.most_units * most
    lanes.scores, end = end, end + all.widest * most
    lanes.block, end = end, end + all.widest * columns
    lanes.other_block, end = end, end + all.widest * columns
    lanes.losses, end = end, end + columns
    lanes.largest, end = end, end + columns
    lanes.total, end = end, end + columns
    lanes.factors, end = end, end + most
    lanes.examples, end = <int64_t*>end, end + most
    lanes.block_examples, end = <int64_t*>end, end + columns
    lanes.segments = <Segment*>end
    end = end + columns // GROUP_OF_LANES * (sizeof(Segment) // sizeof(double))
    return end - memory


def perturbation_scratch(Py_ssize_t most_units, Py_ssize_t most_lanes, Py_ssize_t block_columns, Py_ssize_t widest):
    """Elements of scratch memory that each thread of `perturb` needs."""
    cdef Perturbed all
    _must(0 < most_units <= MOST_LANES and 0 < most_lanes <= block_columns <= MOST_LANES and 0 <= widest <= MOST_LANES,
          "a size is too small or too large")
    _must(most_lanes % GROUP_OF_LANES == 0 and block_columns % GROUP_OF_LANES == 0, "lanes are no whole groups")
    cdef Lanes lanes
    cdef double nothing
    all.most_units, all.most_lanes = most_units, most_lanes
    all.block_columns, all.widest = block_columns, widest
    return _lay_out(&all, &nothing, &lanes)


def perturb(
    GradientChain chain not None,
    const GradientItem[::1] items,  # all of one stage
    const double[:, ::1] targets,   # in   (O, row)         empty where the loss takes labels
    double[::1] losses,             # in   (B,)             as `evaluate` left them
    double[:, ::1] powers,          # in   (2 C + 2, row)   likewise
    const int64_t[::1] pair_examples,
    const double[::1] pair_values,
    double[:, ::1] differences,     # out  (pairs, or sources and the bias; units of the stage)
    int32_t[:, ::1] kinks,          # out  likewise, or (0, 0)
    double[::1] scratch,
    double h,
    double epsilon,                 # inside the logarithm of softmax's cross-entropy
    Py_ssize_t most_units,          # of an item
    Py_ssize_t most_lanes,          # of an item, in whole groups
    Py_ssize_t block_columns,       # at least as many
    Py_ssize_t widest,              # at least the outputs of any stage
    Py_ssize_t first_item,
    double seconds,
    int num_threads,
):
    """differences = sum of the losses with a parameter h above - the same h below, of each pair, or of each parameter.

    Where asked for, kinks are the first ReLU that changes its side within h; the number of stages means none. Returns
    the first item that is left to do when time is over.
    """
    cdef Perturbed all
    cdef bint is_outside = False
    _check_threads(num_threads)
    _set_chain(&all, chain, targets, losses, powers)
    _must(items.shape[0] < 1 << 30, "there are too many items")
    _must(0 <= first_item <= items.shape[0], "first_item is beyond the items")
    if first_item == items.shape[0]:
        return first_item
    _check_length("pair_values", pair_values.shape[0], pair_examples.shape[0])
    _must(differences.shape[0] > 0 and differences.shape[1] > 0, "differences has no elements")
    _must(kinks.shape[0] == 0 or kinks.shape[0] == differences.shape[0] and kinks.shape[1] == differences.shape[1],
          "kinks has another shape than differences")
    _must(widest >= chain.widest, "widest is less than the outputs of a stage")
    _check_room("each thread's part of scratch", (scratch.shape[0] - 8) // num_threads // 8 * 8,
                perturbation_scratch(most_units, most_lanes, block_columns, widest))
    _check_alignment(<uintptr_t>&differences[0, 0] | <uintptr_t>&scratch[0] | <uintptr_t>&items[0], sizeof(double))
    all.items, all.item_count, all.next_item = &items[0], items.shape[0], <int32_t>first_item
    all.is_outside = &is_outside
    all.pairs = pair_examples.shape[0]
    all.pair_examples = &pair_examples[0] if all.pairs else NULL
    all.pair_values = &pair_values[0] if all.pairs else NULL
    all.kinks = &kinks[0, 0] if kinks.shape[0] else NULL
    all.rows, all.columns, all.differences = differences.shape[0], differences.shape[1], &differences[0, 0]
    _check_alignment(<uintptr_t>all.pair_examples | <uintptr_t>all.pair_values, sizeof(double))
    _check_alignment(<uintptr_t>all.kinks, sizeof(int32_t))
    all.h, all.epsilon = h, epsilon
    all.most_units, all.most_lanes, all.block_columns, all.widest = most_units, most_lanes, block_columns, widest
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
    if is_outside:
        raise IndexError("an item or a pair is not one of this chain")
    return min(all.next_item, items.shape[0])
