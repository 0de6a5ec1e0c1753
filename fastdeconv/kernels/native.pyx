# cython: language_level=3, freethreading_compatible=True
"""The Cython interface of csrc/: a `Job` for everything that is computed in bands, and the `Queue`
that hands bands out. csrc/README.md says how a call goes through it.

A job holds the C struct of its kernel and keeps its arrays alive; threads run it through a
pointer, without Python. No shapes are checked here: the native back end is the only caller.

Each kind of job has a struct ``..._job`` (the table of kernels and the kernel's own struct), a
function ``run(job, begin, end)`` that calls the kernel, and a class whose ``__init__`` fills the
struct. They are in the files that are included at the end of this one, which together are one
extension module:

`native_forward.pxi`  convolutions, joins and pools of the forward pass; the names of activations
`native_layout.pxi`   from one layout to another, padding; pools of planes
`native_cells.pxi`    the lists by which the way back goes
`native_back.pxi`     the way back: `First`, `Step`, `Last`, ...

The structs and functions of C are declared in `csrc.pxd`.
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

from .csrc cimport *

LIST_ROOM = FD_LIST_ROOM
MOST_TERMS = FD_MOST_TERMS
WINOGRAD_ROWS = FD_WINOGRAD_ROWS


# ---- arrays and their memory ----


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


def largest(array):
    """The largest absolute value of an array of float32; NaN if it has one."""
    cdef list keep = []
    return fd_largest(_floats(array, keep), array.size)


# ---- jobs, and the queue that hands out their bands ----


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


# ---- instruction sets ----


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


# ---- the kinds of jobs ----


cdef fd_window _window(window):
    cdef fd_window w
    w.kh, w.kw = window.kernel
    w.sh, w.sw = window.stride
    w.dh, w.dw = window.dilation
    w.top, w.left = window.padding[0][0], window.padding[1][0]
    return w


include "native_forward.pxi"
include "native_layout.pxi"
include "native_cells.pxi"
include "native_back.pxi"
