# Inference: the layers of a network, forward only, in one call.
#
# The weights are read where the layers have them, so that whoever changes them need tell nobody. With few rows each
# weight is used once or a few times, and what counts is to read them in their order: threads divide the columns of
# every layer. With more rows threads divide the rows and take them through all layers, a block at a time; panels that a
# tile cannot read in place are copied first, by all threads together.

cdef enum:
    # Rows of weights that are added to a row of outputs at a time.
    GROUP = 8
    # Outputs for which that goes on through all rows of weights: they stay in the L1 cache.
    SUMS_OF_FEW_ROWS = 4096
    # Below so many rows that is faster than tiles. In microseconds on one core: 784-50-10 with 8 rows 10.2 instead of
    # 11.7, with 24 rows as long; where tiles would need panels to be copied, 784-512-512-10, with 8 rows 107 instead of
    # 163, with 64 rows 821 instead of 856.
    FEW_ROWS_OF_NARROW = 16
    FEW_ROWS_OF_WIDE = 64
    # Multiply-adds of all rows for which the GIL is kept: they take some 3 to 20 microseconds, and to give it up and
    # take it again costs 0.1, where the process has other threads 0.2 (one row of 4-64-64-2: 1.25 instead of 1.04).
    SHORT_WORK = 65536

    # Far beyond any memory, so that what is computed from two such numbers does not overflow.
    MOST_COLUMNS = 1 << 30

cdef struct Stage:
    int64_t code            # PRODUCT, COPY, or an operation on y in place
    int64_t inputs, outputs
    int64_t y_row           # elements from one row of y to the next; 0 where y is the result
    # The layer's arrays: which of those given and, in compiled code, addresses
    int64_t weights, bias   # of batch normalisation: gamma and beta; of rescaling: scale and, unless it is -1, offset
    int64_t mean, variance  # of batch normalisation
    int64_t copy            # where the copy of bias and weights has room, in elements
    double setting          # slope, factor


cdef class Chain:
    """The stages of a network and the arrays of its layers, checked once, so that a call need not."""
    cdef Stage* stages
    cdef Py_ssize_t count
    cdef Arrays arrays              # kept alive
    cdef size_t itemsize            # of what they hold
    cdef Py_ssize_t block_rows      # that go through the stages at a time
    cdef Py_ssize_t buffer_size     # elements of such a block of y
    cdef Py_ssize_t copies          # elements of all copies of weights
    cdef Py_ssize_t work            # multiply-adds a row, and for each value of another stage as many as GELU is worth

    def __cinit__(
        self, const Stage[::1] stages, Arrays arrays not None, size_t itemsize, Py_ssize_t block_rows,
        Py_ssize_t buffer_size,
    ):
        cdef Py_ssize_t place
        cdef int64_t y_row = -1     # of the last product or copy
        cdef Stage* stage
        _must(stages.shape[0] > 0, "there are no stages")
        _must(itemsize == sizeof(float) or itemsize == sizeof(double), "itemsize is neither of float32 nor of float64")
        _must(block_rows >= FEW_ROWS_OF_WIDE, "block_rows is too small")
        _must(buffer_size >= SUMS_OF_FEW_ROWS + FEW_ROWS_OF_WIDE * FLOAT_LANES, "buffer_size is too small")
        self.stages = <Stage*>PyMem_Calloc(stages.shape[0], sizeof(Stage))
        if self.stages == NULL:
            raise MemoryError()
        self.count, self.arrays, self.itemsize = stages.shape[0], arrays, itemsize
        self.block_rows, self.buffer_size = block_rows, buffer_size
        for place in range(self.count):
            stage = self.stages + place
            stage[0] = stages[place]
            _must(place == 0 or stage.inputs == self.stages[place - 1].outputs,
                  "a stage does not follow from the one before")
            if stage.code == PRODUCT or stage.code == COPY:
                _must(y_row != 0 or stage.inputs == 0, "a stage comes after the one that writes the result")
                _must(stage.code == PRODUCT or place == 0, "a copy is not the first stage")
                y_row = stage.y_row
            _must(y_row >= 0, "the first stage is neither a product nor a copy")
            self._check_stage(stage)
            self.work += stage.outputs * (stage.inputs if stage.code == PRODUCT else 64)
        _must(y_row == 0, "no stage writes the result")

    def __dealloc__(self):
        PyMem_Free(self.stages)

    cdef int _check_stage(self, Stage* stage) except -1:
        """That a stage stays inside its arrays and buffers; it then has addresses of the arrays."""
        cdef int64_t inputs = stage.inputs, outputs = stage.outputs, padded
        _must(stage.code == PRODUCT or stage.code == COPY or stage.code == SCALE or stage.code == NORMALIZE
              or stage.code == RESCALE or RELU <= stage.code <= GELU, "a stage has no such code")
        _must(0 <= inputs <= MOST_COLUMNS and 0 <= outputs <= MOST_COLUMNS, "a stage has no such number of columns")
        _must(stage.code == PRODUCT or inputs == outputs, "a stage changes the number of columns")
        padded = _in_whole(outputs, FLOAT_GRAIN if self.itemsize == sizeof(float) else DOUBLE_GRAIN)
        if stage.code == PRODUCT or stage.code == COPY:
            _must(stage.y_row == 0 or _fits(0, self.block_rows, stage.y_row, padded, self.buffer_size)
                  and _fits(0, self.block_rows, stage.y_row, stage.y_row, self.buffer_size),
                  "rows of y do not fit into a buffer")
        if stage.code == PRODUCT:
            stage.weights = self.arrays.address("weights", stage.weights, inputs, outputs, self.itemsize, False)
            stage.bias = self.arrays.address("bias", stage.bias, 1, outputs, self.itemsize, False)
            _must(0 <= stage.copy <= <int64_t>MOST_COLUMNS * MOST_COLUMNS, "a copy has no such place")
            self.copies = max(self.copies, stage.copy + (inputs + 1) * padded)
        elif stage.code == RESCALE:
            stage.weights = self.arrays.address("scale", stage.weights, 1, outputs, self.itemsize, False)
            stage.bias = 0 if stage.bias < 0 else self.arrays.address(
                "offset", stage.bias, 1, outputs, self.itemsize, False)
        elif stage.code == NORMALIZE:
            stage.weights = self.arrays.address("gamma", stage.weights, 1, outputs, self.itemsize, False)
            stage.bias = self.arrays.address("beta", stage.bias, 1, outputs, self.itemsize, False)
            stage.mean = self.arrays.address("mean", stage.mean, 1, outputs, self.itemsize, False)
            stage.variance = self.arrays.address("variance", stage.variance, 1, outputs, self.itemsize, False)
        return 0


