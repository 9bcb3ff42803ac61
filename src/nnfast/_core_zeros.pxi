# Zeros in the first operand of a product: where all rows of a tile have one, a row of b is left out.
#
# Images, one-hot rows and counts of words are mostly zeros, and zeros come together. Of MNIST's pixels 81% are 0, of
# the columns of 8 images 53%, of 8 neighbouring pixels 60%: x W of 100 x 784 x 50 in float64 took 100 instead of 177
# microseconds on one core (v4), x.T dy 101 instead of 187. ReLU's zeros are scattered: 8 rows hardly ever have one in
# the same column, and nothing is gained, nor lost, since a few samples tell. (Lists for single rows were tried: up to
# 1.4 times as fast with half of a row 0, but no faster with the 42% that a trained ReLU layer has, nor on MNIST.)
#
# The result is the same: adding 0 * b changes a sum only where b is infinite or NaN, so that is looked for first.

cdef enum:
    MOST_TILES = ROW_BLOCK // 4     # in a block of rows: a tile has at least 4
    SAMPLES = 32
    # Of the samples. With half of them the narrowest products gain nothing or little (0.88 to 1.1 of the time for
    # 784 x 8), with a third they lose up to 40% (v3), and wide ones gain from a quarter on.
    FEWEST_ZEROS = 12

cdef struct Steps:
    # The k in one pass at which a tile has a factor that is not 0, in order
    Py_ssize_t count
    uint16_t k[DEPTH_BLOCK]

# For each pattern of eight flags, the places of those that are set, and how many they are
cdef uint8_t PLACES_OF_OCTET[256][8]
cdef uint8_t COUNT_OF_OCTET[256]


cdef void _fill_octets() noexcept:
    cdef int octet, place
    for octet in range(256):
        for place in range(8):
            if octet >> place & 1:
                PLACES_OF_OCTET[octet][COUNT_OF_OCTET[octet]] = <uint8_t>place
                COUNT_OF_OCTET[octet] += 1


_fill_octets()


cdef bint _has_zeros(
    const sampled* a, Py_ssize_t a_row, Py_ssize_t a_column, Py_ssize_t rows, Py_ssize_t depth,
) noexcept nogil:
    """Whether all rows of a tile are 0 at enough of the samples, which are spread over a."""
    cdef Py_ssize_t sample = 0, row, k, i, used = 0
    if rows < TILE_ROWS or depth == 0:
        return False
    while sample < SAMPLES and used <= SAMPLES - FEWEST_ZEROS:
        row = (rows - TILE_ROWS) * sample // (SAMPLES - 1)
        k = sample * 13 % SAMPLES * depth // SAMPLES    # 13: rows and columns are not sampled along a diagonal
        for i in range(TILE_ROWS):
            if a[(row + i) * a_row + k * a_column] != 0:
                used = used + 1
                break
        sample = sample + 1
    return used <= SAMPLES - FEWEST_ZEROS


cdef void _list_flags(uint8_t* flags, Py_ssize_t n, Steps* steps) noexcept nogil:
    """The numbers of the flags that are 1; eight at a time, which took 6 instead of 11 microseconds of 100 for x W.

    There must be room for 7 more flags.
    """
    cdef Py_ssize_t first = 0, i, count = 0
    cdef unsigned int octet
    memset(flags + n, 0, 7)
    while first < n:
        octet = nnfast_octet(flags + first)
        for i in range(8):
            steps.k[count + i] = <uint16_t>(first + PLACES_OF_OCTET[octet][i])
        count = count + COUNT_OF_OCTET[octet]
        first = first + 8
    steps.count = count


cdef inline given _magnitude(given x) noexcept nogil:
    if given is float:
        return fabsf(x)
    else:
        return fabs(x)


cdef void _find_steps_along_rows(
    const given* a, Py_ssize_t a_row, Py_ssize_t rows, Py_ssize_t depth, Steps* steps,
) noexcept nogil:
    """Of one tile, whose rows are contiguous."""
    cdef uint8_t flags[DEPTH_BLOCK + 7]
    cdef given total
    cdef Py_ssize_t i, k
    if rows == TILE_ROWS:   # a constant: the rows are unrolled, and k is vectorised
        for k in range(depth):
            total = _magnitude(a[k])
            for i in range(1, TILE_ROWS):
                total = total + _magnitude(a[i * a_row + k])
            flags[k] = total != 0
    else:
        for k in range(depth):
            flags[k] = a[k] != 0
        for i in range(1, rows):
            for k in range(depth):
                flags[k] |= a[i * a_row + k] != 0
    _list_flags(flags, depth, steps)


cdef void _find_steps_across_rows(
    const given* a, Py_ssize_t a_column, Py_ssize_t rows, Py_ssize_t depth, Steps* steps,
) noexcept nogil:
    """Of each tile in a block of rows, whose columns are contiguous."""
    cdef uint8_t used[ROW_BLOCK]
    cdef uint8_t flags[MOST_TILES][DEPTH_BLOCK + 7]
    cdef Py_ssize_t i, k, tile, tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    memset(used, 0, ROW_BLOCK)
    for k in range(depth):
        if rows == ROW_BLOCK:   # a constant, as above
            for i in range(ROW_BLOCK):
                used[i] = a[k * a_column + i] != 0
        else:
            for i in range(rows):
                used[i] = a[k * a_column + i] != 0
        for tile in range(tiles):
            flags[tile][k] = nnfast_any_row(used + tile * TILE_ROWS)
    for tile in range(tiles):
        _list_flags(&flags[tile][0], depth, steps + tile)


cdef void _find_steps(
    const given* a, Py_ssize_t a_row, Py_ssize_t a_column, Py_ssize_t rows, Py_ssize_t depth, Steps* steps,
) noexcept nogil:
    """Of each tile in a block of rows; the last one may have fewer rows."""
    cdef Py_ssize_t tile, first
    if a_column == 1:
        for tile in range((rows + TILE_ROWS - 1) // TILE_ROWS):
            first = tile * TILE_ROWS
            _find_steps_along_rows(a + first * a_row, a_row, rows - first if rows - first < TILE_ROWS else TILE_ROWS,
                                   depth, steps + tile)
    else:
        _find_steps_across_rows(a, a_column, rows, depth, steps)
