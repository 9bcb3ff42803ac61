# The engine: a list of operations walked by all threads of one parallel region, step after step.
#
# Each operation says how its work is divided. By rows: a thread takes its own rows of the batch through all of the
# row operations that follow one another, a block at a time, so that what lies between the layers stays in the cache.
# By columns: batch normalisation, whose sums run over the batch. By tiles: the updates, where the gradient of a block
# of weights is summed over the whole batch, used at once, and forgotten. There is a barrier wherever the division
# changes: two a step, at any depth, for a network without batch normalisation.
#
# Nothing here is summed by two threads, so the bits do not depend on how many there are. _plan.py makes the list and
# lays out the arena that the offsets point into.

cdef inline bint _is_by_rows(const Operation* operation) noexcept nogil:
    return operation.code < BATCH_NORMALIZATION


cdef inline bint _is_by_tiles(const Operation* operation) noexcept nogil:
    return operation.code == UPDATE


cdef Py_ssize_t _tiles(const Training* training, Py_ssize_t lanes) noexcept nogil:
    """Tiles of weights that are updated."""
    cdef Py_ssize_t place, count = 0
    for place in range(training.count):
        if training.operations[place].code == UPDATE:
            count = count + ((training.operations[place].inputs + TILE_ROWS - 1) // TILE_ROWS
                             * _panel_count(training.operations[place].outputs, lanes))
    return count


cdef void _sum_up(Training* training, const Batch* batch, Py_ssize_t lanes) noexcept nogil:
    """The loss of the step that is about to end, and whether it is the last for now. The first thread's task.

    The penalty is not in it yet: its squares are being summed.
    """
    cdef double loss = _total(training.losses, batch.rows)
    cdef Py_ssize_t row
    training.loss += loss
    for row in range(batch.rows):
        training.correct_rows += training.correct[row]
    training.step = batch.step + 1
    training.is_finite = loss - loss == 0
    training.stops = (not training.is_finite or batch.first + batch.rows == training.rows
                      or nnfast_clock() > training.deadline)


cdef void _take_step(Training* training, floating* arena, const Batch* batch, int share, int shares) noexcept nogil:
    cdef Py_ssize_t place = 0, end
    while place < training.count and not _is_by_tiles(training.operations + place):
        end = place + 1
        if _is_by_rows(training.operations + place):
            while end < training.count and _is_by_rows(training.operations + end):
                end = end + 1
            _operate_by_rows(training, place, end, arena, batch, share, shares)
        else:
            _operate_by_columns(training, training.operations + place, arena, batch, share, shares)
        place = end
        nnfast_wait(&training.barrier, shares)
    if share == 0:
        _sum_up(training, batch, _lanes(arena))
    _operate_by_tiles(training, place, training.count, arena, batch, share, shares)
    nnfast_wait(&training.barrier, shares)


cdef void _train_share(Training* training, floating* arena) noexcept nogil:
    """What each thread of the region does, until the first one says stop."""
    cdef int share = nnfast_thread_number(), shares = nnfast_team_size()
    cdef uint64_t mode = nnfast_flush_subnormals()
    cdef Batch batch
    batch.step = training.step
    while True:
        batch.first = batch.step * training.batch_size
        batch.rows = training.batch_size
        if batch.rows > training.rows - batch.first:
            batch.rows = training.rows - batch.first
        _take_step(training, arena, &batch, share, shares)
        if share == 0 and training.optimizer.penalty != 0:
            training.loss += (0.5 * training.optimizer.penalty * batch.rows
                              * _total(training.sums_of_squares, _tiles(training, _lanes(arena))))
        if training.stops:
            break
        batch.step = batch.step + 1
    nnfast_restore_mode(mode)


def train(
    const Operation[::1] operations,
    floating[::1] arena,            # in and out: weights, states, and scratch
    const floating[:, ::1] x,       # in   (N, I)
    const int64_t[::1] labels,      # in   (N,)    empty where the loss takes targets
    const floating[:, ::1] targets,     # in   (N, O)  empty where it takes labels
    const int64_t[::1] order,       # in   (N,)    rows of x, batch after batch
    const uint64_t[:, ::1] keys,    # in   (steps, dropouts)
    const Optimizer[::1] optimizer,     # in   (1,)
    double[::1] losses,             # scratch (batch_size,)
    int32_t[::1] correct,           # scratch (batch_size,)
    double[::1] sums_of_squares,    # scratch, of each tile of weights
    Py_ssize_t batch_size,
    Py_ssize_t block_rows,          # rows that go through the layers at a time
    Py_ssize_t group,               # panels of weights that are updated at a time
    Py_ssize_t scratch,             # where in the arena each thread has memory of its own
    Py_ssize_t scratch_size,        # how much
    Py_ssize_t first_step,
    double seconds,                 # after which to return
    int num_threads,
):
    """Steps of an epoch, from the first one on, until the epoch or the time is over or a loss is not finite.

    Returns the next step, whether the last loss was finite, and sums over the rows: losses, classified right.
    """
    cdef Training training
    memset(&training, 0, sizeof(training))
    training.operations, training.count = &operations[0], operations.shape[0]
    training.x, training.inputs, training.rows = &x[0, 0], x.shape[1], x.shape[0]
    training.labels = &labels[0] if labels.shape[0] else NULL
    training.targets = &targets[0, 0] if targets.shape[0] else NULL
    training.keys = &keys[0, 0] if keys.shape[1] else NULL
    training.dropouts = keys.shape[1]
    training.order, training.optimizer = &order[0], &optimizer[0]
    training.losses, training.correct, training.sums_of_squares = &losses[0], &correct[0], &sums_of_squares[0]
    training.batch_size, training.block_rows, training.step = batch_size, block_rows, first_step
    training.group, training.scratch, training.scratch_size = group, scratch, scratch_size
    training.deadline = nnfast_clock() + seconds
    with nogil:
        if num_threads == 1:
            _train_share(&training, &arena[0])
        else:
            with parallel(num_threads=num_threads):
                _train_share(&training, &arena[0])
    return training.step, training.is_finite, training.loss, training.correct_rows
