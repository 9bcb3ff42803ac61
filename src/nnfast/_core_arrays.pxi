# Arrays of the caller's that an engine works on where they are. A description of the work (an operation, a stage) names
# them by their place in a list, so that no number from outside is ever taken for an address. Data are taken as they
# are, too, and converted row by row when they are read.

# The byte orders of a buffer's format that are this machine's.
cdef bytes NATIVE_ORDERS = b"@=<" if sys.byteorder == "little" else b"@=>"


cdef class Arrays:
    """A list of contiguous arrays, held, and kept from being resized, for as long as this lives."""
    cdef Py_buffer* buffers
    cdef Py_ssize_t count

    def __cinit__(self, list arrays not None):
        self.count = 0
        self.buffers = <Py_buffer*>PyMem_Calloc(len(arrays), sizeof(Py_buffer))
        if self.buffers == NULL:
            raise MemoryError()
        for array in arrays:
            PyObject_GetBuffer(array, self.buffers + self.count, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
            self.count += 1

    def __dealloc__(self):
        cdef Py_ssize_t place
        for place in range(self.count):
            PyBuffer_Release(self.buffers + place)
        PyMem_Free(self.buffers)

    cdef int64_t address(
        self, str name, int64_t place, int64_t rows, int64_t columns, size_t itemsize, bint is_written
    ) except -1:
        """Where the array begins that has this place, if it is of floats and of this size, and may be written."""
        cdef const Py_buffer* buffer
        cdef const char* format
        if place < 0 or place >= self.count:
            raise ValueError(f"{name} is array {place}, but there are {self.count}")
        buffer = self.buffers + place
        _must(buffer.format != NULL and buffer.buf != NULL, "an array says not what it holds, or where")
        format = buffer.format + (buffer.format[0] in NATIVE_ORDERS)
        if format[0] != (c"f" if itemsize == sizeof(float) else c"d") or format[1] != 0:
            raise ValueError(f"{name} holds {buffer.format.decode()}, but must hold floats of {itemsize} bytes")
        if not _fits(0, rows, columns, columns, buffer.len // <Py_ssize_t>itemsize):
            raise ValueError(f"{name} has {buffer.len} bytes, but must have {rows} x {columns} elements of {itemsize}")
        _check_alignment(<uintptr_t>buffer.buf, itemsize)
        if is_written and buffer.readonly:
            raise ValueError(f"{name} is read-only")
        return <int64_t><uintptr_t>buffer.buf


# What data may hold: floats, and whole numbers that are exact as floats of 4 bytes.
cdef enum:
    FLOATS, DOUBLES, UINT8S, INT8S, UINT16S, INT16S

cdef class Data:
    """Contiguous rows of the caller's, held for as long as this lives."""
    cdef Py_buffer buffer
    cdef const void* x      # NULL where there are no rows or columns
    cdef int held
    cdef Py_ssize_t rows, columns, itemsize

    def __cinit__(self, x):
        cdef const char* format
        cdef char kind
        PyObject_GetBuffer(x, &self.buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        _must(self.buffer.ndim == 2 and self.buffer.format != NULL, "x has not two dimensions")
        format = self.buffer.format + (self.buffer.format[0] in NATIVE_ORDERS)
        kind = format[0] if format[0] == 0 or format[1] == 0 else c" "
        if kind == c"f":
            self.held = FLOATS
        elif kind == c"d":
            self.held = DOUBLES
        elif kind == c"B" or kind == c"?":
            self.held = UINT8S
        elif kind == c"b":
            self.held = INT8S
        elif kind == c"H":
            self.held = UINT16S
        elif kind == c"h":
            self.held = INT16S
        else:
            raise ValueError(f"x holds {self.buffer.format.decode()}, but must hold floats, or whole numbers of at "
                             "most 2 bytes")
        self.rows, self.columns, self.itemsize = self.buffer.shape[0], self.buffer.shape[1], self.buffer.itemsize
        self.x = self.buffer.buf if self.rows and self.columns else NULL
        _check_alignment(<uintptr_t>self.x, self.itemsize)

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)      # does nothing where nothing is held


cdef inline int _held_by(const floating* unused) noexcept nogil:
    if floating is float:
        return FLOATS
    else:
        return DOUBLES


cdef void _convert(const void* x, int held, Py_ssize_t first, floating* y, Py_ssize_t n) noexcept nogil:
    """y (n,) = elements of the data from the first one on."""
    cdef Py_ssize_t j
    if held == FLOATS:
        for j in range(n):
            y[j] = (<const float*>x)[first + j]
    elif held == DOUBLES:
        for j in range(n):
            y[j] = <floating>(<const double*>x)[first + j]
    elif held == UINT8S:
        for j in range(n):
            y[j] = (<const uint8_t*>x)[first + j]
    elif held == INT8S:
        for j in range(n):
            y[j] = (<const int8_t*>x)[first + j]
    elif held == UINT16S:
        for j in range(n):
            y[j] = (<const uint16_t*>x)[first + j]
    else:
        for j in range(n):
            y[j] = (<const int16_t*>x)[first + j]
