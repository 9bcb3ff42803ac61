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


cdef void _pack_rows(
    Training* training, const Operation* operation, floating* arena, int share, int shares
) noexcept nogil:
    """A thread's rows of a layer's weights into panels and into their transposed copy; the first thread's, the bias."""
    cdef const floating* source = <const floating*><uintptr_t>operation.array
    cdef Py_ssize_t panel_columns = _panel_columns(arena), inputs = operation.inputs, outputs = operation.outputs
    cdef Py_ssize_t padded = _padded(outputs, arena), blocks = (inputs + 3) // 4, column = 0, width
    cdef Py_ssize_t first = blocks * share // shares * 4, last = blocks * (share + 1) // shares * 4
    cdef floating* rows
    last = last if last < inputs else inputs
    if operation.looks_for_zeros and not _all_finite(source + first * outputs, (last - first) * outputs):
        training.has_odd_weights = True     # whoever writes it writes the same
    while column < padded:
        width = _width_from(column, padded, panel_columns)
        rows = arena + operation.weights + column * inputs + first * width
        _pack_panel(source + first * outputs + column, outputs, 1, last - first,
                    width if outputs - column >= width else outputs - column, rows, width)
        if operation.transposed >= 0:
            _transpose_rows(rows, first, last, width, column, outputs, inputs, arena + operation.transposed)
        column = column + width
    if share == 0:
        memcpy(arena + operation.bias, <const floating*><uintptr_t>operation.bias_array, outputs * sizeof(arena[0]))


cdef void _sum_up(Training* training, const Batch* batch) noexcept nogil:
    """The loss of the step that is about to end, and whether to stop after it. The first thread's task.

    The penalty is not in it yet: it is being summed.
    """
    cdef Progress* progress = training.progress
    cdef double loss = _total(training.losses, batch.rows)
    cdef Py_ssize_t row
    progress.loss += batch.settings.loss_share * loss
    for row in range(batch.rows):
        progress.correct += training.correct[row]
    progress.step += 1
    progress.is_finite = loss - loss == 0 and not training.has_odd_data
    training.lost = not progress.is_finite
    training.stops = (
        training.lost or nnfast_clock() > training.deadline or nnfast_is_disturbed(&training.team)
        or batch.step + 1 - training.first_step == training.most_steps)


cdef bint _parameters_are_finite(const Training* training, const floating* arena) noexcept nogil:
    cdef const Operation* operation
    cdef Py_ssize_t place, padded, rows
    for place in range(training.count):
        operation = training.operations + place
        if operation.code == UPDATE or operation.code == BATCH_NORMALIZATION_BACKWARD:
            padded = _padded(operation.outputs, arena)
            rows = operation.inputs if operation.code == UPDATE else 1
            if not (_all_finite(arena + operation.weights, rows * padded)
                    and _all_finite(arena + operation.bias, padded)):
                return False
    return True


cdef void _end_epoch(Training* training, const floating* arena) noexcept nogil:
    """Note what the epoch gave, and keep its weights, unless they or its loss are not finite. The first thread's task.

    Each step's loss was finite, but for the penalty, which comes after it.
    """
    cdef Progress* progress = training.progress
    if training.optimizer.rule != GRADIENT and (
            progress.loss - progress.loss != 0 or not _parameters_are_finite(training, arena)):
        progress.is_finite = False
        training.stops = True
        return
    if training.finished != NULL:
        memcpy(training.finished, arena, training.size * sizeof(arena[0]))
    training.epoch_losses[progress.epoch] = progress.loss
    training.epoch_correct[progress.epoch] = progress.correct
    progress.loss, progress.correct, progress.step = 0, 0, 0
    progress.epoch += 1
    training.stops = training.stops or progress.epoch == training.epochs


cdef void _take_step(Training* training, floating* arena, const Batch* batch, int share, int shares) noexcept nogil:
    cdef Py_ssize_t place = 0, end
    cdef double scale
    while place < training.count and training.operations[place].code == PACK:
        _pack_rows(training, training.operations + place, arena, share, shares)
        place = place + 1
    if place > 0:
        nnfast_wait(&training.team.barrier, shares)
    while place < training.count and not _is_by_tiles(training.operations + place):
        end = place + 1
        if _is_by_rows(training.operations + place):
            while end < training.count and _is_by_rows(training.operations + end):
                end = end + 1
            _operate_by_rows(training, place, end, arena, batch, share, shares)
        else:
            _operate_by_columns(training, training.operations + place, arena, batch, share, shares)
        place = end
        nnfast_wait(&training.team.barrier, shares)
    if share == 0:
        _sum_up(training, batch)
    _operate_by_tiles(training, place, training.count, arena, batch, share, shares)
    if training.optimizer.has_norm_limit:
        nnfast_wait(&training.team.barrier, shares)
        scale = _scale_of_kept(training, arena)
        nnfast_wait(&training.team.barrier, shares)     # all have read what some now change
        _operate_on_kept(training, arena, batch, <floating>scale, share, shares)
    nnfast_wait(&training.team.barrier, shares)


