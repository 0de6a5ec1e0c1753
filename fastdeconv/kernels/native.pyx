# cython: language_level=3, freethreading_compatible=True
"""The Cython face of csrc/: one class per job, which holds the C struct and keeps
its arrays alive. Every method takes a range of rows (or planes), releases the GIL
and may be called from many threads at once on disjoint ranges.

No shapes are checked here: `native_cpu` is the only caller.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memset
from libc.stdint cimport int32_t, uint8_t, uint16_t, uintptr_t


cdef extern from "fastdeconv.h" nogil:
    ctypedef struct fd_window:
        int kh, kw, sh, sw, dh, dw, top, left

    ctypedef struct fd_activation:
        int kind
        float a, b
        const float *weight

    ctypedef struct fd_epilogue:
        const float *scale1
        const float *shift1
        fd_activation activation
        const float *scale2
        const float *shift2

    ctypedef struct fd_conv:
        const float *input "in"
        ptrdiff_t in_row, in_col
        const ptrdiff_t *taps
        int ntaps, cin, cout, groups
        const float *weight
        const float *bias
        fd_epilogue epilogue
        int rows, cols
        float *out
        ptrdiff_t out_row, out_col, out_plane

    ctypedef struct fd_pool:
        fd_window window
        int in_h, in_w, out_h, out_w, channels
        float *out
        ptrdiff_t out_row, out_col
        void *switches
        int switch_bytes
        const float *counts

    ctypedef struct fd_input:
        const float *input "in"
        ptrdiff_t row, col
        int channels

    ctypedef struct fd_join:
        int kind
        const fd_input *inputs
        int count
        fd_epilogue epilogue
        int cols, channels
        float *out
        ptrdiff_t out_row, out_col

    ctypedef struct fd_winograd:
        int tile
        const float *weight
        const float *slope
        const float *base

    ctypedef struct fd_source:
        const int32_t *order
        const int32_t *first
        ptrdiff_t order_cell, first_cell, list_row
        fd_window pool
        int cells_h, cells_w, h, w, channels

    ctypedef struct fd_post:
        int relu_before
        const float *scale
        int relu_after

    ctypedef struct fd_factor:
        const float *values
        ptrdiff_t row, column

    ctypedef struct fd_view:
        const float *v
        ptrdiff_t row, column, feature

    ctypedef struct fd_finish:
        fd_view more
        fd_post post
        fd_factor factor
        float *sums
        fd_factor counts

    ctypedef struct fd_step:
        fd_source source
        const fd_step *above
        const float *v
        int kp, nv
        fd_window conv
        int groups, cout
        const float *weight
        const uint16_t *bf16
        const float *sparse
        const uint16_t *sparse_bf16
        const float *depthwise
        int sparse_width
        fd_post post
        fd_finish finish
        int out_h, out_w

    ctypedef struct fd_first:
        const float *u
        ptrdiff_t u_row
        const float *weight
        int kp, cout, ntaps_all, by_feature
        const int32_t *phase_start
        const ptrdiff_t *phase_offset
        const int32_t *phase_tap
        fd_window conv
        fd_post post
        fd_finish finish
        int out_h, out_w

    ctypedef struct fd_overlap:
        fd_source source
        const int32_t *next
        int row, column
        const float *v
        int v_row, v_column, v_h, v_w
        int kp, by_feature
        fd_post post
        fd_factor factor
        float *out

    ctypedef struct fd_combine:
        const fd_view *terms
        const fd_factor *factors
        int count, w, channels, kp, by_feature
        fd_post post
        fd_factor factor
        float *out

    ctypedef struct fd_reduce:
        fd_view of
        fd_factor factor
        int h, w, channels, kp, by_feature
        float *out

    ctypedef struct fd_last:
        const fd_step *step
        const fd_first *first
        const float *v
        fd_source source
        const float *weight
        fd_window conv
        int kp, nv, cout, features, out_h, out_w
        const int32_t *rows
        float *out
        ptrdiff_t out_feature, out_plane, out_row
        int band, skip
        float *side

    ctypedef struct fd_single:
        const float *values
        const void *switches
        int switch_bytes
        const int32_t *features
        const int32_t *rows
        fd_window pool
        int cells_h, cells_w
        const float *weight
        fd_window conv
        int cout, out_h, out_w
        float *out
        ptrdiff_t out_feature, out_plane, out_row

    ctypedef struct fd_kernels:
        const char *name
        int width, max_nv
        int tile_nc[8]
        int sparse_nv, sparse_least
        int (*has_bf16)() noexcept nogil
        int (*conv_rows)(const fd_conv *, int, int) noexcept nogil
        int (*conv_pool_rows)(const fd_conv *, const fd_pool *, int, int) noexcept nogil
        int (*conv_planes_rows)(const fd_conv *, int, int) noexcept nogil
        int (*winograd_rows)(const fd_conv *, const fd_pool *, const fd_winograd *, int,
                             int) noexcept nogil
        void (*join_rows)(const fd_join *, int, int) noexcept nogil
        int (*pool_rows)(const fd_pool *, const fd_input *, int, int) noexcept nogil
        int (*step_rows)(const fd_step *, float *, int, int) noexcept nogil
        int (*first_rows)(const fd_first *, float *, int, int) noexcept nogil
        void (*overlap_rows)(const fd_overlap *, int, int) noexcept nogil
        void (*combine_rows)(const fd_combine *, int, int) noexcept nogil
        int (*reduce_channels)(const fd_reduce *, int, int) noexcept nogil
        void (*planes_to_channels)(const float *, int, int, int, float *, ptrdiff_t, ptrdiff_t,
                                   int, int) noexcept nogil
        void (*lanes_to_planes)(const float *, int, int, int, int, int, float *, int,
                                int) noexcept nogil
        void (*last_reach)(const fd_last *, int *, int *, ptrdiff_t *) noexcept nogil
        int (*last_bands)(const fd_last *, int, int) noexcept nogil
        int (*last_seam)(const fd_last *, int) noexcept nogil
        int (*single_features)(const fd_single *, int, int) noexcept nogil

    int fd_available(const fd_kernels **)
    enum: FD_LIST_ROOM
    enum: FD_MOST_TERMS
    enum:
        FD_SUM, FD_PRODUCT, FD_CONCAT
    enum:
        FD_NO_ACTIVATION, FD_RELU, FD_CLIP, FD_LEAKY, FD_ELU, FD_SIGMOID, FD_SILU, FD_TANH,
        FD_GELU, FD_GELU_TANH, FD_HARDSIGMOID, FD_HARDSWISH, FD_MISH, FD_SOFTSIGN, FD_ABS, FD_SQUARE
    void fd_sort_cells(const void *, int, ptrdiff_t, const uint8_t *, int, int, int32_t *,
                       int32_t *, int, int)
    ctypedef struct fd_shared:
        const int32_t *start
        const int32_t *window
        const int32_t *place

    void fd_link_cells(const void *, int, ptrdiff_t, const uint8_t *, int, int, const fd_shared *,
                       const fd_shared *, int, int, int32_t *, uint8_t *, int, int)
    void fd_filter_cells(const fd_source *, const float *, int32_t *, int32_t *, int, int)
    void fd_pool_planes(const float *, const fd_window *, int, int, int, int, float *, void *,
                        int, int, int)
    void fd_unpool_planes(const float *, const void *, int, const fd_window *, int, int, int,
                          int, float *, int, int)


cdef void *_address(array, int flags, list keep) except? NULL:
    """Address of a C-contiguous array; it is kept alive in `keep`."""
    # Not a typed memoryview: to make one takes longer than some kernels run.
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, flags | PyBUF_C_CONTIGUOUS)
    keep.append(array)
    PyBuffer_Release(&view)
    return view.buf


cdef const float *_floats(array, list keep) except? NULL:
    return <const float *>_address(array, PyBUF_SIMPLE, keep)


cdef float *_writable(array, list keep) except? NULL:
    return <float *>_address(array, PyBUF_WRITABLE, keep)


cdef const void *_bytes(array, list keep) except? NULL:
    return _address(array, PyBUF_SIMPLE, keep)


cdef const void *_index(array, list keep) except? NULL:
    return _address(array, PyBUF_SIMPLE, keep)


cdef fd_window _window(window):
    cdef fd_window w
    w.kh, w.kw = window.kernel
    w.sh, w.sw = window.stride
    w.dh, w.dw = window.dilation
    w.top, w.left = window.padding[0][0], window.padding[1][0]
    return w


cdef int _check(int status) except -1:
    if status:
        raise MemoryError("no memory for a kernel's scratch space")
    return 0


cdef class Table:
    """The kernels of one instruction set."""

    cdef const fd_kernels *k

    @property
    def name(self):
        return self.k.name.decode("ascii")

    @property
    def width(self):
        """Floats in a vector."""
        return self.k.width

    @property
    def max_nv(self):
        """Most vectors of lanes a gathered product works on at a time."""
        return self.k.max_nv

    @property
    def has_bf16(self):
        """Whether steps can multiply in bfloat16 on this CPU."""
        return self.k.has_bf16() != 0

    @property
    def sparse_nv(self):
        """Most vectors of output channels at a time where zeros are left out."""
        return self.k.sparse_nv

    @property
    def sparse_least(self):
        """Output channels from which on leaving out zeros pays."""
        return self.k.sparse_least

    def tile_nc(self, int nv):
        """Output channels a gathered product works on at a time."""
        return self.k.tile_nc[nv]


def tables():
    """The tables this CPU can run, by name, best first."""
    cdef const fd_kernels *found[4]
    cdef int i, n = fd_available(found)
    cdef Table table
    result = {}
    for i in range(n):
        table = Table.__new__(Table)
        table.k = found[i]
        result[table.name] = table
    return result


cdef fd_epilogue _epilogue(epilogue, list keep):
    """(scale, shift) or None, (kind, a, b, weights or None), (scale, shift) or None."""
    cdef fd_epilogue e
    affine1, activation, affine2 = epilogue
    e.scale1 = e.shift1 = e.scale2 = e.shift2 = NULL
    kind, e.activation.a, e.activation.b, weight = activation
    e.activation.kind = ACTIVATIONS[kind]
    e.activation.weight = NULL if weight is None else _floats(weight, keep)
    if affine1 is not None:
        e.scale1, e.shift1 = _floats(affine1[0], keep), _floats(affine1[1], keep)
    if affine2 is not None:
        e.scale2, e.shift2 = _floats(affine2[0], keep), _floats(affine2[1], keep)
    return e


cdef fd_pool _pool(window, in_size, out, ptrdiff_t out_offset, ptrdiff_t out_row,
                   ptrdiff_t out_col, switches, counts, list keep):
    """`counts`: of means, which have no switches."""
    cdef fd_pool p
    p.window = _window(window)
    p.in_h, p.in_w = in_size
    p.out_h, p.out_w = (switches if counts is None else counts).shape[:2]
    p.channels = out.shape[2]
    p.out = _writable(out, keep) + out_offset
    p.out_row, p.out_col = out_row, out_col
    p.switches, p.switch_bytes, p.counts = NULL, 0, NULL
    if counts is None:
        p.switches = <void *>_bytes(switches, keep)
        p.switch_bytes = switches.itemsize
    else:
        p.counts = _floats(counts, keep)
    return p


cdef fd_input _input(given, list keep):
    """A buffer, its first element, those between neighbouring rows and columns, and channels."""
    cdef fd_input i
    cdef ptrdiff_t offset
    buffer, offset, i.row, i.col, i.channels = given
    i.input = _floats(buffer, keep) + offset
    return i


cdef class Conv:
    """A convolution over a padded channels-last input (see fd_conv)."""

    cdef Table table
    cdef fd_conv c
    cdef fd_pool p
    cdef fd_winograd w
    cdef list keep

    def __init__(self, Table table, x, ptrdiff_t x_offset, ptrdiff_t in_row, ptrdiff_t in_col,
                 taps, int cin, int cout, int groups, weight, bias, int rows, int cols,
                 out, ptrdiff_t out_offset, ptrdiff_t out_row, ptrdiff_t out_col,
                 ptrdiff_t out_plane=0, epilogue=None):
        self.table = table
        self.keep = []
        self.c.input = _floats(x, self.keep) + x_offset
        self.c.in_row, self.c.in_col = in_row, in_col
        self.c.taps = <const ptrdiff_t *>_index(taps, self.keep)
        self.c.ntaps = taps.size
        self.c.cin, self.c.cout, self.c.groups = cin, cout, groups
        if taps.size:
            self.c.weight = _floats(weight, self.keep)
        self.c.bias = _floats(bias, self.keep)
        self.c.rows, self.c.cols = rows, cols
        if out is not None:
            self.c.out = _writable(out, self.keep) + out_offset
        self.c.out_row, self.c.out_col, self.c.out_plane = out_row, out_col, out_plane
        if epilogue is not None:
            self.c.epilogue = _epilogue(epilogue, self.keep)

    def pooled(self, window, out, ptrdiff_t out_offset, ptrdiff_t out_row, ptrdiff_t out_col,
               switches, counts):
        """Add the pool that follows; results go to `out` and `switches`."""
        self.p = _pool(window, (self.c.rows, self.c.cols), out, out_offset, out_row, out_col,
                       switches, counts, self.keep)
        return self

    def winograd(self, int tile, weight, slope, base):
        """Compute it by Winograd's algorithm; `slope` and `base` with tile 2 only."""
        self.w.tile = tile
        self.w.weight = _floats(weight, self.keep)
        if tile == 2:
            self.w.slope = _floats(slope, self.keep)
            self.w.base = _floats(base, self.keep)
        return self

    def rows(self, int row0, int row1):
        cdef int status
        with nogil:
            status = self.table.k.conv_rows(&self.c, row0, row1)
        _check(status)

    def pool_rows(self, int row0, int row1):
        cdef int status
        with nogil:
            status = self.table.k.conv_pool_rows(&self.c, &self.p, row0, row1)
        _check(status)

    def winograd_rows(self, int row0, int row1):
        cdef int status
        with nogil:
            status = self.table.k.winograd_rows(&self.c, &self.p, &self.w, row0, row1)
        _check(status)

    def planes_rows(self, int row0, int row1):
        cdef int status
        with nogil:
            status = self.table.k.conv_planes_rows(&self.c, row0, row1)
        _check(status)


