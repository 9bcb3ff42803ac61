# The forward and backward operations of a plan, and the losses between them: by rows, or by columns.
#
# Element-wise operations run over whole rows, padding included, as one flat array.

cdef void _relu(floating* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = <floating>0. if y[i] <= 0 else y[i]


cdef void _relu_backward(const floating* y, floating* gradient, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gradient[i] = <floating>0. if y[i] <= 0 else gradient[i]


cdef void _leaky_relu(floating* y, floating slope, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = slope * y[i] if y[i] <= 0 else y[i]


cdef void _leaky_relu_backward(const floating* y, floating* gradient, floating slope, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gradient[i] = slope * gradient[i] if y[i] <= 0 else gradient[i]


cdef void _sigmoid_in_place(floating* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = _sigmoid(y[i])


cdef void _sigmoid_backward(const floating* y, floating* gradient, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gradient[i] = gradient[i] * (<floating>1. - y[i]) * y[i]


cdef void _tanh_in_place(floating* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = _tanh(y[i])


cdef void _tanh_backward(const floating* y, floating* gradient, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        gradient[i] = gradient[i] * (<floating>1. - y[i] * y[i])


cdef void _gelu_backward(const floating* x, floating* gradient, Py_ssize_t n) noexcept nogil:
    cdef floating chunk[64]
    cdef Py_ssize_t first = 0, i, length
    while first < n:    # in place through a chunk: the kernel's input and output are different arrays
        length = n - first if n - first < 64 else 64
        _gelu_backward_chunk(x + first, gradient + first, chunk, 0, length)
        for i in range(length):
            gradient[first + i] = chunk[i]
        first = first + length


cdef void _rescale(floating* y, const floating* scale, const floating* offset, Py_ssize_t n) noexcept nogil:
    """y = y * scale + offset, rounded after each of the two, as who scales the data beforehand rounds: so two loops."""
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = y[i] * scale[i]
    if offset != NULL:
        for i in range(n):
            y[i] = y[i] + offset[i]


# The losses of one row, and the gradient of their sum over the batch divided by batch_weight.

cdef inline double _counted(double probability, double least) noexcept nogil:
    """What a logarithm is taken of. NaN stays."""
    if least == 0:
        return probability + 1e-7
    return least if probability < least else probability


cdef void _softmax_loss_row(
    const floating* scores, int64_t label, floating* gradient, Py_ssize_t classes, Py_ssize_t padded,
    floating batch_weight, double least, double* loss, int32_t* correct,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef floating largest = _largest(scores, classes), total
    for j in range(padded):
        gradient[j] = _exp(scores[j] - largest)
    total = _total(gradient, classes)
    for j in range(padded):
        gradient[j] = gradient[j] / total
    loss[0] = -_log(_counted(gradient[label], least))
    correct[0] = _first_largest(scores, classes) == label
    gradient[label] -= 1
    for j in range(padded):
        gradient[j] = gradient[j] / batch_weight
    for j in range(classes, padded):
        gradient[j] = 0


# Rows of few classes go through the softmax side by side, one to a lane: row by row, a row of ten classes is a chain of
# dependent additions and comparisons (5.9 instead of 2.3 microseconds for 100 rows).
cdef enum:
    FEW_CLASSES = 32


cdef void _softmax_loss_group(
    const floating* scores, Py_ssize_t scores_row, const int64_t* labels, Py_ssize_t rows, floating* gradient,
    Py_ssize_t gradient_row, Py_ssize_t classes, floating batch_weight, double least, double* losses, int32_t* correct,
) noexcept nogil:
    """_softmax_loss_row of at most FLOAT_LANES rows of at most FEW_CLASSES classes, whose labels stand side by side.

    The padding of gradient is not written: it is 0 from the beginning.
    """
    cdef floating values[FEW_CLASSES][FLOAT_LANES]
    cdef floating largest[FLOAT_LANES]
    cdef floating total[FLOAT_LANES]
    cdef double probability[FLOAT_LANES]
    cdef int32_t best[FLOAT_LANES]
    cdef Py_ssize_t row, j
    memset(values, 0, classes * sizeof(values[0]))
    for row in range(rows):
        for j in range(classes):
            values[j][row] = scores[row * scores_row + j]
    for row in range(FLOAT_LANES):
        largest[row] = values[0][row]
        best[row] = 0
        total[row] = 0
        probability[row] = 1
    for j in range(1, classes):
        for row in range(FLOAT_LANES):
            best[row] = <int32_t>j if values[j][row] > largest[row] else best[row]
            largest[row] = values[j][row] if values[j][row] > largest[row] else largest[row]
    for j in range(classes):
        for row in range(FLOAT_LANES):
            values[j][row] = _exp(values[j][row] - largest[row])
            total[row] += values[j][row]
    for j in range(classes):
        for row in range(FLOAT_LANES):
            values[j][row] = values[j][row] / total[row]
    for row in range(rows):
        probability[row] = _counted(values[labels[row]][row], least)
        values[labels[row]][row] -= 1
        correct[row] = best[row] == labels[row]
    for row in range(FLOAT_LANES):
        probability[row] = _log(probability[row])
    for j in range(classes):
        for row in range(FLOAT_LANES):
            values[j][row] = values[j][row] / batch_weight
    for row in range(rows):
        losses[row] = -probability[row]
        for j in range(classes):
            gradient[row * gradient_row + j] = values[j][row]


cdef void _smoothed_softmax_loss_row(
    const floating* scores, int64_t label, floating* gradient, Py_ssize_t classes, floating batch_weight,
    double smoothing, double* loss, int32_t* correct, bint* is_outside,
) noexcept nogil:
    """_softmax_loss_row with a smoothed label. The padding of gradient is not written."""
    _softmax_row(scores, gradient, classes)
    _smoothed_cross_entropy_row(scores, gradient, label, loss, classes, smoothing, is_outside)
    correct[0] = _first_largest(scores, classes) == label
    _smoothed_backward_row(gradient, label, gradient, classes, smoothing, batch_weight, <floating>1., is_outside)


cdef void _softmax_loss_rows(
    const Training* training, const Operation* operation, const Batch* batch, Py_ssize_t first, Py_ssize_t last,
    const floating* x, floating* y,
) noexcept nogil:
    """The softmax loss of some rows of the batch."""
    cdef Py_ssize_t classes = operation.outputs, padded = _padded(classes, y), row = first, rows, i
    cdef floating batch_weight = <floating>_divisor(batch)
    cdef int64_t labels[FLOAT_LANES]
    while row < last:
        rows = FLOAT_LANES if last - row > FLOAT_LANES else last - row
        for i in range(rows):
            labels[i] = _inside(training.labels[_data_row(training, batch.first + row + i)], classes,
                                training.is_outside)
        if operation.setting != 0:
            for i in range(rows):
                _smoothed_softmax_loss_row(x + i * operation.x_row, labels[i], y + i * operation.y_row, classes,
                                           batch_weight, operation.setting, training.losses + row + i,
                                           training.correct + row + i, training.is_outside)
        elif classes <= FEW_CLASSES:
            _softmax_loss_group(x, operation.x_row, labels, rows, y, operation.y_row, classes, batch_weight,
                                batch.settings.least_probability, training.losses + row, training.correct + row)
        else:
            for i in range(rows):
                _softmax_loss_row(x + i * operation.x_row, labels[i], y + i * operation.y_row, classes, padded,
                                  batch_weight, batch.settings.least_probability, training.losses + row + i,
                                  training.correct + row + i)
        x = x + rows * operation.x_row
        y = y + rows * operation.y_row
        row = row + rows


cdef void _sigmoid_loss_row(
    const floating* scores, const floating* t, floating* gradient, Py_ssize_t outputs, floating batch_weight,
    double least, double* loss, int32_t* correct,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef int32_t right = 1
    _sigmoid_cross_entropy_row(scores, t, gradient, loss, outputs, INFINITY if least == 0 else -_log(least))
    for j in range(outputs):
        right = right & ((scores[j] > 0) == (t[j] > 0.5))
        gradient[j] = (gradient[j] - t[j]) / batch_weight
    correct[0] = right


cdef void _identity_loss_row(
    const floating* scores, const floating* t, floating* gradient, Py_ssize_t outputs, floating batch_weight,
    double* loss, int32_t* correct,
) noexcept nogil:
    _squared_error_row(scores, t, loss, outputs)
    _difference_chunk(scores, t, gradient, batch_weight, <floating>1., 0, outputs)
    correct[0] = 0


cdef void _residual_loss_row(
    const Operation* operation, const floating* y, const floating* t, floating* gradient, floating batch_weight,
    double* loss, int32_t* correct,
) noexcept nogil:
    cdef const double* parameters = <const double*><uintptr_t>operation.array
    _residual_losses_row(y, t, parameters, loss, operation.code, operation.outputs)
    _residual_losses_backward_row(y, t, parameters, gradient, operation.code, operation.outputs, batch_weight,
                                  <floating>1.)
    correct[0] = 0


cdef void _poisson_loss_row(
    const floating* scores, const floating* t, floating* gradient, Py_ssize_t outputs, floating batch_weight,
    double* loss, int32_t* correct,
) noexcept nogil:
    _poisson_deviance_row(scores, t, gradient, loss, outputs)
    _difference_chunk(gradient, t, gradient, batch_weight, <floating>1., 0, outputs)
    correct[0] = 0


# Dropout. Whether an element is kept depends on its place and on a key, not on what was drawn before, so that every
# thread can draw for itself and the backward operation can draw again instead of remembering.

cdef inline bint _is_kept(uint64_t key, uint32_t place, float ratio) noexcept nogil:
    """A fair coin of 24 bits, kept where above the ratio: two rounds of a 32-bit mixing function (multiply, xor and
    shift; constants of lowbias32 by C. Wellons, nullprogram.com/blog/2018/07/31) over place and both halves of key."""
    cdef uint32_t bits = place + <uint32_t>key
    bits = (bits ^ (bits >> 16)) * <uint32_t>0x21f0aaad
    bits = (bits ^ (bits >> 15)) * <uint32_t>0xd35a2d97
    bits = (bits ^ (bits >> 15)) ^ <uint32_t>(key >> 32)
    bits = (bits ^ (bits >> 16)) * <uint32_t>0x21f0aaad
    bits = (bits ^ (bits >> 15)) * <uint32_t>0xd35a2d97
    bits = bits ^ (bits >> 15)
    return <float><int32_t>(bits >> 8) * <float>(1. / 16777216) > ratio


cdef void _dropout_row(
    const floating* x, floating* y, uint64_t key, float ratio, Py_ssize_t row, Py_ssize_t width
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(width):
        y[j] = x[j] if _is_kept(key, <uint32_t>(row * width + j), ratio) else <floating>0.


cdef void _dropout_row_in_place(
    floating* y, uint64_t key, float ratio, Py_ssize_t row, Py_ssize_t width
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(width):
        y[j] = y[j] if _is_kept(key, <uint32_t>(row * width + j), ratio) else <floating>0.


cdef void _mask_row(const floating* x, const uint8_t* mask, floating* y, Py_ssize_t width) noexcept nogil:
    """y = x where the mask is not 0, else 0. x may be y."""
    cdef Py_ssize_t j
    for j in range(width):
        y[j] = x[j] if mask[j] else <floating>0.


def dropout_mask(uint64_t key, double ratio, uint8_t[::1] mask):
    """mask (N,) = 1 where the element is kept, else 0."""
    cdef Py_ssize_t i
    for i in range(mask.shape[0]):
        mask[i] = _is_kept(key, <uint32_t>i, <float>ratio)


cdef void _check_rows(
    Training* training, const floating* x, Py_ssize_t x_row, Py_ssize_t rows
) noexcept nogil:
    """Note if a row of the data, which has just been read, is not finite: then some sum of x * 0 is not 0.

    Beforehand, for all of the data, looking took 5 to 8 of each step's 116 microseconds in two epochs of 784-50-10.
    """
    cdef floating sums[2 * LANES]
    cdef Py_ssize_t row, i, j, n = training.inputs
    memset(sums, 0, sizeof(sums))
    for row in range(rows):
        for i in range(n // (2 * LANES)):
            for j in range(2 * LANES):
                sums[j] += x[row * x_row + i * 2 * LANES + j] * 0
        for j in range(n % (2 * LANES)):
            sums[j] += x[row * x_row + n - n % (2 * LANES) + j] * 0
    for j in range(2 * LANES):
        if sums[j] != 0:    # NaN is not, either
            training.has_odd_data = True    # whoever writes it writes the same


cdef void _operate_on_rows(
    Training* training, const Operation* operation, floating* arena, floating* scratch, const Batch* batch,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """One operation on some rows of the batch."""
    cdef Py_ssize_t rows = last - first, row, n = rows * operation.y_row
    cdef const floating* x = arena + operation.x + first * operation.x_row
    cdef floating* y = arena + operation.y + first * operation.y_row
    cdef Py_ssize_t code = operation.code, x_row = operation.x_row
    if code == GATHER:
        _gather(training, batch.first + first, rows, 0, training.inputs, y, operation.y_row)
        if batch.checks_data:
            _check_rows(training, y, operation.y_row, rows)
    elif code == PRODUCT:
        if operation.x < 0 and training.order == NULL and not training.converts:
            x = <const floating*>training.x + (batch.first + first) * training.inputs
            x_row = training.inputs
        elif operation.x < 0:
            _gather(training, batch.first + first, rows, 0, training.inputs, scratch, x_row)
            x = scratch
        if operation.x < 0 and batch.checks_data:
            _check_rows(training, x, x_row, rows)
        _panels_product(x, x_row, rows, operation.inputs, arena + operation.weights,
                        <const floating*>NULL if operation.bias < 0 else arena + operation.bias,
                        _padded(operation.outputs, y), y, operation.y_row,
                        operation.looks_for_zeros != 0 and not training.has_odd_weights)
    elif code == RELU:
        _relu(y, n)
    elif code == RELU_BACKWARD:
        _relu_backward(x, y, n)
    elif code == LEAKY_RELU:
        _leaky_relu(y, <floating>operation.setting, n)
    elif code == LEAKY_RELU_BACKWARD:
        _leaky_relu_backward(x, y, <floating>operation.setting, n)
    elif code == SIGMOID:
        _sigmoid_in_place(y, n)
    elif code == SIGMOID_BACKWARD:
        _sigmoid_backward(x, y, n)
    elif code == TANH:
        _tanh_in_place(y, n)
    elif code == TANH_BACKWARD:
        _tanh_backward(x, y, n)
    elif code == GELU:
        _gelu_forward_chunk(x, y, 0, n)
    elif code == GELU_BACKWARD:
        _gelu_backward(x, y, n)
    elif code == SOFTMAX_LOSS:
        _softmax_loss_rows(training, operation, batch, first, last, x, y)
    elif code == COPY:
        memmove(y, x, n * sizeof(y[0]))
    elif code == RESCALE:
        for row in range(rows):
            _rescale(y + row * operation.y_row, arena + operation.weights,
                     <const floating*>NULL if operation.bias < 0 else arena + operation.bias, operation.outputs)
    else:
        for row in range(rows):
            _operate_on_row(training, operation, batch, first + row, x + row * operation.x_row,
                            y + row * operation.y_row)


cdef void _operate_on_row(
    const Training* training, const Operation* operation, const Batch* batch, Py_ssize_t row,
    const floating* x, floating* y,
) noexcept nogil:
    """Operations that know a row from another: by its targets, or by its masks."""
    cdef Py_ssize_t data_row = _data_row(training, batch.first + row), outputs = operation.outputs
    cdef const floating* t = <const floating*>training.targets + data_row * outputs
    cdef floating batch_weight = <floating>_divisor(batch)
    cdef double* loss = training.losses + row
    cdef int32_t* correct = training.correct + row
    cdef uint64_t key
    if operation.code == SIGMOID_LOSS:
        _sigmoid_loss_row(x, t, y, outputs, batch_weight, batch.settings.least_probability, loss, correct)
    elif operation.code == IDENTITY_LOSS:
        _identity_loss_row(x, t, y, outputs, batch_weight, loss, correct)
    elif _is_of_residuals(operation.code):
        _residual_loss_row(operation, x, t, y, batch_weight, loss, correct)
    elif operation.code == POISSON_LOSS:
        _poisson_loss_row(x, t, y, outputs, batch_weight, loss, correct)
    elif operation.mask >= 0:
        _mask_row(x if operation.code == DROPOUT else <const floating*>y,
                  training.masks + ((batch.step - training.first_step) * training.batch_size + row) * training.mask_row
                  + operation.mask, y, outputs)
    else:
        key = training.keys[batch.step * training.dropouts + operation.number]
        if operation.code == DROPOUT:
            _dropout_row(x, y, key, <float>operation.setting, batch.place + row, outputs)
        else:
            _dropout_row_in_place(y, key, <float>operation.setting, batch.place + row, outputs)


cdef inline bint _is_loss(const Operation* operation) noexcept nogil:
    return SOFTMAX_LOSS <= operation.code <= POISSON_LOSS


cdef void _weigh_rows(
    const Training* training, const Operation* operation, floating* arena, const Batch* batch, Py_ssize_t first,
    Py_ssize_t last,
) noexcept nogil:
    """Losses of some rows of the batch and their gradients, times the weight of each row."""
    cdef Py_ssize_t row, j
    cdef double weight
    cdef floating* gradient
    for row in range(first, last):
        weight = training.weights[_data_row(training, batch.first + row)]
        gradient = arena + operation.y + row * operation.y_row
        training.losses[row] *= weight
        for j in range(operation.outputs):
            gradient[j] = gradient[j] * <floating>weight


cdef void _operate_by_rows(
    Training* training, Py_ssize_t first_operation, Py_ssize_t last_operation, floating* arena,
    const Batch* batch, int share, int shares,
) noexcept nogil:
    """A thread's rows through a run of row operations."""
    cdef Py_ssize_t row = batch.rows * share // shares, end = batch.rows * (share + 1) // shares, last, place
    cdef floating* scratch = arena + training.scratch + share * training.scratch_size
    while row < end:
        last = end if end - row <= training.block_rows else row + training.block_rows
        for place in range(first_operation, last_operation):
            _operate_on_rows(training, training.operations + place, arena, scratch, batch, row, last)
            if training.weights != NULL and _is_loss(training.operations + place):
                _weigh_rows(training, training.operations + place, arena, batch, row, last)
        row = last


cdef void _operate_by_columns(
    const Training* training, const Operation* operation, floating* arena, const Batch* batch, int share, int shares,
) noexcept nogil:
    """A thread's columns of a batch normalisation."""
    cdef Py_ssize_t columns = operation.outputs, blocks = (columns + COLUMN_BLOCK - 1) // COLUMN_BLOCK
    cdef Py_ssize_t padded = _padded(columns, arena), stride = operation.y_row, block, first, last
    cdef floating* y = arena + operation.y
    cdef floating* gamma = arena + operation.weights
    cdef floating* beta = arena + operation.bias
    cdef floating* xn = arena + operation.normalized
    cdef floating* statistics = arena + operation.statistics
    cdef floating* std = statistics + 2 * padded
    cdef floating* dgamma = statistics + 5 * padded
    cdef floating* dbeta = statistics + 6 * padded
    for block in range(blocks * share // shares, blocks * (share + 1) // shares):
        first = block * COLUMN_BLOCK
        last = columns if columns < first + COLUMN_BLOCK else first + COLUMN_BLOCK
        if operation.code == BATCH_NORMALIZATION:
            _batch_normalization_forward_columns(
                arena + operation.x, gamma, beta, y, xn, statistics, statistics + padded, std, batch.rows, stride,
                1e-6, first, last)
            _move_towards(statistics, statistics + 3 * padded, <floating>operation.setting, first, last)
            _move_towards(statistics + padded, statistics + 4 * padded, <floating>operation.setting, first, last)
        else:
            _batch_normalization_backward_columns(
                xn, std, gamma, y, y, dgamma, dbeta, batch.rows, stride, first, last)
            if training.optimizer.rule == GRADIENT:
                memcpy(<floating*><uintptr_t>operation.array + first, dgamma + first, (last - first) * sizeof(y[0]))
                memcpy(<floating*><uintptr_t>operation.bias_array + first, dbeta + first, (last - first) * sizeof(y[0]))
                continue
            if training.keeps:
                continue
            _update(training.optimizer, batch, dgamma + first, gamma + first, arena + operation.state + first, padded,
                    last - first)
            _update(training.optimizer, batch, dbeta + first, beta + first, arena + operation.bias_state + first,
                    padded, last - first)


cdef void _move_towards(
    const floating* new, floating* running, floating momentum, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(first, last):
        running[j] = running[j] * momentum + (1 - momentum) * new[j]
