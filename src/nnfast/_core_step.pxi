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


cdef void _add_losses(Training* training, const Batch* batch) noexcept nogil:
    """The loss of a step without the penalty, and whether it is finite. The first thread's task."""
    cdef Progress* progress = training.progress
    cdef double loss = _total(training.losses, batch.rows)
    cdef Py_ssize_t row
    progress.loss += batch.settings.loss_share * loss
    for row in range(batch.rows):
        progress.correct += training.correct[row]
    progress.is_finite = loss - loss == 0 and not training.has_odd_data
    training.lost = not progress.is_finite


cdef void _sum_up(Training* training, const Batch* batch) noexcept nogil:
    """What the step gave that is about to end, and whether to stop after it. The first thread's task.

    The penalty is not in the loss yet: it is being summed.
    """
    _add_losses(training, batch)
    training.progress.step += 1
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


cdef void _train_share(Training* training, floating* arena, int share, int shares) noexcept nogil:
    """What each thread of a team does, until the first one says stop."""
    cdef uint64_t mode = nnfast_flush_subnormals()
    cdef Py_ssize_t epoch = training.progress.epoch, step = training.progress.step
    cdef Batch batch
    while not training.stops:
        batch.step = epoch * training.steps + step
        batch.first = (0 if training.order == NULL else epoch * training.rows) + step * training.batch_size
        batch.settings = training.settings[batch.step]
        batch.checks_data = training.checks_data and batch.step - training.first_step < training.steps
        batch.place = 0
        batch.rows = training.batch_size
        if batch.rows > training.rows - step * training.batch_size:
            batch.rows = training.rows - step * training.batch_size
        batch.together = batch.rows
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
