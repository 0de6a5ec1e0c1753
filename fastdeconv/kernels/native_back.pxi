# Jobs of the way back, for native_cpu.py and native_steps.py.


cdef int _planes(Job job, void *field, out, ptrdiff_t *feature, ptrdiff_t *plane,
                 ptrdiff_t *row) except -1:
    """Set a pointer to planes (N, C, H, W) and their strides. Only W must be contiguous."""
    if isinstance(out, Place):
        row[0] = out.shape[3]
        plane[0] = row[0] * out.shape[2]
        feature[0] = plane[0] * out.shape[1]
        return job.point(field, out, 0, PyBUF_WRITABLE)
    (<float **>field)[0] = <float *><uintptr_t>out.ctypes.data
    feature[0], plane[0], row[0] = (step // 4 for step in out.strides[:3])
    job.keep.append(out)
    return 0


cdef fd_post _post(post, list keep):
    cdef fd_post p
    p.relu_before, p.relu_after = post.relu_before, post.relu_after
    p.scale = NULL
    if post.scale is not None:
        p.scale = _floats(post.scale, keep)
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
    """From None, or (lane tensor, first element, strides of rows, columns and features)."""
    cdef fd_view f
    cdef ptrdiff_t first
    f.v, f.row, f.column, f.feature = NULL, 0, 0, 0
    if view is not None:
        values, first, f.row, f.column, f.feature = view
        f.v = _floats(values, keep) + first
    return f


cdef int _finish(Job job, fd_finish *f, post, view) except -1:
    """Fill `f`. Its `post` is used only where a view is added; else the job applies it before."""
    f.more = _view(view, job.keep)
    f.post = _post(post, job.keep)
    f.sums = NULL
    return _point_factor(job, &f.factor, post.factor)


cdef int _point_factor(Job job, fd_factor *f, factor) except -1:
    """Fill `f` from None, an array or a whole `Place`."""
    if not isinstance(factor, Place):
        f[0] = _factor(factor, job.keep)
        return 0
    _, w, channels = factor.shape
    f.row, f.column = w * channels, channels
    return job.point(&f.values, factor)


cdef int _sum_up(fd_finish *f, counts, sums, list keep) except -1:
    """Let every pixel be multiplied by its counts and added to its row of `sums`."""
    f.counts = _factor(counts, keep)
    f.sums = _writable(sums, keep)
    return 0


cdef struct first_job:
    const fd_kernels *k
    fd_first f
    float *out


cdef int _first_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const first_job *d = <const first_job *>job
    return d.k.first_rows(&d.f, d.out, row0, row1)


cdef class First(Job):
    """A transposed convolution with one channel per lane (see fd_first), row by row."""

    def __init__(self, Table table, u, weight, bint by_feature, int cout, phase_start,
                 phase_offset, phase_tap, window, post, more, out_size):
        cdef first_job *d = <first_job *>self.hold(sizeof(first_job), _first_rows)
        d.k = table.k
        self.point(&d.f.u, u)
        d.f.kp = u.shape[2]
        d.f.u_row = u.shape[1] * u.shape[2]
        self.point(&d.f.weight, weight)
        d.f.cout, d.f.by_feature = cout, by_feature
        d.f.ntaps_all = window.kernel[0] * window.kernel[1]
        d.f.phase_start = <const int32_t *>_bytes(phase_start, self.keep)
        d.f.phase_offset = <const ptrdiff_t *>_bytes(phase_offset, self.keep)
        d.f.phase_tap = <const int32_t *>_bytes(phase_tap, self.keep)
        d.f.conv = _window(window)
        _finish(self, &d.f.finish, post, more)
        if more is None:
            d.f.post = d.f.finish.post
        d.f.out_h, d.f.out_w = out_size

    def sum_up(self, counts, sums):
        """Add every pixel, times its counts, to its row of `sums`."""
        _sum_up(&(<first_job *>self.data).f.finish, counts, sums, self.keep)

    def into(self, out):
        """Write the result there; one that feeds another job has no `out`."""
        self.point(&(<first_job *>self.data).out, out, 0, PyBUF_WRITABLE)
        return self


cdef struct step_job:
    const fd_kernels *k
    fd_step s
    float *out


cdef int _step_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const step_job *d = <const step_job *>job
    return d.k.step_rows(&d.s, d.out, row0, row1)


cdef class Step(Job):
    """A transposed convolution of an unpooled lane tensor (see fd_step), row by row."""

    def __init__(self, Table table, v, int kp, int nv, source, cells, window, int groups,
                 int cout, post, more, out_size):
        cdef step_job *d = <step_job *>self.hold(sizeof(step_job), _step_rows)
        d.k = table.k
        d.s.lead = table.lead
        self.keep.append(table)
        _source(self, &d.s.source, source, cells)
        if isinstance(v, Step):
            self.lead_into(&d.s.above, <Step>v, &(<step_job *>(<Step>v).data).s)
        elif isinstance(v, First):
            self.lead_into(&d.s.first, <First>v, &(<first_job *>(<First>v).data).f)
        else:
            self.point(&d.s.v, v)
        d.s.kp, d.s.nv = kp, nv
        d.s.conv = _window(window)
        # Tiles begin where these sums are odd: of a kernel with a padding of 1, at even rows and
        # columns of the whole map.
        d.s.tile_top = (source.origin[0] + window.padding[0][0] + 1) % 2
        d.s.tile_left = (source.origin[1] + window.padding[1][0] + 1) % 2
        d.s.groups, d.s.cout = groups, cout
        _finish(self, &d.s.finish, post, more)
        if more is None:
            d.s.post = d.s.finish.post
        d.s.out_h, d.s.out_w = out_size

    def multiply(self, weight):
        """Multiply all values with these weights: float32, or bfloat16 as uint16."""
        cdef fd_step *s = &(<step_job *>self.data).s
        if weight.dtype == "uint16":
            s.bf16 = <const uint16_t *>_bytes(weight, self.keep)
        else:
            s.weight = _floats(weight, self.keep)

    def leave_out_zeros(self, weight):
        """Multiply only the values that are not zero; weights as for `multiply`."""
        cdef fd_step *s = &(<step_job *>self.data).s
        if weight.dtype == "uint16":
            s.sparse_bf16 = <const uint16_t *>_bytes(weight, self.keep)
        else:
            s.sparse = _floats(weight, self.keep)
        s.sparse_width = weight.shape[3]

    def keep_apart(self, weight):
        """Let every channel have a kernel of its own (depthwise); weights (taps, channels)."""
        (<step_job *>self.data).s.depthwise = _floats(weight, self.keep)

    def multiply_transformed(self, weight):
        """Winograd's algorithm; weights as csrc/winograd_step.h has them."""
        (<step_job *>self.data).s.winograd = _floats(weight, self.keep)

    @property
    def tiles(self):
        """(how many rows above row 0 the first row of tiles begins, tiles in a row, tiles that are
        multiplied together); None: there are no tiles."""
        cdef const step_job *d = <const step_job *>self.data
        cdef const fd_step *s = &d.s if d.s.above == NULL else d.s.above
        if s.winograd == NULL:
            return None
        return (s.tile_top, (s.out_w + s.tile_left + 1) // 2,
                fd_winograd_tiles(s.kp, s.nv, d.k.max_nv * d.k.width))

    def sum_up(self, counts, sums):
        """Add every pixel, times its counts, to its row of `sums`."""
        _sum_up(&(<step_job *>self.data).s.finish, counts, sums, self.keep)

    def into(self, out):
        """Write the result there; one that feeds another job has no `out`."""
        self.point(&(<step_job *>self.data).out, out, 0, PyBUF_WRITABLE)
        return self


cdef struct overlap_job:
    const fd_kernels *k
    fd_overlap o


cdef int _overlap_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const overlap_job *d = <const overlap_job *>job
    d.k.overlap_rows(&d.o, row0, row1)
    return 0


cdef class Overlap(Job):
    """Sums of what overlapping windows send to the same place (see fd_overlap), row by row."""

    def __init__(self, Table table, v, int kp, bint by_feature, v_origin, source, cells, next,
                 post, out):
        cdef overlap_job *d = <overlap_job *>self.hold(sizeof(overlap_job), _overlap_rows)
        d.k = table.k
        _source(self, &d.o.source, source, cells)
        self.point(&d.o.next, next)
        d.o.row, d.o.column = source.origin
        self.point(&d.o.v, v)
        d.o.v_row, d.o.v_column = v_origin
        d.o.v_h, d.o.v_w = v.shape[:2]
        d.o.kp, d.o.by_feature = kp, by_feature
        d.o.post = _post(post, self.keep)
        _point_factor(self, &d.o.factor, post.factor)
        self.point(&d.o.out, out, 0, PyBUF_WRITABLE)


cdef struct combine_job:
    const fd_kernels *k
    fd_combine o


cdef int _combine_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const combine_job *d = <const combine_job *>job
    d.k.combine_rows(&d.o, row0, row1)
    return 0


cdef class Combine(Job):
    """Lane tensors, each times its factor, added up (see fd_combine), row by row.

    `terms`: (view, factor).
    """

    def __init__(self, Table table, terms, int kp, bint by_feature, int channels, post, out):
        cdef int i, count = len(terms)
        # The views and the factors lie behind the struct.
        cdef combine_job *d = <combine_job *>self.hold(
            sizeof(combine_job) + count * (sizeof(fd_view) + sizeof(fd_factor)), _combine_rows)
        cdef fd_view *views = <fd_view *>(d + 1)
        cdef fd_factor *factors = <fd_factor *>(views + count)
        for i, (view, factor) in enumerate(terms):
            views[i] = _view(view, self.keep)
            factors[i] = _factor(factor, self.keep)
        d.k = table.k
        d.o.terms, d.o.factors, d.o.count = views, factors, count
        d.o.w, d.o.channels, d.o.kp, d.o.by_feature = out.shape[1], channels, kp, by_feature
        d.o.post = _post(post, self.keep)
        d.o.factor = _factor(post.factor, self.keep)
        d.o.out = _writable(out, self.keep)


cdef struct reduce_job:
    const fd_kernels *k
    fd_reduce r


cdef int _reduce_channels(const void *job, int channel0, int channel1) noexcept nogil:
    cdef const reduce_job *d = <const reduce_job *>job
    return d.k.reduce_channels(&d.r, channel0, channel1)


cdef class Reduce(Job):
    """The sum of all pixels of a lane tensor, times their factors (see fd_reduce), by channels."""

    def __init__(self, Table table, view, factor, int kp, bint by_feature, size, int channels, out):
        cdef reduce_job *d = <reduce_job *>self.hold(sizeof(reduce_job), _reduce_channels)
        d.k = table.k
        d.r.of = _view(view, self.keep)
        d.r.factor = _factor(factor, self.keep)
        d.r.h, d.r.w = size
        d.r.channels, d.r.kp, d.r.by_feature = channels, kp, by_feature
        d.r.out = _writable(out, self.keep)


cdef struct last_job:
    const fd_kernels *k
    fd_last f


cdef int _last_bands(const void *job, int i, int end) noexcept nogil:
    cdef const last_job *d = <const last_job *>job
    return d.k.last_bands(&d.f, i, end)


cdef struct seams_job:
    const last_job *bands


cdef int _last_seams(const void *job, int i, int end) noexcept nogil:
    cdef const last_job *d = (<const seams_job *>job).bands
    cdef int status = 0
    for i in range(i, end):
        status |= d.k.last_seam(&d.f, i + 1)
    return status


cdef class Last(Job):
    """The last transposed convolution, of a lane tensor or fused with the job above (see fd_last),
    band by band."""

    def __init__(self, Table table, above, int kp, int nv, source, cells, window, int cout,
                 weight, rows, out):
        cdef last_job *d = <last_job *>self.hold(sizeof(last_job), _last_bands)
        d.k = table.k
        if isinstance(above, Step):
            self.lead_into(&d.f.step, <Step>above, &(<step_job *>(<Step>above).data).s)
        elif isinstance(above, First):
            self.lead_into(&d.f.first, <First>above, &(<first_job *>(<First>above).data).f)
        else:
            self.point(&d.f.v, above)
        d.f.kp, d.f.nv = kp, nv
        _source(self, &d.f.source, source, cells)
        d.f.conv = _window(window)
        d.f.cout = cout
        d.f.weight = _floats(weight, self.keep)
        d.f.features = rows.shape[0]
        self.point(&d.f.rows, rows)
        d.f.out_h, d.f.out_w = out.shape[2], out.shape[3]
        _planes(self, &d.f.out, out, &d.f.out_feature, &d.f.out_plane, &d.f.out_row)

    def reach(self):
        """(output rows that a row of cells contributes to, output rows from one row of cells to the
        next, elements of an output row of sums)"""
        cdef int reach, advance
        cdef ptrdiff_t row
        cdef last_job *d = <last_job *>self.data
        d.k.last_reach(&d.f, &reach, &advance, &row)
        return reach, advance, row

    def set_bands(self, int band, int skip, side):
        cdef last_job *d = <last_job *>self.data
        d.f.band, d.f.skip = band, skip
        if side is not None:
            self.point(&d.f.side, side, 0, PyBUF_WRITABLE)


cdef class Seams(Job):
    """Adds up the output rows that bands i and i + 1 of a `Last` share, when both are done."""

    def __init__(self, Last bands):
        cdef seams_job *d = <seams_job *>self.hold(sizeof(seams_job), _last_seams)
        self.lead_into(&d.bands, bands, bands.data)


cdef struct single_job:
    const fd_kernels *k
    fd_single s


cdef int _single_features(const void *job, int k0, int k1) noexcept nogil:
    cdef const single_job *d = <const single_job *>job
    return d.k.single_features(&d.s, k0, k1)


cdef class Single(Job):
    """Features of one map each through one transposed convolution (see fd_single)."""

    def __init__(self, Table table, values, switches, features, rows, pool, weight, window,
                 out):
        cdef single_job *d = <single_job *>self.hold(sizeof(single_job), _single_features)
        d.k = table.k
        d.s.values = _floats(values, self.keep)
        d.s.switches, d.s.switch_bytes = NULL, 1
        if switches is not None:
            d.s.switches = _bytes(switches, self.keep)
            d.s.switch_bytes = switches.itemsize
        d.s.features = <const int32_t *>_bytes(features, self.keep)
        d.s.rows = <const int32_t *>_bytes(rows, self.keep)
        d.s.pool, d.s.conv = _window(pool), _window(window)
        d.s.cells_h, d.s.cells_w = values.shape[1:]
        d.s.weight = _floats(weight, self.keep)
        d.s.cout, d.s.out_h, d.s.out_w = out.shape[1:]
        _planes(self, &d.s.out, out, &d.s.out_feature, &d.s.out_plane, &d.s.out_row)