cdef class Join:
    """Activations made one, with an epilogue (see fd_join)."""

    cdef Table table
    cdef fd_join j
    cdef fd_input *inputs
    cdef list keep

    def __cinit__(self):
        self.inputs = NULL

    def __init__(self, Table table, kind, inputs, epilogue, int cols, int channels,
                 out, ptrdiff_t out_offset, ptrdiff_t out_row, ptrdiff_t out_col):
        cdef int i
        self.table = table
        self.keep = []
        self.inputs = <fd_input *>PyMem_Malloc(len(inputs) * sizeof(fd_input))
        if not self.inputs:
            raise MemoryError
        for i, given in enumerate(inputs):
            self.inputs[i] = _input(given, self.keep)
        self.j.kind = _JOINS[kind]
        self.j.inputs, self.j.count = self.inputs, len(inputs)
        self.j.epilogue = _epilogue(epilogue, self.keep)
        self.j.cols, self.j.channels = cols, channels
        self.j.out = _writable(out, self.keep) + out_offset
        self.j.out_row, self.j.out_col = out_row, out_col

    def __dealloc__(self):
        PyMem_Free(self.inputs)

    def rows(self, int row0, int row1):
        with nogil:
            self.table.k.join_rows(&self.j, row0, row1)


cdef class Pool:
    """Maxima of an activation, with switches, or means (see fd_pool)."""

    cdef Table table
    cdef fd_pool p
    cdef fd_input of
    cdef list keep

    def __init__(self, Table table, of, in_size, window, out, ptrdiff_t out_offset,
                 ptrdiff_t out_row, ptrdiff_t out_col, switches, counts):
        self.table = table
        self.keep = []
        self.of = _input(of, self.keep)
        self.p = _pool(window, in_size, out, out_offset, out_row, out_col, switches, counts,
                       self.keep)

    def rows(self, int row0, int row1):
        cdef int status
        with nogil:
            status = self.table.k.pool_rows(&self.p, &self.of, row0, row1)
        _check(status)


