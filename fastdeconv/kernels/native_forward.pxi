# Jobs of the forward pass: convolutions, joins and pools, for native_forward.py.


cdef extern from "fastdeconv.h" nogil:
    enum:
        FD_NO_ACTIVATION, FD_RELU, FD_CLIP, FD_LEAKY, FD_ELU, FD_SIGMOID, FD_SILU, FD_TANH,
        FD_GELU, FD_GELU_TANH, FD_HARDSIGMOID, FD_HARDSWISH, FD_MISH, FD_SOFTSIGN, FD_ABS, FD_SQUARE


_JOINS = {"sum": FD_SUM, "product": FD_PRODUCT, "concat": FD_CONCAT}
ACTIVATIONS = {
    None: FD_NO_ACTIVATION,
    "relu": FD_RELU,
    "clip": FD_CLIP,
    "leaky": FD_LEAKY,
    "elu": FD_ELU,
    "sigmoid": FD_SIGMOID,
    "silu": FD_SILU,
    "tanh": FD_TANH,
    "gelu": FD_GELU,
    "gelu_tanh": FD_GELU_TANH,
    "hardsigmoid": FD_HARDSIGMOID,
    "hardswish": FD_HARDSWISH,
    "mish": FD_MISH,
    "softsign": FD_SOFTSIGN,
    "abs": FD_ABS,
    "square": FD_SQUARE,
}
"""What the kernels can compute, by the names of `fastdeconv.kernels.activations`."""


cdef fd_epilogue _epilogue(epilogue, list keep):
    """(scale, shift) or None, (kind, a, b, weights or None), (scale, shift) or None."""
    cdef fd_epilogue e
    affine1, activation, affine2 = epilogue
    e.scale1 = e.shift1 = e.scale2 = e.shift2 = NULL
    kind, e.activation.a, e.activation.b, weight = activation
    e.activation.kind = ACTIVATIONS[kind]
    e.activation.weight = NULL
    if weight is not None:
        e.activation.weight = _floats(weight, keep)
    if affine1 is not None:
        e.scale1, e.shift1 = _floats(affine1[0], keep), _floats(affine1[1], keep)
    if affine2 is not None:
        e.scale2, e.shift2 = _floats(affine2[0], keep), _floats(affine2[1], keep)
    return e


cdef int _pool(Job job, fd_pool *p, window, in_size, out, ptrdiff_t out_offset, ptrdiff_t out_row,
               ptrdiff_t out_col, switches, counts) except -1:
    """Fill `p`. With `counts` it is an average pool, which has no switches."""
    p.window = _window(window)
    p.in_h, p.in_w = in_size
    p.out_h, p.out_w = (switches if counts is None else counts).shape[:2]
    p.channels = p.switch_cell = out.shape[2]
    job.point(&p.out, out, out_offset, PyBUF_WRITABLE)
    p.out_row, p.out_col = out_row, out_col
    if counts is None:
        job.point(&p.switches, switches, 0, PyBUF_WRITABLE)
        p.switch_bytes = switches.itemsize
    else:
        job.point(&p.counts, counts)
    return 0


cdef int _input(Job job, fd_input *i, given) except -1:
    """Fill `i` from (buffer, offset of its first element, row stride, column stride, channels)."""
    buffer, offset, i.row, i.col, i.channels = given
    return job.point(&i.input, buffer, offset)


cdef struct conv_job:
    const fd_kernels *k
    fd_conv c
    fd_pool p
    fd_winograd w
    # Only where bands are ranges of channels, each band with all rows of the result:
    int (*run_rows)(const void *, int, int) noexcept nogil
    int channels, rows      # output channels of a band; rows


cdef int _conv_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const conv_job *d = <const conv_job *>job
    return d.k.conv_rows(&d.c, row0, row1)


cdef int _conv_planes_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const conv_job *d = <const conv_job *>job
    return d.k.conv_planes_rows(&d.c, row0, row1)


cdef int _conv_pool_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const conv_job *d = <const conv_job *>job
    return d.k.conv_pool_rows(&d.c, &d.p, row0, row1)


cdef int _winograd_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const conv_job *d = <const conv_job *>job
    return d.k.winograd_rows(&d.c, &d.p, &d.w, row0, row1)


