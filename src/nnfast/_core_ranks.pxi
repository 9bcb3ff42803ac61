# A step that is divided among ranks: processes, each with rows of its own and all of the weights. It is walked from one
# sum over ranks to the next, which somebody in Python makes, in one parallel region for each part.
#
# What is summed: batch normalisation's sums, forward and backward (float64, whatever the dtype), and at the end of the
# backward pass the gradients, which lie side by side in the arena. Then all ranks make the same update of the same
# bits; penalties and limits of the gradient are part of that. The losses in the progress are those of this rank's rows.

cdef class Shares:
    """What this rank takes of each batch of an epoch, and where sums over ranks are made."""
    cdef Share* shares
    cdef Py_ssize_t steps, note
    cdef double[::1] sums
    cdef bint by_operation

    def __cinit__(
        self,
        const Share[::1] shares,    # in   (steps,)
        double[::1] sums,           # in and out, of batch normalisations
        Py_ssize_t note,            # where in the arena a sum over ranks says that all stop after the step: not 0
        bint by_operation,          # whether the gradients of each operation are summed as soon as they are known
    ):
        cdef Py_ssize_t step
        _check_room("shares", shares.shape[0], 1)
        self.shares = <Share*>PyMem_Calloc(shares.shape[0], sizeof(Share))
        if self.shares == NULL:
            raise MemoryError()
        self.steps, self.note, self.sums, self.by_operation = shares.shape[0], note, sums, by_operation
        for step in range(self.steps):
            self.shares[step] = shares[step]

    def __dealloc__(self):
        PyMem_Free(self.shares)

    cdef double* first_sum(self) noexcept:
        return &self.sums[0] if self.sums.shape[0] else NULL

    cdef int check(self, Py_ssize_t rows, Py_ssize_t batch_size, Py_ssize_t arena) except -1:
        """That no share leaves the rows of an epoch."""
        cdef Py_ssize_t step
        cdef const Share* share
        _must(0 <= self.note < arena, "note lies outside of the arena")
        for step in range(self.steps):
            share = self.shares + step
            _must(_fits(share.first, 1, share.rows, share.rows, rows) and share.rows <= batch_size,
                  "a share has rows that are none of the epoch's, or too many")
            _must(share.together > 0 and 0 <= share.place <= share.together, "a share is of no batch")
        return 0


# What `advance` returns where no sum is needed
cdef enum:
    OVER = -1       # steps: all of them, or some rank wants it
    LOST = -2       # something is not finite, and the progress says so

cdef struct Cursor:
    # Where a step is
    Py_ssize_t place, stage     # the next operation, all of them once the gradients are known, and its next stage
    Py_ssize_t sums             # that were asked for so far
    bint has_losses             # the forward pass is over


cdef Batch _divided_batch(const Training* training) noexcept nogil:
    """This rank's part of the batch that the progress is at."""
    cdef const Share* share = training.shares + training.progress.step
    cdef Batch batch
    batch.step = training.progress.epoch * training.steps + training.progress.step
    batch.first = (0 if training.order == NULL else training.progress.epoch * training.rows) + share.first
    batch.rows, batch.place, batch.together = share.rows, share.place, share.together
    batch.checks_data = training.checks_data and batch.step - training.first_step < training.steps
    batch.settings = training.settings[batch.step]
    return batch