cdef fd_source _source(source, cells, list keep):
    """`cells`: the lists, and in which row and column of them the source's first cell is."""
    cdef fd_source s
    cdef ptrdiff_t row, column
    order, first, (row, column) = cells
    s.order = <const int32_t *>_index(order, keep)
    s.first = <const int32_t *>_index(first, keep)
    s.order_cell, s.first_cell, s.list_row = 0, 0, 0
    if first.ndim > 1:
        s.first_cell, s.list_row = first.shape[2], first.shape[1]
        s.order_cell = (len(order) - FD_LIST_ROOM) // (first.shape[0] * first.shape[1])
        s.order += (row * s.list_row + column) * s.order_cell
        s.first += (row * s.list_row + column) * s.first_cell
    s.cells_h, s.cells_w = source.cells
    s.h, s.w = source.size
    s.channels = source.channels
    s.pool = _window(source.pool)
    return s


cdef fd_post _post(post, list keep):
    cdef fd_post p
    p.relu_before, p.relu_after = post.relu_before, post.relu_after
    p.scale = NULL if post.scale is None else _floats(post.scale, keep)
    return p


cdef fd_factor _factor(factor, list keep):
    cdef fd_factor f
    f.values, f.row, f.column = NULL, 0, 0
    if factor is not None:  # a part of an array, so that rows do not follow each other
        f.values = <const float *><uintptr_t>factor.ctypes.data
        f.row, f.column = factor.strides[0] // 4, factor.strides[1] // 4
        keep.append(factor)
    return f


