# The updates of a plan: by tiles. The gradient of a block of weights is summed over the whole batch, used at once, and
# forgotten.

cdef bint _all_finite(const floating* x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t chunk
    for chunk in range(_chunks(n)):
        if not _chunk_is_finite(x, chunk * CHUNK, _chunk_end(chunk, n)):
            return False
    return True


cdef inline void _copy_row(const floating* x, floating* y, Py_ssize_t n) noexcept nogil:
    """y = x. Gathering 100 rows of 784 float32 took 27 microseconds by memcpy, and 18 so."""
    cdef Py_ssize_t vector, j, lanes = _lanes(y)
    for vector in range(n // lanes):
        if floating is float:
            nnfast_copy_floats(y + vector * FLOAT_LANES, x + vector * FLOAT_LANES)
        else:
            nnfast_copy_doubles(y + vector * DOUBLE_LANES, x + vector * DOUBLE_LANES)
    for j in range(n // lanes * lanes, n):
        y[j] = x[j]


cdef void _gather(
    const Training* training, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t first_column, Py_ssize_t columns,
    floating* y, Py_ssize_t y_row,
) noexcept nogil:
    """y (rows, columns) = some columns of rows of the data, in their order from the first."""
    cdef Py_ssize_t row, start
    for row in range(rows):
        start = _data_row(training, first + row) * training.inputs + first_column
        if training.converts:
            _convert(training.x, training.held, start, y + row * y_row, columns)
        else:
            _copy_row(<const floating*>training.x + start, y + row * y_row, columns)


cdef void _update(
    const Optimizer* optimizer, const Batch* batch, floating* gradient, floating* parameter, floating* state,
    Py_ssize_t size, Py_ssize_t n,
) noexcept nogil:
    """One step of the optimiser on n parameters; a second state follows the first after `size` elements."""
    cdef double updates = <double>(optimizer.updates + batch.step + 1)
    cdef floating lr = <floating>batch.settings.lr, first = <floating>optimizer.first
    if optimizer.has_limit:
        _limit(gradient, <floating>optimizer.limit, n)
    if optimizer.rule == SGD:
        _sgd_step_chunk(gradient, parameter, lr, 0, n)
    elif optimizer.rule == MOMENTUM:
        _momentum_step_chunk(gradient, parameter, state, lr, first, 0, n)
    elif optimizer.rule == NESTEROV:
        _nesterov_step_chunk(gradient, parameter, state, lr, first, 0, n)
    elif optimizer.rule == ADAGRAD:
        _adagrad_step_chunk(gradient, parameter, state, lr, 0, n)
    elif optimizer.rule == RMSPROP:
        _rmsprop_step_chunk(gradient, parameter, state, lr, first, <floating>(1 - optimizer.first), 0, n)
    else:
        _adam_step_chunk(
            gradient, parameter, state, state + size,
            <floating>(batch.settings.lr * sqrt(1 - pow(optimizer.second, updates))
                       / (1 - pow(optimizer.first, updates))),
            <floating>(1 - optimizer.first), <floating>(1 - optimizer.second), <floating>optimizer.epsilon,
            <floating>(1 - batch.settings.lr * optimizer.weight_decay), 0, n)


cdef void _copy_columns(
    const Training* training, const Operation* operation, const floating* arena, const Batch* batch,
    Py_ssize_t first, Py_ssize_t columns, Py_ssize_t k, Py_ssize_t depth, floating* copy,
) noexcept nogil:
    """copy (depth, ROW_BLOCK) = columns of x from the first on, in rows k to k + depth of the batch."""
    cdef Py_ssize_t row
    if operation.x < 0:
        _gather(training, batch.first + k, depth, first, columns, copy, ROW_BLOCK)
    else:
        for row in range(depth):
            _copy_row(arena + operation.x + (k + row) * operation.x_row + first, copy + row * ROW_BLOCK, columns)


cdef bint _columns_in_place(
    const Training* training, const Operation* operation, const floating* arena, const Batch* batch,
    Py_ssize_t first, Py_ssize_t k, const floating** columns, Py_ssize_t* columns_row,
) noexcept nogil:
    """Where columns of x from the first on begin, in row k of the batch, if its rows are as far apart as each other."""
    if operation.x >= 0:
        columns[0] = arena + operation.x + k * operation.x_row + first
        columns_row[0] = operation.x_row
    elif training.order == NULL and not training.converts:
        columns[0] = <const floating*>training.x + (batch.first + k) * training.inputs + first
        columns_row[0] = training.inputs
    else:
        return False
    return True


cdef double _sum_of(const floating* x, Py_ssize_t n, bint squares) noexcept nogil:
    """The squares of x (n,), or its magnitudes, added up in LANES parts: one after the other, each addition waits for
    the last (an L2 penalty made a step of 784-50-10 1.34 times as long, an L1 penalty 2.3 times; now 1.02)."""
    cdef double parts[LANES]
    cdef Py_ssize_t i, j
    for j in range(LANES):
        parts[j] = 0
    for i in range(n // LANES):
        if squares:
            for j in range(LANES):
                parts[j] += <double>x[i * LANES + j] * x[i * LANES + j]
        else:
            for j in range(LANES):
                parts[j] += fabs(<double>x[i * LANES + j])
    for i in range(n // LANES * LANES, n):
        parts[0] += <double>x[i] * x[i] if squares else fabs(<double>x[i])
    for j in range(1, LANES):
        parts[0] += parts[j]
    return parts[0]


cdef void _decay(
    const floating* weights, floating* gradient, double l2, double l1, Py_ssize_t n, Py_ssize_t tile, double* penalties
) noexcept nogil:
    """Add the gradient of l2 / 2 * sum(w**2) + l1 * sum(|w|); penalties takes each tile's part of that."""
    cdef Py_ssize_t i, first = 0, size
    cdef floating square = <floating>l2, magnitude = <floating>l1
    for i in range(n):
        gradient[i] += square * weights[i]
    if l1 != 0:
        for i in range(n):
            gradient[i] += ((magnitude if weights[i] > 0 else <floating>0.)
                            - (magnitude if weights[i] < 0 else <floating>0.))
    while first < n:
        size = n - first if n - first < tile else tile
        penalties[first // tile] = 0.5 * l2 * _sum_of(weights + first, size, True)
        if l1 != 0:
            penalties[first // tile] += l1 * _sum_of(weights + first, size, False)
        first = first + tile


cdef void _limit(floating* gradient, floating limit, Py_ssize_t n) noexcept nogil:
    """NaN stays."""
    cdef Py_ssize_t i
    for i in range(n):
        gradient[i] = limit if gradient[i] > limit else -limit if gradient[i] < -limit else gradient[i]


cdef void _square(const floating* gradient, Py_ssize_t n, Py_ssize_t tile, double* squares) noexcept nogil:
    """squares takes each tile's part of the norm."""
    cdef Py_ssize_t first = 0, rows
    while first < n:
        rows = n - first if n - first < tile else tile
        squares[first // tile] = _sum_of(gradient + first, rows, True)
        first = first + tile


cdef void _store_gradient(
    const floating* gradient, Py_ssize_t rows, Py_ssize_t width, const Operation* operation, Py_ssize_t first,
    Py_ssize_t column,
) noexcept nogil:
    """Some rows of a panel, padding left out, into the user's array."""
    cdef floating* target = <floating*><uintptr_t>operation.array + first * operation.outputs + column
    cdef Py_ssize_t row, columns = operation.outputs - column if operation.outputs - column < width else width
    for row in range(rows):
        memcpy(target + row * operation.outputs, gradient + row * width, columns * sizeof(target[0]))


cdef void _update_panel(
    const Training* training, const Operation* operation, floating* arena, const Batch* batch,
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t column, Py_ssize_t width, Py_ssize_t tiles_before, floating* gradient,
) noexcept nogil:
    """Some rows of one panel of the weights, and of their transposed copy, from their gradient."""
    cdef Py_ssize_t rows = last - first, place = column * operation.inputs + first * width
    cdef Py_ssize_t tiles = (operation.inputs + TILE_ROWS - 1) // TILE_ROWS
    cdef floating* weights = arena + operation.weights + place
    cdef Py_ssize_t tile = tiles_before + column // _panel_columns(arena) * tiles + first // TILE_ROWS
    if _is_penalized(batch) and training.shares == NULL:
        _decay(weights, gradient, batch.settings.l2, batch.settings.l1, rows * width, TILE_ROWS * width,
               training.penalties + tile)
    if training.optimizer.rule == GRADIENT:
        _store_gradient(gradient, rows, width, operation, first, column)
        return
    if training.keeps:
        # A wrong place may lie over it, and shall do no harm.
        memmove(arena + operation.gradient + place, gradient, rows * width * sizeof(gradient[0]))
        if training.shares == NULL:
            _square(gradient, rows * width, TILE_ROWS * width, training.squares + tile)
        return
    _update(training.optimizer, batch, gradient, weights, arena + operation.state + place,
            operation.inputs * _padded(operation.outputs, arena), rows * width)
    if operation.transposed >= 0:
        _transpose_rows(weights, first, last, width, column, operation.outputs, operation.inputs,
                        arena + operation.transposed)


cdef void _update_block(
    const Training* training, const Operation* operation, floating* arena, const Batch* batch,
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t first_column, Py_ssize_t last_column, Py_ssize_t tiles_before,
    bint looks_for_zeros, floating* scratch,
) noexcept nogil:
    """Some rows of the weights, in the columns of a group of panels, panel after panel: gradient x.T @ dy, update.

    For several panels those columns of x are copied first, into memory of this thread's own: half of what is in them
    was written by other threads, or is scattered over the data, and comes too slowly for a tile that waits for it line
    by line. With more rows than DEPTH_BLOCK, gradients are summed up in several passes, and used in the last.
    """
    cdef const floating* columns        # of x
    cdef Py_ssize_t columns_row
    cdef floating* gradient
    cdef const floating* dy = arena + operation.y
    cdef Py_ssize_t rows = last - first, padded = _padded(operation.outputs, arena), k = 0, depth, column, width
    cdef bint skips_zeros = False, is_last_pass = False
    cdef Steps steps[MOST_TILES]
    while not is_last_pass:
        depth = batch.rows - k if batch.rows - k < DEPTH_BLOCK else DEPTH_BLOCK
        is_last_pass = k + depth == batch.rows
        columns, columns_row = scratch, ROW_BLOCK
        if last_column - first_column > _panel_columns(arena) or not _columns_in_place(
                training, operation, arena, batch, first, k, &columns, &columns_row):
            _copy_columns(training, operation, arena, batch, first, rows, k, depth, scratch)
        if looks_for_zeros:
            skips_zeros = _has_zeros(columns, 1, columns_row, rows, depth)
        if skips_zeros:
            _find_steps(columns, 1, columns_row, rows, depth, steps)
        gradient = scratch + DEPTH_BLOCK * ROW_BLOCK
        column = first_column
        while column < last_column:
            width = _width_from(column, padded, _panel_columns(arena))
            _product_of_panel(
                columns, 1, columns_row, dy + k * operation.y_row + column, operation.y_row, depth,
                <const floating*>gradient if k > 0 else <const floating*>NO_BIAS, width if k > 0 else 0,
                gradient, width, rows, width, steps if skips_zeros else NULL)
            if is_last_pass:
                _update_panel(training, operation, arena, batch, first, last, column, width, tiles_before, gradient)
            if batch.rows > DEPTH_BLOCK:
                gradient = gradient + width * ROW_BLOCK
            column = column + width
        k = k + depth


cdef void _sum_vector(const floating* x, Py_ssize_t x_row, Py_ssize_t rows, floating* sums) noexcept nogil:
    """The sums of one vector's columns, in four parts: in one, each addition would wait for the last."""
    cdef floating parts[4][FLOAT_LANES]
    cdef Py_ssize_t row, i, j
    memset(parts, 0, sizeof(parts))
    for row in range(rows // 4):
        for i in range(4):
            if floating is float:
                for j in range(FLOAT_LANES):
                    parts[i][j] += x[(4 * row + i) * x_row + j]
            else:
                for j in range(DOUBLE_LANES):
                    parts[i][j] += x[(4 * row + i) * x_row + j]
    for row in range(rows // 4 * 4, rows):
        for j in range(_lanes(sums)):
            parts[0][j] += x[row * x_row + j]
    for j in range(_lanes(sums)):
        sums[j] = parts[0][j] + parts[1][j] + (parts[2][j] + parts[3][j])


cdef void _update_bias(
    const Training* training, const Operation* operation, floating* arena, const Batch* batch,
    Py_ssize_t first_column, Py_ssize_t last_column, floating* gradient,
) noexcept nogil:
    cdef Py_ssize_t columns = last_column - first_column, lanes = _lanes(arena), column = 0
    while column < columns:
        _sum_vector(arena + operation.y + first_column + column, operation.y_row, batch.rows, gradient + column)
        column = column + lanes
    if training.optimizer.rule == GRADIENT:
        columns = operation.outputs - first_column if operation.outputs - first_column < columns else columns
        memcpy(<floating*><uintptr_t>operation.bias_array + first_column, gradient, columns * sizeof(gradient[0]))
    elif training.keeps:
        memmove(arena + operation.bias_gradient + first_column, gradient, columns * sizeof(gradient[0]))
    else:
        _update(training.optimizer, batch, gradient, arena + operation.bias + first_column,
                arena + operation.bias_state + first_column, _padded(operation.outputs, arena), columns)


cdef inline Py_ssize_t _cost_of_tiles(
    const Operation* operation, Py_ssize_t columns
) noexcept nogil:
    """Of a row of tiles in some columns: a transposed copy is an eighth more (0.35 instead of 0.31 microseconds for a
    vector's tile of 784-256-128 at batch 128)."""
    return columns * (8 if operation.transposed < 0 else 9)


cdef inline Py_ssize_t _cost(const Operation* operation, floating* arena) noexcept nogil:
    """Of all of an update; a bias costs next to nothing."""
    cdef Py_ssize_t tiles = (operation.inputs + TILE_ROWS - 1) // TILE_ROWS
    return tiles * _cost_of_tiles(operation, _padded(operation.outputs, arena))


# Rows of the next batch that a thread fetches into its L2 cache while it updates weights, where the data are larger
# than that cache: scattered over them, they come too slowly for the product that reads them (784-50-10 on MNIST: 162
# instead of 170 microseconds a step on one core, 105 instead of 110 on two). So many bytes leave room for weights.
cdef enum:
    FETCHED_BYTES = 1 << 18
    FETCHED_FROM = 1 << 20      # bytes of data

cdef struct Ahead:
    Py_ssize_t first, rows      # of the order; fetched so far
    Py_ssize_t fetched


cdef inline Ahead _rows_ahead(const Training* training, const Batch* batch, int share, int shares) noexcept nogil:
    """The rows that this thread will take of the next batch."""
    cdef Ahead ahead
    cdef Py_ssize_t first = batch.first + batch.rows, rows = training.rows - first % training.rows
    memset(&ahead, 0, sizeof(ahead))
    if training.fetches_ahead and first < training.rows * training.epochs:
        rows = training.batch_size if rows > training.batch_size else rows
        ahead.first = first + rows * share // shares
        ahead.rows = first + rows * (share + 1) // shares - ahead.first
        if ahead.rows * training.row_bytes > FETCHED_BYTES:
            ahead.rows = FETCHED_BYTES // training.row_bytes
    return ahead


cdef void _fetch(const Training* training, Ahead* ahead, Py_ssize_t rows) noexcept nogil:
    """Fetch until it is so many rows."""
    cdef const char* row
    cdef Py_ssize_t byte
    while ahead.fetched < rows and ahead.fetched < ahead.rows:
        row = <const char*>training.x + training.order[ahead.first + ahead.fetched] * training.row_bytes
        byte = 0
        while byte < training.row_bytes:
            nnfast_prefetch(row + byte)
            byte = byte + 64
        ahead.fetched += 1


cdef inline Py_ssize_t _clipped(Py_ssize_t x, Py_ssize_t highest) noexcept nogil:
    return 0 if x < 0 else highest if x > highest else x


cdef void _operate_by_tiles(
    const Training* training, Py_ssize_t first_operation, Py_ssize_t last_operation, floating* arena,
    const Batch* batch, int share, int shares,
) noexcept nogil:
    """A thread's part of the updates: all their rows of tiles, as if they stood in a row, divided by cost."""
    cdef Py_ssize_t total = 0, position = 0, place, begin, end, column, last_column
    cdef Py_ssize_t tiles_before = 0, tiles, padded, cost, first, last, row, block_end
    cdef const Operation* operation
    cdef bint looks_for_zeros
    cdef Ahead ahead = _rows_ahead(training, batch, share, shares)
    cdef floating* scratch = arena + training.scratch + share * training.scratch_size
    for place in range(first_operation, last_operation):
        total = total + _cost(training.operations + place, arena)
    begin = total * share // shares
    end = total * (share + 1) // shares
    for place in range(first_operation, last_operation):
        operation = training.operations + place
        tiles = (operation.inputs + TILE_ROWS - 1) // TILE_ROWS
        padded = _padded(operation.outputs, arena)
        # 0 times NaN must be seen. In a fit the loss tells, here nobody looks at it.
        looks_for_zeros = operation.looks_for_zeros != 0 and (
            training.optimizer.rule != GRADIENT or _all_finite(arena + operation.y, batch.rows * operation.y_row))
        column = 0
        while column < padded:
            last_column = column + training.group * _panel_columns(arena)
            if last_column > padded:
                last_column = padded
            cost = _cost_of_tiles(operation, last_column - column)
            # The rows of tiles that begin within this thread's part; with the last one goes the bias.
            first = _clipped((begin - position + cost - 1) // cost if begin > position else 0, tiles)
            last = _clipped((end - position + cost - 1) // cost if end > position else 0, tiles)
            if first < last and last == tiles:
                _update_bias(training, operation, arena, batch, column, last_column, scratch)
            row = first * TILE_ROWS
            last = last * TILE_ROWS if last < tiles else operation.inputs
            while row < last:
                block_end = last if last - row < ROW_BLOCK else row + ROW_BLOCK
                _fetch(training, &ahead,
                       ahead.rows * (position + block_end * cost // TILE_ROWS - begin) // (end - begin))
                _update_block(training, operation, arena, batch, row, block_end, column, last_column, tiles_before,
                              looks_for_zeros, scratch)
                row = block_end
            position = position + tiles * cost
            column = last_column
        tiles_before = tiles_before + tiles * _panel_count(operation.outputs, _panel_columns(arena))


cdef Py_ssize_t _tiles(const Training* training, Py_ssize_t panel_columns) noexcept nogil:
    """Tiles of weights that are updated."""
    cdef Py_ssize_t place, count = 0
    for place in range(training.count):
        if training.operations[place].code == UPDATE:
            count = count + ((training.operations[place].inputs + TILE_ROWS - 1) // TILE_ROWS
                             * _panel_count(training.operations[place].outputs, panel_columns))
    return count


cdef double _scale_of_kept(const Training* training, const floating* arena) noexcept nogil:
    """By which to multiply all gradients so that their norm is at most the limit; the same in every thread."""
    cdef const Operation* operation
    cdef const floating* dgamma
    cdef Py_ssize_t place, padded
    cdef double norm, total = _total(training.squares, _tiles(training, _panel_columns(arena)))
    for place in range(training.count):
        operation = training.operations + place
        padded = _padded(operation.outputs, arena)
        if operation.code == UPDATE:
            total += _sum_of(arena + operation.bias_gradient, operation.outputs, True)
        elif operation.code == BATCH_NORMALIZATION_BACKWARD:
            dgamma = arena + operation.statistics + 5 * padded
            total += (_sum_of(dgamma, operation.outputs, True)
                      + _sum_of(dgamma + padded, operation.outputs, True))
    norm = sqrt(total)
    return training.optimizer.limit / norm if norm > training.optimizer.limit else 1.


cdef void _update_scaled(
    const Optimizer* optimizer, const Batch* batch, floating scale, floating* gradient, floating* parameter,
    floating* state, Py_ssize_t size, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i
    if scale != 1:
        for i in range(n):
            gradient[i] = scale * gradient[i]
    _update(optimizer, batch, gradient, parameter, state, size, n)


cdef void _update_from_kept(
    const Training* training, const Operation* operation, floating* arena, const Batch* batch, floating scale,
    int share, int shares,
) noexcept nogil:
    """A thread's rows of an operation's weights, or its columns of what is a vector."""
    cdef Py_ssize_t panel_columns = _panel_columns(arena), inputs = operation.inputs, outputs = operation.outputs
    cdef Py_ssize_t padded = _padded(outputs, arena), blocks = (inputs + TILE_ROWS - 1) // TILE_ROWS, column = 0
    cdef Py_ssize_t first = blocks * share // shares * TILE_ROWS, last = blocks * (share + 1) // shares * TILE_ROWS
    cdef Py_ssize_t first_column = outputs * share // shares, columns = outputs * (share + 1) // shares - first_column
    cdef Py_ssize_t width, place
    cdef floating* bias_gradient
    if operation.code == BATCH_NORMALIZATION_BACKWARD:
        bias_gradient = arena + operation.statistics + 6 * padded
        _update_scaled(
            training.optimizer, batch, scale, bias_gradient - padded + first_column,
            arena + operation.weights + first_column, arena + operation.state + first_column, padded, columns)
    else:
        bias_gradient = arena + operation.bias_gradient
        last = last if last < inputs else inputs
        while column < padded:
            width = _width_from(column, padded, panel_columns)
            place = column * inputs + first * width
            _update_scaled(training.optimizer, batch, scale, arena + operation.gradient + place,
                           arena + operation.weights + place, arena + operation.state + place, inputs * padded,
                           (last - first) * width)
            if operation.transposed >= 0:
                _transpose_rows(arena + operation.weights + place, first, last, width, column, outputs, inputs,
                                arena + operation.transposed)
            column = column + width
    _update_scaled(training.optimizer, batch, scale, bias_gradient + first_column,
                   arena + operation.bias + first_column, arena + operation.bias_state + first_column, padded, columns)


cdef void _operate_on_kept(
    const Training* training, floating* arena, const Batch* batch, floating scale, int share, int shares
) noexcept nogil:
    """A thread's part of all updates, from the gradients that were kept."""
    cdef Py_ssize_t place
    cdef int64_t code
    for place in range(training.count):
        code = training.operations[place].code
        if code == UPDATE or code == BATCH_NORMALIZATION_BACKWARD:
            _update_from_kept(training, training.operations + place, arena, batch, scale, share, shares)