cdef void _operate_by_stage(
    const Training* training, const Operation* operation, Py_ssize_t stage, floating* arena, const Batch* batch,
    int share, int shares,
) noexcept nogil:
    """A thread's columns of a batch normalisation, up to the next sum over ranks. `_operate_by_columns` in parts."""
    cdef Py_ssize_t columns = operation.outputs, blocks = (columns + COLUMN_BLOCK - 1) // COLUMN_BLOCK
    cdef Py_ssize_t padded = _padded(columns, arena), stride = operation.y_row, block, first, last
    cdef floating* x = arena + operation.x
    cdef floating* y = arena + operation.y
    cdef floating* gamma = arena + operation.weights
    cdef floating* xn = arena + operation.normalized
    cdef floating* mean = arena + operation.statistics
    cdef floating* variance = mean + padded
    cdef floating* std = mean + 2 * padded
    cdef double* sums
    cdef double* others
    for block in range(blocks * share // shares, blocks * (share + 1) // shares):
        first = block * COLUMN_BLOCK
        last = columns if columns < first + COLUMN_BLOCK else first + COLUMN_BLOCK
        sums = training.sums + operation.gradient + first
        others = training.sums + operation.bias_gradient + first
        if operation.code == BATCH_NORMALIZATION:
            if stage == 0:
                _sum_columns(x, sums, batch.rows, stride, first, last)
            elif stage == 1:
                _sum_squares_of_columns(x, sums, mean, others, batch.rows, batch.together, stride, first, last)
            else:
                _normalize_columns(x, gamma, arena + operation.bias, others, y, xn, mean, variance, std, batch.rows,
                                   batch.together, stride, 1e-6, first, last)
                _move_towards(mean, mean + 3 * padded, <floating>operation.setting, first, last)
                _move_towards(variance, mean + 4 * padded, <floating>operation.setting, first, last)
        elif stage == 0:
            _sum_gradients_of_columns(xn, y, sums, others, batch.rows, stride, first, last)
        else:
            _pass_back_columns(xn, std, gamma, y, sums, others, y, mean + 5 * padded, mean + 6 * padded, batch.rows,
                               batch.together, stride, first, last)


cdef inline Py_ssize_t _last_stage(const Operation* operation) noexcept nogil:
    return 2 if operation.code == BATCH_NORMALIZATION else 1


cdef void _keep_gradients(
    Training* training, Py_ssize_t first_operation, Py_ssize_t last_operation, floating* arena, const Batch* batch,
    int share, int shares,
) noexcept nogil:
    """A thread's part of the gradients of some updates: of no rows, 0."""
    cdef const Operation* operation
    cdef Py_ssize_t place, padded
    if batch.rows > 0:
        _operate_by_tiles(training, first_operation, last_operation, arena, batch, share, shares)
    elif share == 0:
        for place in range(first_operation, last_operation):
            operation = training.operations + place
            padded = _padded(operation.outputs, arena)
            memset(arena + operation.gradient, 0, operation.inputs * padded * sizeof(arena[0]))
            memset(arena + operation.bias_gradient, 0, padded * sizeof(arena[0]))


cdef void _go_on(
    Training* training, Cursor* now, floating* arena, const Batch* batch, int share, int shares
) noexcept nogil:
    """A thread's part of the step up to the next sum over ranks."""
    cdef Py_ssize_t end
    cdef const Operation* operation
    now.sums = now.sums + 1
    while now.place < training.count and not _is_by_tiles(training.operations + now.place):
        operation = training.operations + now.place
        if _is_by_rows(operation):
            end = now.place + 1
            while end < training.count and _is_by_rows(training.operations + end):
                end = end + 1
            _operate_by_rows(training, now.place, end, arena, batch, share, shares)
            now.place = end
        else:
            _operate_by_stage(training, operation, now.stage, arena, batch, share, shares)
            if now.stage < _last_stage(operation):
                now.stage = now.stage + 1
                return
            now.stage = 0
            now.place = now.place + 1
        nnfast_wait(&training.team.barrier, shares)
    if share == 0 and not now.has_losses:
        _add_losses(training, batch)
        training.progress.step += training.lost     # it is over
        (<floating*>training.note)[0] = 0
    now.has_losses = True
    end = now.place + 1 if training.by_operation and now.place < training.count else training.count
    _keep_gradients(training, now.place, end, arena, batch, share, shares)
    now.place = end


cdef void _finish_gradients(
    const Training* training, floating* arena, const Batch* batch, int share, int shares
) noexcept nogil:
    """Add the penalties to a thread's rows of the weights' gradients, those that `_update_from_kept` gives it."""
    cdef const Operation* operation
    cdef Py_ssize_t panel_columns = _panel_columns(arena), place, tiles, padded, column, width, first, last, at, tile
    cdef Py_ssize_t tiles_before = 0
    for place in range(training.count):
        operation = training.operations + place
        if operation.code != UPDATE:
            continue
        tiles = (operation.inputs + TILE_ROWS - 1) // TILE_ROWS
        padded = _padded(operation.outputs, arena)
        first = tiles * share // shares * TILE_ROWS
        last = tiles * (share + 1) // shares * TILE_ROWS
        last = last if last < operation.inputs else operation.inputs
        column = 0
        while column < padded:
            width = _width_from(column, padded, panel_columns)
            at = column * operation.inputs + first * width
            tile = tiles_before + column // panel_columns * tiles + first // TILE_ROWS
            if _is_penalized(batch):
                _decay(arena + operation.weights + at, arena + operation.gradient + at, batch.settings.l2,
                       batch.settings.l1, (last - first) * width, TILE_ROWS * width, training.penalties + tile)
            if training.optimizer.has_norm_limit:
                _square(arena + operation.gradient + at, (last - first) * width, TILE_ROWS * width,
                        training.squares + tile)
            column = column + width
        tiles_before = tiles_before + tiles * _panel_count(operation.outputs, panel_columns)


cdef void _end_divided_step(Training* training, const Batch* batch, const floating* arena) noexcept nogil:
    """The first thread's task, after the update."""
    cdef Progress* progress = training.progress
    if _is_penalized(batch):
        progress.loss += batch.settings.penalty_share * _total(
            training.penalties, _tiles(training, _panel_columns(arena)))
    progress.step += 1
    training.stops = ((<const floating*>training.note)[0] != 0
                      or batch.step + 1 - training.first_step == training.most_steps)
    if progress.step == training.steps:
        _end_epoch(training, arena)


cdef void _advance_share(Training* training, Cursor* cursor, floating* arena, int share, int shares) noexcept nogil:
    """What each thread does between two sums: the update of one step, if its gradients are known, and what follows."""
    cdef uint64_t mode = nnfast_flush_subnormals()
    cdef Cursor now = cursor[0]
    cdef Batch batch = _divided_batch(training)
    cdef double scale = 1
    if now.has_losses and now.place == training.count:
        if _is_penalized(&batch) or training.optimizer.has_norm_limit:
            _finish_gradients(training, arena, &batch, share, shares)
        if training.optimizer.has_norm_limit:
            nnfast_wait(&training.team.barrier, shares)
            scale = _scale_of_kept(training, arena)
            nnfast_wait(&training.team.barrier, shares)     # all have read what some now change
        _operate_on_kept(training, arena, &batch, <floating>scale, share, shares)
        nnfast_wait(&training.team.barrier, shares)
        if share == 0:
            _end_divided_step(training, &batch, arena)
        nnfast_wait(&training.team.barrier, shares)
        memset(&now, 0, sizeof(now))
        if not training.stops:
            batch = _divided_batch(training)
    if not training.stops:
        _go_on(training, &now, arena, &batch, share, shares)
    nnfast_wait(&training.team.barrier, shares)
    if share == 0:
        cursor[0] = now
    nnfast_restore_mode(mode)