cdef void _train_share(Training* training, floating* arena) noexcept nogil:
    """What each thread of the region does, until the first one says stop."""
    cdef int share = nnfast_thread_number(), shares = nnfast_team_size()
    cdef uint64_t mode = nnfast_flush_subnormals()
    cdef Py_ssize_t epoch = training.progress.epoch, step = training.progress.step
    cdef Batch batch
    while not training.stops:
        batch.step = epoch * training.steps + step
        batch.first = (0 if training.order == NULL else epoch * training.rows) + step * training.batch_size
        batch.settings = training.settings[batch.step]
        batch.rows = training.batch_size
        if batch.rows > training.rows - step * training.batch_size:
            batch.rows = training.rows - step * training.batch_size
        _take_step(training, arena, &batch, share, shares)
        if share == 0 and _is_penalized(&batch):
            training.progress.loss += batch.settings.penalty_share * _total(
                training.penalties, _tiles(training, _panel_columns(arena)))
        step = step + 1
        if step == training.steps and not training.lost:
            step = 0
            epoch = epoch + 1
            if share == 0:
                _end_epoch(training, arena)
            nnfast_wait(&training.team.barrier, shares)
    nnfast_restore_mode(mode)


def train(
    x,                              # in   (N, I)   whatever `Data` takes
    const Operation[::1] operations,
    Arrays arrays not None,         # that they name
    floating[::1] arena,            # in and out: weights and states, then scratch
    const int64_t[::1] labels,      # in   (N,)    empty where the loss takes targets
    const floating[:, ::1] targets,     # in   (N, O)  empty where it takes labels
    const int64_t[:, ::1] order,    # in   (epochs, N)     rows of x, batch after batch; (epochs, 0): as they come
    const uint64_t[:, ::1] keys,    # in   (epochs * steps, dropouts)
    const uint8_t[:, :, ::1] masks,     # in   (most_steps, batch_size, columns)   or no columns
    const double[::1] weights,      # in   (N,)    of the rows; empty: all are 1
    const Optimizer[::1] optimizer,     # in   (1,)
    const StepSettings[::1] settings,   # in   (epochs * steps,)
    double[::1] losses,             # scratch (batch_size,)
    int32_t[::1] correct,           # scratch (batch_size,)
    double[::1] penalties,          # scratch, of each tile of weights
    double[::1] squares,            # likewise, if there is a limit of the norm
    floating[::1] finished,         # out  (size,) or empty    weights and states of the last finished epoch
    double[::1] epoch_losses,       # out  (epochs,)
    int64_t[::1] epoch_correct,     # out  (epochs,)
    Progress[::1] progress,         # in and out (1,)
    Py_ssize_t size,                # of weights and states in the arena
    Py_ssize_t batch_size,
    Py_ssize_t block_rows,          # rows that go through the layers at a time
    Py_ssize_t group,               # panels of weights that are updated at a time
    Py_ssize_t scratch,             # where in the arena each thread has memory of its own
    Py_ssize_t scratch_size,        # how much
    bint checks_data,               # whether it is finite
    Py_ssize_t most_steps,          # after which to return, at least 1
    double seconds,                 # likewise
    int num_threads,
):
    """Steps of some epochs, from where the progress is, until they or the time are over or a value is not finite."""
    cdef Data data = Data(x)
    cdef Training training
    cdef Room room
    cdef bint is_outside = False
    # What is checked is what is used, whatever other Python threads do to the arrays meanwhile.
    cdef Operation* own_operations = NULL
    cdef Optimizer own_optimizer
    cdef Progress own_progress
    cdef Py_ssize_t place
    _check_room("arena", arena.shape[0], 1)
    _check_room("x", data.rows, 1)
    _check_length("optimizer", optimizer.shape[0], 1)
    _check_length("progress", progress.shape[0], 1)
    own_optimizer, own_progress = optimizer[0], progress[0]
    room.arena, room.labels, room.finished = arena.shape[0], labels.shape[0], finished.shape[0]
    room.target_rows, room.target_columns = targets.shape[0], targets.shape[1]
    room.order_columns, room.key_rows = order.shape[1], keys.shape[0]
    room.mask_steps, room.mask_rows = masks.shape[0], masks.shape[1]
    room.losses, room.correct, room.penalties = losses.shape[0], correct.shape[0], penalties.shape[0]
    room.squares = squares.shape[0]
    room.weights, room.settings = weights.shape[0], settings.shape[0]
    room.epoch_losses, room.epoch_correct = epoch_losses.shape[0], epoch_correct.shape[0]
    memset(&training, 0, sizeof(training))
    training.is_outside = &is_outside
    training.count = operations.shape[0]
    training.x, training.inputs, training.rows = data.x, data.columns, data.rows
    training.held, training.converts = data.held, data.held != _held_by(&arena[0])
    training.labels = &labels[0] if labels.shape[0] else NULL
    training.targets = &targets[0, 0] if targets.shape[0] and targets.shape[1] else NULL
    training.keys = &keys[0, 0] if keys.shape[0] and keys.shape[1] else NULL
    training.dropouts = keys.shape[1]
    training.masks = &masks[0, 0, 0] if masks.shape[0] and masks.shape[1] and masks.shape[2] else NULL
    training.mask_row, training.most_steps = masks.shape[2], most_steps
    training.order = &order[0, 0] if order.shape[0] and order.shape[1] else NULL
    training.row_bytes = data.columns * data.itemsize
    training.fetches_ahead = order.shape[1] > 0 and data.rows * training.row_bytes > FETCHED_FROM
    training.epochs, training.optimizer = order.shape[0], &own_optimizer
    training.losses = &losses[0] if losses.shape[0] else NULL
    training.correct = &correct[0] if correct.shape[0] else NULL
    training.penalties = &penalties[0] if penalties.shape[0] else NULL
    training.squares = &squares[0] if squares.shape[0] else NULL
    training.weights = &weights[0] if weights.shape[0] else NULL
    training.settings = &settings[0] if settings.shape[0] else NULL
    training.finished, training.size = &finished[0] if finished.shape[0] else NULL, size
    training.epoch_losses = &epoch_losses[0] if epoch_losses.shape[0] else NULL
    training.epoch_correct = &epoch_correct[0] if epoch_correct.shape[0] else NULL
    training.progress = &own_progress
    training.batch_size = batch_size
    if batch_size > 0:
        training.steps = (data.rows - 1) // batch_size + 1
    training.block_rows, training.group = block_rows, group
    training.scratch, training.scratch_size = scratch, scratch_size
    training.checks_data = checks_data and data.held <= DOUBLES
    training.deadline = nnfast_clock() + <int64_t>(1e9 * min(max(seconds, 0.), 1e6))
    _check_alignment(<uintptr_t>&arena[0] | <uintptr_t>training.targets | <uintptr_t>training.finished,
                     sizeof(arena[0]))
    _check_alignment(<uintptr_t>training.order | <uintptr_t>training.labels | <uintptr_t>training.keys
                     | <uintptr_t>training.losses | <uintptr_t>training.penalties | <uintptr_t>training.weights
                     | <uintptr_t>training.settings | <uintptr_t>training.squares
                     | <uintptr_t>training.epoch_losses | <uintptr_t>training.epoch_correct, sizeof(double))
    _check_alignment(<uintptr_t>training.correct, sizeof(int32_t))
    own_operations = <Operation*>PyMem_Calloc(training.count, sizeof(Operation))
    if own_operations == NULL:
        raise MemoryError()
    training.operations = own_operations
    try:
        for place in range(training.count):
            own_operations[place] = operations[place]
        _check_training(&training, own_operations, arrays, &arena[0], &room, num_threads)
        training.first_step = own_progress.epoch * training.steps + own_progress.step
        with nogil:
            if nnfast_assemble(&training.team, num_threads) == 1:
                _train_share(&training, &arena[0])
            else:
                with parallel(num_threads=num_threads):
                    _train_share(&training, &arena[0])
                nnfast_disband(&training.team)
    finally:
        PyMem_Free(own_operations)
    progress[0] = own_progress
    if is_outside:
        raise IndexError("order has an element that is not a row of x, or labels one that is not a class")
