# cython: language_level=3, freethreading_compatible=True
"""The Cython interface of csrc/: a `Job` for everything that is computed in bands, and the `Queue`
that hands bands out. csrc/README.md says how a call goes through it.

A job holds the C struct of its kernel and keeps its arrays alive; threads run it through a
pointer, without Python. No shapes are checked here: the native back end is the only caller.

Each kind of job has a struct ``..._job`` (the table of kernels and the kernel's own struct), a
function ``run(job, begin, end)`` that calls the kernel, and a class whose ``__init__`` fills the
struct.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.string cimport memcpy, memset
from libc.stdint cimport int32_t, uint8_t, uint16_t, uintptr_t


cdef extern from "memory.h" nogil:
    void *fd_memory_take(size_t *)
    void fd_memory_give(void *, size_t)


cdef extern from "schedule.h" nogil:
    ctypedef struct fd_work:
        int (*run)(const void *, int, int) noexcept nogil
        const void *job

    ctypedef struct fd_stage:
        fd_work work
        int bands
        const int32_t *edges
        const int32_t *needs

    ctypedef struct fd_queue:
        pass

    fd_queue *fd_queue_new(const fd_stage *, int)
    void fd_queue_free(fd_queue *)
    int fd_queue_work(fd_queue *, int, long)
    void fd_queue_stop(fd_queue *)
    int fd_queue_failed(fd_queue *)


cdef extern from "fastdeconv.h" nogil:
    enum:
        FD_MOST_TABLES

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
        int ntaps, cin, cout, groups, in_pixel
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
        int switch_cell, switch_bytes
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
        const float *by_channel

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

    ctypedef struct fd_step:
        fd_source source
        const fd_step *above
        const fd_first *first
        const float *v
        int kp, nv
        fd_window conv
        int groups, cout
        const float *weight
        const uint16_t *bf16
        const float *sparse
        const uint16_t *sparse_bf16
        const float *depthwise
        const float *winograd
        int tile_top, tile_left
        int sparse_width
        int *lead
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
        int sparse_nv, sparse_least, winograd_least
        int (*bf16)() noexcept nogil
        int (*prepare)() noexcept nogil
        int (*conv_rows)(const fd_conv *, int, int) noexcept nogil
        int (*conv_pool_rows)(const fd_conv *, const fd_pool *, int, int) noexcept nogil
        int (*conv_planes_rows)(const fd_conv *, int, int) noexcept nogil
        int (*winograd_rows)(const fd_conv *, const fd_pool *, const fd_winograd *, int,
                             int) noexcept nogil
        void (*join_rows)(const fd_join *, int, int) noexcept nogil
        int (*pool_rows)(const fd_pool *, const fd_input *, int, int) noexcept nogil
        int (*step_rows)(const fd_step *, float *, int, int) noexcept nogil
        int (*first_rows)(const fd_first *, float *, int, int) noexcept nogil
        void (*sort_cells)(const void *, int, ptrdiff_t, const uint8_t *, int, int, int32_t *,
                           int32_t *, int, int) noexcept nogil
        void (*overlap_rows)(const fd_overlap *, int, int) noexcept nogil
        void (*combine_rows)(const fd_combine *, int, int) noexcept nogil
        int (*reduce_channels)(const fd_reduce *, int, int) noexcept nogil
        void (*planes_to_channels)(const float *, int, int, int, float *, ptrdiff_t, ptrdiff_t,
                                   int, int) noexcept nogil
        void (*lanes_to_planes)(const float *, ptrdiff_t, int, int, int, int, int, float *, int,
                                int) noexcept nogil
        void (*last_reach)(const fd_last *, int *, int *, ptrdiff_t *) noexcept nogil
        int (*last_bands)(const fd_last *, int, int) noexcept nogil
        int (*last_seam)(const fd_last *, int) noexcept nogil
        int (*single_features)(const fd_single *, int, int) noexcept nogil

    int fd_available(const fd_kernels **)
    int fd_on_request(const fd_kernels **)
    const fd_kernels *fd_amx()
    int fd_cpu_has_tiles()
    enum:
        FD_BF16_NONE, FD_BF16_SLOW, FD_BF16_VECTORS, FD_BF16_TILES
    enum: FD_LIST_ROOM
    enum: FD_MOST_TERMS
    enum: FD_SUM_INPUTS
    enum: FD_WINOGRAD_ROWS
    enum: FD_SURE, FD_LEADS
    int fd_winograd_tiles(int kp, int nv, int block) nogil
    enum:
        FD_SUM, FD_PRODUCT, FD_CONCAT
    enum:
        FD_NO_ACTIVATION, FD_RELU, FD_CLIP, FD_LEAKY, FD_ELU, FD_SIGMOID, FD_SILU, FD_TANH,
        FD_GELU, FD_GELU_TANH, FD_HARDSIGMOID, FD_HARDSWISH, FD_MISH, FD_SOFTSIGN, FD_ABS, FD_SQUARE
    ctypedef struct fd_shared:
        const int32_t *start
        const int32_t *window
        const int32_t *place

    void fd_link_cells(const void *, int, ptrdiff_t, const uint8_t *, int, int, const fd_shared *,
                       const fd_shared *, int, int, int32_t *, uint8_t *, int, int)
    ctypedef struct fd_frame:
        float *buffer
        int top, bottom, left, right
        int h, w, pixel
        int by_columns

    void fd_clear_frame(const fd_frame *, int, int)
    void fd_switches_to_planes(const void *, int, int, int, int, int, void *, int, int)
    void fd_filter_cells(const fd_source *, const float *, int32_t *, int32_t *, int, int)
    float fd_largest(const float *, size_t)
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


cdef class Memory:
    """`size` bytes for an array, in memory that the next pass can use again (see memory.h)."""

    cdef void *at
    cdef size_t size, taken

    def __cinit__(self, size_t size):
        self.size = self.taken = size
        self.at = fd_memory_take(&self.taken)
        if not self.at:
            raise MemoryError

    def __dealloc__(self):
        if self.at:
            fd_memory_give(self.at, self.taken)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.at, self.size, 0, flags)


cdef class Place:
    """A part of an array that does not exist yet: `bound` is given the arrays.

    So a job can be prepared once and then run on the arrays of every call.
    """

    cdef readonly int array
    """The index of the array among those that `bound` is given."""
    cdef readonly ptrdiff_t start
    """The byte of the array at which the part begins."""
    cdef readonly object shape, dtype

    def __init__(self, int array, ptrdiff_t start, shape, dtype):
        self.array, self.start, self.shape, self.dtype = array, start, shape, dtype

    @property
    def itemsize(self):
        return self.dtype.itemsize

    def part(self, ptrdiff_t first, shape):
        """The place with this shape that begins `first` elements further on."""
        return Place(self.array, self.start + first * self.dtype.itemsize, shape, self.dtype)

    def of(self, arrays):
        """The part itself, of the arrays, which have bytes as elements."""
        array = arrays[self.array]
        # Calling the array's class (np.ndarray) takes a third of the time of a slice and a view.
        return type(array)(self.shape, self.dtype, array, self.start)


cdef struct late_pointer:
    size_t at               # where in the job's struct the pointer is, in bytes
    int array               # index of the array that it will point into


cdef struct inner_struct:
    size_t at               # where in the job's struct the pointer is, in bytes
    size_t begin            # where in the other job's struct it points to, in bytes


cdef class Job:
    """Work on a range of rows (or planes, ...), by any number of threads on disjoint ranges."""

    cdef fd_work work
    """What threads call; its `job` is `data`."""
    cdef void *data
    """The struct of the subclass."""
    cdef size_t size
    """Bytes of `data`."""
    cdef late_pointer *late
    """The pointers in `data` that lead to a `Place`. Until the job is bound, they are offsets."""
    cdef int late_count
    cdef inner_struct inner[2]
    """The pointers in `data` that lead into the structs of `inner_jobs`."""
    cdef list inner_jobs
    cdef list keep
    """What must live as long as the job."""

    def __cinit__(self):
        self.data = NULL
        self.late = NULL
        self.late_count = 0
        self.inner_jobs = []
        self.keep = []

    def __dealloc__(self):
        PyMem_Free(self.data)
        PyMem_Free(self.late)

    cdef void *hold(
        self, size_t size, int (*run)(const void *, int, int) noexcept nogil
    ) except NULL:
        """Allocate the struct, all zeros, which `run` will be called with."""
        self.data = PyMem_Calloc(1, size)
        if not self.data:
            raise MemoryError
        self.size = size
        self.work.run, self.work.job = run, self.data
        return self.data

    cdef int point(self, void *field, what, ptrdiff_t elements=0, int flags=PyBUF_SIMPLE) except -1:
        """Set a pointer of the struct to an element of an array or `Place`."""
        cdef char **pointer = <char **>field
        cdef late_pointer *late
        if not isinstance(what, Place):
            pointer[0] = <char *>_address(what, flags, self.keep)
            pointer[0] += elements * <ptrdiff_t>what.itemsize
            return 0
        cdef Place place = <Place>what
        pointer[0] = <char *><uintptr_t>(
            place.start + elements * <ptrdiff_t>place.dtype.itemsize)
        late = <late_pointer *>PyMem_Realloc(
            self.late, (self.late_count + 1) * sizeof(late_pointer))
        if not late:
            raise MemoryError
        self.late = late
        self.late[self.late_count].at = <char *>field - <char *>self.data
        self.late[self.late_count].array = place.array
        self.late_count += 1
        return 0

    cdef void lead_into(self, void *field, Job inner, void *begin):
        """Set a pointer of the struct to `begin`, which lies in the struct of another job."""
        cdef int i = len(self.inner_jobs)
        (<void **>field)[0] = begin
        self.inner[i].at = <char *>field - <char *>self.data
        self.inner[i].begin = <char *>begin - <char *>inner.data
        self.inner_jobs.append(inner)

    cdef Job bound_to(self, list arrays, char **addresses):
        """A copy of this job in which each `Place` is in one of these arrays."""
        cdef Job job = Job.__new__(Job), inner
        cdef char **pointer
        cdef int i
        memcpy(job.hold(self.size, self.work.run), self.data, self.size)
        for i in range(self.late_count):
            pointer = <char **>(<char *>job.data + self.late[i].at)
            pointer[0] = addresses[self.late[i].array] + <ptrdiff_t><uintptr_t>pointer[0]
        job.keep = [self, arrays]
        for i, inner in enumerate(self.inner_jobs):
            inner = inner.bound_to(arrays, addresses)
            pointer = <char **>(<char *>job.data + self.inner[i].at)
            pointer[0] = <char *>inner.data + self.inner[i].begin
            job.keep.append(inner)
        return job

    def __call__(self, int begin, int end):
        cdef int status
        with nogil:
            status = self.work.run(self.work.job, begin, end)
        if status:
            raise _no_memory()


cdef _no_memory():
    return MemoryError("no memory for a kernel's scratch space")


def bound(list jobs, list arrays):
    """Copies of the jobs in which each `Place` is in one of these arrays."""
    cdef char **addresses = <char **>PyMem_Malloc((len(arrays) + 1) * sizeof(char *))
    cdef int i
    if not addresses:
        raise MemoryError
    try:
        for i, array in enumerate(arrays):
            addresses[i] = <char *>_address(array, PyBUF_SIMPLE, [])
        return [(<Job>job).bound_to(arrays, addresses) for job in jobs]
    finally:
        PyMem_Free(addresses)


def largest(array):
    """The largest absolute value of an array of float32; NaN if it has one."""
    cdef list keep = []
    return fd_largest(_floats(array, keep), array.size)


cdef enum:
    # Microseconds between two looks at whether a signal (Ctrl-C) has come.
    _SLICE = 20000


cdef class Queue:
    """Bands of jobs, for `schedule.share`: stages are (job, edges, needs), see fd_stage.

    `edges` and `needs` are arrays of int32; `needs` may be None.
    """

    cdef fd_queue *queue
    cdef fd_stage *stages
    cdef list keep
    cdef readonly int most
    """Bands of the largest stage."""

    def __cinit__(self, stages):
        cdef int i, j, before = 0
        cdef fd_stage *stage
        self.stages = <fd_stage *>PyMem_Calloc(len(stages) + 1, sizeof(fd_stage))
        if not self.stages:
            raise MemoryError
        self.keep = []
        self.most = 0
        for i, (job, edges, needs) in enumerate(stages):
            stage = self.stages + i
            stage.work = (<Job?>job).work
            stage.bands = len(edges) - 1
            stage.edges = <const int32_t *>_bytes(edges, self.keep)
            if needs is not None:
                stage.needs = <const int32_t *>_bytes(needs, self.keep)
                for j in range(stage.bands):
                    if stage.needs[j] > before + j:
                        raise ValueError("a band would wait for one that is handed out later")
            before += stage.bands
            self.most = max(self.most, stage.bands)
            self.keep.append(job)
        self.queue = fd_queue_new(self.stages, len(stages))
        if not self.queue:
            raise MemoryError

    def __dealloc__(self):
        if self.queue:
            fd_queue_free(self.queue)
        PyMem_Free(self.stages)

    def drain(self):
        """Run bands until all are done or, if the queue has been stopped, until none is running."""
        cdef int more = 1
        while more:
            with nogil:
                more = fd_queue_work(self.queue, 1, _SLICE)
            PyErr_CheckSignals()
        # A helper that starts late still holds the queue; it must not keep the arrays alive.
        self.keep = []

    def help(self):
        """Run bands until none is left to begin."""
        cdef int more = 1
        while more:
            with nogil:
                more = fd_queue_work(self.queue, 0, _SLICE)

    @property
    def stopped(self):
        """Set to True: no further band begins. It cannot be read."""
        raise AttributeError("stopped")

    @stopped.setter
    def stopped(self, value):
        fd_queue_stop(self.queue)

    @property
    def error(self):
        """The error that stopped the queue, or None."""
        return _no_memory() if fd_queue_failed(self.queue) else None


cdef fd_window _window(window):
    cdef fd_window w
    w.kh, w.kw = window.kernel
    w.sh, w.sw = window.stride
    w.dh, w.dw = window.dilation
    w.top, w.left = window.padding[0][0], window.padding[1][0]
    return w


cdef class Table:
    """The kernels of one instruction set."""

    cdef const fd_kernels *k
    cdef int lead[FD_LEADS]

    @property
    def name(self):
        return self.k.name.decode("ascii")

    @property
    def width(self):
        """Floats in a vector."""
        return self.k.width

    @property
    def max_nv(self):
        """The most vectors of lanes that the gathered product computes together."""
        return self.k.max_nv

    @property
    def bf16(self):
        """How steps multiply in bfloat16 on this CPU: see `lanes.LaneBackend.bf16`."""
        return {
            FD_BF16_SLOW: "slow", FD_BF16_VECTORS: "vectors", FD_BF16_TILES: "tiles"
        }.get(self.k.bf16(), "none")

    def prepare(self):
        """Ask the system whether it allows these kernels; must be called before the first one."""
        return self.k.prepare == NULL or self.k.prepare() != 0

    @property
    def sparse_nv(self):
        """The most vectors of output channels computed together where zeros are left out."""
        return self.k.sparse_nv

    @property
    def sparse_least(self):
        """Leaving out zeros pays from this number of output channels on."""
        return self.k.sparse_least

    @property
    def rows_together(self):
        """How many rows of a result are computed together where zeros are left out, in float32.

        Steps try at work which is faster on this CPU; no bit depends on it. So it is a dictionary:
        1 or 2 by the number of vectors of channels, for those that have been decided. Setting it
        decides for all of them; None begins anew. It is set by tests, while nothing runs.
        """
        return {
            vectors: 2 if self.lead[vectors] > 0 else 1
            for vectors in range(FD_LEADS) if abs(self.lead[vectors]) >= FD_SURE
        }

    @rows_together.setter
    def rows_together(self, rows):
        cdef int vectors
        for vectors in range(FD_LEADS):
            self.lead[vectors] = {None: 0, 1: -FD_SURE, 2: FD_SURE}[rows]

    @property
    def winograd_least(self):
        """Channels from which on a step by Winograd's algorithm pays."""
        return self.k.winograd_least

    def tile_nc(self, int nv):
        """How many output channels the gathered product computes together, with `nv` vectors."""
        return self.k.tile_nc[nv]