cdef fd_view _view(view, list keep):
    """None: nothing; else the lane tensor, its first element and the strides."""
    cdef fd_view f
    cdef ptrdiff_t first
    f.v, f.row, f.column, f.feature = NULL, 0, 0, 0
    if view is not None:
        values, first, f.row, f.column, f.feature = view
        f.v = _floats(values, keep) + first
    return f


cdef fd_finish _finish(post, view, list keep):
    """What is left of `post` where `view` is added before it."""
    cdef fd_finish f
    f.more = _view(view, keep)
    f.post = _post(post, keep)
    f.factor = _factor(post.factor, keep)
    f.sums = NULL
    return f


cdef int _sum_up(fd_finish *f, counts, sums, list keep) except -1:
    """Have every pixel, times its counts, added to its row of `sums`."""
    f.counts = _factor(counts, keep)
    f.sums = _writable(sums, keep)
    return 0


cdef class Step:
    """A transposed convolution of an unpooled lane tensor (see fd_step)."""

    cdef Table table
    cdef fd_step s
    cdef list keep

    def __init__(self, Table table, v, int kp, int nv, source, cells, window, int groups,
                 int cout, post, more, out_size):
        self.table = table
        self.keep = []
        self.s.source = _source(source, cells, self.keep)
        if isinstance(v, Step):
            self.s.above = &(<Step>v).s
            self.keep.append(v)
        else:
            self.s.v = _floats(v, self.keep)
        self.s.kp, self.s.nv = kp, nv
        self.s.conv = _window(window)
        self.s.groups, self.s.cout = groups, cout
        self.s.finish = _finish(post, more, self.keep)
        if more is None:
            self.s.post = self.s.finish.post
        self.s.out_h, self.s.out_w = out_size

    def multiply(self, weight):
        """Go through all values; weights of float32, or of bfloat16 as uint16."""
        if weight.dtype == "uint16":
            self.s.bf16 = <const uint16_t *>_index(weight, self.keep)
        else:
            self.s.weight = _floats(weight, self.keep)

    def leave_out_zeros(self, weight):
        """Look for the values that are not zero; weights as for `multiply`."""
        if weight.dtype == "uint16":
            self.s.sparse_bf16 = <const uint16_t *>_index(weight, self.keep)
        else:
            self.s.sparse = _floats(weight, self.keep)
        self.s.sparse_width = weight.shape[3]

    def keep_apart(self, weight):
        """Every channel by itself; weights (taps, channels)."""
        self.s.depthwise = _floats(weight, self.keep)

    def sum_up(self, counts, sums):
        """Add every pixel, times its counts, to its row of `sums`."""
        _sum_up(&self.s.finish, counts, sums, self.keep)

    def rows(self, float[:, :, :, ::1] out, int row0, int row1):
        cdef int status
        with nogil:
            status = self.table.k.step_rows(&self.s, &out[0, 0, 0, 0], row0, row1)
        _check(status)


