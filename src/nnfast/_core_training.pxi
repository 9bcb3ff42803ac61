# What calls the engine: steps made ready and checked once, then taken by a team.

cdef struct Turn:
    # Of a team at steps
    Training* training
    float* floats           # the arena: one of the two
    double* doubles


cdef class TrainingSteps:
    """Steps of some epochs that are ready to be taken: what `prepare` was given, checked.

    What is checked is what is used, whatever other Python threads do to the arrays meanwhile: what could lead outside
    of them is a copy, and they are held.
    """

    cdef Training training
    cdef Operation* operations
    cdef Optimizer optimizer
    cdef Progress now
    cdef Progress[::1] progress     # the caller's
    cdef float* floats              # the arena: one of the two
    cdef double* doubles
    cdef Py_ssize_t arena_size
    cdef bint is_outside, is_taken
    cdef Cursor cursor              # where ranks divide batches
    cdef tuple held

    def __cinit__(self):
        memset(&self.training, 0, sizeof(self.training))
        memset(&self.cursor, 0, sizeof(self.cursor))

    def __dealloc__(self):
        PyMem_Free(self.operations)

    @property
    def is_over(self):
        """Whether no step is left, or a value was not finite."""
        cdef Py_ssize_t next_step = self.now.epoch * self.training.steps + self.now.step
        return (self.now.epoch >= self.training.epochs
                or next_step >= self.training.first_step + self.training.most_steps
                or (next_step > self.training.first_step and not self.now.is_finite))

    cdef Turn begin(self, double seconds, int num_threads, bint are_divided=False) except *:
        """Make ready for so many threads, until some seconds are over."""
        cdef Training* training = &self.training
        cdef Turn turn
        _check_threads(num_threads)
        _must(not self.is_taken, "these steps are being taken already")
        _must(not self.is_over, "no step is left")
        _must((training.shares != NULL) == are_divided, "ranks divide these batches, or do not")
        _must(_fits(training.scratch, num_threads, training.scratch_size, training.scratch_size, self.arena_size),
              "the arena has too little scratch for the threads")
        memset(&training.team, 0, sizeof(training.team))
        training.stops = training.lost = training.has_odd_weights = False
        training.has_odd_data = training.has_odd_data and are_divided   # a part before may have seen them
        training.deadline = nnfast_clock() + <int64_t>(1e9 * min(max(seconds, 0.), 1e6))
        self.is_taken = True
        turn.training, turn.floats, turn.doubles = training, self.floats, self.doubles
        return turn

    cdef void end(self) noexcept:
        """Tell how far they have come."""
        self.is_taken = False
        self.progress[0] = self.now

    cdef int check(self) except -1:
        """What could not be seen beforehand."""
        if self.is_outside:
            raise IndexError("order has an element that is not a row of x, or labels one that is not a class")
        return 0


