# Jobs that change the layout of an activation or set its padding, and pools of planes.


cdef struct to_channels_job:
    const fd_kernels *k
    const float *planes
    float *out              # pixel (0, 0), inside the padding
    float *largest          # (h, channels): of every row; or NULL
    int channels, h, w
    ptrdiff_t out_row, out_col


cdef int _to_channels_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const to_channels_job *d = <const to_channels_job *>job
    cdef int y, c
    if d.out_col > d.channels:
        for y in range(row0, row1):
            memset(d.out + y * d.out_row, 0, d.w * d.out_col * sizeof(float))
    d.k.planes_to_channels(d.planes, d.channels, d.h, d.w, d.out, d.out_row, d.out_col, row0,
                           row1)
    if d.largest:
        for y in range(row0, row1):
            for c in range(d.channels):
                d.largest[<size_t>y * d.channels + c] = fd_largest(
                    d.planes + (<size_t>c * d.h + y) * d.w, d.w)
    return 0


cdef class ToChannels(Job):
    """Planes (C, H, W) into a channels-last buffer from a row and column on, row by row.

    `largest`, if given, gets the largest absolute values: (H, C), one for each row of each plane.
    """

    def __init__(self, Table table, planes, out, ptrdiff_t row, ptrdiff_t column, largest=None):
        cdef to_channels_job *d = <to_channels_job *>self.hold(
            sizeof(to_channels_job), _to_channels_rows)
        d.k = table.k
        d.channels, d.h, d.w = planes.shape
        d.out_row, d.out_col = out.shape[1] * out.shape[2], out.shape[2]
        self.point(&d.planes, planes)
        self.point(&d.out, out, row * d.out_row + column * d.out_col, PyBUF_WRITABLE)
        if largest is not None:
            self.point(&d.largest, largest, 0, PyBUF_WRITABLE)


cdef struct framed_job:
    fd_work inside
    int unit                # 0: every band has all rows
    fd_frame frame


cdef int _framed(const void *job, int begin, int end) noexcept nogil:
    cdef const framed_job *d = <const framed_job *>job
    cdef int size = d.frame.w if d.frame.by_columns else d.frame.h
    cdef int status = d.inside.run(d.inside.job, begin, end)
    if d.unit == 0:
        if begin == 0:
            fd_clear_frame(&d.frame, 0, size)
        return status
    fd_clear_frame(&d.frame, begin * d.unit, min(end * d.unit, size))
    return status


cdef class Framed(Job):
    """A job that fills an activation, and then its padding, while that is in the caches."""

    def __init__(self, Job inside, buffer, int top, int left, size, int unit, bint by_columns):
        """`size`: of the activation; `unit`: rows or columns for each unit of the job `inside`, 0
        where its bands are ranges of channels."""
        cdef framed_job *d = <framed_job *>self.hold(sizeof(framed_job), _framed)
        d.inside.run = inside.work.run
        self.lead_into(&d.inside.job, inside, inside.data)
        d.unit = unit
        d.frame.h, d.frame.w = size
        d.frame.top, d.frame.left = top, left
        d.frame.bottom = buffer.shape[0] - top - d.frame.h
        d.frame.right = buffer.shape[1] - left - d.frame.w
        d.frame.pixel, d.frame.by_columns = buffer.shape[2], by_columns
        self.point(&d.frame.buffer, buffer, 0, PyBUF_WRITABLE)


cdef struct to_planes_job:
    const fd_kernels *k
    const float *lanes
    ptrdiff_t row
    float *planes
    int h, w, channels, kp, features


cdef int _to_planes_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const to_planes_job *d = <const to_planes_job *>job
    d.k.lanes_to_planes(d.lanes, d.row, d.h, d.w, d.channels, d.kp, d.features, d.planes, row0,
                        row1)
    return 0


cdef class ToPlanes(Job):
    """A lane tensor (H, W, C, KP), or what of it begins at a row and column, into (K, C, h, w)
    `planes`, row by row."""

    def __init__(self, Table table, lanes, planes, ptrdiff_t row=0, ptrdiff_t column=0):
        cdef to_planes_job *d = <to_planes_job *>self.hold(sizeof(to_planes_job), _to_planes_rows)
        cdef ptrdiff_t pixel
        d.k = table.k
        d.channels, d.kp = lanes.shape[2:]
        pixel = <ptrdiff_t>d.channels * d.kp
        d.features, _, d.h, d.w = planes.shape
        d.row = lanes.shape[1] * pixel
        self.point(&d.lanes, lanes, row * d.row + column * pixel)
        self.point(&d.planes, planes, 0, PyBUF_WRITABLE)


cdef struct switch_planes_job:
    const void *switches
    void *planes
    int bytes, stored, channels, h, w


cdef int _switch_planes_rows(const void *job, int row0, int row1) noexcept nogil:
    cdef const switch_planes_job *d = <const switch_planes_job *>job
    fd_switches_to_planes(d.switches, d.bytes, d.stored, d.channels, d.h, d.w, d.planes, row0,
                          row1)
    return 0


cdef class SwitchPlanes(Job):
    """Switches (H, W, Cs) into (C, H, W) `planes` of the same type, row by row."""

    def __init__(self, switches, planes):
        cdef switch_planes_job *d = <switch_planes_job *>self.hold(
            sizeof(switch_planes_job), _switch_planes_rows)
        d.bytes, d.stored = switches.itemsize, switches.shape[2]
        d.channels, d.h, d.w = planes.shape
        self.point(&d.switches, switches)
        self.point(&d.planes, planes, 0, PyBUF_WRITABLE)


cdef struct planes_job:
    fd_window window
    const float *x
    float *out
    void *switches
    int switch_bytes, in_h, in_w, out_h, out_w


cdef int _pool_planes(const void *job, int plane0, int plane1) noexcept nogil:
    cdef const planes_job *d = <const planes_job *>job
    fd_pool_planes(d.x, &d.window, d.in_h, d.in_w, d.out_h, d.out_w, d.out, d.switches,
                   d.switch_bytes, plane0, plane1)
    return 0


cdef int _unpool_planes(const void *job, int plane0, int plane1) noexcept nogil:
    cdef const planes_job *d = <const planes_job *>job
    fd_unpool_planes(d.x, d.switches, d.switch_bytes, &d.window, d.in_h, d.in_w, d.out_h,
                     d.out_w, d.out, plane0, plane1)
    return 0


cdef class PoolPlanes(Job):
    """Max pooling (see fd_pool_planes), plane by plane."""

    def __init__(self, x, window, values, switches):
        cdef planes_job *d = <planes_job *>self.hold(sizeof(planes_job), _pool_planes)
        self.fill(d, x, window, values, switches)

    cdef int fill(self, planes_job *d, x, window, out, switches) except -1:
        d.window = _window(window)
        d.in_h, d.in_w = x.shape[1:]
        d.out_h, d.out_w = out.shape[1:]
        self.point(&d.x, x)
        self.point(&d.out, out, 0, PyBUF_WRITABLE)
        self.point(&d.switches, switches)
        d.switch_bytes = switches.itemsize
        return 0


cdef class UnpoolPlanes(PoolPlanes):
    """Unpooling (see fd_unpool_planes), plane by plane."""

    def __init__(self, values, switches, window, x):
        cdef planes_job *d = <planes_job *>self.hold(sizeof(planes_job), _unpool_planes)
        self.fill(d, values, window, x, switches)