cdef class First:
    """A transposed convolution with one channel per lane (see fd_first)."""

    cdef Table table
    cdef fd_first f
    cdef list keep

    def __init__(self, Table table, u, weight, bint by_feature, int cout, phase_start, phase_offset, phase_tap, window,
                 post, more, out_size):
        self.table = table
        self.keep = []
        self.f.u = _floats(u, self.keep)
        self.f.kp = u.shape[2]
        self.f.u_row = u.shape[1] * u.shape[2]
        self.f.weight = _floats(weight, self.keep)
        self.f.cout, self.f.by_feature = cout, by_feature
        self.f.ntaps_all = window.kernel[0] * window.kernel[1]
        self.f.phase_start = <const int32_t *>_index(phase_start, self.keep)
        self.f.phase_offset = <const ptrdiff_t *>_index(phase_offset, self.keep)
        self.f.phase_tap = <const int32_t *>_index(phase_tap, self.keep)
        self.f.conv = _window(window)
        self.f.finish = _finish(post, more, self.keep)
        if more is None:
            self.f.post = self.f.finish.post
        self.f.out_h, self.f.out_w = out_size

    def sum_up(self, counts, sums):
        """Add every pixel, times its counts, to its row of `sums`."""
        _sum_up(&self.f.finish, counts, sums, self.keep)

    def rows(self, float[:, :, :, ::1] out, int row0, int row1):
        cdef int status
        with nogil:
            status = self.table.k.first_rows(&self.f, &out[0, 0, 0, 0], row0, row1)
        _check(status)


