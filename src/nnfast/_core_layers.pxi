# Activations on flattened arrays, dropout, and batch normalisation: forward and backward side by side.

# ReLU

cdef void _relu_forward_chunk(const floating* x, floating* y, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        y[i] = <floating>0. if x[i] <= 0 else x[i]


def relu_forward(const floating[::1] x, floating[::1] y, int num_threads):
    """y = x where x > 0, else 0; NaN stays NaN. x, y: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], y.shape[0], y.shape[0], y.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&y[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _relu_forward_chunk(&x[0], &y[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _relu_forward_chunk(&x[0], &y[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _relu_forward_masked_chunk(
    const floating* x, floating* y, uint8_t* mask, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        mask[i] = x[i] <= 0
        y[i] = <floating>0. if x[i] <= 0 else x[i]


def relu_forward_masked(const floating[::1] x, floating[::1] y, uint8_t[::1] mask, int num_threads):
    """relu_forward, and mask = 1 where x <= 0, else 0. x, y, mask: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], y.shape[0], mask.shape[0], mask.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&y[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _relu_forward_masked_chunk(&x[0], &y[0], &mask[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _relu_forward_masked_chunk(&x[0], &y[0], &mask[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _relu_backward_chunk(
    const uint8_t* mask, const floating* dy, floating* dx, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        dx[i] = <floating>0. if mask[i] else dy[i]


def relu_backward(const uint8_t[::1] mask, const floating[::1] dy, floating[::1] dx, int num_threads):
    """dx = dy where mask is 0, else 0; mask is 1 where x <= 0. mask, dy, dx: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(mask.shape[0], dy.shape[0], dx.shape[0], dx.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&dy[0] | <uintptr_t>&dx[0], sizeof(dy[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _relu_backward_chunk(&mask[0], &dy[0], &dx[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _relu_backward_chunk(&mask[0], &dy[0], &dx[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


# Leaky ReLU

cdef void _leaky_relu_forward_chunk(
    const floating* x, floating* y, floating slope, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        y[i] = slope * x[i] if x[i] <= 0 else x[i]


def leaky_relu_forward(const floating[::1] x, floating[::1] y, double slope, int num_threads):
    """y = x where x > 0, else slope * x. x, y: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], y.shape[0], y.shape[0], y.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&y[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _leaky_relu_forward_chunk(&x[0], &y[0], <floating>slope, 0, n)
        else:
            with parallel(num_threads=num_threads):
                _leaky_relu_forward_chunk(&x[0], &y[0], <floating>slope,
                                          nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _leaky_relu_backward_chunk(
    const floating* x, const floating* dy, floating* dx, floating slope, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        dx[i] = slope * dy[i] if x[i] <= 0 else dy[i]


def leaky_relu_backward(
    const floating[::1] x, const floating[::1] dy, floating[::1] dx, double slope, int num_threads
):
    """dx = dy where x > 0, else slope * dy. x, dy, dx: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], dy.shape[0], dx.shape[0], dx.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&dy[0] | <uintptr_t>&dx[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _leaky_relu_backward_chunk(&x[0], &dy[0], &dx[0], <floating>slope, 0, n)
        else:
            with parallel(num_threads=num_threads):
                _leaky_relu_backward_chunk(&x[0], &dy[0], &dx[0], <floating>slope,
                                           nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


# Sigmoid

cdef void _sigmoid_forward_chunk(const floating* x, floating* y, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        y[i] = _sigmoid(x[i])


def sigmoid_forward(const floating[::1] x, floating[::1] y, int num_threads):
    """y = 1 / (1 + exp(-x)). x, y: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], y.shape[0], y.shape[0], y.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&y[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _sigmoid_forward_chunk(&x[0], &y[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _sigmoid_forward_chunk(&x[0], &y[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _sigmoid_backward_chunk(
    const floating* y, const floating* dy, floating* dx, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        dx[i] = dy[i] * (<floating>1. - y[i]) * y[i]


def sigmoid_backward(const floating[::1] y, const floating[::1] dy, floating[::1] dx, int num_threads):
    """dx = dy * y * (1 - y): from the output alone. y, dy, dx: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(y.shape[0], dy.shape[0], dx.shape[0], dx.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&y[0] | <uintptr_t>&dy[0] | <uintptr_t>&dx[0], sizeof(y[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _sigmoid_backward_chunk(&y[0], &dy[0], &dx[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _sigmoid_backward_chunk(&y[0], &dy[0], &dx[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


# Tanh

cdef void _tanh_forward_chunk(const floating* x, floating* y, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        y[i] = _tanh(x[i])


def tanh_forward(const floating[::1] x, floating[::1] y, int num_threads):
    """y = tanh(x). x, y: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], y.shape[0], y.shape[0], y.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&y[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _tanh_forward_chunk(&x[0], &y[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _tanh_forward_chunk(&x[0], &y[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _tanh_backward_chunk(
    const floating* y, const floating* dy, floating* dx, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        dx[i] = dy[i] * (<floating>1. - y[i] * y[i])


def tanh_backward(const floating[::1] y, const floating[::1] dy, floating[::1] dx, int num_threads):
    """dx = dy * (1 - y**2): from the output alone. y, dy, dx: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(y.shape[0], dy.shape[0], dx.shape[0], dx.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&y[0] | <uintptr_t>&dy[0] | <uintptr_t>&dx[0], sizeof(y[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _tanh_backward_chunk(&y[0], &dy[0], &dx[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _tanh_backward_chunk(&y[0], &dy[0], &dx[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


# GELU: x times the probability that a standard normal variable is below x (Hendrycks and Gimpel, 2016).

cdef void _gelu_forward_chunk(const floating* x, floating* y, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating below, density
    for i in range(first, last):
        below = _normal_distribution(x[i], &density)
        y[i] = x[i] * below if below > 0 else below * 0     # -infinity * 0 would be NaN; NaN stays NaN


def gelu_forward(const floating[::1] x, floating[::1] y, int num_threads):
    """y = x * (1 + erf(x / sqrt(2))) / 2. x, y: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], y.shape[0], y.shape[0], y.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&y[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _gelu_forward_chunk(&x[0], &y[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _gelu_forward_chunk(&x[0], &y[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _gelu_backward_chunk(
    const floating* x, const floating* dy, floating* dx, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating below, density, z
    for i in range(first, last):
        z = x[i] if x[i] < <floating>40. else <floating>40.    # beyond +-40 the density is 0; z * 0 stays finite
        z = z if z > <floating>-40. else <floating>-40.
        below = _normal_distribution(x[i], &density)
        dx[i] = dy[i] * (below + z * (<floating>0.3989422804014327 * density))


def gelu_backward(const floating[::1] x, const floating[::1] dy, floating[::1] dx, int num_threads):
    """dx = dy * (P(x) + x p(x)), P and p the standard normal distribution and density. x, dy, dx: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], dy.shape[0], dx.shape[0], dx.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&dy[0] | <uintptr_t>&dx[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _gelu_backward_chunk(&x[0], &dy[0], &dx[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _gelu_backward_chunk(&x[0], &dy[0], &dx[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


# Dropout: the mask is drawn by the layer; forward and backward both multiply by it.

cdef void _masked_chunk(
    const floating* x, const uint8_t* mask, floating* y, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        y[i] = x[i] * mask[i]


def masked(const floating[::1] x, const uint8_t[::1] mask, floating[::1] y, int num_threads):
    """y = x * mask, mask of 0 and 1. x, mask, y: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], mask.shape[0], y.shape[0], y.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&y[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _masked_chunk(&x[0], &mask[0], &y[0], 0, n)
        else:
            with parallel(num_threads=num_threads):
                _masked_chunk(&x[0], &mask[0], &y[0], nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _scaled_chunk(
    const floating* x, floating* y, floating factor, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        y[i] = x[i] * factor


def scaled(const floating[::1] x, floating[::1] y, double factor, int num_threads):
    """y = x * factor. x, y: (N,)."""
    cdef nnfast_team team
    cdef Py_ssize_t n = _common_length(x.shape[0], y.shape[0], y.shape[0], y.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&x[0] | <uintptr_t>&y[0], sizeof(x[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            _scaled_chunk(&x[0], &y[0], <floating>factor, 0, n)
        else:
            with parallel(num_threads=num_threads):
                _scaled_chunk(&x[0], &y[0], <floating>factor, nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)


# Batch normalisation (Ioffe and Szegedy, 2015). A thread owns blocks of columns: each column's sums run over the
# whole batch in one thread. 16 columns are one cache line of float32.

cdef enum:
    COLUMN_BLOCK = 16


# Batch normalisation of a block of columns in stages, between which sums become those of the whole batch: here they are
# already, on ranks somebody adds them up (_core_ranks.pxi). `rows` are those at hand, `together` all of the batch.

cdef void _sum_columns(
    const floating* x, double* sums, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """sums (last - first,) = sum(x) by column."""
    cdef double parts[COLUMN_BLOCK]
    cdef Py_ssize_t i, j
    for j in range(last - first):
        parts[j] = 0
    for i in range(rows):
        for j in range(last - first):
            parts[j] += x[i * columns + first + j]
    memcpy(sums, parts, (last - first) * sizeof(sums[0]))


cdef void _sum_squares_of_columns(
    const floating* x, const double* sums, floating* mean, double* squares, Py_ssize_t rows, Py_ssize_t together,
    Py_ssize_t columns, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """mean = sums / together, and squares (last - first,) = sum((x - mean)**2) by column. squares may be sums."""
    cdef double parts[COLUMN_BLOCK]
    cdef double difference
    cdef Py_ssize_t i, j
    for j in range(last - first):
        mean[first + j] = <floating>(sums[j] / together)
        parts[j] = 0
    for i in range(rows):
        for j in range(last - first):
            difference = x[i * columns + first + j] - mean[first + j]
            parts[j] += difference * difference
    memcpy(squares, parts, (last - first) * sizeof(squares[0]))


cdef void _normalize_columns(
    const floating* x, const floating* gamma, const floating* beta, const double* squares,
    floating* y, floating* xn, const floating* mean, floating* variance, floating* std,
    Py_ssize_t rows, Py_ssize_t together, Py_ssize_t columns, double epsilon, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """variance = squares / together, std = sqrt(variance + epsilon), xn = (x - mean) / std, y = gamma * xn + beta."""
    cdef Py_ssize_t i, j
    for j in range(last - first):
        variance[first + j] = <floating>(squares[j] / together)
        std[first + j] = <floating>sqrt(squares[j] / together + epsilon)
    for i in range(rows):
        for j in range(first, last):
            xn[i * columns + j] = (x[i * columns + j] - mean[j]) / std[j]
            y[i * columns + j] = gamma[j] * xn[i * columns + j] + beta[j]


cdef void _batch_normalization_forward_columns(
    const floating* x, const floating* gamma, const floating* beta,
    floating* y, floating* xn, floating* mean, floating* variance, floating* std,
    Py_ssize_t rows, Py_ssize_t columns, double epsilon, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef double sums[COLUMN_BLOCK]
    _sum_columns(x, sums, rows, columns, first, last)
    _sum_squares_of_columns(x, sums, mean, sums, rows, rows, columns, first, last)
    _normalize_columns(x, gamma, beta, sums, y, xn, mean, variance, std, rows, rows, columns, epsilon, first, last)


def batch_normalization_forward(
    const floating[:, ::1] x,       # in   (B, I)
    const floating[::1] gamma,      # in   (I,)
    const floating[::1] beta,       # in   (I,)
    floating[:, ::1] y,             # out  (B, I)
    floating[:, ::1] xn,            # out  (B, I)  x normalised
    floating[::1] mean,             # out  (I,)    of the batch
    floating[::1] variance,         # out  (I,)    of the batch, divided by B
    floating[::1] std,              # out  (I,)    sqrt(variance + epsilon)
    double epsilon,
    int num_threads,
):
    """y = gamma * xn + beta, xn = (x - mean) / sqrt(variance + epsilon), column by column."""
    cdef nnfast_team team
    cdef Py_ssize_t block, columns = x.shape[1], blocks = (x.shape[1] + COLUMN_BLOCK - 1) // COLUMN_BLOCK
    _check_threads(num_threads)
    _check_shape("y", y.shape[0], y.shape[1], x.shape[0], columns)
    _check_shape("xn", xn.shape[0], xn.shape[1], x.shape[0], columns)
    _check_length("gamma", gamma.shape[0], columns)
    _check_length("beta", beta.shape[0], columns)
    _check_length("mean", mean.shape[0], columns)
    _check_length("variance", variance.shape[0], columns)
    _check_length("std", std.shape[0], columns)
    if x.shape[0] == 0 or columns == 0:
        return
    _check_alignment(<uintptr_t>&x[0, 0] | <uintptr_t>&y[0, 0] | <uintptr_t>&xn[0, 0] | <uintptr_t>&gamma[0]
                     | <uintptr_t>&beta[0] | <uintptr_t>&mean[0] | <uintptr_t>&variance[0] | <uintptr_t>&std[0],
                     sizeof(x[0, 0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for block in range(blocks):
                _batch_normalization_forward_columns(
                    &x[0, 0], &gamma[0], &beta[0], &y[0, 0], &xn[0, 0], &mean[0], &variance[0], &std[0],
                    x.shape[0], columns, epsilon, block * COLUMN_BLOCK,
                    columns if columns < (block + 1) * COLUMN_BLOCK else (block + 1) * COLUMN_BLOCK)
        else:
            with parallel(num_threads=num_threads):
                for block in range(nnfast_share(blocks, 1, 0), nnfast_share(blocks, 1, 1)):
                    _batch_normalization_forward_columns(
                        &x[0, 0], &gamma[0], &beta[0], &y[0, 0], &xn[0, 0], &mean[0], &variance[0], &std[0],
                        x.shape[0], columns, epsilon, block * COLUMN_BLOCK,
                        columns if columns < (block + 1) * COLUMN_BLOCK else (block + 1) * COLUMN_BLOCK)
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _batch_normalization_predict_row(
    const floating* x, const floating* gamma, const floating* beta, const floating* mean, const floating* variance,
    floating* y, Py_ssize_t columns, floating epsilon,
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(columns):
        y[j] = gamma[j] * ((x[j] - mean[j]) / _square_root(variance[j] + epsilon)) + beta[j]


def batch_normalization_predict(
    const floating[:, ::1] x,       # in   (B, I)
    const floating[::1] gamma,      # in   (I,)
    const floating[::1] beta,       # in   (I,)
    const floating[::1] mean,       # in   (I,)  running
    const floating[::1] variance,   # in   (I,)  running
    floating[:, ::1] y,             # out  (B, I)
    double epsilon,
    int num_threads,
):
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    _check_threads(num_threads)
    _check_shape("y", y.shape[0], y.shape[1], x.shape[0], x.shape[1])
    _check_length("gamma", gamma.shape[0], x.shape[1])
    _check_length("beta", beta.shape[0], x.shape[1])
    _check_length("mean", mean.shape[0], x.shape[1])
    _check_length("variance", variance.shape[0], x.shape[1])
    if x.shape[0] == 0 or x.shape[1] == 0:
        return
    _check_alignment(<uintptr_t>&x[0, 0] | <uintptr_t>&y[0, 0] | <uintptr_t>&gamma[0] | <uintptr_t>&beta[0]
                     | <uintptr_t>&mean[0] | <uintptr_t>&variance[0], sizeof(x[0, 0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(x.shape[0]):
                _batch_normalization_predict_row(&x[row, 0], &gamma[0], &beta[0], &mean[0], &variance[0], &y[row, 0],
                                                 x.shape[1], <floating>epsilon)
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(x.shape[0], 1, 0), nnfast_share(x.shape[0], 1, 1)):
                    _batch_normalization_predict_row(&x[row, 0], &gamma[0], &beta[0], &mean[0], &variance[0],
                                                     &y[row, 0], x.shape[1], <floating>epsilon)
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _sum_gradients_of_columns(
    const floating* xn, const floating* dy, double* sum_dy, double* sum_dy_xn, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """sum_dy (last - first,) = sum(dy), sum_dy_xn (last - first,) = sum(dy * xn), by column."""
    cdef double parts[COLUMN_BLOCK]
    cdef double parts_xn[COLUMN_BLOCK]
    cdef Py_ssize_t i, j, at
    for j in range(last - first):
        parts[j] = 0
        parts_xn[j] = 0
    for i in range(rows):
        for j in range(last - first):
            at = i * columns + first + j
            parts[j] += dy[at]
            parts_xn[j] += <double>dy[at] * xn[at]
    memcpy(sum_dy, parts, (last - first) * sizeof(sum_dy[0]))
    memcpy(sum_dy_xn, parts_xn, (last - first) * sizeof(sum_dy_xn[0]))


cdef void _pass_back_columns(
    const floating* xn, const floating* std, const floating* gamma, const floating* dy, const double* sum_dy,
    const double* sum_dy_xn, floating* dx, floating* dgamma, floating* dbeta, Py_ssize_t rows, Py_ssize_t together,
    Py_ssize_t columns, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """dbeta = sum_dy, dgamma = sum_dy_xn, dx = gamma / std * (dy - sum_dy / together - xn * sum_dy_xn / together)."""
    cdef floating mean_dy, mean_dy_xn
    cdef Py_ssize_t i, j, at
    for j in range(last - first):
        dbeta[first + j] = <floating>sum_dy[j]
        dgamma[first + j] = <floating>sum_dy_xn[j]
        mean_dy = <floating>(sum_dy[j] / together)
        mean_dy_xn = <floating>(sum_dy_xn[j] / together)
        for i in range(rows):
            at = i * columns + first + j
            dx[at] = gamma[first + j] / std[first + j] * (dy[at] - mean_dy - xn[at] * mean_dy_xn)


cdef void _batch_normalization_backward_columns(
    const floating* xn, const floating* std, const floating* gamma, const floating* dy,
    floating* dx, floating* dgamma, floating* dbeta,
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef double sum_dy[COLUMN_BLOCK]
    cdef double sum_dy_xn[COLUMN_BLOCK]
    _sum_gradients_of_columns(xn, dy, sum_dy, sum_dy_xn, rows, columns, first, last)
    _pass_back_columns(xn, std, gamma, dy, sum_dy, sum_dy_xn, dx, dgamma, dbeta, rows, rows, columns, first, last)


def batch_normalization_backward(
    const floating[:, ::1] xn,      # in   (B, I)  as forward left it
    const floating[::1] std,        # in   (I,)    as forward left it
    const floating[::1] gamma,      # in   (I,)
    const floating[:, ::1] dy,      # in   (B, I)
    floating[:, ::1] dx,            # out  (B, I)
    floating[::1] dgamma,           # out  (I,)
    floating[::1] dbeta,            # out  (I,)
    int num_threads,
):
    """dbeta = sum(dy), dgamma = sum(dy * xn), dx = gamma / std * (dy - mean(dy) - xn * mean(dy * xn)), by column."""
    cdef nnfast_team team
    cdef Py_ssize_t block, columns = xn.shape[1], blocks = (xn.shape[1] + COLUMN_BLOCK - 1) // COLUMN_BLOCK
    _check_threads(num_threads)
    _check_shape("dy", dy.shape[0], dy.shape[1], xn.shape[0], columns)
    _check_shape("dx", dx.shape[0], dx.shape[1], xn.shape[0], columns)
    _check_length("std", std.shape[0], columns)
    _check_length("gamma", gamma.shape[0], columns)
    _check_length("dgamma", dgamma.shape[0], columns)
    _check_length("dbeta", dbeta.shape[0], columns)
    if xn.shape[0] == 0 or columns == 0:
        return
    _check_alignment(<uintptr_t>&xn[0, 0] | <uintptr_t>&dy[0, 0] | <uintptr_t>&dx[0, 0] | <uintptr_t>&std[0]
                     | <uintptr_t>&gamma[0] | <uintptr_t>&dgamma[0] | <uintptr_t>&dbeta[0], sizeof(xn[0, 0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for block in range(blocks):
                _batch_normalization_backward_columns(
                    &xn[0, 0], &std[0], &gamma[0], &dy[0, 0], &dx[0, 0], &dgamma[0], &dbeta[0],
                    xn.shape[0], columns, block * COLUMN_BLOCK,
                    columns if columns < (block + 1) * COLUMN_BLOCK else (block + 1) * COLUMN_BLOCK)
        else:
            with parallel(num_threads=num_threads):
                for block in range(nnfast_share(blocks, 1, 0), nnfast_share(blocks, 1, 1)):
                    _batch_normalization_backward_columns(
                        &xn[0, 0], &std[0], &gamma[0], &dy[0, 0], &dx[0, 0], &dgamma[0], &dbeta[0],
                        xn.shape[0], columns, block * COLUMN_BLOCK,
                        columns if columns < (block + 1) * COLUMN_BLOCK else (block + 1) * COLUMN_BLOCK)
                nnfast_leave(&team)
            nnfast_disband(&team)
