# What every entry makes sure of before it works with addresses, whoever calls it: bounds are not checked afterwards,
# and a wrong size would have a kernel read or write the memory around an array. dtypes, dimensions and contiguity are
# refused by the memoryviews; None counts as an array without elements. A call takes some nanoseconds longer.

cdef int _must(bint holds, str what) except -1:
    if not holds:
        raise ValueError(what)
    return 0


cdef int _check_threads(int num_threads) except -1:
    if num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}, but must be at least 1")
    return 0


cdef int _check_length(str name, Py_ssize_t found, Py_ssize_t expected) except -1:
    if found != expected:
        raise ValueError(f"{name} has {found} elements, but must have {expected}")
    return 0


cdef int _check_room(str name, Py_ssize_t found, Py_ssize_t least) except -1:
    if found < least:
        raise ValueError(f"{name} has {found} elements, but must have at least {least}")
    return 0


cdef int _check_shape(
    str name, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t expected_rows, Py_ssize_t expected_columns
) except -1:
    if rows != expected_rows or columns != expected_columns:
        raise ValueError(f"{name} has shape ({rows}, {columns}), but must have ({expected_rows}, {expected_columns})")
    return 0


cdef Py_ssize_t _common_length(
    Py_ssize_t n, Py_ssize_t second, Py_ssize_t third, Py_ssize_t fourth, int num_threads
) except -1:
    """How many elements the arrays of an element-wise kernel have."""
    _check_threads(num_threads)
    if second != n or third != n or fourth != n:
        raise ValueError(f"arrays of {min(n, second, third, fourth)} and {max(n, second, third, fourth)} elements "
                         "must have the same number")
    return n


cdef bint _fits(int64_t offset, int64_t rows, int64_t row, int64_t columns, Py_ssize_t size) noexcept nogil:
    """Whether so many rows, each `row` elements after the last, lie within `size` elements, from an offset on.

    The numbers are anybody's: nothing is multiplied that might overflow.
    """
    if offset < 0 or offset > size or rows < 0 or columns < 0 or row < columns:
        return False
    return rows == 0 or columns <= size - offset and (row == 0 or rows - 1 <= (size - offset - columns) // row)


cdef int _check_alignment(uintptr_t addresses, size_t itemsize) except -1:
    """addresses: those of all arrays, joined by "or". Vectors may be read from where an aligned array can begin."""
    if addresses % itemsize:
        raise ValueError("an array is not aligned to the size of its elements")
    return 0


cdef inline int64_t _inside(int64_t index, Py_ssize_t n, bint* is_outside) noexcept nogil:
    """The index or, where it is not in 0 to n - 1, 0, and a note for `_check_indices`.

    Looked at when it is used: an array of indices may be changed by another Python thread meanwhile.
    """
    if <uint64_t>index < <uint64_t>n:
        return index
    is_outside[0] = True    # whoever writes it writes the same
    return 0


cdef int _check_indices(str name, bint is_outside, Py_ssize_t n) except -1:
    if is_outside:
        raise IndexError(f"{name} has an element that is not in 0 to {n - 1}")
    return 0