def prepare(
    x,                              # in   (R, I)   whatever `Data` takes
    const Operation[::1] operations,
    Arrays arrays not None,         # that they name
    floating[::1] arena,            # in and out: weights and states, then scratch
    const int64_t[::1] labels,      # in   (R,)    empty where the loss takes targets
    const floating[:, ::1] targets,     # in   (R, O)  empty where it takes labels
    const int64_t[:, ::1] order,    # in   (epochs, N)     rows of x, batch after batch; (epochs, 0): all as they come
    const uint64_t[:, ::1] keys,    # in   (epochs * steps, dropouts)
    const uint8_t[:, :, ::1] masks,     # in   (most_steps, batch_size, columns)   or no columns
    const double[::1] weights,      # in   (R,)    of the rows; empty: all are 1
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
    Py_ssize_t most_steps,          # that are taken, at least 1
    Shares shares,                  # of batches that ranks divide, for `advance`; None: they are all here, for `train`
):
    """`TrainingSteps` of some epochs of N rows each, from where the progress is, which are then to be taken."""
    cdef Data data = Data(x)
    cdef TrainingSteps prepared = TrainingSteps()
    cdef Training* training = &prepared.training
    cdef Room room
    cdef Py_ssize_t place
    _check_room("arena", arena.shape[0], 1)
    _check_room("x", data.rows, 1)
    _check_length("optimizer", optimizer.shape[0], 1)
    _check_length("progress", progress.shape[0], 1)
    prepared.optimizer, prepared.now = optimizer[0], progress[0]
    room.arena, room.labels, room.finished = arena.shape[0], labels.shape[0], finished.shape[0]
    room.target_rows, room.target_columns = targets.shape[0], targets.shape[1]
    room.key_rows = keys.shape[0]
    room.mask_steps, room.mask_rows = masks.shape[0], masks.shape[1]
    room.losses, room.correct, room.penalties = losses.shape[0], correct.shape[0], penalties.shape[0]
    room.squares = squares.shape[0]
    room.weights, room.settings = weights.shape[0], settings.shape[0]
    room.epoch_losses, room.epoch_correct = epoch_losses.shape[0], epoch_correct.shape[0]
    training.is_outside = &prepared.is_outside
    training.count = operations.shape[0]
    training.x, training.inputs, training.data_rows = data.x, data.columns, data.rows
    training.held, training.converts = data.held, data.held != _held_by(&arena[0])
    training.labels = &labels[0] if labels.shape[0] else NULL
    training.targets = &targets[0, 0] if targets.shape[0] and targets.shape[1] else NULL
    training.keys = &keys[0, 0] if keys.shape[0] and keys.shape[1] else NULL
    training.dropouts = keys.shape[1]
    training.masks = &masks[0, 0, 0] if masks.shape[0] and masks.shape[1] and masks.shape[2] else NULL
    training.mask_row, training.most_steps = masks.shape[2], most_steps
    training.order = &order[0, 0] if order.shape[0] and order.shape[1] else NULL
    training.rows = order.shape[1] if order.shape[1] else data.rows
    training.row_bytes = data.columns * data.itemsize
    training.fetches_ahead = order.shape[1] > 0 and data.rows * training.row_bytes > FETCHED_FROM
    training.epochs, training.optimizer = order.shape[0], &prepared.optimizer
    training.losses = &losses[0] if losses.shape[0] else NULL
    training.correct = &correct[0] if correct.shape[0] else NULL
    training.penalties = &penalties[0] if penalties.shape[0] else NULL
    training.squares = &squares[0] if squares.shape[0] else NULL
    training.weights = &weights[0] if weights.shape[0] else NULL
    training.settings = &settings[0] if settings.shape[0] else NULL
    training.finished, training.size = &finished[0] if finished.shape[0] else NULL, size
    training.epoch_losses = &epoch_losses[0] if epoch_losses.shape[0] else NULL
    training.epoch_correct = &epoch_correct[0] if epoch_correct.shape[0] else NULL
    training.progress = &prepared.now
    training.batch_size = batch_size
    if batch_size > 0:
        training.steps = (training.rows - 1) // batch_size + 1
    training.keeps = prepared.optimizer.has_norm_limit != 0 or shares is not None
    room.sums = 0
    if shares is not None:
        shares.check(training.rows, batch_size, arena.shape[0])
        training.steps, training.shares, training.by_operation = shares.steps, shares.shares, shares.by_operation
        training.sums, room.sums = shares.first_sum(), shares.sums.shape[0]
        training.note = &arena[0] + shares.note
    training.block_rows, training.group = block_rows, group
    training.scratch, training.scratch_size = scratch, scratch_size
    training.checks_data = checks_data and data.held <= DOUBLES
    _check_alignment(<uintptr_t>&arena[0] | <uintptr_t>training.targets | <uintptr_t>training.finished,
                     sizeof(arena[0]))
    _check_alignment(<uintptr_t>training.order | <uintptr_t>training.labels | <uintptr_t>training.keys
                     | <uintptr_t>training.losses | <uintptr_t>training.penalties | <uintptr_t>training.weights
                     | <uintptr_t>training.settings | <uintptr_t>training.squares
                     | <uintptr_t>training.epoch_losses | <uintptr_t>training.epoch_correct, sizeof(double))
    _check_alignment(<uintptr_t>training.correct, sizeof(int32_t))
    prepared.operations = <Operation*>PyMem_Calloc(training.count, sizeof(Operation))
    if prepared.operations == NULL:
        raise MemoryError()
    training.operations = prepared.operations
    for place in range(training.count):
        prepared.operations[place] = operations[place]
    _check_training(training, prepared.operations, arrays, &arena[0], &room)
    training.first_step = prepared.now.epoch * training.steps + prepared.now.step
    prepared.progress, prepared.arena_size = progress, arena.shape[0]
    if floating is float:
        prepared.floats = &arena[0]
    else:
        prepared.doubles = &arena[0]
    prepared.held = (data, arrays, arena, labels, targets, order, keys, masks, weights, settings, losses, correct,
                     penalties, squares, finished, epoch_losses, epoch_correct, shares)
    return prepared


cdef void _take_turn(const Turn* turn, int share, int shares) noexcept nogil:
    """What each thread of a team does."""
    if turn.floats != NULL:
        _train_share(turn.training, turn.floats, share, shares)
    else:
        _train_share(turn.training, turn.doubles, share, shares)


def train(TrainingSteps steps not None, double seconds, int num_threads):
    """Take the steps, all threads each of them, until they or the time are over or a value is not finite."""
    cdef Turn turn = steps.begin(seconds, num_threads)
    with nogil:
        if nnfast_assemble(&turn.training.team, num_threads) == 1:
            _take_turn(&turn, 0, 1)
        else:
            with parallel(num_threads=num_threads):
                _take_turn(&turn, nnfast_thread_number(), nnfast_team_size())
            nnfast_disband(&turn.training.team)
    steps.end()
    steps.check()


cdef void _advance_turn(const Turn* turn, Cursor* cursor, int share, int shares) noexcept nogil:
    """What each thread of a team does until a sum over ranks is needed."""
    if turn.floats != NULL:
        _advance_share(turn.training, cursor, turn.floats, share, shares)
    else:
        _advance_share(turn.training, cursor, turn.doubles, share, shares)


def advance(TrainingSteps steps not None, int num_threads):
    """Go on until a sum over ranks is needed, and say which one of its step that is: they are counted from 0.

    When it has been made, `advance` again. Less than 0: all steps are OVER, or as many as some rank wants, or something
    is LOST that is not finite.
    """
    cdef Turn turn = steps.begin(0, num_threads, True)
    with nogil:
        if nnfast_assemble(&turn.training.team, num_threads) == 1:
            _advance_turn(&turn, &steps.cursor, 0, 1)
        else:
            with parallel(num_threads=num_threads):
                _advance_turn(&turn, &steps.cursor, nnfast_thread_number(), nnfast_team_size())
            nnfast_disband(&turn.training.team)
    steps.end()
    steps.check()
    if turn.training.lost or turn.training.stops and not steps.now.is_finite:
        return LOST
    return OVER if turn.training.stops else steps.cursor.sums - 1