cdef class Overlap:
    """Sums of what overlapping windows send to the same place (see fd_overlap)."""

    cdef Table table
    cdef fd_overlap o
    cdef list keep

    def __init__(self, Table table, v, int kp, bint by_feature, v_origin, source, cells, next, post, out):
        self.table = table
        self.keep = []
        self.o.source = _source(source, cells, self.keep)
        self.o.next = <const int32_t *>_index(next, self.keep)
        self.o.row, self.o.column = source.origin
        self.o.v = _floats(v, self.keep)
        self.o.v_row, self.o.v_column = v_origin
        self.o.v_h, self.o.v_w = v.shape[:2]
        self.o.kp, self.o.by_feature = kp, by_feature
        self.o.post = _post(post, self.keep)
        self.o.factor = _factor(post.factor, self.keep)
        self.o.out = _writable(out, self.keep)

    def rows(self, int row0, int row1):
        with nogil:
            self.table.k.overlap_rows(&self.o, row0, row1)


cdef class Combine:
    """Lane tensors, each times its factor, added up (see fd_combine); `terms`: (view, factor)."""

    cdef Table table
    cdef fd_combine o
    cdef fd_view *terms
    cdef fd_factor *factors
    cdef list keep

    def __cinit__(self):
        self.terms, self.factors = NULL, NULL

    def __init__(self, Table table, terms, int kp, bint by_feature, int channels, post, out):
        cdef int i
        self.table = table
        self.keep = []
        self.terms = <fd_view *>PyMem_Malloc(len(terms) * sizeof(fd_view))
        self.factors = <fd_factor *>PyMem_Malloc(len(terms) * sizeof(fd_factor))
        if not self.terms or not self.factors:
            raise MemoryError
        for i, (view, factor) in enumerate(terms):
            self.terms[i] = _view(view, self.keep)
            self.factors[i] = _factor(factor, self.keep)
        self.o.terms, self.o.factors, self.o.count = self.terms, self.factors, len(terms)
        self.o.w, self.o.channels, self.o.kp, self.o.by_feature = out.shape[1], channels, kp, by_feature
        self.o.post = _post(post, self.keep)
        self.o.factor = _factor(post.factor, self.keep)
        self.o.out = _writable(out, self.keep)

    def __dealloc__(self):
        PyMem_Free(self.terms)
        PyMem_Free(self.factors)

    def rows(self, int row0, int row1):
        with nogil:
            self.table.k.combine_rows(&self.o, row0, row1)


cdef class Reduce:
    """The sum of all pixels of a lane tensor, each times its factor (see fd_reduce)."""

    cdef Table table
    cdef fd_reduce r
    cdef list keep

    def __init__(self, Table table, view, factor, int kp, bint by_feature, size, int channels, out):
        self.table = table
        self.keep = []
        self.r.of = _view(view, self.keep)
        self.r.factor = _factor(factor, self.keep)
        self.r.h, self.r.w = size
        self.r.channels, self.r.kp, self.r.by_feature = channels, kp, by_feature
        self.r.out = _writable(out, self.keep)

    def channels(self, int channel0, int channel1):
        cdef int status
        with nogil:
            status = self.table.k.reduce_channels(&self.r, channel0, channel1)
        _check(status)


