# Weights as the engine holds them while it runs: in panels as wide as a tile, one after the other, each row of a panel
# contiguous and the last panel padded with zeros to a whole grain, the narrowest tile; then the bias, padded likewise.
# So no product has tails, no power-of-two stride puts every row into one cache set, and an optimiser runs over whole
# vectors. The padding stays 0: its gradients are.
#
# An optimiser's state has the same layout. A layer that passes a gradient on also has its weights transposed, in
# panels, so that all three products read their second operand in rows.

cdef inline Py_ssize_t _width_from(Py_ssize_t column, Py_ssize_t padded, Py_ssize_t panel_columns) noexcept nogil:
    """Columns of the panel that begins at a column."""
    return panel_columns if padded - column >= panel_columns else padded - column


cdef int _check_panels(
    Py_ssize_t size, Py_ssize_t inputs, Py_ssize_t padded, uintptr_t addresses, size_t itemsize
) except -1:
    _must(_fits(0, inputs, padded, padded, size) and size == inputs * padded, "panels and w have different sizes")
    return _check_alignment(addresses, itemsize)


def pack(const floating[:, :] w, floating[::1] panels):
    """panels (I * padded O,) = w (I, O) in panels, 0 where there is padding."""
    cdef Py_ssize_t column = 0, width, inputs = w.shape[0], columns = w.shape[1]
    cdef Py_ssize_t panel_columns, padded
    if panels.shape[0] == 0 and (inputs == 0 or columns == 0):
        return
    _check_room("panels", panels.shape[0], 1)
    panel_columns, padded = _panel_columns(&panels[0]), _padded(columns, &panels[0])
    # A stride that is no multiple of an element has an address in it that is none, too.
    _check_panels(panels.shape[0], inputs, padded, <uintptr_t>&w[0, 0] | <uintptr_t>&panels[0]
                  | <uintptr_t>w.strides[0] | <uintptr_t>w.strides[1], sizeof(w[0, 0]))
    with nogil:
        while column < columns:
            width = _width_from(column, padded, panel_columns)
            _pack_panel(&w[0, column], w.strides[0] // <Py_ssize_t>sizeof(w[0, 0]),
                        w.strides[1] // <Py_ssize_t>sizeof(w[0, 0]), inputs,
                        width if columns - column >= width else columns - column, &panels[column * inputs], width)
            column = column + width


def unpack(const floating[::1] panels, floating[:, :] w):
    """w (I, O) = what `pack` put into panels (I * padded O,)."""
    cdef Py_ssize_t column = 0, i, j, width, inputs = w.shape[0], columns = w.shape[1]
    cdef Py_ssize_t panel_columns, padded
    if panels.shape[0] == 0 and (inputs == 0 or columns == 0):
        return
    _check_room("panels", panels.shape[0], 1)
    panel_columns, padded = _panel_columns(&panels[0]), _padded(columns, &panels[0])
    _check_panels(panels.shape[0], inputs, padded, <uintptr_t>&panels[0], sizeof(panels[0]))
    with nogil:
        while column < columns:
            width = _width_from(column, padded, panel_columns)
            for i in range(inputs):
                for j in range(column, column + width if column + width < columns else columns):
                    w[i, j] = panels[column * inputs + i * width + j - column]
            column = column + width


cdef void _transpose_rows(
    const floating* rows, Py_ssize_t first, Py_ssize_t last, Py_ssize_t width, Py_ssize_t column,
    Py_ssize_t columns, Py_ssize_t inputs, floating* transposed,
) noexcept nogil:
    """Rows first to last of the panel of w (I, O) that begins at a column, into the panels of its transpose (O, I).

    rows is the first of them; first is a multiple of 4, which divides the width of every panel.
    """
    cdef Py_ssize_t panel_columns = _panel_columns(transposed), padded = _padded(inputs, transposed)
    cdef Py_ssize_t i, j, r, start, their_width, count = width if columns - column >= width else columns - column
    cdef floating* target
    i = first
    while i < last:
        start = i // panel_columns * panel_columns
        their_width = _width_from(start, padded, panel_columns)
        target = transposed + start * columns + column * their_width + i - start
        for j in range(count):
            for r in range(4 if last - i >= 4 else last - i):
                target[j * their_width + r] = rows[r * width + j]
        rows = rows + 4 * width
        i = i + 4


cdef inline void _panels_product(
    const floating* a, Py_ssize_t a_row, Py_ssize_t rows, Py_ssize_t depth, const floating* panels,
    const floating* bias, Py_ssize_t padded, floating* c, Py_ssize_t c_row, bint looks_for_zeros,
) noexcept nogil:
    """c (rows, padded) = a (rows, depth) @ what is in panels + bias (may be NULL)."""
    cdef Product product
    product.rows, product.columns, product.depth = rows, padded, depth
    product.a_row, product.a_column, product.c_row = a_row, 1, c_row
    product.b_row, product.b_column, product.b_in_place, product.pads = 0, 0, False, False
    product.grain, product.panel_columns = _grain(c), _panel_columns(c)
    product.panels = _panel_count(padded, product.panel_columns)
    product.skips_zeros = looks_for_zeros and _has_zeros(a, a_row, 1, rows, depth)
    _product_of_rows(&product, a, <const floating*>NULL, panels, bias, c, 0, rows)
