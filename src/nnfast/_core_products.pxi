# The matrix product, and the three products of an Affine layer on top of it.
#
# c = a @ b (+ bias): every tile of c, TILE_ROWS rows by the columns of one panel, is summed in registers over the
# depth k: broadcast one factor from a, multiply it with contiguous vectors of b. a is read where it is, through a row
# and a column stride, so that x and its transpose cost the same. b is copied into panels as wide as a tile: rows
# become contiguous, the last panel is padded with zeros (no tails), and no power-of-two stride puts every row into
# one cache set. A narrow b is read where it is, but for its last panel.
#
# Threads divide the rows of c or, where that is less work, its panels. Each copies what it reads of b itself, into
# memory of its own, and waits for nobody: a copy made by the other core comes out of that core's cache so slowly that
# two threads were no faster than one (433 microseconds instead of 218 for 100 x 784 x 100 in float64).
#
# a may be of the other dtype and is then converted in passing: the book's scripts give float32 images to float64
# weights, and making a converted copy first took 162 instead of 108 microseconds for 100 x 784 x 50 on two cores.
#
# Rows of b that a tile of a multiplies by zeros only are left out where there are many (_core_zeros.pxi).
#
# The last panel is as narrow as its columns allow, in whole grains: 50 columns are 48 + 8 in float32, 24 + 24 + 8 in
# float64 (v4).

cdef enum:
    # With fewer rows than this, b is read once or twice only, and copying it first costs more than it saves.
    FEW_ROWS = 8
    # Bytes of b in one pass up to which it stays in the L2 cache as it is, and a copy would only crowd it: 158 instead
    # of 167 microseconds for 96 x 784 x 50 in float64 on one core.
    NARROW = 262144
    # Copying b takes about as long as multiplying it by so many rows.
    ROWS_OF_A_COPY = 16

cdef double NO_BIAS[WIDEST_COLUMNS]    # static, so all zeros; also read as float32

# Elements beyond depth * columns that each thread's part of a workspace needs: the last panel, alignment.
cdef enum:
    PADDING = WIDEST_COLUMNS + 64

PANEL_PADDING = PADDING