cdef class Scratch:
    """Memory for the values between the stages and for copies, likewise."""
    cdef uint8_t[::1] memory

    def __cinit__(self, uint8_t[::1] memory):
        self.memory = memory


cdef struct Inference:
    const Stage* stages
    Py_ssize_t count, rows, block_rows, buffer_size
    const void* x
    int held            # what x holds
    bint by_columns     # divided among threads
    Py_ssize_t skipping     # the stage that skips zeros of the data, -1: none does
    nnfast_team team


cdef inline void _add_group(
    const given* a, Py_ssize_t a_row, const floating* b, const floating* b_last, Py_ssize_t b_row, floating* sums,
    Py_ssize_t vectors, Py_ssize_t sums_row, const Py_ssize_t rows, const Py_ssize_t lanes,
) noexcept nogil:
    """sums (rows, vectors) += a (rows, GROUP) @ b (GROUP, vectors), whose last vector begins at b_last.

    rows and lanes are constants where this is inlined.
    """
    cdef floating products[4][FLOAT_LANES]
    cdef floating factor
    cdef Py_ssize_t vector, row, k, j
    for vector in range(vectors):
        b = b_last if vector == vectors - 1 else b
        # From 0, not from the sums: else each group of rows would wait for the last one.
        for row in range(rows):
            for j in range(lanes):
                products[row][j] = 0
        for k in range(GROUP):
            for row in range(rows):
                factor = <floating>a[row * a_row + k]
                for j in range(lanes):
                    products[row][j] += factor * b[k * b_row + j]
        for row in range(rows):
            for j in range(lanes):
                sums[row * sums_row + j] += products[row][j]
        b = b + lanes
        sums = sums + lanes


