# What `prepare` makes sure of before a plan is walked: that every operation stays inside the arena, the data and the
# caller's arrays. Some 20 comparisons an operation, once a call.

cdef struct Room:
    # Elements of what `prepare` is given, rows and columns where it has them
    Py_ssize_t arena, labels, target_rows, target_columns, key_rows, mask_steps, mask_rows
    Py_ssize_t weights, settings, losses, correct, penalties, squares, finished, epoch_losses, epoch_correct, sums


cdef int _states_of(int64_t rule) noexcept:
    """How many an optimiser keeps of each parameter."""
    return 0 if rule == SGD or rule == GRADIENT else 2 if rule == ADAM else 1


cdef int _check_settings(const Training* training, const Room* room) except -1:
    """All but the operations."""
    cdef const Progress* progress = training.progress
    _must(training.rows > 0 and training.batch_size > 0 and training.epochs > 0, "there is no row, batch or epoch")
    _must(0 <= training.optimizer.rule <= GRADIENT, "the optimizer has no such rule")
    _must(training.optimizer.has_norm_limit == 0 or training.optimizer.rule != GRADIENT,
          "gradients that are given to the caller have no limit")
    _must(training.shares == NULL or training.optimizer.rule != GRADIENT,
          "gradients that are given to the caller are not summed over ranks")
    _must(0 <= progress.epoch < training.epochs and 0 <= progress.step < training.steps, "progress is beyond the end")
    _check_room("losses", room.losses, training.batch_size)
    _check_room("correct", room.correct, training.batch_size)
    _check_room("epoch_losses", room.epoch_losses, training.epochs)
    _check_room("epoch_correct", room.epoch_correct, training.epochs)
    _must(training.dropouts == 0 or room.key_rows // training.steps >= training.epochs, "keys has too few rows")
    _must(room.weights == 0 or room.weights == training.data_rows, "weights are not as many as x has rows")
    _must(room.settings // training.steps >= training.epochs, "settings are fewer than steps")
    _must(training.most_steps > 0, "most_steps must be at least 1")
    _must(training.mask_row == 0
          or room.mask_steps >= training.most_steps and room.mask_rows == training.batch_size,
          "masks has too few steps, or not the rows of a batch")
    _must(0 <= training.size <= room.arena, "size is not one of the arena")
    _must(room.finished == 0 or room.finished >= training.size, "finished has too few elements")
    _must(training.block_rows > 0 and 0 < training.group <= room.arena, "block_rows and group must be at least 1")
    _must(_fits(training.scratch, 1, training.scratch_size, training.scratch_size, room.arena),
          "the arena has too little scratch")
    return 0


cdef Py_ssize_t _update_scratch(const Training* training, Py_ssize_t padded, Py_ssize_t panel_columns) noexcept:
    """Elements of scratch for the update of weights with so many columns: `_update_block`, `_update_bias`."""
    cdef Py_ssize_t columns = padded if padded < panel_columns or padded // panel_columns < training.group \
        else training.group * panel_columns
    cdef Py_ssize_t at_once = columns
    if training.batch_size <= DEPTH_BLOCK and at_once > panel_columns:
        at_once = panel_columns
    return max(columns, ROW_BLOCK * (DEPTH_BLOCK + at_once))


cdef int _check_operation(
    const Training* training, const Operation* operation, const floating* arena, const Room* room
) except -1:
    """That one operation stays inside."""
    cdef int64_t code = operation.code, inputs = operation.inputs, outputs = operation.outputs
    cdef int64_t x_row = operation.x_row, y_row = operation.y_row
    cdef Py_ssize_t size = room.arena, rows = training.batch_size, states = _states_of(training.optimizer.rule)
    cdef Py_ssize_t padded, block = min(training.block_rows, rows)
    cdef bint by_panels = code == PRODUCT or code == UPDATE or code == PACK
    cdef bint has_state = code == UPDATE or code == BATCH_NORMALIZATION_BACKWARD
    _must(0 <= outputs <= size and 0 <= inputs <= size, "an operation has more columns than the arena")
    padded = _padded(outputs, arena)
    if code != PACK:
        _must(_fits(operation.y, rows, y_row, y_row, size), "y lies outside of the arena")
        _must(y_row >= (padded if by_panels or code == SOFTMAX_LOSS else outputs), "rows of y are too short")
    if operation.x < 0 and (code == PRODUCT or code == UPDATE):
        _must(inputs == training.inputs, "inputs are not those of the data")
        _must(code == UPDATE or _fits(0, block, x_row, inputs, training.scratch_size), "too little scratch for data")
    elif code != GATHER and code != PACK:
        _must(_fits(operation.x, rows, x_row, x_row, size), "x lies outside of the arena")
    if code == GATHER:
        _must(y_row >= training.inputs, "rows of y are shorter than those of the data")
    elif code == PRODUCT or code == UPDATE:
        _must(operation.x < 0 or x_row >= inputs, "rows of x are too short")
    elif code == COPY or code == GELU or RELU_BACKWARD <= code <= GELU_BACKWARD or code == BATCH_NORMALIZATION:
        _must(x_row == y_row, "rows of x and of y are not of one length")
    elif code == DROPOUT or SIGMOID_LOSS <= code <= POISSON_LOSS:
        _must(x_row >= outputs, "rows of x are too short")
    elif code == SOFTMAX_LOSS:
        _must(x_row >= padded and outputs > 0, "rows of x are too short")
    if by_panels:
        _must(_fits(operation.weights, inputs, padded, padded, size), "weights lie outside of the arena")
        _must(code == PRODUCT and operation.bias < 0 or _fits(operation.bias, 1, padded, padded, size),
              "the bias lies outside of the arena")
        _must(code == PRODUCT or operation.transposed < 0
              or _fits(operation.transposed, outputs, _padded(inputs, arena), _padded(inputs, arena), size),
              "transposed weights lie outside of the arena")
    if code == UPDATE:
        _must(_update_scratch(training, padded, _panel_columns(arena)) <= training.scratch_size,
              "too little scratch for an update")
        if training.keeps:
            _must(_fits(operation.gradient, inputs, padded, padded, size), "gradients lie outside of the arena")
            _must(_fits(operation.bias_gradient, 1, padded, padded, size),
                  "gradients of a bias lie outside of the arena")
    elif code == BATCH_NORMALIZATION or code == BATCH_NORMALIZATION_BACKWARD:
        _must(_fits(operation.normalized, rows, y_row, y_row, size), "normalized lies outside of the arena")
        _must(_fits(operation.statistics, 7, padded, padded, size), "statistics lie outside of the arena")
        _must(_fits(operation.weights, 1, padded, padded, size) and _fits(operation.bias, 1, padded, padded, size),
              "gamma or beta lies outside of the arena")
        _must(training.shares == NULL or _fits(operation.gradient, 1, outputs, outputs, room.sums)
              and _fits(operation.bias_gradient, 1, outputs, outputs, room.sums), "sums lie outside of those of ranks")
        inputs = 1
    if has_state:
        _must(_fits(operation.state, states, inputs * padded, inputs * padded, size), "states lie outside of the arena")
        _must(_fits(operation.bias_state, states, padded, padded, size), "states of the bias lie outside of the arena")
    if code == RESCALE:
        _must(_fits(operation.weights, 1, outputs, outputs, size)
              and (operation.bias < 0 or _fits(operation.bias, 1, outputs, outputs, size)),
              "scale or offset lies outside of the arena")
    if code == DROPOUT or code == DROPOUT_BACKWARD:
        if operation.mask < 0:
            _must(0 <= operation.number < training.dropouts, "a dropout has no key")
        else:
            _must(_fits(operation.mask, 1, outputs, outputs, training.mask_row), "a dropout has no mask")
    if code == SOFTMAX_LOSS:
        _check_length("labels", room.labels, training.data_rows)
    elif SIGMOID_LOSS <= code <= POISSON_LOSS:
        _check_shape("targets", room.target_rows, room.target_columns, training.data_rows, outputs)
    return 0


cdef int _find_arrays(const Training* training, Operation* operation, Arrays arrays, size_t itemsize) except -1:
    """Puts addresses in the place of the numbers of the caller's arrays, and 0 where no place in the arena is meant."""
    cdef bint is_pack = operation.code == PACK
    cdef int64_t rows = 1 if operation.code == BATCH_NORMALIZATION_BACKWARD else operation.inputs
    if operation.code == GATHER or is_pack:
        operation.x = operation.x_row = 0
    elif operation.x < 0:
        operation.x = -1    # data, wherever that is
    if is_pack or training.optimizer.rule == GRADIENT and (
            operation.code == UPDATE or operation.code == BATCH_NORMALIZATION_BACKWARD):
        operation.array = arrays.address("array", operation.array, rows, operation.outputs, itemsize, not is_pack)
        operation.bias_array = arrays.address(
            "bias_array", operation.bias_array, 1, operation.outputs, itemsize, not is_pack)
    elif _is_of_residuals(operation.code):
        operation.array = arrays.address("array", operation.array, 1, operation.outputs, sizeof(double), False)
    return 0


cdef int _check_training(
    const Training* training, Operation* operations, Arrays arrays, const floating* arena, const Room* room
) except -1:
    """Refuses what would leave the memory that is given; the operations then have addresses of the arrays."""
    cdef Py_ssize_t place
    cdef int64_t code
    cdef bint is_packed = True, is_updated = False
    _check_settings(training, room)
    _must(training.count > 0, "there are no operations")
    for place in range(training.count):
        code = operations[place].code
        is_packed = is_packed and code == PACK
        is_updated = is_updated or code == UPDATE
        _must(training.shares == NULL or code != PACK, "weights are not packed where gradients are summed over ranks")
        _must(0 <= code <= PACK and is_packed == (code == PACK) and is_updated == (code == UPDATE),
              "operations are not in the order of packing, rows and columns, updates")
        _check_operation(training, operations + place, arena, room)
        _find_arrays(training, operations + place, arrays, sizeof(arena[0]))
    place = _tiles(training, _panel_columns(arena))
    _must(place <= room.penalties, "penalties has too few elements")
    _must(training.optimizer.has_norm_limit == 0 or place <= room.squares, "squares has too few elements")
    return 0
