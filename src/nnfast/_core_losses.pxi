# Softmax and the losses. A loss kernel writes each row's loss as float64 and returns their sum, added in the order of
# the rows by one thread.

cdef double _sum(const double* x, Py_ssize_t n) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    for i in range(n):
        total += x[i]
    return total


# Reductions over a row run side by side in LANES parts, so that they are vectors: one after the other, each addition
# waits for the last (2.1 instead of 1.2 ms for both passes over 1000 x 1000 float32 scores).
cdef enum:
    LANES = 32


cdef floating _largest(const floating* x, Py_ssize_t n) noexcept nogil:
    """The largest of x (n,), NaN left out but for x[0]."""
    cdef floating parts[LANES]
    cdef Py_ssize_t i, j
    parts[0] = x[0]
    if n >= LANES:
        for j in range(LANES):
            parts[j] = x[0]
        for i in range(n // LANES):
            for j in range(LANES):
                parts[j] = x[i * LANES + j] if x[i * LANES + j] > parts[j] else parts[j]
        for j in range(1, LANES):
            parts[0] = parts[j] if parts[j] > parts[0] else parts[0]
    for i in range(n // LANES * LANES, n):
        parts[0] = x[i] if x[i] > parts[0] else parts[0]
    return parts[0]


cdef floating _total(const floating* x, Py_ssize_t n) noexcept nogil:
    """The sum of x (n,)."""
    cdef floating parts[LANES]
    cdef Py_ssize_t i, j
    parts[0] = 0
    if n >= LANES:
        for j in range(LANES):
            parts[j] = 0
        for i in range(n // LANES):
            for j in range(LANES):
                parts[j] += x[i * LANES + j]
        for j in range(1, LANES):
            parts[0] += parts[j]
    for i in range(n // LANES * LANES, n):
        parts[0] += x[i]
    return parts[0]


cdef void _softmax_row(const floating* x, floating* y, Py_ssize_t classes) noexcept nogil:
    """The largest value is subtracted first: it changes nothing but the range."""
    cdef Py_ssize_t j
    cdef floating largest = _largest(x, classes), total
    for j in range(classes):
        y[j] = _exp(x[j] - largest)
    total = _total(y, classes)
    for j in range(classes):
        y[j] = y[j] / total


def softmax_forward(const floating[:, ::1] x, floating[:, ::1] y, int num_threads):
    """y = exp(x) / sum(exp(x)), row by row. x, y: (B, C)."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    _check_threads(num_threads)
    _check_shape("y", y.shape[0], y.shape[1], x.shape[0], x.shape[1])
    if x.shape[0] == 0 or x.shape[1] == 0:
        return
    _check_alignment(<uintptr_t>&x[0, 0] | <uintptr_t>&y[0, 0], sizeof(x[0, 0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(x.shape[0]):
                _softmax_row(&x[row, 0], &y[row, 0], x.shape[1])
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(x.shape[0], 1, 0), nnfast_share(x.shape[0], 1, 1)):
                    _softmax_row(&x[row, 0], &y[row, 0], x.shape[1])
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef bint _has_classes(
    Py_ssize_t rows, Py_ssize_t classes, Py_ssize_t labels, Py_ssize_t losses, int num_threads
) except? True:
    """Whether there is anything to do for a loss of labels, whose arrays must be of one length."""
    _check_threads(num_threads)
    _check_length("labels", labels, rows)
    _check_length("losses", losses, rows)
    if rows > 0 and classes == 0:
        raise ValueError("there are no classes for the labels")
    return rows > 0


cdef void _cross_entropy_row(
    const floating* y, int64_t label, double* loss, Py_ssize_t classes, bint* is_outside
) noexcept nogil:
    loss[0] = -_log(<double>y[_inside(label, classes, is_outside)] + 1e-7)


def cross_entropy(
    const floating[:, ::1] y,       # in   (B, C)  probabilities
    const int64_t[::1] labels,      # in   (B,)    0 to C - 1
    double[::1] losses,             # out  (B,)
    int num_threads,
):
    """losses = -log(y[n, labels[n]] + 1e-7); returns their sum."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    cdef bint is_outside = False
    if not _has_classes(y.shape[0], y.shape[1], labels.shape[0], losses.shape[0], num_threads):
        return 0.
    _check_alignment(<uintptr_t>&y[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&labels[0] | <uintptr_t>&losses[0], sizeof(losses[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(y.shape[0]):
                _cross_entropy_row(&y[row, 0], labels[row], &losses[row], y.shape[1], &is_outside)
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(y.shape[0], 1, 0), nnfast_share(y.shape[0], 1, 1)):
                    _cross_entropy_row(&y[row, 0], labels[row], &losses[row], y.shape[1], &is_outside)
                nnfast_leave(&team)
            nnfast_disband(&team)
    _check_indices("labels", is_outside, y.shape[1])
    return _sum(&losses[0], losses.shape[0])


cdef void _softmax_cross_entropy_row(
    const floating* scores, int64_t label, floating* y, double* loss, Py_ssize_t classes, bint* is_outside
) noexcept nogil:
    _softmax_row(scores, y, classes)
    _cross_entropy_row(y, label, loss, classes, is_outside)


def softmax_cross_entropy_forward(
    const floating[:, ::1] scores,  # in   (B, C)
    const int64_t[::1] labels,      # in   (B,)    0 to C - 1
    floating[:, ::1] y,             # out  (B, C)  probabilities
    double[::1] losses,             # out  (B,)
    int num_threads,
):
    """y = softmax(scores), losses = -log(y[n, labels[n]] + 1e-7); returns their sum."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    cdef bint is_outside = False
    _check_shape("y", y.shape[0], y.shape[1], scores.shape[0], scores.shape[1])
    if not _has_classes(scores.shape[0], scores.shape[1], labels.shape[0], losses.shape[0], num_threads):
        return 0.
    _check_alignment(<uintptr_t>&scores[0, 0] | <uintptr_t>&y[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&labels[0] | <uintptr_t>&losses[0], sizeof(losses[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(scores.shape[0]):
                _softmax_cross_entropy_row(&scores[row, 0], labels[row], &y[row, 0], &losses[row], scores.shape[1],
                                           &is_outside)
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(scores.shape[0], 1, 0), nnfast_share(scores.shape[0], 1, 1)):
                    _softmax_cross_entropy_row(&scores[row, 0], labels[row], &y[row, 0], &losses[row], scores.shape[1],
                                               &is_outside)
                nnfast_leave(&team)
            nnfast_disband(&team)
    _check_indices("labels", is_outside, y.shape[1])
    return _sum(&losses[0], losses.shape[0])


cdef void _softmax_cross_entropy_backward_row(
    const floating* y, int64_t label, floating* dx, Py_ssize_t classes, floating batch_size, floating dout,
    bint* is_outside,
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(classes):
        dx[j] = y[j] / batch_size * dout
    label = _inside(label, classes, is_outside)
    dx[label] = (y[label] - 1) / batch_size * dout


def softmax_cross_entropy_backward(
    const floating[:, ::1] y,       # in   (B, C)  probabilities
    const int64_t[::1] labels,      # in   (B,)    0 to C - 1
    floating[:, ::1] dx,            # out  (B, C)
    double dout,
    int num_threads,
):
    """dx = (y - t) / B * dout, t the labels as one-hot rows."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    cdef bint is_outside = False
    _check_shape("dx", dx.shape[0], dx.shape[1], y.shape[0], y.shape[1])
    if not _has_classes(y.shape[0], y.shape[1], labels.shape[0], y.shape[0], num_threads):
        return
    _check_alignment(<uintptr_t>&y[0, 0] | <uintptr_t>&dx[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&labels[0], sizeof(labels[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(y.shape[0]):
                _softmax_cross_entropy_backward_row(&y[row, 0], labels[row], &dx[row, 0], y.shape[1],
                                                    <floating>y.shape[0], <floating>dout, &is_outside)
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(y.shape[0], 1, 0), nnfast_share(y.shape[0], 1, 1)):
                    _softmax_cross_entropy_backward_row(&y[row, 0], labels[row], &dx[row, 0], y.shape[1],
                                                        <floating>y.shape[0], <floating>dout, &is_outside)
                nnfast_leave(&team)
            nnfast_disband(&team)
    _check_indices("labels", is_outside, y.shape[1])


# With smoothed labels: targets are t = (1 - smoothing) one-hot + smoothing / C, and nothing is added in the logarithm.

cdef void _smoothed_cross_entropy_row(
    const floating* scores, const floating* y, int64_t label, double* loss, Py_ssize_t classes, double smoothing,
    bint* is_outside,
) noexcept nogil:
    """-sum(t log(y)) from the scores: -log(y) is how far a score is below the largest, less the log of the largest y.

    Halves are subtracted, since a distance may overflow where its share of the loss does not.
    """
    cdef double half = 0.5 * _largest(scores, classes), share = 2. * smoothing / classes, total
    cdef Py_ssize_t j
    total = 2. * (1. - smoothing) * (half - 0.5 * scores[_inside(label, classes, is_outside)])
    for j in range(classes):
        total += share * (half - 0.5 * scores[j])
    loss[0] = total - _log(<double>_largest(y, classes))


cdef void _smoothed_backward_row(
    const floating* y, int64_t label, floating* dx, Py_ssize_t classes, double smoothing, floating batch_size,
    floating dout, bint* is_outside,
) noexcept nogil:
    """dx = (y - t) / batch_size * dout. dx may be y."""
    cdef floating others = <floating>(smoothing / classes), at_label
    cdef Py_ssize_t j
    label = _inside(label, classes, is_outside)
    at_label = y[label] - <floating>(1. - smoothing + smoothing / classes)
    for j in range(classes):
        dx[j] = (y[j] - others) / batch_size * dout
    dx[label] = at_label / batch_size * dout


def smoothed_cross_entropy(
    const floating[:, ::1] scores,  # in   (B, C)
    const floating[:, ::1] y,       # in   (B, C)  softmax(scores)
    const int64_t[::1] labels,      # in   (B,)    0 to C - 1
    double[::1] losses,             # out  (B,)
    double smoothing,
    int num_threads,
):
    """losses = -sum(t log(y)), t = (1 - smoothing) one-hot + smoothing / C; returns their sum."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    cdef bint is_outside = False
    _check_shape("y", y.shape[0], y.shape[1], scores.shape[0], scores.shape[1])
    if not _has_classes(scores.shape[0], scores.shape[1], labels.shape[0], losses.shape[0], num_threads):
        return 0.
    _check_alignment(<uintptr_t>&scores[0, 0] | <uintptr_t>&y[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&labels[0] | <uintptr_t>&losses[0], sizeof(losses[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(y.shape[0]):
                _smoothed_cross_entropy_row(&scores[row, 0], &y[row, 0], labels[row], &losses[row], y.shape[1],
                                            smoothing, &is_outside)
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(y.shape[0], 1, 0), nnfast_share(y.shape[0], 1, 1)):
                    _smoothed_cross_entropy_row(&scores[row, 0], &y[row, 0], labels[row], &losses[row], y.shape[1],
                                                smoothing, &is_outside)
                nnfast_leave(&team)
            nnfast_disband(&team)
    _check_indices("labels", is_outside, y.shape[1])
    return _sum(&losses[0], losses.shape[0])


def smoothed_cross_entropy_backward(
    const floating[:, ::1] y,       # in   (B, C)  softmax(scores)
    const int64_t[::1] labels,      # in   (B,)    0 to C - 1
    floating[:, ::1] dx,            # out  (B, C)
    double smoothing,
    double dout,
    int num_threads,
):
    """dx = (y - t) / B * dout, t = (1 - smoothing) one-hot + smoothing / C."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    cdef bint is_outside = False
    _check_shape("dx", dx.shape[0], dx.shape[1], y.shape[0], y.shape[1])
    if not _has_classes(y.shape[0], y.shape[1], labels.shape[0], y.shape[0], num_threads):
        return
    _check_alignment(<uintptr_t>&y[0, 0] | <uintptr_t>&dx[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&labels[0], sizeof(labels[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(y.shape[0]):
                _smoothed_backward_row(&y[row, 0], labels[row], &dx[row, 0], y.shape[1], smoothing,
                                       <floating>y.shape[0], <floating>dout, &is_outside)
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(y.shape[0], 1, 0), nnfast_share(y.shape[0], 1, 1)):
                    _smoothed_backward_row(&y[row, 0], labels[row], &dx[row, 0], y.shape[1], smoothing,
                                           <floating>y.shape[0], <floating>dout, &is_outside)
                nnfast_leave(&team)
            nnfast_disband(&team)
    _check_indices("labels", is_outside, y.shape[1])


cdef void _squared_error_row(const floating* y, const floating* t, double* loss, Py_ssize_t outputs) noexcept nogil:
    cdef Py_ssize_t j
    cdef double total = 0, difference
    for j in range(outputs):
        difference = <double>y[j] - t[j]
        total += difference * difference
    loss[0] = 0.5 * total


def squared_error(
    const floating[:, ::1] y,       # in   (B, O)
    const floating[:, ::1] t,       # in   (B, O)
    double[::1] losses,             # out  (B,)
    int num_threads,
):
    """losses = sum((y - t)**2) / 2, row by row; returns their sum."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    _check_threads(num_threads)
    _check_shape("t", t.shape[0], t.shape[1], y.shape[0], y.shape[1])
    _check_length("losses", losses.shape[0], y.shape[0])
    if y.shape[0] == 0 or y.shape[1] == 0:
        losses[:] = 0
        return 0.
    _check_alignment(<uintptr_t>&y[0, 0] | <uintptr_t>&t[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&losses[0], sizeof(losses[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(y.shape[0]):
                _squared_error_row(&y[row, 0], &t[row, 0], &losses[row], y.shape[1])
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(y.shape[0], 1, 0), nnfast_share(y.shape[0], 1, 1)):
                    _squared_error_row(&y[row, 0], &t[row, 0], &losses[row], y.shape[1])
                nnfast_leave(&team)
            nnfast_disband(&team)
    return _sum(&losses[0], losses.shape[0])


cdef void _difference_chunk(
    const floating* y, const floating* t, floating* dx, floating batch_size, floating dout,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        dx[i] = (y[i] - t[i]) / batch_size * dout


def difference_backward(
    const floating[::1] y,          # in   (B * O,)
    const floating[::1] t,          # in   (B * O,)
    floating[::1] dx,               # out  (B * O,)
    double batch_size,
    double dout,
    int num_threads,
):
    """dx = (y - t) / batch_size * dout: of the squared error with identity, of cross-entropy with sigmoid."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(y.shape[0], t.shape[0], dx.shape[0], dx.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&y[0] | <uintptr_t>&t[0] | <uintptr_t>&dx[0], sizeof(y[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _difference_chunk(&y[0], &t[0], &dx[0], <floating>batch_size, <floating>dout, 0, n)
        else:
            with parallel(num_threads=num_threads):
                _difference_chunk(&y[0], &t[0], &dx[0], <floating>batch_size, <floating>dout,
                                  nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _sigmoid_cross_entropy_row(
    const floating* scores, const floating* t, floating* y, double* loss, Py_ssize_t outputs, double most
) noexcept nogil:
    """loss: each output's is no more than `most`."""
    cdef Py_ssize_t j
    cdef double s, one, total = 0
    for j in range(outputs):
        y[j] = _sigmoid(scores[j])
    for j in range(outputs):
        # -t log(y) - (1 - t) log(1 - y), rearranged so that nothing overflows
        s = scores[j]
        one = (s if s > 0 else 0.) - s * t[j] + log1p(exp_libc(-fabs(s)))
        total += most if one > most else one
    loss[0] = total


def sigmoid_cross_entropy_forward(
    const floating[:, ::1] scores,  # in   (B, O)
    const floating[:, ::1] t,       # in   (B, O)  0 to 1
    floating[:, ::1] y,             # out  (B, O)  probabilities
    double[::1] losses,             # out  (B,)
    int num_threads,
):
    """y = sigmoid(scores), losses = sum(-t log(y) - (1 - t) log(1 - y)) by row; returns their sum."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    _check_threads(num_threads)
    _check_shape("t", t.shape[0], t.shape[1], scores.shape[0], scores.shape[1])
    _check_shape("y", y.shape[0], y.shape[1], scores.shape[0], scores.shape[1])
    _check_length("losses", losses.shape[0], y.shape[0])
    if y.shape[0] == 0 or y.shape[1] == 0:
        losses[:] = 0
        return 0.
    _check_alignment(<uintptr_t>&scores[0, 0] | <uintptr_t>&t[0, 0] | <uintptr_t>&y[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&losses[0], sizeof(losses[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(scores.shape[0]):
                _sigmoid_cross_entropy_row(&scores[row, 0], &t[row, 0], &y[row, 0], &losses[row], scores.shape[1],
                                           INFINITY)
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(scores.shape[0], 1, 0), nnfast_share(scores.shape[0], 1, 1)):
                    _sigmoid_cross_entropy_row(&scores[row, 0], &t[row, 0], &y[row, 0], &losses[row], scores.shape[1],
                                               INFINITY)
                nnfast_leave(&team)
            nnfast_disband(&team)
    return _sum(&losses[0], losses.shape[0])


def count_correct(const floating[:, ::1] scores, const int64_t[::1] labels):
    """Rows of scores (B, C) whose first largest value stands at the row's label (B,)."""
    cdef Py_ssize_t row, correct = 0
    _check_length("labels", labels.shape[0], scores.shape[0])
    for row in range(scores.shape[0] if scores.shape[1] > 0 else 0):
        correct += _first_largest(&scores[row, 0], scores.shape[1]) == labels[row]
    return correct


cdef Py_ssize_t _first_largest(const floating* x, Py_ssize_t n) noexcept nogil:
    """Like numpy.argmax, a NaN counts as the largest."""
    cdef Py_ssize_t j, best = 0
    for j in range(n):
        if x[j] != x[j]:
            return j
        if x[j] > x[best]:
            best = j
    return best


def one_hot_to_labels(const floating[:, ::1] t, int64_t[::1] labels):
    """labels[n] = the place of the 1 in row n of t (B, C); returns the first row that is not one-hot, or -1."""
    cdef Py_ssize_t row, j, ones
    _check_length("labels", labels.shape[0], t.shape[0])
    for row in range(t.shape[0]):
        ones = 0
        for j in range(t.shape[1]):
            if t[row, j] == 1:
                ones = ones + 1
                labels[row] = j
            elif t[row, j] != 0:
                return row
        if ones != 1:
            return row
    return -1


def first_outside(const int64_t[::1] labels, int64_t classes):
    """The place of the first label that is not in 0 to classes - 1, or -1."""
    cdef Py_ssize_t i
    for i in range(labels.shape[0]):
        if labels[i] < 0 or labels[i] >= classes:
            return i
    return -1


cdef inline Py_ssize_t _chunks(Py_ssize_t n) noexcept nogil:
    return (n + CHUNK - 1) // CHUNK


cdef inline Py_ssize_t _chunk_end(Py_ssize_t chunk, Py_ssize_t n) noexcept nogil:
    return n if n < (chunk + 1) * CHUNK else (chunk + 1) * CHUNK


cdef bint _chunk_is_finite(const floating* x, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Whether a chunk holds neither NaN nor infinity: finite * 0 is 0, anything else NaN, which stays in a sum."""
    cdef floating sums[LANES]
    cdef Py_ssize_t i, j
    for j in range(LANES):
        sums[j] = 0
    for i in range((last - first) // LANES):
        for j in range(LANES):
            sums[j] += x[first + i * LANES + j] * 0
    for i in range(first + (last - first) // LANES * LANES, last):
        sums[0] += x[i] * 0
    for j in range(1, LANES):
        sums[0] += sums[j]
    return sums[0] == 0


def first_not_finite(const floating[::1] x):
    """The place of the first NaN or infinity in x (N,), or -1."""
    cdef Py_ssize_t chunk, i, n = x.shape[0]
    if n > 0:
        _check_alignment(<uintptr_t>&x[0], sizeof(x[0]))
    for chunk in range(_chunks(n)):
        if not _chunk_is_finite(&x[0], chunk * CHUNK, _chunk_end(chunk, n)):
            for i in range(chunk * CHUNK, _chunk_end(chunk, n)):
                if x[i] - x[i] != 0:
                    return i
    return -1
