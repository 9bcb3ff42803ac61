# Inference of one row for callers in C: functions whose addresses are given away, and what they are told of a network.
#
# They run without Python: they touch none of its objects, take no lock, allocate nothing, and any number of threads may
# be in one of them at once. The values between the stages are on the caller's stack; those of a network too wide for
# that are in one of the blocks that its `Context` has, for which a thread waits while others have taken them all.

cdef enum:
    # Of the caller's stack, in bytes: rows of up to 1,344 float32 between the stages. A thread has 128 KiB with musl.
    ON_THE_STACK = 16384
    # What comes before the memory of a block: its mark, on a cache line of its own.
    BLOCK_HEADER = 64
    MOST_BLOCKS = 1 << 16
    # An array of NumPy has at most so many.
    MOST_AXES = 64

cdef struct Caller:
    Inference inference     # of one row; nothing in it is written
    Py_ssize_t inputs, outputs
    Py_ssize_t spare        # where the last stage may write, in elements: the buffer that it does not read
    size_t itemsize
    uint8_t* blocks         # NULL where the stack has room
    Py_ssize_t block_size   # bytes
    int32_t count


cdef class Context:
    """What a C function is given beside a row; `address` is where that is, as long as this lives."""
    cdef Caller caller
    cdef Chain chain        # kept alive
    cdef uint8_t* memory

    def __cinit__(self, Chain chain not None, int blocks):
        cdef Caller* caller = &self.caller
        cdef const Stage* stage
        cdef Py_ssize_t place, size, widest = 0, written = 0
        _must(1 <= blocks <= MOST_BLOCKS, "there is no such number of blocks")
        for place in range(chain.count):
            stage = chain.stages + place
            if stage.code == PRODUCT or stage.code == COPY:
                widest = max(widest, _in_whole(stage.outputs, FLOAT_LANES))
                written += 1
        self.chain = chain
        caller.inference.stages, caller.inference.count = chain.stages, chain.count
        caller.inference.rows = caller.inference.block_rows = 1
        caller.inference.by_columns, caller.inference.buffer_size = True, widest
        caller.inputs, caller.outputs = chain.stages[0].inputs, chain.stages[chain.count - 1].outputs
        caller.spare, caller.itemsize, caller.count = (written - 1) % 2 * widest, chain.itemsize, blocks
        size = 3 * widest * <Py_ssize_t>chain.itemsize      # two rows of values, and one of sums
        if size + 64 > ON_THE_STACK:
            caller.block_size = BLOCK_HEADER + _in_whole(size, 64)
            self.memory = <uint8_t*>PyMem_Calloc(blocks + 1, caller.block_size)
            if self.memory == NULL:
                raise MemoryError()
            caller.blocks = <uint8_t*>_aligned(<float*>self.memory)

    def __dealloc__(self):
        PyMem_Free(self.memory)

    @property
    def address(self):
        return <uintptr_t>&self.caller


cdef void _predict_row(Caller* caller, const given* x, given* y, floating* unused) noexcept nogil:
    """y = what the last stage gives for a row. y may lie over x, and both may be of another dtype than the network."""
    cdef uint8_t stack[ON_THE_STACK]
    cdef uint8_t* block = NULL
    cdef floating* memory = _aligned(<floating*>stack)
    cdef floating* scores
    cdef Inference inference = caller.inference     # of this call: other threads may be in one of their own
    cdef Py_ssize_t j
    inference.x, inference.held = x, FLOATS if sizeof(given) == sizeof(float) else DOUBLES
    if caller.blocks != NULL:
        block = nnfast_take_block(caller.blocks, caller.block_size, caller.count)
        memory = <floating*>(block + BLOCK_HEADER)
    scores = memory + caller.spare
    if sizeof(given) == sizeof(floating) and not _overlap(
            x, caller.inputs * <Py_ssize_t>sizeof(given), y, caller.outputs * <Py_ssize_t>sizeof(given)):
        scores = <floating*>y
    _infer_columns(&inference, scores, memory, 0, 1)
    if <void*>scores != <void*>y:
        for j in range(caller.outputs):
            y[j] = <given>scores[j]
    if block != NULL:
        nnfast_give_block(block)


cdef void _predict_floats(const float* x, float* y, void* context) noexcept nogil:
    _predict_row(<Caller*>context, x, y, <float*>NULL)


cdef void _predict_doubles(const double* x, double* y, void* context) noexcept nogil:
    """For a network of float32 as well, whose scores it converts."""
    cdef Caller* caller = <Caller*>context
    if caller.itemsize == sizeof(float):
        _predict_row(caller, x, y, <float*>NULL)
    else:
        _predict_row(caller, x, y, <double*>NULL)


# What SciPy calls. Its numbers are its caller's, so that they fit the network is looked at here.

cdef double _quad(int inputs, double* x, void* context) noexcept nogil:
    """The one output; NaN if that or the number of inputs is another one, since SciPy can be told of no error here."""
    cdef Caller* caller = <Caller*>context
    cdef double y = NAN
    if caller.inputs == inputs and caller.outputs == 1:
        _predict_doubles(x, &y, context)
    return y


cdef int _generic_filter(double* x, intptr_t inputs, double* y, void* context) noexcept nogil:
    """The one output for what a footprint covers; 0, for which SciPy raises an error, if the numbers are other ones."""
    cdef Caller* caller = <Caller*>context
    if caller.inputs != inputs or caller.outputs != 1:
        return 0
    _predict_doubles(x, y, context)
    return 1


cdef int _geometric_transform(intptr_t* place, double* y, int inputs, int outputs, void* context) noexcept nogil:
    """The point of the input image for a place in the output image, likewise."""
    cdef Caller* caller = <Caller*>context
    cdef double x[MOST_AXES]
    cdef int axis
    if caller.inputs != inputs or caller.outputs != outputs or inputs > MOST_AXES:
        return 0
    for axis in range(inputs):
        x[axis] = <double>place[axis]
    _predict_doubles(x, y, context)
    return 1


# Their addresses, by the dtype of rows, and by the function of SciPy's that calls them.
ROW_FUNCTION = {"float32": <uintptr_t><void*>_predict_floats, "float64": <uintptr_t><void*>_predict_doubles}
SCIPY_FUNCTIONS = {
    "quad": <uintptr_t><void*>_quad, "generic_filter": <uintptr_t><void*>_generic_filter,
    "geometric_transform": <uintptr_t><void*>_geometric_transform,
}