cdef class Last:
    """The last transposed convolution, of a lane tensor or fused with the job above (see fd_last)."""

    cdef Table table
    cdef fd_last f
    cdef list keep

    def __init__(self, Table table, above, int kp, int nv, source, cells, window, int cout,
                 weight, rows, out):
        self.table = table
        self.keep = [above]
        if isinstance(above, Step):
            self.f.step = &(<Step>above).s
        elif isinstance(above, First):
            self.f.first = &(<First>above).f
        else:
            self.f.v = _floats(above, self.keep)
        self.f.kp, self.f.nv = kp, nv
        self.f.source = _source(source, cells, self.keep)
        self.f.conv = _window(window)
        self.f.cout = cout
        self.f.weight = _floats(weight, self.keep)
        self.f.features = len(rows)
        self.f.rows = <const int32_t *>_index(rows, self.keep)
        self.f.out_h, self.f.out_w = out.shape[2], out.shape[3]
        self.f.out = <float *><uintptr_t>out.ctypes.data
        self.f.out_feature, self.f.out_plane, self.f.out_row = (
            step // 4 for step in out.strides[:3]
        )
        self.keep.append(out)

    def reach(self):
        """(rows one cell row reaches, rows to the next one, elements of a row of sums)."""
        cdef int reach, advance
        cdef ptrdiff_t row
        self.table.k.last_reach(&self.f, &reach, &advance, &row)
        return reach, advance, row

    def set_bands(self, int band, int skip, side):
        self.f.band, self.f.skip = band, skip
        if side is not None:
            self.f.side = _writable(side, self.keep)

    def bands(self, int i, int end):
        cdef int status
        with nogil:
            status = self.table.k.last_bands(&self.f, i, end)
        _check(status)

    def seam(self, int i):
        cdef int status
        with nogil:
            status = self.table.k.last_seam(&self.f, i)
        _check(status)


cdef class Single:
    """Features of one map each through one transposed convolution (see fd_single)."""

    cdef Table table
    cdef fd_single s
    cdef list keep

    def __init__(self, Table table, values, switches, features, rows, pool, weight, window,
                 out):
        self.table = table
        self.keep = [out]
        self.s.values = _floats(values, self.keep)
        self.s.switches, self.s.switch_bytes = NULL, 1
        if switches is not None:
            self.s.switches = _bytes(switches, self.keep)
            self.s.switch_bytes = switches.itemsize
        self.s.features = <const int32_t *>_index(features, self.keep)
        self.s.rows = <const int32_t *>_index(rows, self.keep)
        self.s.pool, self.s.conv = _window(pool), _window(window)
        self.s.cells_h, self.s.cells_w = values.shape[1:]
        self.s.weight = _floats(weight, self.keep)
        self.s.cout, self.s.out_h, self.s.out_w = out.shape[1:]
        self.s.out = <float *><uintptr_t>out.ctypes.data
        self.s.out_feature, self.s.out_plane, self.s.out_row = (
            step // 4 for step in out.strides[:3]
        )

    def features(self, int k0, int k1):
        cdef int status
        with nogil:
            status = self.table.k.single_features(&self.s, k0, k1)
        _check(status)


LIST_ROOM = FD_LIST_ROOM
MOST_TERMS = FD_MOST_TERMS
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


def sort_cells(switches, gate, int channels, int places, int32_t[::1] order,
               int32_t[:, :, ::1] first, int cell0, int cell1):
    """Sort the channels of cells cell0..cell1 by place (see fd_sort_cells)."""
    cdef list keep = []
    cdef const void *s = NULL
    cdef const uint8_t *g = NULL
    cdef int nbytes = 1
    cdef ptrdiff_t switch_cell = 0
    if switches is not None:
        s = _bytes(switches, keep)
        nbytes, switch_cell = switches.itemsize, switches.shape[2]
    if gate is not None:
        g = <const uint8_t *>_bytes(gate, keep)
    with nogil:
        fd_sort_cells(s, nbytes, switch_cell, g, channels, places, &order[0], &first[0, 0, 0],
                      cell0, cell1)


def link_cells(switches, gate, int channels, int kernel_w, high, wide, int32_t[:, :, ::1] next,
               uint8_t[:, :, ::1] is_first, int row0, int row1):
    """Link the values of rows row0..row1 that go to the same place (see fd_link_cells)."""
    cdef list keep = []
    cdef const void *s = _bytes(switches, keep)
    cdef int nbytes = switches.itemsize
    cdef ptrdiff_t switch_cell = switches.shape[2]
    cdef const uint8_t *g = NULL if gate is None else <const uint8_t *>_bytes(gate, keep)
    cdef fd_shared a = _shared(high, keep), b = _shared(wide, keep)
    cdef int h = <int>next.shape[0], w = <int>next.shape[1]
    with nogil:
        fd_link_cells(s, nbytes, switch_cell, g, channels, kernel_w, &a, &b, h, w,
                      &next[0, 0, 0], &is_first[0, 0, 0], row0, row1)


