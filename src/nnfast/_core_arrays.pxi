# Arrays of the caller's that an engine works on where they are. A description of the work (an operation, a stage) names
# them by their place in a list, so that no number from outside is ever taken for an address.

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
