# Jobs that make the lists by which the way back goes, for native_cells.py.


cdef int _source(Job job, fd_source *s, source, cells) except -1:
    """Fill `s`. `cells`: the lists, and the row and column in them of the source's first cell."""
    cdef ptrdiff_t row, column, cell
    order, first, (row, column) = cells
    s.order_cell, s.first_cell, s.list_row = 0, 0, 0
    if len(first.shape) > 1:
        s.first_cell, s.list_row = first.shape[2], first.shape[1]
        s.order_cell = (order.shape[0] - FD_LIST_ROOM) // (first.shape[0] * first.shape[1])
    cell = row * s.list_row + column
    job.point(&s.order, order, cell * s.order_cell)
    job.point(&s.first, first, cell * s.first_cell)
    s.cells_h, s.cells_w = source.cells
    s.h, s.w = source.size
    s.channels = source.channels
    s.pool = _window(source.pool)
    return 0


cdef struct switches_of_cells:
    const void *switches
    int switch_bytes
    ptrdiff_t switch_cell
    const uint8_t *gate
    int channels


cdef switches_of_cells _switches(switches, gate, int channels, list keep):
    """`switches` (H, W, Cs) or None: all at place 0; `gate` (H, W, C) or None: all open."""
    cdef switches_of_cells s
    s.switches, s.switch_bytes, s.switch_cell, s.gate = NULL, 1, 0, NULL
    s.channels = channels
    if switches is not None:
        s.switches = _bytes(switches, keep)
        s.switch_bytes, s.switch_cell = switches.itemsize, switches.shape[2]
    if gate is not None:
        s.gate = <const uint8_t *>_bytes(gate, keep)
    return s


cdef struct sort_job:
    const fd_kernels *k
    switches_of_cells of
    int places
    int32_t *order
    int32_t *first


cdef int _sort_cells(const void *job, int cell0, int cell1) noexcept nogil:
    cdef const sort_job *d = <const sort_job *>job
    d.k.sort_cells(d.of.switches, d.of.switch_bytes, d.of.switch_cell, d.of.gate, d.of.channels,
                   d.places, d.order, d.first, cell0, cell1)
    return 0


cdef class SortCells(Job):
    """Sorts the channels of cells by place (see sort_cells of fd_kernels), cell by cell."""

    def __init__(self, Table table, switches, gate, int channels, int places, order, first):
        cdef sort_job *d = <sort_job *>self.hold(sizeof(sort_job), _sort_cells)
        d.k = table.k
        d.of = _switches(switches, gate, channels, self.keep)
        d.places = places
        self.point(&d.order, order, 0, PyBUF_WRITABLE)
        self.point(&d.first, first, 0, PyBUF_WRITABLE)


cdef struct link_job:
    switches_of_cells of
    int kernel_w, h, w
    fd_shared high, wide
    int32_t *next
    uint8_t *is_first


cdef int _link_cells(const void *job, int row0, int row1) noexcept nogil:
    cdef const link_job *d = <const link_job *>job
    fd_link_cells(d.of.switches, d.of.switch_bytes, d.of.switch_cell, d.of.gate, d.of.channels,
                  d.kernel_w, &d.high, &d.wide, d.h, d.w, d.next, d.is_first, row0, row1)
    return 0


cdef class LinkCells(Job):
    """Links cells that send a channel to the same place (see fd_link_cells), row by row."""

    def __init__(self, switches, gate, int channels, int kernel_w, high, wide, next, is_first):
        cdef link_job *d = <link_job *>self.hold(sizeof(link_job), _link_cells)
        d.of = _switches(switches, gate, channels, self.keep)
        d.kernel_w = kernel_w
        d.high, d.wide = _shared(high, self.keep), _shared(wide, self.keep)
        d.h, d.w = next.shape[:2]
        self.point(&d.next, next, 0, PyBUF_WRITABLE)
        self.point(&d.is_first, is_first, 0, PyBUF_WRITABLE)


cdef fd_shared _shared(axis, list keep):
    cdef fd_shared s
    s.start = <const int32_t *>_bytes(axis.start, keep)
    s.window = <const int32_t *>_bytes(axis.window, keep)
    s.place = <const int32_t *>_bytes(axis.place, keep)
    return s


cdef struct filter_job:
    fd_source source
    const float *v
    int32_t *order
    int32_t *first


cdef int _filter_cells(const void *job, int row0, int row1) noexcept nogil:
    cdef const filter_job *d = <const filter_job *>job
    fd_filter_cells(&d.source, d.v, d.order, d.first, row0, row1)
    return 0


cdef class FilterCells(Job):
    """The lists of a source's cells without the values that are 0 in a single feature's v
    (H, W, 1, C), row by row."""

    def __init__(self, source, cells, v, order, first):
        cdef filter_job *d = <filter_job *>self.hold(sizeof(filter_job), _filter_cells)
        _source(self, &d.source, source, cells)
        self.point(&d.v, v)
        self.point(&d.order, order, 0, PyBUF_WRITABLE)
        self.point(&d.first, first, 0, PyBUF_WRITABLE)