cdef int _check_workspace(Py_ssize_t found, Py_ssize_t depth, Py_ssize_t columns, int num_threads) except -1:
    """Of a product whose second operand is (depth, columns)."""
    _check_threads(num_threads)
    _check_room("each thread's part of workspace", found // num_threads, depth * (columns + PADDING) + PADDING)
    return 0


cdef inline Py_ssize_t _lanes(floating* unused) noexcept nogil:
    """Elements in one vector."""
    if floating is float:
        return FLOAT_LANES
    else:
        return DOUBLE_LANES


cdef inline floating* _aligned(floating* pointer) noexcept nogil:
    """The next address that is a multiple of 64 bytes, a cache line."""
    return <floating*>((<uintptr_t>pointer + 63) & ~<uintptr_t>63)


cdef inline Py_ssize_t _grain(const floating* unused) noexcept nogil:
    """Columns of the narrowest tile."""
    if floating is float:
        return FLOAT_GRAIN
    else:
        return DOUBLE_GRAIN


cdef inline Py_ssize_t _in_whole(Py_ssize_t columns, Py_ssize_t grain) noexcept nogil:
    """Columns in whole grains."""
    return (columns + grain - 1) // grain * grain


cdef inline Py_ssize_t _padded(Py_ssize_t columns, const floating* unused) noexcept nogil:
    """The same for the grain of a dtype."""
    return _in_whole(columns, _grain(unused))


cdef inline Py_ssize_t _panel_columns(const floating* unused) noexcept nogil:
    """Columns of a whole panel."""
    if floating is float:
        return WIDEST * FLOAT_LANES
    else:
        return WIDEST * DOUBLE_LANES


cdef inline Py_ssize_t _panel_count(Py_ssize_t columns, Py_ssize_t panel_columns) noexcept nogil:
    return (columns + panel_columns - 1) // panel_columns


cdef void _pack_panel(
    const floating* b, Py_ssize_t b_row, Py_ssize_t b_column, Py_ssize_t depth, Py_ssize_t columns,
    floating* panel, Py_ssize_t width,
) noexcept nogil:
    """panel[k, j] = b[k, j] for j < columns, 0 up to width."""
    cdef Py_ssize_t k, j
    if b_column == 1:
        for k in range(depth):
            for j in range(columns):
                panel[k * width + j] = b[k * b_row + j]
    else:   # transposed: read along b's own rows
        for j in range(columns):
            for k in range(depth):
                panel[k * width + j] = b[k * b_row + j * b_column]
    for k in range(depth):
        for j in range(columns, width):
            panel[k * width + j] = 0


cdef inline void _product_tile(
    const given* a, Py_ssize_t a_row, Py_ssize_t a_column, const floating* b, Py_ssize_t b_row, Py_ssize_t depth,
    const floating* start, Py_ssize_t start_row, floating* c, Py_ssize_t c_row,
    const Steps* steps, const Py_ssize_t rows, const Py_ssize_t columns, const bint skipping,
) noexcept nogil:
    """c[:rows, :columns] = start + a[:rows, :depth] @ b[:depth, :columns], summed in registers.

    When skipping, over the k in steps only. rows, columns and skipping are constants where this is inlined. start may
    be c itself, or one row (start_row 0).
    """
    cdef floating sums[TILE_ROWS][WIDEST_COLUMNS]
    cdef floating factor
    cdef Py_ssize_t step, k, i, j
    for i in range(rows):
        for j in range(columns):
            sums[i][j] = start[i * start_row + j]
    for step in range(steps.count if skipping else depth):
        k = steps.k[step] if skipping else step
        for i in range(rows):
            factor = <floating>a[i * a_row + k * a_column]
            for j in range(columns):
                sums[i][j] += factor * b[k * b_row + j]
    for i in range(rows):
        for j in range(columns):
            c[i * c_row + j] = sums[i][j]


cdef inline void _product_column(
    const given* a, Py_ssize_t a_row, Py_ssize_t a_column, const floating* b, Py_ssize_t b_row, Py_ssize_t depth,
    const floating* start, Py_ssize_t start_row, floating* c, Py_ssize_t c_row,
    Py_ssize_t rows, const Steps* steps, const Py_ssize_t columns, const bint skipping,
) noexcept nogil:
    """The same for any number of rows: whole tiles, each with its steps, then halves down to single rows."""
    cdef Py_ssize_t i = 0
    while i + TILE_ROWS <= rows:
        _product_tile(a + i * a_row, a_row, a_column, b, b_row, depth, start + i * start_row, start_row,
                      c + i * c_row, c_row, steps, TILE_ROWS, columns, skipping)
        i = i + TILE_ROWS
        if skipping:
            steps = steps + 1
    if i + 4 <= rows:
        _product_tile(a + i * a_row, a_row, a_column, b, b_row, depth, start + i * start_row, start_row,
                      c + i * c_row, c_row, steps, 4, columns, skipping)
        i = i + 4
    while i + 2 <= rows:
        _product_tile(a + i * a_row, a_row, a_column, b, b_row, depth, start + i * start_row, start_row,
                      c + i * c_row, c_row, steps, 2, columns, skipping)
        i = i + 2
    if i < rows:
        _product_tile(a + i * a_row, a_row, a_column, b, b_row, depth, start + i * start_row, start_row,
                      c + i * c_row, c_row, steps, 1, columns, skipping)


cdef inline void _product_panel(
    const given* a, Py_ssize_t a_row, Py_ssize_t a_column, const floating* b, Py_ssize_t b_row, Py_ssize_t depth,
    const floating* start, Py_ssize_t start_row, floating* c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t width,
    const Steps* steps, const bint skipping,
) noexcept nogil:
    """One panel's columns, for each width that there is."""
    cdef Py_ssize_t grains = width // _grain(c)
    if floating is float:
        if grains == 1:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            FLOAT_GRAIN, skipping)
        elif grains == 2:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            2 * FLOAT_GRAIN, skipping)
        elif grains == 3 and _panel_columns(c) >= 3 * FLOAT_GRAIN:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            3 * FLOAT_GRAIN, skipping)
        elif grains == 4 and _panel_columns(c) >= 4 * FLOAT_GRAIN:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            4 * FLOAT_GRAIN, skipping)
        elif grains == 5 and _panel_columns(c) >= 5 * FLOAT_GRAIN:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            5 * FLOAT_GRAIN, skipping)
        elif grains == 6 and _panel_columns(c) >= 6 * FLOAT_GRAIN:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            6 * FLOAT_GRAIN, skipping)
    else:
        if grains == 1:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            DOUBLE_GRAIN, skipping)
        elif grains == 2:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            2 * DOUBLE_GRAIN, skipping)
        elif grains == 3 and _panel_columns(c) >= 3 * DOUBLE_GRAIN:
            _product_column(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, steps,
                            3 * DOUBLE_GRAIN, skipping)