cdef inline void _add_groups(
    const given* a, Py_ssize_t a_row, Py_ssize_t rows, const floating* b, const floating* b_last, Py_ssize_t b_row,
    floating* sums, Py_ssize_t vectors, const Py_ssize_t lanes,
) noexcept nogil:
    """The same for any number of rows."""
    cdef Py_ssize_t row = 0, width = vectors * lanes
    while row + 4 <= rows:
        _add_group(a + row * a_row, a_row, b, b_last, b_row, sums + row * width, vectors, width, 4, lanes)
        row = row + 4
    if row + 2 <= rows:
        _add_group(a + row * a_row, a_row, b, b_last, b_row, sums + row * width, vectors, width, 2, lanes)
        row = row + 2
    if row < rows:
        _add_group(a + row * a_row, a_row, b, b_last, b_row, sums + row * width, vectors, width, 1, lanes)


cdef void _product_of_columns(
    const Stage* stage, const given* a, Py_ssize_t a_row, Py_ssize_t rows, floating* c, Py_ssize_t c_row,
    Py_ssize_t first, Py_ssize_t last, floating* sums, const Py_ssize_t lanes,
) noexcept nogil:
    """c (rows, columns first to last) = bias + a @ weights. sums: (rows, whole vectors), this thread's own.

    If the last columns are less than a vector, the vector that is read ends with them or, in a narrow matrix, begins
    with them. There the last rows of weights have nothing behind them, and are taken element by element.
    """
    cdef const floating* weights = <const floating*><uintptr_t>stage.weights + first
    cdef const floating* bias = <const floating*><uintptr_t>stage.bias + first
    cdef Py_ssize_t outputs = stage.outputs, columns = last - first, vectors = (columns + lanes - 1) // lanes
    cdef Py_ssize_t width = vectors * lanes, whole = width - lanes      # columns before the last vector
    # Columns of the last vector that come before those that it is read for.
    cdef Py_ssize_t shift = width - columns if outputs >= lanes else 0
    # Rows of weights that can be read so; others follow one by one.
    cdef Py_ssize_t depth = stage.inputs if shift or columns == width else stage.inputs - (lanes - 1) // outputs
    cdef Py_ssize_t k, row, j, vector
    cdef floating factor
    depth = depth // GROUP * GROUP if depth > 0 else 0
    memset(sums, 0, rows * width * sizeof(sums[0]))
    for k in range(depth // GROUP):
        _add_groups(a + k * GROUP, a_row, rows, weights + k * GROUP * outputs,
                    weights + k * GROUP * outputs + whole - shift, outputs, sums, vectors, lanes)
    for row in range(rows):
        for k in range(depth, stage.inputs):
            factor = <floating>a[row * a_row + k]
            for vector in range(columns // lanes):
                for j in range(lanes):
                    sums[row * width + vector * lanes + j] += factor * weights[k * outputs + vector * lanes + j]
            for j in range(columns // lanes * lanes, columns):
                sums[row * width + j + shift] += factor * weights[k * outputs + j]
        for j in range(whole):
            c[row * c_row + first + j] = bias[j] + sums[row * width + j]
        for j in range(whole, columns):
            c[row * c_row + first + j] = bias[j] + sums[row * width + j + shift]


cdef void _product_of_few_rows(
    const Stage* stage, const given* a, Py_ssize_t a_row, Py_ssize_t rows, floating* c, Py_ssize_t c_row,
    Py_ssize_t first, Py_ssize_t last, floating* sums,
) noexcept nogil:
    """Columns first to last of c (rows, O) = bias + a @ weights, the weights read in their order.

    The first column is one of a whole vector, and so is the last, unless it is the last of all.
    """
    cdef Py_ssize_t end, columns = SUMS_OF_FEW_ROWS
    if rows > 1:
        columns = SUMS_OF_FEW_ROWS // rows // _lanes(c) * _lanes(c)
    while first < last:
        end = last if last - first < columns else first + columns
        if floating is float:
            _product_of_columns(stage, a, a_row, rows, c, c_row, first, end, sums, FLOAT_LANES)
        else:
            _product_of_columns(stage, a, a_row, rows, c, c_row, first, end, sums, DOUBLE_LANES)
        first = end


cdef inline Product _product_of_stage(const Stage* stage, Py_ssize_t rows, floating* c) noexcept nogil:
    cdef Product product = _plan_product(rows, stage.outputs, stage.inputs, 0, 1, stage.outputs, 1, c, 1)
    return product


cdef bint _has_few_rows(const Inference* inference, floating* unused) noexcept nogil:
    cdef Py_ssize_t place
    cdef Product product
    if inference.rows >= FEW_ROWS_OF_NARROW and inference.rows < FEW_ROWS_OF_WIDE:
        for place in range(inference.count):
            if inference.stages[place].code == PRODUCT:
                product = _product_of_stage(inference.stages + place, FEW_ROWS, unused)
                if not product.b_in_place:
                    return True
    return inference.rows < FEW_ROWS_OF_NARROW


cdef bint _copy_weights(
    const Inference* inference, floating* copies, int share, int shares
) noexcept nogil:
    """A thread's part of the panels that are not read in place, and of the biases. Whether there were any at all."""
    cdef Py_ssize_t place, panel, turn = 0, size
    cdef const Stage* stage
    cdef Product product
    for place in range(inference.count):
        stage = inference.stages + place
        if stage.code != PRODUCT:
            continue
        product = _product_of_stage(stage, FEW_ROWS, copies)
        size = _padded(stage.outputs, copies)
        for panel in range(product.panels):
            if not _is_copied(&product, panel):
                continue
            if turn % shares == share:
                _copy_panel(&product, panel, <const floating*><uintptr_t>stage.weights,
                            copies + stage.copy + size + panel * product.panel_columns * product.depth)
            turn = turn + 1
        if turn % shares == share:
            memset(copies + stage.copy, 0, size * sizeof(copies[0]))
            memcpy(copies + stage.copy, <const floating*><uintptr_t>stage.bias, stage.outputs * sizeof(copies[0]))
        turn = turn + 1
    return turn > 0


cdef void _product_of_many_rows(
    const Stage* stage, const given* a, Py_ssize_t a_row, Py_ssize_t rows, floating* c, Py_ssize_t c_row,
    const floating* copies, bint skips_zeros,
) noexcept nogil:
    """c (rows, O) = bias + a @ weights; where c has room for it, padding is written, too."""
    cdef Product product = _product_of_stage(stage, FEW_ROWS, c)
    cdef const floating* bias = copies + stage.copy
    product.rows, product.a_row, product.c_row = rows, a_row, c_row
    product.pads, product.skips_zeros = stage.y_row > 0, skips_zeros
    _product_of_rows(&product, a, <const floating*><uintptr_t>stage.weights,
                     bias + _padded(stage.outputs, bias), bias, c, 0, rows)


cdef inline void _map_in_place(int64_t code, double setting, floating* y, Py_ssize_t n) noexcept nogil:
    """One activation or scaling, element by element."""
    if code == RELU:
        _relu(y, n)
    elif code == LEAKY_RELU:
        _leaky_relu(y, <floating>setting, n)
    elif code == SIGMOID:
        _sigmoid_in_place(y, n)
    elif code == TANH:
        _tanh_in_place(y, n)
    elif code == GELU:
        _gelu_forward_chunk(y, y, 0, n)
    else:
        _scaled_chunk(y, y, <floating>setting, 0, n)


cdef void _operate_in_place(
    const Stage* stage, floating* y, Py_ssize_t y_row, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """One activation, scaling or normalisation, on columns first to last of some rows."""
    cdef Py_ssize_t row, n = last - first
    y = y + first
    if rows > 1 and (n < stage.outputs or stage.code == NORMALIZE or stage.code == RESCALE):
        for row in range(rows):
            _operate_in_place(stage, y - first + row * y_row, 0, 1, first, last)
        return
    n = n + (rows - 1) * y_row      # what lies between two rows is nobody's
    if stage.code == RESCALE:
        _rescale(y, <const floating*><uintptr_t>stage.weights + first,
                 <const floating*><uintptr_t>stage.bias + first if stage.bias else <const floating*>NULL, n)
    elif stage.code != NORMALIZE:
        _map_in_place(stage.code, stage.setting, y, n)
    else:
        _batch_normalization_predict_row(
            y, <const floating*><uintptr_t>stage.weights + first, <const floating*><uintptr_t>stage.bias + first,
            <const floating*><uintptr_t>stage.mean + first, <const floating*><uintptr_t>stage.variance + first, y, n,
            1e-6)


cdef void _copy_converted(
    const Inference* inference, Py_ssize_t first_row, Py_ssize_t rows, floating* y, Py_ssize_t y_row, Py_ssize_t first,
    Py_ssize_t last,
) noexcept nogil:
    """y (rows, columns first to last) = the data from a row on."""
    cdef Py_ssize_t row, columns = inference.stages[0].inputs
    for row in range(rows):
        _convert(inference.x, inference.held, (first_row + row) * columns + first, y + row * y_row + first,
                 last - first)


cdef void _infer_columns(
    Inference* inference, floating* result, floating* memory, int share, int shares
) noexcept nogil:
    """All rows, a thread's columns of every stage."""
    cdef Py_ssize_t place, blocks, first = 0, last = 0, y_row = 0, x_row = 0, lanes = _lanes(result), written = 0
    cdef const Stage* stage
    cdef floating* y = result
    # What a thread writes again and again is its own: beside lines that another one writes it would be fetched away by
    # that one's prefetching (40 rows of 784-512-512-10 took 761 microseconds on two cores, 545 on one).
    cdef floating* sums = memory + (2 + share) * inference.buffer_size
    cdef const floating* before
    for place in range(inference.count):
        stage = inference.stages + place
        if stage.code != PRODUCT and stage.code != COPY:
            _operate_in_place(stage, y, y_row, inference.rows, first, last)
            continue
        before, x_row = y, y_row
        y_row = stage.y_row if stage.y_row else stage.outputs
        y = memory + written % 2 * inference.buffer_size if stage.y_row else result
        first, last = 0, stage.outputs
        if shares > 1:
            blocks = (stage.outputs + lanes - 1) // lanes
            first = blocks * share // shares * lanes
            last = blocks * (share + 1) // shares * lanes
            last = last if last < stage.outputs else stage.outputs
        if stage.code == COPY:
            _copy_converted(inference, 0, inference.rows, y, y_row, first, last)
        elif place == 0 and inference.held == FLOATS:
            _product_of_few_rows(stage, <const float*>inference.x, stage.inputs, inference.rows, y, y_row, first, last,
                                 sums)
        elif place == 0:
            _product_of_few_rows(stage, <const double*>inference.x, stage.inputs, inference.rows, y, y_row, first, last,
                                 sums)
        else:
            nnfast_wait(&inference.team.barrier, shares)
            _product_of_few_rows(stage, before, x_row, inference.rows, y, y_row, first, last, sums)
        written = written + 1


cdef void _infer_rows(
    Inference* inference, floating* result, floating* memory, const floating* copies,
    Py_ssize_t row, Py_ssize_t rows,
) noexcept nogil:
    """A block of rows through all stages."""
    cdef Py_ssize_t place, y_row = 0, x_row = 0, written = 0
    cdef const Stage* stage
    cdef floating* y = result
    cdef const floating* before
    for place in range(inference.count):
        stage = inference.stages + place
        if stage.code != PRODUCT and stage.code != COPY:
            _operate_in_place(stage, y, y_row, rows, 0, stage.outputs)
            continue
        before, x_row = y, y_row
        y_row = stage.y_row if stage.y_row else stage.outputs
        y = memory + written % 2 * inference.buffer_size if stage.y_row else result + row * stage.outputs
        if stage.code == COPY:
            _copy_converted(inference, row, rows, y, y_row, 0, stage.outputs)
        elif place == 0 and inference.held == FLOATS:
            _product_of_many_rows(stage, <const float*>inference.x + row * stage.inputs, stage.inputs, rows, y, y_row,
                                  copies, inference.skipping == 0)
        elif place == 0:
            _product_of_many_rows(stage, <const double*>inference.x + row * stage.inputs, stage.inputs, rows, y, y_row,
                                  copies, inference.skipping == 0)
        else:
            _product_of_many_rows(stage, before, x_row, rows, y, y_row, copies, inference.skipping == place)
        written = written + 1


cdef void _infer_share(
    Inference* inference, floating* result, floating* memory, floating* copies, int share, int shares
) noexcept nogil:
    """What one thread does."""
    cdef Py_ssize_t row, last
    if inference.by_columns:
        _infer_columns(inference, result, memory, share, shares)
        return
    if _copy_weights(inference, copies, share, shares):
        nnfast_wait(&inference.team.barrier, shares)
    memory = memory + share * 2 * inference.buffer_size
    row = inference.rows * share // shares
    last = inference.rows * (share + 1) // shares
    while row < last:
        _infer_rows(inference, result, memory, copies, row,
                    last - row if last - row < inference.block_rows else inference.block_rows)
        row = row + inference.block_rows


cdef Py_ssize_t _skipping_stage(const Inference* inference, const floating* unused) noexcept nogil:
    """The first product, if many of the data are 0 and still are when they reach it, and its weights are finite."""
    cdef const Stage* stage = inference.stages
    cdef Py_ssize_t place = 0, depth
    cdef bint has_zeros
    while place < inference.count and (stage.code == COPY or stage.code == RESCALE and stage.bias == 0):
        place = place + 1
        stage = inference.stages + place
    if place == inference.count or stage.code != PRODUCT or stage.inputs == 0:
        return -1
    depth = stage.inputs
    if inference.held == FLOATS:
        has_zeros = _has_zeros(<const float*>inference.x, depth, 1, inference.rows, depth)
    elif inference.held == DOUBLES:
        has_zeros = _has_zeros(<const double*>inference.x, depth, 1, inference.rows, depth)
    else:
        has_zeros = inference.held == UINT8S and _has_zeros(
            <const uint8_t*>inference.x, depth, 1, inference.rows, depth)
    return place if has_zeros and _chunk_is_finite(
        <const floating*><uintptr_t>stage.weights, 0, depth * stage.outputs) else -1


cdef void _infer(
    Inference* inference, floating* y, floating* memory, int num_threads
) noexcept nogil:
    """All rows through all stages."""
    cdef floating* copies = memory + (num_threads + 1) * 2 * inference.buffer_size
    inference.by_columns = _has_few_rows(inference, memory)
    inference.skipping = -1 if inference.by_columns else _skipping_stage(inference, memory)
    if nnfast_assemble(&inference.team, num_threads) == 1:
        _infer_share(inference, y, memory, copies, 0, 1)
        return
    with parallel(num_threads=num_threads):
        _infer_share(inference, y, memory, copies, nnfast_thread_number(), nnfast_team_size())
        nnfast_leave(&inference.team)
    nnfast_disband(&inference.team)


cdef bint _overlap(const void* a, Py_ssize_t a_bytes, const void* b, Py_ssize_t b_bytes) noexcept nogil:
    return <uintptr_t>a < <uintptr_t>b + b_bytes and <uintptr_t>b < <uintptr_t>a + a_bytes


def infer(
    Chain chain not None,
    Scratch scratch not None,   # 2 buffers a thread, and 2 more; then, from FEW_ROWS_OF_NARROW rows on, the copies
    x,                          # in   (B, I)   B > 0; where I is 0, one column that is not read. Whole numbers: only
                                #               where the first stage copies
    floating[:, ::1] y,         # out  (B, O)   O > 0
    Py_ssize_t rows,            # B
    int num_threads,
):
    """y = what the last stage gives. Returns False, and does nothing, if the shapes are others or x and y overlap."""
    cdef Data data = Data(x)
    cdef Inference inference
    cdef floating* memory
    cdef const Stage* first = chain.stages
    cdef const Stage* last = first + chain.count - 1
    cdef Py_ssize_t room = (scratch.memory.shape[0] - 64) // <Py_ssize_t>sizeof(y[0, 0])
    _check_threads(num_threads)
    _must(chain.itemsize == sizeof(y[0, 0]), "y is not of the dtype of the stages")
    if data.rows != rows or data.columns != (first.inputs if first.inputs else 1):
        return False
    if y.shape[0] != rows or y.shape[1] != last.outputs:
        return False
    if rows == 0 or last.outputs == 0:
        return True
    room = room - chain.copies if rows >= FEW_ROWS_OF_NARROW else room
    _must(room // (2 * (<Py_ssize_t>num_threads + 1)) >= chain.buffer_size, "scratch is too small")
    _must(data.held <= DOUBLES or first.code == COPY, "x holds whole numbers, which the first stage does not convert")
    _check_alignment(<uintptr_t>&y[0, 0], sizeof(y[0, 0]))
    memory = _aligned(<floating*>&scratch.memory[0])
    if _overlap(data.x, data.rows * data.columns * data.itemsize,
                &y[0, 0], y.shape[0] * y.shape[1] * <Py_ssize_t>sizeof(y[0, 0])):
        return False
    inference.stages, inference.count, inference.rows = first, chain.count, data.rows
    inference.x, inference.held = data.x, data.held
    inference.block_rows, inference.buffer_size = chain.block_rows, chain.buffer_size
    if num_threads == 1 and rows * chain.work <= SHORT_WORK:
        _infer(&inference, &y[0, 0], memory, 1)
    else:
        with nogil:
            _infer(&inference, &y[0, 0], memory, num_threads)
    return True
