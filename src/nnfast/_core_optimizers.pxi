# One update step of each optimiser on a flattened parameter: parameter and state are changed in place.
#
# Subnormal numbers are taken for 0 meanwhile, as in a fit: the averages of a gradient that is 0 sink among them and
# stay there, as a tenth of the smallest ones is rounded away, and a step of Adam takes twice as long on them (Zen 4).

cdef void _sgd_step_chunk(
    const floating* gradient, floating* parameter, floating lr, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        parameter[i] -= lr * gradient[i]


def sgd_step(const floating[::1] gradient, floating[::1] parameter, double lr, int num_threads):
    """parameter -= lr * gradient. All (N,)."""
    cdef nnfast_team team
    cdef uint64_t mode
    cdef Py_ssize_t n = _common_length(
        gradient.shape[0], parameter.shape[0], parameter.shape[0], parameter.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&gradient[0] | <uintptr_t>&parameter[0], sizeof(gradient[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            mode = nnfast_flush_subnormals()
            _sgd_step_chunk(&gradient[0], &parameter[0], <floating>lr, 0, n)
            nnfast_restore_mode(mode)
        else:
            with parallel(num_threads=num_threads):
                mode = nnfast_flush_subnormals()
                _sgd_step_chunk(&gradient[0], &parameter[0], <floating>lr,
                                nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_restore_mode(mode)
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _momentum_step_chunk(
    const floating* gradient, floating* parameter, floating* v, floating lr, floating momentum,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        v[i] = momentum * v[i] - lr * gradient[i]
        parameter[i] += v[i]


def momentum_step(
    const floating[::1] gradient, floating[::1] parameter, floating[::1] v, double lr, double momentum,
    int num_threads,
):
    """v = momentum * v - lr * gradient; parameter += v. All (N,)."""
    cdef nnfast_team team
    cdef uint64_t mode
    cdef Py_ssize_t n = _common_length(gradient.shape[0], parameter.shape[0], v.shape[0], v.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&gradient[0] | <uintptr_t>&parameter[0] | <uintptr_t>&v[0], sizeof(gradient[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            mode = nnfast_flush_subnormals()
            _momentum_step_chunk(&gradient[0], &parameter[0], &v[0], <floating>lr, <floating>momentum, 0, n)
            nnfast_restore_mode(mode)
        else:
            with parallel(num_threads=num_threads):
                mode = nnfast_flush_subnormals()
                _momentum_step_chunk(&gradient[0], &parameter[0], &v[0], <floating>lr, <floating>momentum,
                                     nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_restore_mode(mode)
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _nesterov_step_chunk(
    const floating* gradient, floating* parameter, floating* v, floating lr, floating momentum,
    Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        parameter[i] += momentum * momentum * v[i] - (1 + momentum) * lr * gradient[i]
        v[i] = momentum * v[i] - lr * gradient[i]


def nesterov_step(
    const floating[::1] gradient, floating[::1] parameter, floating[::1] v, double lr, double momentum,
    int num_threads,
):
    """parameter += momentum**2 * v - (1 + momentum) * lr * gradient, then
    v = momentum * v - lr * gradient. All (N,)."""
    cdef nnfast_team team
    cdef uint64_t mode
    cdef Py_ssize_t n = _common_length(gradient.shape[0], parameter.shape[0], v.shape[0], v.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&gradient[0] | <uintptr_t>&parameter[0] | <uintptr_t>&v[0], sizeof(gradient[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            mode = nnfast_flush_subnormals()
            _nesterov_step_chunk(&gradient[0], &parameter[0], &v[0], <floating>lr, <floating>momentum, 0, n)
            nnfast_restore_mode(mode)
        else:
            with parallel(num_threads=num_threads):
                mode = nnfast_flush_subnormals()
                _nesterov_step_chunk(&gradient[0], &parameter[0], &v[0], <floating>lr, <floating>momentum,
                                     nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_restore_mode(mode)
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _adagrad_step_chunk(
    const floating* gradient, floating* parameter, floating* h, floating lr, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        h[i] += gradient[i] * gradient[i]
        parameter[i] -= lr * gradient[i] / (_square_root(h[i]) + <floating>1e-7)


def adagrad_step(
    const floating[::1] gradient, floating[::1] parameter, floating[::1] h, double lr, int num_threads
):
    """h += gradient**2; parameter -= lr * gradient / (sqrt(h) + 1e-7). All (N,)."""
    cdef nnfast_team team
    cdef uint64_t mode
    cdef Py_ssize_t n = _common_length(gradient.shape[0], parameter.shape[0], h.shape[0], h.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&gradient[0] | <uintptr_t>&parameter[0] | <uintptr_t>&h[0], sizeof(gradient[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            mode = nnfast_flush_subnormals()
            _adagrad_step_chunk(&gradient[0], &parameter[0], &h[0], <floating>lr, 0, n)
            nnfast_restore_mode(mode)
        else:
            with parallel(num_threads=num_threads):
                mode = nnfast_flush_subnormals()
                _adagrad_step_chunk(&gradient[0], &parameter[0], &h[0], <floating>lr,
                                    nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_restore_mode(mode)
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _rmsprop_step_chunk(
    const floating* gradient, floating* parameter, floating* h, floating lr, floating decay_rate,
    floating new_share, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        h[i] = decay_rate * h[i] + new_share * gradient[i] * gradient[i]
        parameter[i] -= lr * gradient[i] / (_square_root(h[i]) + <floating>1e-7)


def rmsprop_step(
    const floating[::1] gradient, floating[::1] parameter, floating[::1] h, double lr, double decay_rate,
    int num_threads,
):
    """h = decay_rate * h + (1 - decay_rate) * gradient**2; parameter -= lr * gradient / (sqrt(h) + 1e-7). All (N,)."""
    cdef nnfast_team team
    cdef uint64_t mode
    cdef Py_ssize_t n = _common_length(gradient.shape[0], parameter.shape[0], h.shape[0], h.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(<uintptr_t>&gradient[0] | <uintptr_t>&parameter[0] | <uintptr_t>&h[0], sizeof(gradient[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            mode = nnfast_flush_subnormals()
            _rmsprop_step_chunk(&gradient[0], &parameter[0], &h[0], <floating>lr, <floating>decay_rate,
                                <floating>(1 - decay_rate), 0, n)
            nnfast_restore_mode(mode)
        else:
            with parallel(num_threads=num_threads):
                mode = nnfast_flush_subnormals()
                _rmsprop_step_chunk(&gradient[0], &parameter[0], &h[0], <floating>lr, <floating>decay_rate,
                                    <floating>(1 - decay_rate), nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_restore_mode(mode)
                nnfast_leave(&team)
            nnfast_disband(&team)


cdef void _adam_step_chunk(
    const floating* gradient, floating* parameter, floating* m, floating* v, floating lr_t,
    floating m_share, floating v_share, floating epsilon, floating shrink, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(first, last):
        m[i] += m_share * (gradient[i] - m[i])
        v[i] += v_share * (gradient[i] * gradient[i] - v[i])
        parameter[i] = shrink * parameter[i] - lr_t * m[i] / (_square_root(v[i]) + epsilon)


def adam_step(
    const floating[::1] gradient, floating[::1] parameter, floating[::1] m, floating[::1] v,
    double lr_t, double beta1, double beta2, double epsilon, double shrink, int num_threads,
):
    """m += (1 - beta1) (gradient - m); v += (1 - beta2) (gradient**2 - v);
    parameter = shrink * parameter - lr_t * m / (sqrt(v) + epsilon). All (N,); lr_t holds the bias corrections."""
    cdef nnfast_team team
    cdef uint64_t mode
    cdef Py_ssize_t n = _common_length(gradient.shape[0], parameter.shape[0], m.shape[0], v.shape[0], num_threads)
    if n == 0:
        return
    _check_alignment(
        <uintptr_t>&gradient[0] | <uintptr_t>&parameter[0] | <uintptr_t>&m[0] | <uintptr_t>&v[0], sizeof(gradient[0]))
    with nogil:
        if nnfast_assemble(&team, num_threads) == 1:
            mode = nnfast_flush_subnormals()
            _adam_step_chunk(&gradient[0], &parameter[0], &m[0], &v[0], <floating>lr_t, <floating>(1 - beta1),
                             <floating>(1 - beta2), <floating>epsilon, <floating>shrink, 0, n)
            nnfast_restore_mode(mode)
        else:
            with parallel(num_threads=num_threads):
                mode = nnfast_flush_subnormals()
                _adam_step_chunk(&gradient[0], &parameter[0], &m[0], &v[0], <floating>lr_t, <floating>(1 - beta1),
                                 <floating>(1 - beta2), <floating>epsilon, <floating>shrink,
                                 nnfast_share(n, CHUNK, 0), nnfast_share(n, CHUNK, 1))
                nnfast_restore_mode(mode)
                nnfast_leave(&team)
            nnfast_disband(&team)