# Two functions that are not inlined: both loops in one function cost each of them registers (8 columns of float32 took
# 35 instead of 29 microseconds at 100 x 784).

cdef void _product_of_all(
    const given* a, Py_ssize_t a_row, Py_ssize_t a_column, const floating* b, Py_ssize_t b_row, Py_ssize_t depth,
    const floating* start, Py_ssize_t start_row, floating* c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t width,
) noexcept nogil:
    _product_panel(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, width, NULL, False)


cdef void _product_of_steps(
    const given* a, Py_ssize_t a_row, Py_ssize_t a_column, const floating* b, Py_ssize_t b_row, Py_ssize_t depth,
    const floating* start, Py_ssize_t start_row, floating* c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t width,
    const Steps* steps,
) noexcept nogil:
    _product_panel(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, width, steps, True)


cdef inline void _product_of_panel(
    const given* a, Py_ssize_t a_row, Py_ssize_t a_column, const floating* b, Py_ssize_t b_row, Py_ssize_t depth,
    const floating* start, Py_ssize_t start_row, floating* c, Py_ssize_t c_row, Py_ssize_t rows, Py_ssize_t width,
    const Steps* steps,
) noexcept nogil:
    """One panel's columns, over all k or, unless steps is NULL, over each tile's own."""
    if steps == NULL:
        _product_of_all(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, width)
    else:
        _product_of_steps(a, a_row, a_column, b, b_row, depth, start, start_row, c, c_row, rows, width, steps)


