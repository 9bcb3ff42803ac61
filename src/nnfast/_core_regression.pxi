# Losses of regression beside the squared error, each the sum over the outputs of a row: of the residual d = y - t, and
# Poisson's deviance, of scores that are logarithms of means.

cdef inline bint _is_of_residuals(int64_t code) noexcept nogil:
    return ABSOLUTE_LOSS <= code <= QUANTILE_LOSS


cdef inline double _residual_loss(int64_t code, double y, double t, double parameter) noexcept nogil:
    """|d|; Huber's d**2 / 2 up to a delta, and a line from there on; a quantile's, q |d| below t and (1 - q) |d| above.

    Of halves, since d may overflow where a part of it does not.
    """
    cdef double half = 0.5 * y - 0.5 * t, size = fabs(half)
    if code == HUBER_LOSS:
        return 2. * half * half if 2. * size <= parameter else 2. * parameter * (size - 0.25 * parameter)
    if code == QUANTILE_LOSS:
        return 2. * ((1. if half > 0. else 0.) - parameter) * half
    return 2. * size


cdef inline floating _residual_slope(int64_t code, floating d, floating parameter) noexcept nogil:
    """The derivative of _residual_loss; 0 at a kink. d itself where that is 0 or NaN."""
    if code == HUBER_LOSS:
        return parameter if d > parameter else -parameter if d < -parameter else d
    if code == QUANTILE_LOSS:
        return <floating>1. - parameter if d > 0 else -parameter if d < 0 else d
    return <floating>1. if d > 0 else <floating>-1. if d < 0 else d


cdef inline double _poisson_loss(double score, double t) noexcept nogil:
    """t log(t / y) - t + y, y = exp(score), as t (exp(u) - 1 - u), u = log(y / t): what nearly cancels is small then.

    From u = 50 on, also where t is 0, y is all that counts, and exp(u) might overflow where y does not.
    """
    cdef double u = score - _log(t)
    return t * (_exp(u) - 1. - u) if u < 50. else _exp(score) - t


cdef inline double _output_loss(int64_t code, double score, double t, double parameter) noexcept nogil:
    return _poisson_loss(score, t) if code == POISSON_LOSS else _residual_loss(code, score, t, parameter)


cdef void _residual_losses_row(
    const floating* y, const floating* t, const double* parameters, double* loss, int64_t code, Py_ssize_t outputs
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double total = 0
    for j in range(outputs):
        total += _residual_loss(code, y[j], t[j], parameters[j])
    loss[0] = total


cdef void _residual_losses_backward_row(
    const floating* y, const floating* t, const double* parameters, floating* dx, int64_t code, Py_ssize_t outputs,
    floating batch_size, floating dout,
) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(outputs):
        dx[j] = _residual_slope(code, y[j] - t[j], <floating>parameters[j]) / batch_size * dout


cdef bint _has_residuals(
    Py_ssize_t rows, Py_ssize_t outputs, Py_ssize_t t_rows, Py_ssize_t t_outputs, Py_ssize_t parameters, int64_t code,
    int num_threads,
) except? True:
    """Whether there is anything to do for a loss of residuals, whose arrays must fit together."""
    _check_threads(num_threads)
    _must(_is_of_residuals(code), "code is no loss of residuals")
    _check_shape("t", t_rows, t_outputs, rows, outputs)
    _check_length("parameters", parameters, outputs)
    return rows > 0 and outputs > 0


def residual_losses(
    const floating[:, ::1] y,       # in   (B, O)
    const floating[:, ::1] t,       # in   (B, O)
    const double[::1] parameters,   # in   (O,)     delta or quantile of each output
    double[::1] losses,             # out  (B,)
    int64_t code,
    int num_threads,
):
    """losses = sum(_residual_loss(y, t)), row by row; returns their sum."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    _check_length("losses", losses.shape[0], y.shape[0])
    if not _has_residuals(y.shape[0], y.shape[1], t.shape[0], t.shape[1], parameters.shape[0], code, num_threads):
        losses[:] = 0
        return 0.
    _check_alignment(<uintptr_t>&y[0, 0] | <uintptr_t>&t[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&parameters[0] | <uintptr_t>&losses[0], sizeof(losses[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(y.shape[0]):
                _residual_losses_row(&y[row, 0], &t[row, 0], &parameters[0], &losses[row], code, y.shape[1])
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(y.shape[0], 1, 0), nnfast_share(y.shape[0], 1, 1)):
                    _residual_losses_row(&y[row, 0], &t[row, 0], &parameters[0], &losses[row], code, y.shape[1])
                nnfast_leave(&team)
            nnfast_disband(&team)
    return _sum(&losses[0], losses.shape[0])


def residual_losses_backward(
    const floating[:, ::1] y,       # in   (B, O)
    const floating[:, ::1] t,       # in   (B, O)
    const double[::1] parameters,   # in   (O,)
    floating[:, ::1] dx,            # out  (B, O)
    int64_t code,
    double dout,
    int num_threads,
):
    """dx = _residual_slope(y - t) / B * dout."""
    cdef nnfast_team team
    cdef Py_ssize_t row
    _check_shape("dx", dx.shape[0], dx.shape[1], y.shape[0], y.shape[1])
    if not _has_residuals(y.shape[0], y.shape[1], t.shape[0], t.shape[1], parameters.shape[0], code, num_threads):
        return
    _check_alignment(<uintptr_t>&y[0, 0] | <uintptr_t>&t[0, 0] | <uintptr_t>&dx[0, 0], sizeof(y[0, 0]))
    _check_alignment(<uintptr_t>&parameters[0], sizeof(parameters[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            for row in range(y.shape[0]):
                _residual_losses_backward_row(&y[row, 0], &t[row, 0], &parameters[0], &dx[row, 0], code, y.shape[1],
                                              <floating>y.shape[0], <floating>dout)
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(y.shape[0], 1, 0), nnfast_share(y.shape[0], 1, 1)):
                    _residual_losses_backward_row(&y[row, 0], &t[row, 0], &parameters[0], &dx[row, 0], code, y.shape[1],
                                                  <floating>y.shape[0], <floating>dout)
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _poisson_deviance_row(
    const floating* scores, const floating* t, floating* y, double* loss, Py_ssize_t outputs
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double total = 0
    for j in range(outputs):
        total += _poisson_loss(scores[j], t[j])
        y[j] = _exp(scores[j])
    loss[0] = total


def poisson_deviance_forward(
    const floating[:, ::1] scores,  # in   (B, O)
    const floating[:, ::1] t,       # in   (B, O)  at least 0
    floating[:, ::1] y,             # out  (B, O)  means
    double[::1] losses,             # out  (B,)
    int num_threads,
):
    """y = exp(scores), losses = sum(t log(t / y) - t + y) by row; returns their sum."""
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
            for row in range(y.shape[0]):
                _poisson_deviance_row(&scores[row, 0], &t[row, 0], &y[row, 0], &losses[row], scores.shape[1])
        else:
            with parallel(num_threads=num_threads):
                for row in range(nnfast_share(y.shape[0], 1, 0), nnfast_share(y.shape[0], 1, 1)):
                    _poisson_deviance_row(&scores[row, 0], &t[row, 0], &y[row, 0], &losses[row], scores.shape[1])
                nnfast_leave(&team)
            nnfast_disband(&team)
    return _sum(&losses[0], losses.shape[0])