cdef void _skip(const float **array, size_t elements) noexcept nogil:
    if array[0]:
        array[0] += elements


cdef int _conv_channels(const void *job, int begin, int end) noexcept nogil:
    cdef const conv_job *d = <const conv_job *>job
    cdef conv_job part = d[0]
    cdef int width = d.k.width
    cdef size_t first = begin * d.channels, last = min(end * d.channels, d.c.cout)
    part.c.cout = last - first
    part.p.channels = (part.c.cout + width - 1) // width * width
    part.c.weight += first * d.c.ntaps * d.c.cin
    part.c.bias += first
    _skip(&part.c.epilogue.scale1, first)
    _skip(&part.c.epilogue.shift1, first)
    _skip(&part.c.epilogue.activation.weight, first)
    _skip(&part.c.epilogue.scale2, first)
    _skip(&part.c.epilogue.shift2, first)
    part.c.out += first
    _skip(<const float **>&part.p.out, first)
    if part.p.switches:
        part.p.switches = <char *>part.p.switches + first * d.p.switch_bytes
    if d.w.tile:
        part.w.weight += first * (d.w.tile + 2) * (d.w.tile + 2) * d.c.cin
    if d.w.tile == 2:
        part.w.slope += first
        part.w.base += first
        part.w.by_channel += first * d.c.ntaps * ((d.c.cin + width - 1) // width * width)
    return d.run_rows(&part, 0, d.rows)


cdef class Conv(Job):
    """A convolution over a padded channels-last input (see fd_conv), row by row.

    The result has channels last, too; with `out_plane` it is planes.
    """

    def __init__(self, Table table, x, ptrdiff_t x_offset, ptrdiff_t in_row, ptrdiff_t in_col,
                 taps, int cin, int cout, int groups, weight, bias, int rows, int cols,
                 out, ptrdiff_t out_offset, ptrdiff_t out_row, ptrdiff_t out_col,
                 ptrdiff_t out_plane=0, epilogue=None, int part=0):
        cdef conv_job *d = <conv_job *>self.hold(
            sizeof(conv_job), _conv_planes_rows if out_plane else _conv_rows)
        d.k = table.k
        self.point(&d.c.input, x, x_offset)
        d.c.in_row, d.c.in_col = in_row, in_col
        self.point(&d.c.taps, taps)
        d.c.ntaps = taps.size
        d.c.cin, d.c.cout, d.c.groups, d.c.part = cin, cout, groups, part
        d.c.in_pixel = x.shape[2]
        if taps.size:
            self.point(&d.c.weight, weight)
        self.point(&d.c.bias, bias)
        d.c.rows, d.c.cols = rows, cols
        self.point(&d.c.out, out, out_offset, PyBUF_WRITABLE)
        d.c.out_row, d.c.out_col, d.c.out_plane = out_row, out_col, out_plane
        if epilogue is not None:
            d.c.epilogue = _epilogue(epilogue, self.keep)

    def pooled(self, window, out, ptrdiff_t out_offset, ptrdiff_t out_row, ptrdiff_t out_col,
               switches, counts):
        """Add the pool that follows; results go to `out` and `switches`."""
        cdef conv_job *d = <conv_job *>self.data
        _pool(self, &d.p, window, (d.c.rows, d.c.cols), out, out_offset, out_row, out_col,
              switches, counts)
        self.work.run = _conv_pool_rows
        return self

    def winograd(self, int tile, weight, slope, base, by_channel):
        """Compute it by Winograd's algorithm; the last three with tile 2 only."""
        cdef conv_job *d = <conv_job *>self.data
        d.w.tile = tile
        self.point(&d.w.weight, weight)
        if tile == 2:
            self.point(&d.w.slope, slope)
            self.point(&d.w.base, base)
            self.point(&d.w.by_channel, by_channel)
        self.work.run = _winograd_rows
        return self

    def by_channels(self, int channels, int rows):
        """Make every band a range of so many output channels, of all `rows` of the result.

        `channels` is a multiple of twice the vector width. Not for a convolution with groups.
        """
        cdef conv_job *d = <conv_job *>self.data
        d.run_rows, d.channels, d.rows = self.work.run, channels, rows
        self.work.run = _conv_channels
        return self


cdef struct join_job:
    const fd_kernels *k
    fd_join j
    fd_input inputs[1]      # as many as there are


cdef int _join_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const join_job *d = <const join_job *>job
    cdef fd_join j = d.j
    j.inputs = &d.inputs[0]
    d.k.join_rows(&j, row0, row1)
    return 0


cdef class Join(Job):
    """Adds, multiplies or concatenates activations, with an epilogue (see fd_join), row by row."""

    def __init__(self, Table table, kind, inputs, epilogue, int cols, int channels,
                 out, ptrdiff_t out_offset, ptrdiff_t out_row, ptrdiff_t out_col):
        cdef int i
        # The struct's last member is extended to as many inputs as there are.
        cdef join_job *d = <join_job *>self.hold(
            sizeof(join_job) + len(inputs) * sizeof(fd_input), _join_rows)
        d.k = table.k
        for i, given in enumerate(inputs):
            _input(self, d.inputs + i, given)
        d.j.kind = _JOINS[kind]
        d.j.count = len(inputs)
        d.j.epilogue = _epilogue(epilogue, self.keep)
        d.j.cols, d.j.channels = cols, channels
        self.point(&d.j.out, out, out_offset, PyBUF_WRITABLE)
        d.j.out_row, d.j.out_col = out_row, out_col


cdef struct pool_job:
    const fd_kernels *k
    fd_pool p
    fd_input of
    int channels, rows      # with by_channels: channels of a band, rows of the result


cdef int _pool_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const pool_job *d = <const pool_job *>job
    return d.k.pool_rows(&d.p, &d.of, row0, row1)


cdef int _pool_channels(const void *job, int begin, int end) noexcept nogil:
    """`begin` and `end` count ranges of channels, of which each has all rows."""
    cdef const pool_job *d = <const pool_job *>job
    cdef pool_job part = d[0]
    cdef int first = begin * d.channels
    part.p.channels = min(end * d.channels, d.p.channels) - first
    part.of.input += first
    part.p.out += first
    if part.p.switches:
        part.p.switches = <char *>part.p.switches + first * d.p.switch_bytes
    return d.k.pool_rows(&part.p, &part.of, 0, d.rows)


cdef class Pool(Job):
    """Max pooling of an activation, with switches, or average pooling (see fd_pool), row by row."""

    def __init__(self, Table table, of, in_size, window, out, ptrdiff_t out_offset,
                 ptrdiff_t out_row, ptrdiff_t out_col, switches, counts):
        cdef pool_job *d = <pool_job *>self.hold(sizeof(pool_job), _pool_rows)
        d.k = table.k
        _input(self, &d.of, of)
        _pool(self, &d.p, window, in_size, out, out_offset, out_row, out_col, switches, counts)

    def by_channels(self, int channels, int rows):
        """As `Conv.by_channels`; `channels` is a multiple of the vector width."""
        cdef pool_job *d = <pool_job *>self.data
        d.channels, d.rows = channels, rows
        self.work.run = _pool_channels
        return self


cdef struct cut_job:
    fd_work pieces, rest
    int whole


cdef int _cut(const void *job, int begin, int end) noexcept nogil:
    cdef const cut_job *d = <const cut_job *>job
    cdef int status = 0
    if begin < d.whole:
        status = d.pieces.run(d.pieces.job, begin, min(end, d.whole))
    if end > d.whole:
        status |= d.rest.run(d.rest.job, 0, 1)
    return status


cdef class Cut(Job):
    """A row that is computed in pieces. The last piece may be shorter; it is a job of its own."""

    def __init__(self, Job pieces, Job rest, int whole):
        """`whole`: how many pieces `pieces` has; `rest`: the job of the shorter one, or None."""
        cdef cut_job *d = <cut_job *>self.hold(sizeof(cut_job), _cut)
        d.pieces.run = pieces.work.run
        self.lead_into(&d.pieces.job, pieces, pieces.data)
        if rest is not None:
            d.rest.run = rest.work.run
            self.lead_into(&d.rest.job, rest, rest.data)
        d.whole = whole