cdef void _product_of_partial_panel(
    const given* a, Py_ssize_t a_row, Py_ssize_t a_column, const floating* b, Py_ssize_t depth,
    const floating* start, Py_ssize_t start_row, floating* c, Py_ssize_t c_row,
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t width, const Steps* steps,
) noexcept nogil:
    """The last panel, of which only some columns belong to c: through a tile-sized buffer.

    If c has no other columns, what a row has too much lies where the next rows are about to be written, so that only
    the last rows need the buffer (100 x 50 x 10: 2.6 instead of 2.9 microseconds).
    """
    cdef floating buffer[TILE_ROWS][WIDEST_COLUMNS]
    cdef floating first_row[WIDEST_COLUMNS]
    cdef Py_ssize_t done = 0, height, i
    if start_row == 0:
        memset(first_row, 0, sizeof(first_row))
        memcpy(first_row, start, columns * sizeof(c[0]))
        start = first_row
        if c_row == columns and rows * columns >= width:
            done = ((rows * columns - width) // columns + 1) // TILE_ROWS * TILE_ROWS
            _product_of_panel(a, a_row, a_column, b, width, depth, start, 0, c, c_row, done, width, steps)
    else:
        memset(buffer, 0, sizeof(buffer))
    while done < rows:
        height = rows - done if rows - done < TILE_ROWS else TILE_ROWS
        if start_row != 0:
            for i in range(height):
                memcpy(&buffer[i][0], start + (done + i) * start_row, columns * sizeof(c[0]))
        _product_of_panel(a + done * a_row, a_row, a_column, b, width, depth,
                          start if start_row == 0 else <const floating*>&buffer[0][0],
                          0 if start_row == 0 else WIDEST_COLUMNS, &buffer[0][0], WIDEST_COLUMNS, height, width,
                          steps + done // TILE_ROWS if steps != NULL else NULL)
        for i in range(height):
            memcpy(c + (done + i) * c_row, &buffer[i][0], columns * sizeof(c[0]))
        done = done + height


cdef struct Product:
    # c (rows, columns) = bias (columns) + a (rows, depth) @ b (depth, columns), strides in elements
    Py_ssize_t rows, columns, depth
    Py_ssize_t a_row, a_column, b_row, b_column, c_row
    Py_ssize_t grain, panel_columns, panels
    bint b_in_place     # whole panels of b are read where they are; only the last may be copied
    bint skips_zeros    # rows of b where a tile of a has only zeros are left out
    bint by_panels      # threads divide the panels, not the rows
    bint pads           # c has room for whole vectors, and so has the bias


cdef inline bint _panels_are_less_work(const Product* product, int num_threads) noexcept nogil:
    """Compares the largest share, in rows times columns, when threads divide the panels and when the rows."""
    cdef Py_ssize_t copy = 0 if product.b_in_place else ROWS_OF_A_COPY
    cdef Py_ssize_t tiles = (product.rows + TILE_ROWS - 1) // TILE_ROWS
    cdef Py_ssize_t share_of_rows = (tiles + num_threads - 1) // num_threads * TILE_ROWS
    cdef Py_ssize_t columns = _in_whole(product.columns, product.grain)
    cdef Py_ssize_t share_of_columns = (product.panels + num_threads - 1) // num_threads * product.panel_columns
    if share_of_columns > columns:
        share_of_columns = columns
    # When equal (one thread): a copied panel is used at once, while it is in the cache.
    return share_of_columns * (tiles * TILE_ROWS + copy) < columns * (share_of_rows + copy) + (copy > 0)


cdef inline Product _plan_product(
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t depth,
    Py_ssize_t a_row, Py_ssize_t a_column, Py_ssize_t b_row, Py_ssize_t b_column, floating* c, int num_threads,
) noexcept nogil:
    cdef Product product
    cdef Py_ssize_t pass_depth = depth if depth < DEPTH_BLOCK else DEPTH_BLOCK
    product.rows, product.columns, product.depth = rows, columns, depth
    product.a_row, product.a_column = a_row, a_column
    product.b_row, product.b_column = b_row, b_column
    product.c_row = columns
    product.skips_zeros = False     # until _product has looked at a and b
    product.pads = False
    product.grain, product.panel_columns = _grain(c), _panel_columns(c)
    product.panels = _panel_count(columns, product.panel_columns)
    product.b_in_place = b_column == 1 and (
        rows < FEW_ROWS or pass_depth * columns * <Py_ssize_t>sizeof(c[0]) <= NARROW)
    product.by_panels = _panels_are_less_work(&product, num_threads)
    return product


cdef inline Py_ssize_t _panel_rest(const Product* product, Py_ssize_t panel) noexcept nogil:
    """Columns from a panel's first to the last of c."""
    return product.columns - panel * product.panel_columns


cdef inline Py_ssize_t _panel_width(const Product* product, Py_ssize_t panel) noexcept nogil:
    """Columns of a panel, padding included."""
    cdef Py_ssize_t rest = _panel_rest(product, panel)
    return product.panel_columns if rest >= product.panel_columns else _in_whole(rest, product.grain)


cdef inline bint _is_copied(const Product* product, Py_ssize_t panel) noexcept nogil:
    return not product.b_in_place or _panel_rest(product, panel) < _panel_width(product, panel)


cdef void _copy_panel(const Product* product, Py_ssize_t panel, const floating* b, floating* copy) noexcept nogil:
    """Copy one panel of b, unless it is read in place."""
    cdef Py_ssize_t width = _panel_width(product, panel)
    cdef Py_ssize_t rest = _panel_rest(product, panel)
    if _is_copied(product, panel):
        _pack_panel(b + panel * product.panel_columns * product.b_column, product.b_row, product.b_column,
                    product.depth, rest if rest < width else width, copy, width)


cdef void _product_of_block(
    const Product* product, const given* a, const floating* b, const floating* copy, const floating* bias,
    floating* c, Py_ssize_t panel, Py_ssize_t row, Py_ssize_t rows, Py_ssize_t k, Py_ssize_t depth,
    const Steps* steps,
) noexcept nogil:
    """c in one panel's columns and some rows, over some of the depth."""
    cdef Py_ssize_t column = panel * product.panel_columns, rest = product.columns - column, start_row = 0
    cdef Py_ssize_t width = _panel_width(product, panel)
    cdef Py_ssize_t b_row = width if _is_copied(product, panel) else product.b_row
    cdef const floating* start = <const floating*>NO_BIAS if bias == NULL else bias + column
    b = (copy if _is_copied(product, panel) else b + column) + k * b_row
    a = a + row * product.a_row + k * product.a_column
    c = c + row * product.c_row + column
    if k > 0:
        start, start_row = c, product.c_row
    if rest >= width or product.pads:
        _product_of_panel(a, product.a_row, product.a_column, b, b_row, depth,
                          start, start_row, c, product.c_row, rows, width, steps)
    else:
        _product_of_partial_panel(a, product.a_row, product.a_column, b, depth,
                                  start, start_row, c, product.c_row, rows, rest, width, steps)


cdef void _product_of_rows(
    const Product* product, const given* a, const floating* b, const floating* copies, const floating* bias,
    floating* c, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Rows first to last of c: blocks of them stay in the cache from panel to panel."""
    cdef Py_ssize_t panel_size = product.panel_columns * product.depth
    cdef Py_ssize_t row, rows, panel, depth, k = 0
    cdef Steps steps[MOST_TILES]
    while True:     # once for a depth of 0 as well: then c is the bias
        depth = product.depth - k if product.depth - k < DEPTH_BLOCK else DEPTH_BLOCK
        row = first
        while row < last:
            rows = last - row if last - row < ROW_BLOCK else ROW_BLOCK
            if product.skips_zeros:
                _find_steps(a + row * product.a_row + k * product.a_column, product.a_row, product.a_column, rows,
                            depth, steps)
            for panel in range(product.panels):
                _product_of_block(product, a, b, copies + panel * panel_size, bias, c, panel, row, rows, k, depth,
                                  steps if product.skips_zeros else NULL)
            row = row + rows
        k = k + depth
        if k >= product.depth:
            break


cdef void _product_of_panels(
    const Product* product, const given* a, const floating* b, floating* copy, const floating* bias,
    floating* c, int share, int shares,
) noexcept nogil:
    """One thread's share of the panels: each is copied and used at once, while it is in the cache."""
    cdef Py_ssize_t first = product.panels * share // shares, last = product.panels * (share + 1) // shares
    cdef Py_ssize_t row, rows, panel, depth, k
    cdef Steps steps[MOST_TILES]
    for panel in range(first, last):
        _copy_panel(product, panel, b, copy)
        k = 0
        while True:     # as above
            depth = product.depth - k if product.depth - k < DEPTH_BLOCK else DEPTH_BLOCK
            row = 0
            while row < product.rows:
                rows = product.rows - row if product.rows - row < ROW_BLOCK else ROW_BLOCK
                if product.skips_zeros:
                    _find_steps(a + row * product.a_row + k * product.a_column, product.a_row, product.a_column, rows,
                                depth, steps)
                _product_of_block(product, a, b, copy, bias, c, panel, row, rows, k, depth,
                                  steps if product.skips_zeros else NULL)
                row = row + rows
            k = k + depth
            if k >= product.depth:
                break


cdef void _product_of_share(
    const Product* product, const given* a, const floating* b, const floating* bias, floating* c,
    floating* workspace, int share, int shares,
) noexcept nogil:
    """What one thread does, with its part of the workspace."""
    cdef Py_ssize_t size = product.depth * (product.columns + PADDING) + PADDING
    cdef floating* copies = _aligned(workspace + share * size)
    cdef Py_ssize_t panel
    if product.by_panels:
        _product_of_panels(product, a, b, copies, bias, c, share, shares)
    else:
        for panel in range(product.panels):
            _copy_panel(product, panel, b, copies + panel * product.panel_columns * product.depth)
        _product_of_rows(product, a, b, copies, bias, c, product.rows * share // shares,
                         product.rows * (share + 1) // shares)


cdef void _product(
    Product* product, const given* a, const floating* b, const floating* bias, floating* c,
    floating* workspace, int num_threads,
) noexcept nogil:
    """c = bias + a @ b (bias may be NULL)."""
    cdef nnfast_team team
    product.skips_zeros = (
        _has_zeros(a, product.a_row, product.a_column, product.rows, product.depth)
        and _chunk_is_finite(b, 0, product.depth * product.columns))
    if nnfast_assemble(&team, num_threads) == 1:
        # No parallel region: even one of a single thread calls the system at its barrier, 1.3 of the 6.4 microseconds
        # of a 100 x 50 x 10 product.
        _product_of_share(product, a, b, bias, c, workspace, 0, 1)
    else:
        with parallel(num_threads=num_threads):
            _product_of_share(product, a, b, bias, c, workspace, nnfast_thread_number(), nnfast_team_size())
            nnfast_leave(&team)
        nnfast_disband(&team)


cdef void _column_sums(const floating* x, Py_ssize_t rows, Py_ssize_t columns, floating* sums,
                       Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t i, j
    for j in range(first, last):
        sums[j] = 0
    for i in range(rows):
        for j in range(first, last):
            sums[j] += x[i * columns + j]


def affine_forward(
    const given[:, ::1] x,          # in   (B, I)   converted element by element
    const floating[:, ::1] w,       # in   (I, O)
    const floating[::1] b,          # in   (O,)
    floating[:, ::1] y,             # out  (B, O)
    floating[::1] workspace,        # scratch (num_threads * (I * O + PANEL_PADDING * (I + 1)),)
    int num_threads,
):
    """y = x @ w + b."""
    cdef Product product
    cdef const given* rows = NULL
    cdef const floating* weights = NULL
    _check_shape("y", y.shape[0], y.shape[1], x.shape[0], w.shape[1])
    _check_length("a row of x", x.shape[1], w.shape[0])
    _check_length("b", b.shape[0], w.shape[1])
    if y.shape[0] == 0 or y.shape[1] == 0:
        return
    _check_workspace(workspace.shape[0], w.shape[0], w.shape[1], num_threads)
    if w.shape[0] > 0:
        rows, weights = &x[0, 0], &w[0, 0]
    _check_alignment(<uintptr_t>rows, sizeof(x[0, 0]))
    _check_alignment(<uintptr_t>weights | <uintptr_t>&b[0] | <uintptr_t>&y[0, 0] | <uintptr_t>&workspace[0],
                     sizeof(b[0]))
    with nogil:
        product = _plan_product(x.shape[0], w.shape[1], w.shape[0], x.shape[1], 1, w.shape[1], 1,
                                &y[0, 0], num_threads)
        _product(&product, rows, weights, &b[0], &y[0, 0], &workspace[0], num_threads)


def affine_backward_input(
    const floating[:, ::1] dy,      # in   (B, O)
    const floating[:, ::1] w,       # in   (I, O)
    floating[:, ::1] dx,            # out  (B, I)
    floating[::1] workspace,        # scratch (num_threads * (O * I + PANEL_PADDING * (O + 1)),)
    int num_threads,
):
    """dx = dy @ w.T."""
    cdef Product product
    cdef const floating* gradient = NULL
    cdef const floating* weights = NULL
    _check_shape("dx", dx.shape[0], dx.shape[1], dy.shape[0], w.shape[0])
    _check_length("a row of dy", dy.shape[1], w.shape[1])
    if dx.shape[0] == 0 or dx.shape[1] == 0:
        return
    _check_workspace(workspace.shape[0], w.shape[1], w.shape[0], num_threads)
    if w.shape[1] > 0:
        gradient, weights = &dy[0, 0], &w[0, 0]
    _check_alignment(<uintptr_t>gradient | <uintptr_t>weights | <uintptr_t>&dx[0, 0] | <uintptr_t>&workspace[0],
                     sizeof(dx[0, 0]))
    with nogil:
        product = _plan_product(dy.shape[0], w.shape[0], w.shape[1], dy.shape[1], 1, 1, w.shape[1],
                                &dx[0, 0], num_threads)
        _product(&product, gradient, weights, NULL, &dx[0, 0], &workspace[0], num_threads)


def affine_backward_parameters(
    const given[:, ::1] x,          # in   (B, I)   converted element by element
    const floating[:, ::1] dy,      # in   (B, O)
    floating[:, ::1] dw,            # out  (I, O)
    floating[::1] db,               # out  (O,)
    floating[::1] workspace,        # scratch (num_threads * (B * O + PANEL_PADDING * (B + 1)),)
    int num_threads,
):
    """dw = x.T @ dy, db = dy summed over the batch."""
    cdef Product product
    cdef nnfast_team team
    cdef Py_ssize_t columns = dy.shape[1]
    cdef const given* rows = NULL
    cdef const floating* gradient = NULL
    cdef floating* weights_gradient = NULL
    _check_shape("dw", dw.shape[0], dw.shape[1], x.shape[1], columns)
    _check_length("a column of dy", dy.shape[0], x.shape[0])
    _check_length("db", db.shape[0], columns)
    if columns == 0:
        return
    _check_workspace(workspace.shape[0], x.shape[0], columns, num_threads)
    if x.shape[0] > 0:
        gradient = &dy[0, 0]
    if x.shape[0] > 0 and x.shape[1] > 0:
        rows = &x[0, 0]
    if x.shape[1] > 0:
        weights_gradient = &dw[0, 0]
    _check_alignment(<uintptr_t>rows, sizeof(x[0, 0]))
    _check_alignment(<uintptr_t>gradient | <uintptr_t>weights_gradient | <uintptr_t>&db[0] | <uintptr_t>&workspace[0],
                     sizeof(db[0]))
    with nogil:
        if x.shape[1] > 0:
            product = _plan_product(x.shape[1], dy.shape[1], x.shape[0], 1, x.shape[1], dy.shape[1], 1,
                                    weights_gradient, num_threads)
            _product(&product, rows, gradient, NULL, weights_gradient, &workspace[0], num_threads)
        if columns <= COLUMNS_OF_SUMS or nnfast_assemble(&team, num_threads) == 1:
            _column_sums(gradient, dy.shape[0], columns, &db[0], 0, columns)
        else:
            with parallel(num_threads=num_threads):
                _column_sums(gradient, dy.shape[0], columns, &db[0],
                             nnfast_share(columns, COLUMNS_OF_SUMS, 0), nnfast_share(columns, COLUMNS_OF_SUMS, 1))
                nnfast_leave(&team)
            nnfast_disband(&team)