cdef fd_shared _shared(axis, list keep):
    cdef fd_shared s
    s.start = <const int32_t *>_index(axis.start, keep)
    s.window = <const int32_t *>_index(axis.window, keep)
    s.place = <const int32_t *>_index(axis.place, keep)
    return s


def filter_cells(source, cells, const float[:, :, :, ::1] v, int32_t[::1] order,
                 int32_t[:, :, ::1] first, int row0, int row1):
    """Rows row0..row1 of a source's cells less what is 0 in a lone feature's v (H, W, 1, C)."""
    cdef list keep = []
    cdef fd_source s = _source(source, cells, keep)
    with nogil:
        fd_filter_cells(&s, &v[0, 0, 0, 0], &order[0], &first[0, 0, 0], row0, row1)


def clear_sides(float[:, :, ::1] buffer, int left, int right, int row0, int row1):
    """Set the first and the last columns of some rows to zero."""
    cdef ptrdiff_t pixel = buffer.shape[2], row = buffer.shape[1] * pixel
    cdef float *at = &buffer[row0, 0, 0]
    cdef int y
    with nogil:
        for y in range(row1 - row0):
            memset(at, 0, left * pixel * sizeof(float))
            memset(at + row - right * pixel, 0, right * pixel * sizeof(float))
            at += row


def planes_to_channels(Table table, const float[:, :, ::1] planes, float[:, :, ::1] out, int row, int col,
                       int row0, int row1):
    """Rows of (C, H, W) `planes` into (H', W', C) `out`, shifted by (row, col)."""
    cdef int channels = <int>planes.shape[0], h = <int>planes.shape[1], w = <int>planes.shape[2]
    cdef ptrdiff_t out_row = out.shape[1] * out.shape[2], out_col = out.shape[2]
    cdef float *target = &out[row, col, 0]
    with nogil:
        table.k.planes_to_channels(&planes[0, 0, 0], channels, h, w, target, out_row, out_col,
                              row0, row1)


def lanes_to_planes(Table table, const float[:, :, :, ::1] lanes, float[:, :, :, ::1] planes, int row0,
                    int row1):
    """Rows of a lane tensor (H, W, C, KP) into (K, C, H, W) `planes`."""
    cdef int h = <int>lanes.shape[0], w = <int>lanes.shape[1]
    cdef int channels = <int>lanes.shape[2], kp = <int>lanes.shape[3]
    cdef int features = <int>planes.shape[0]
    with nogil:
        table.k.lanes_to_planes(&lanes[0, 0, 0, 0], h, w, channels, kp, features,
                           &planes[0, 0, 0, 0], row0, row1)


def pool_planes(const float[:, :, ::1] x, window, float[:, :, ::1] values, switches,
                int plane0, int plane1):
    """Max pooling of planes plane0..plane1 (see fd_pool_planes)."""
    cdef fd_window w = _window(window)
    cdef int in_h = <int>x.shape[1], in_w = <int>x.shape[2]
    cdef int out_h = <int>values.shape[1], out_w = <int>values.shape[2]
    cdef list keep = []
    cdef void *s = <void *>_bytes(switches, keep)
    cdef int nbytes = switches.itemsize
    with nogil:
        fd_pool_planes(&x[0, 0, 0], &w, in_h, in_w, out_h, out_w, &values[0, 0, 0], s, nbytes,
                       plane0, plane1)


def unpool_planes(const float[:, :, ::1] values, switches, window, float[:, :, ::1] x,
                  int plane0, int plane1):
    """Unpooling of planes plane0..plane1 (see fd_unpool_planes)."""
    cdef fd_window w = _window(window)
    cdef int in_h = <int>values.shape[1], in_w = <int>values.shape[2]
    cdef int out_h = <int>x.shape[1], out_w = <int>x.shape[2]
    cdef list keep = []
    cdef const void *s = _bytes(switches, keep)
    cdef int nbytes = switches.itemsize
    with nogil:
        fd_unpool_planes(&values[0, 0, 0], s, nbytes, &w, in_h, in_w, out_h, out_w,
                         &x[0, 0, 0], plane0, plane1)