def tables():
    """The tables that this CPU can run, by name, best first."""
    cdef const fd_kernels *found[FD_MOST_TABLES]
    return _by_name(found, fd_available(found))


def tables_on_request():
    """Tables that are used only on request: "amx" and "amx_emulated", where they can run."""
    return dict(_ON_REQUEST)


def cpu_has_tiles():
    """Whether the CPU and the system have AMX with bfloat16, whatever this build has."""
    return fd_cpu_has_tiles() != 0


def amx_table():
    """The table "amx", even where this CPU cannot run it; None: it is not in this build."""
    return _AMX


cdef _by_name(const fd_kernels **found, int n):
    cdef int i
    cdef Table table
    result = {}
    for i in range(n):
        table = Table.__new__(Table)
        table.k = found[i]
        result[table.name] = table
    return result


cdef _find_on_request():
    cdef const fd_kernels *found[FD_MOST_TABLES]
    return _by_name(found, fd_on_request(found))


cdef _find_amx():
    cdef const fd_kernels *found = fd_amx()
    return None if found == NULL else _by_name(&found, 1)["amx"]


# Called once, since these functions write to the tables that they return.
_ON_REQUEST, _AMX = _find_on_request(), _find_amx()


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
                 ptrdiff_t out_plane=0, epilogue=None):
        cdef conv_job *d = <conv_job *>self.hold(
            sizeof(conv_job), _conv_planes_rows if out_plane else _conv_rows)
        d.k = table.k
        self.point(&d.c.input, x, x_offset)
        d.c.in_row, d.c.in_col = in_row, in_col
        self.point(&d.c.taps, taps)
        d.c.ntaps = taps.size
        d.c.cin, d.c.cout, d.c.groups = cin, cout, groups
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
    j.inputs = d.inputs
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


LIST_ROOM = FD_LIST_ROOM
MOST_TERMS = FD_MOST_TERMS
SUM_INPUTS = FD_SUM_INPUTS
WINOGRAD_ROWS = FD_WINOGRAD_ROWS
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
